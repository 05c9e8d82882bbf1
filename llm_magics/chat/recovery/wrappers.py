"""The wrong wrappers that models put right calls into: one table, for the grammar and for the reader.

The grammar answers three questions: *is this text still a prefix of some call* (``any`` arguments), *can it only be a call*
(``opened``: up to the first argument, then any text), and *what may follow* (``strict``: the schemas enforced). The notations
are the JSON of the OpenAI API, the template's own field names, and a keyword call.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

from llm_magics.chat.encodings.syntax import ToolSyntax
from llm_magics.chat.grammar.text import MAX_CALLS, GrammarWriter, as_regex, inside_slashes
from llm_magics.chat.scan.reader import Malformed
from llm_magics.messages import ToolSpec

from .bodies import Body, FoundCall, Keywords, Objects, Reading, Scope, Unlike

_OBJECTS, _KEYWORDS = Objects(), Keywords()
_CALL_FENCE = "[A-Za-z_]{0,12}(?:tool|call|function)[A-Za-z_]{0,12}"  # e.g. tool_code
_TAG = "[A-Za-z_|][A-Za-z0-9_|:.-]{0,40}>"


@dataclass(frozen=True, slots=True)
class Wrapper:
    """One wrong wrapper. ``more`` and ``end`` are regular expressions, in the dialect that Python and llguidance share.

    ``own_end``: the template's own closing marker closes it. ``foreign``: it is a near miss only if the template's own calls
    are not keyword calls.
    """

    name: str  # its name in a recovered call, e.g. "fenced JSON"
    body: Body = _OBJECTS
    start: str = ""  # e.g. "```"
    more: str = ""  # the rest of the start, e.g. "[A-Za-z_]{0,20}"
    end: str = ""  # e.g. "```"
    must_end: bool = False
    own_end: bool = False
    foreign: bool = False

    def begins(self, names: Sequence[str]) -> str:
        """A regular expression for the wrapper up to its first call's beginning, included."""
        bracket = r"(?:\[\s*)?" if self.body.listed else ""
        return rf"{re.escape(self.start)}{self.more}\s*{bracket}{self.body.first(names)}"


_wrappers: list[Wrapper] = [
    Wrapper("fenced JSON", start="```", more="[A-Za-z_]{0,20}", end="```", must_end=True),
    Wrapper("keyword call", _KEYWORDS, "```", _CALL_FENCE, "```", must_end=True),  # a fence of "python" is example code
    Wrapper("wrong tag", start="<", more=_TAG, end=f"</{_TAG}"),  # e.g. <tools>\n{"name": "f", "arguments": {}}\n</tools>
    Wrapper("missing opening tag", own_end=True),
    Wrapper("doubled braces", start="{", end="}"),  # e.g. {{"name": "f", "arguments": {}}}, from templates that escape braces
    Wrapper("bare JSON"),  # e.g. {"name": "f", "parameters": {}}
    Wrapper("keyword call", _KEYWORDS, foreign=True),  # e.g. f(a=1, b="x")
]


def wrappers() -> tuple[Wrapper, ...]:
    """The known wrappers, in the order in which they are tried."""
    return tuple(_wrappers)


def register(wrapper: Wrapper) -> None:
    """Add a wrapper, which is tried first."""
    _wrappers.insert(0, wrapper)


@contextmanager
def registered(wrapper: Wrapper) -> Iterator[None]:
    """Know a wrapper inside a ``with`` block."""
    register(wrapper)
    try:
        yield
    finally:
        _wrappers.remove(wrapper)


def near_miss_grammar(
    syntax: ToolSyntax, tools: Sequence[ToolSpec], reading: Reading, *, parallel: bool = True, unlike: Unlike | None = None
) -> str:
    """Write the grammar of a message's end that consists of calls in a wrong wrapper."""
    w = GrammarWriter()
    scope = Scope(w, syntax, reading, unlike or {})
    tools = [tool for tool in tools if scope.schemas(tool)]
    if not tools:
        return ""
    known = [each for each in wrappers() if not (each.foreign and syntax.shape == "pythonic")]
    one = w.rule(" | ".join(_wrapped(each, scope, tools, parallel) for each in known), "wrapped")
    if reading == "opened":
        return w.text(f"{w.gap} {one}")
    again = f"({w.gap} {one}){{0,{MAX_CALLS // 2 - 1}}}" if parallel else ""
    return w.text(f"{w.gap} {one} {again} {w.gap}")


def _wrapped(wrapper: Wrapper, scope: Scope, tools: Sequence[ToolSpec], parallel: bool) -> str:
    """A wrapper with its calls; ``opened`` ends inside the first call."""
    w = scope.writer
    start = w.new_terminal(f"/{as_regex(wrapper.start)}{wrapper.more}/", "OPEN") if wrapper.start else ""
    calls = f"{start} {w.gap if start else ''} {_calls(wrapper.body, scope, tools, parallel)}"
    end = w.new_terminal(f"/{inside_slashes(wrapper.end)}/", "END") if wrapper.end else ""
    if wrapper.own_end:
        end = w.marker(scope.syntax.call_end + scope.syntax.section_end)
    if scope.reading == "opened" or not end:
        return calls
    return f"{calls} {w.gap} {end}" if wrapper.must_end else f"{calls} ({w.gap} {end})?"


def _calls(body: Body, scope: Scope, tools: Sequence[ToolSpec], parallel: bool) -> str:
    """One or several calls, in an array or not."""
    w = scope.writer
    one = w.rule(" | ".join(rule for tool in tools for rule in body.rules(scope, tool)), "one")
    if not body.listed:
        return one
    if scope.reading == "opened":
        return w.rule(f'("[" {w.gap})? {one}', "calls")
    comma = f'{w.gap} ("," {w.gap})?'
    several = w.rule(f"{one} ({comma} {one}){{0,{MAX_CALLS // 2 - 1}}}" if parallel else one, "several")
    return w.rule(f'{several} | "[" {w.gap} {several} {w.gap} "]"', "calls")


def read_calls(text: str, syntax: ToolSyntax, names: Sequence[str]) -> list[FoundCall]:
    """Read the calls of a near miss, in order; its wrapper may still be open."""
    body, closing = text.strip(), (syntax.call_end + syntax.section_end).strip()
    for wrapper in wrappers():
        ends = not wrapper.own_end or (closing and body.endswith(closing))
        if ends and re.match(wrapper.begins(names), body) and (found := list(_read(wrapper, body, syntax, names))):
            return found
    return []


def _read(wrapper: Wrapper, text: str, syntax: ToolSyntax, names: Sequence[str]) -> Iterator[FoundCall]:
    begins, at = re.compile(wrapper.body.first(names)), len(wrapper.start)
    while found := begins.search(text, at):
        try:
            call, at = wrapper.body.take(found, syntax, names)
        except (ValueError, RecursionError, Malformed):
            return
        if call is not None:
            yield replace(call, wrapper=wrapper.name + call.wrapper)


def first_signs(names: Sequence[str]) -> frozenset[str]:
    """The characters with which a near miss can begin."""
    signs = {wrapper.start[0] for wrapper in wrappers() if wrapper.start}
    return frozenset(signs | set("{[") | {name[0] for name in names if name})
