"""Write the grammars that hold a model to a template's tool syntax and to the tools.

One grammar covers a message's calls from the first marker to the last; all else is built around it:

    ===================  ======================================================================================
    tool_choice          what holds
    ===================  ======================================================================================
    auto                 nothing, until a call begins; then ``calls``, starting with what is already written
    required, a name     ``start``: reasoning where the model reasons, then calls; from the first token
    none                 ``start``: any text in which no call begins; with ``in_words`` nor anything in the shape of one
    with response_schema ``start``: reasoning, then JSON valid under the schema (under ``auto`` with tools: or calls)
    ===================  ======================================================================================

The grammar is as wide as the syntax: properties in any order, any layout at the markers, white space where JSON allows it. The
schema is enforced, except what ``schema/normal.py`` and ``chat/grammar/values.py`` name; in tagged syntaxes a value that may be
a string is any text up to its closing tag.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from llm_magics.chat.analysis.reasoning import NO_REASONING, ReasoningSyntax
from llm_magics.chat.encodings.shape import argument_keys
from llm_magics.chat.encodings.syntax import JsonCall, KeyedCall, NamedCall, ToolSyntax
from llm_magics.chat.grammar.text import MAX_CALLS, GrammarWriter, as_regex, quoted
from llm_magics.chat.grammar.values import ValueWriter
from llm_magics.chat.syntax.syntax import TurnSyntax, escape
from llm_magics.messages import JsonSchema, ToolSpec
from llm_magics.schema.normal import normalise, parameters
from llm_magics.schema.shortest import shortest_values

ID = r"/[A-Za-z0-9_.:-]{1,64}/"


@dataclass(frozen=True, slots=True)
class JsonAnswer:
    """An answer under a response schema."""

    required: tuple[str, ...] = ()  # the keys that some object requires
    reasoning: tuple[str, str] = ("", "")  # the markers around reasoning; the first is empty if the prompt opens it
    calls: tuple[str, ...] = ()  # the beginnings of calls that may take the answer's place
    values: tuple[str, ...] = ()  # the shortest values of the schema's nodes


@dataclass(frozen=True, slots=True)
class Constraint:
    """The grammars of one request, as text; empty if nothing is constrained."""

    start: str = ""  # armed before the first token
    calls: str = ""  # armed when a call begins; starts with the first marker of the section or the call
    unenforced: tuple[str, ...] = ()  # by tool, the keywords that only validation can check
    json: JsonAnswer | None = None  # set if ``start`` holds the answer to a response schema


@dataclass(frozen=True, slots=True)
class Frame:
    """What stands around a message's calls."""

    reasoning: ReasoningSyntax = NO_REASONING
    reasoning_open: bool = False  # the prompt has opened the reasoning
    turn: TurnSyntax = field(default_factory=TurnSyntax)
    ends: frozenset[str] = frozenset()  # texts of the tokens that end a generation; as closing markers they may be missing


def build_constraint(
    syntax: ToolSyntax | None,
    tools: Sequence[ToolSpec],
    *,
    tool_choice: str = "auto",
    parallel: bool = True,
    response_schema: JsonSchema | None = None,
    frame: Frame | None = None,
    in_words: bool = False,
) -> Constraint:
    """Write the grammars for one request. ``tool_choice`` is "auto", "none", "required" or the name of one of the tools.

    Raises SchemaError if a tool's parameters or the response schema cannot be used.
    """
    frame = frame or Frame()
    chosen = [t for t in tools if tool_choice in ("auto", "none", "required", t.name)]
    if syntax is None or not chosen or tool_choice == "none":
        if response_schema is not None:
            return _response(response_schema, frame, None)
        return Constraint(start="" if syntax is None or not chosen else _no_calls(syntax, frame, chosen if in_words else ()))
    calls = _Calls(syntax, chosen, parallel, frame)
    unenforced = tuple(f"{name}: {place}" for name, schema in calls.schemas.items() for place in schema.unenforced)
    if tool_choice != "auto":
        return Constraint(calls.after_reasoning(), unenforced=unenforced)
    answer = _response(response_schema, frame, calls) if response_schema is not None else Constraint()
    alone = _Calls(syntax, chosen, parallel, frame)
    return replace(answer, calls=alone.writer.text(alone.body()), unenforced=unenforced)


def _response(schema: JsonSchema, frame: Frame, calls: _Calls | None) -> Constraint:
    """JSON under a schema, or calls if there are any, after the reasoning.

    No white space around the JSON: given the chance, some models pad it for ever.
    """
    writer = calls.writer if calls else GrammarWriter()
    normal = normalise(schema)
    value = ValueWriter(writer, normal).value(normal.root)
    opening, closing = (writer.marker(m) for m in (frame.turn.content_start, frame.turn.content_end))
    body = f"{optional(opening)} {value} {optional(closing)}"
    if calls:
        body = f"({body}) | {calls.body()}"
    reasoning, opened = frame.reasoning, frame.reasoning_open
    thought = reasoning.rule(writer, opened=opened, answers=True)
    start = writer.text(f"{thought} ({body})")
    begins = first_tag(calls.syntax.section_start) or first_tag(calls.syntax.call_start) if calls else ""
    if calls and not begins:
        return Constraint(start)  # JSON and a call begin alike
    markers = ("" if opened else reasoning.start.strip(), reasoning.end.strip()) if thought else ("", "")
    json = JsonAnswer(normal.required_keys(), markers, (begins,) if begins else (), shortest_values(normal))
    return Constraint(start, json=json)


def _no_calls(syntax: ToolSyntax, frame: Frame, in_words: Sequence[ToolSpec]) -> str:
    """Any text without the marker that begins a call. Reasoning may mention it. ``in_words`` are tools of which not even a call
    in another notation may stand there."""
    text = " & ".join(_without_marker(syntax) + (_words(syntax, in_words) if in_words else []))
    if not text:
        return ""
    writer = GrammarWriter()
    return writer.text(writer.new_terminal(f"{frame.reasoning.terminal(opened=frame.reasoning_open)} ({text})"))


def _words(syntax: ToolSyntax, tools: Sequence[ToolSpec]) -> list[str]:
    """Terminals that together match words: some, which neither begin as JSON or a call nor hold the shape of a call."""
    names = "|".join(as_regex(tool.name) for tool in tools)
    json_or_call = rf"[{{\[]|({names})\s*\("
    return [
        r"/\s*[^\s](?s:.*)/",
        rf"~/\s*(```[A-Za-z_]*\s*)?({json_or_call})(?s:.*)/",
        f'~/(?s:.*)"({"|".join(argument_keys(syntax))})"(?s:.*)/',
    ]


def _without_marker(syntax: ToolSyntax) -> list[str]:
    """Terminals that together match text in which no call of this syntax begins; none where nothing says how one begins."""
    if syntax.ours:
        return []  # such a model knows calls only from our instructions, which it does not get under "none"
    openings = {first_tag(m) for m in (syntax.section_start, syntax.call_start) if m.strip()}
    if syntax.blocks is not None:
        openings = {syntax.blocks.call.strip()} if syntax.blocks.call.strip() else openings
    if openings:
        forbidden = "|".join(as_regex(o) for o in sorted(openings))
        return ["/(?s:.*)/", f"~/(?s:.*)({forbidden})(?s:.*)/"]
    # without a marker, only the text's beginning can be a call
    bracket = as_regex(syntax.arguments.opening)
    if syntax.blocks is not None or (isinstance(syntax.call, NamedCall) and not bracket):
        return []
    first = f"[A-Za-z_.]+{bracket}" if isinstance(syntax.call, NamedCall) else r"\{"
    return ["/(?s:.*)/", rf"~/\s*\[?\s*{first}(?s:.*)/"]


def first_tag(marker: str) -> str:
    """The first run of a marker without white space, e.g. ``<tool_call>`` of ``<tool_call>\\n<function=``."""
    return marker.split()[0] if marker.strip() else ""


def optional(expression: str) -> str:
    return f"({expression})?" if expression else ""


class _Calls:
    """Writes the rules of a message's calls in one syntax."""

    def __init__(self, syntax: ToolSyntax, tools: Sequence[ToolSpec], parallel: bool, frame: Frame) -> None:
        self.syntax = syntax
        self.tools = tools
        self.several = parallel and syntax.parallel
        self.frame = frame
        self.writer = GrammarWriter()
        self.schemas = {tool.name: parameters(tool.parameters) for tool in tools}

    def after_reasoning(self) -> str:
        blocks, reasoning = self.syntax.blocks, self.frame.reasoning
        if blocks is not None:
            thoughts = reasoning.in_blocks(self.writer, blocks, self.syntax.call_end)
            return self.writer.text(f"{thoughts} {self.body()}")
        thought = reasoning.rule(self.writer, opened=self.frame.reasoning_open)
        start, end = (self.writer.marker(m) for m in (self.frame.turn.content_start, self.frame.turn.content_end))
        silence = f"({start} {end} {self.writer.gap})?" if start and end else ""  # a frame without content
        return self.writer.text(f"{thought} {silence} {self.body()}")

    def body(self) -> str:
        """All calls of a message, and layout after them."""
        s, w = self.syntax, self.writer
        call = w.rule(" | ".join(self.call(tool) for tool in self.tools), "call")
        between = f"{w.gap} {w.marker(s.separator.strip() or (',' if s.array else ''))} {w.gap}"
        end = ""
        if s.blocks is not None:  # every call is a block of its own
            end = optional(" | ".join(quoted(e.strip()) for e in s.blocks.ends if e.strip()))
            between = f"{w.gap} {end} {w.gap} {w.marker(s.blocks.start)}"
        more = f"({between} {call}){{0,{MAX_CALLS - 1}}}" if self.several else ""
        calls = f'"[" {w.gap} {call} {more} {w.gap} "]"' if s.array else f"{call} {more}"
        return w.rule(f"{w.marker(s.section_start)} {calls} {end} {self.closing(s.section_end)} {self.tail()}".strip(), "calls")

    def tail(self) -> str:
        """What may follow the calls: layout, and the tags of the turn's end if it has several."""
        tags = re.findall(r"<[^<>]*>|\[[^\[\]]*\]|[^<>\[\]\s]+", self.frame.turn.end)
        if len(tags) < 2:
            return self.writer.gap
        return f"({self.writer.gap} ({' | '.join(quoted(tag) for tag in dict.fromkeys(tags))}))* {self.writer.gap}"

    def closing(self, marker: str) -> str:
        """A closing marker; from a token that ends the generation on, it is optional."""
        cuts = [i for end in self.frame.ends if end and (i := marker.find(end)) >= 0]
        if not cuts:
            return self.writer.marker(marker)
        kept, rest = marker[: min(cuts)], marker[min(cuts) :]
        return f"{self.writer.marker(kept)} {optional(self.writer.marker(rest))}".strip()

    def call(self, tool: ToolSpec) -> str:
        s, w = self.syntax, self.writer
        arguments, end = partial(s.arguments.constrain, w, self.schemas[tool.name]), self.closing(s.call_end)
        header = s.blocks.call if s.blocks is not None else ""
        start = w.header_until(header) if header.strip() else w.marker(s.call_start)
        match s.call:
            case JsonCall() as how:
                body = f"{json_call(w, how, tool.name, arguments(''))} {end}"
            case KeyedCall():
                body = f'"{{" {w.gap} {quoted(json.dumps(tool.name))} {w.assign(":")} {arguments("")} {w.gap} "}}" {end}'
            case NamedCall() as how:
                body = f"{self.header(tool, how)} {arguments(end)}"
        return w.rule(f"{start} {body}", "call")

    def header(self, tool: ToolSpec, how: NamedCall) -> str:
        """The call's name with its id, its index, and its repetition, if it has them."""
        w, blocks = self.writer, self.syntax.blocks
        name = quoted(escape(tool.name, how.escapes))
        recipient = self.writer.header_until(blocks.header_end) if blocks is not None and blocks.call.strip() else ""
        name_end = w.marker(how.name_end)
        if how.id_place == "carries":
            before, _, after = how.id_form.format(name="\0", index="\1").partition("\0")
            number = " ".join(w.terminal("INT") if part == "\1" else quoted(part) for part in re.findall("\1|[^\1]+", after))
            return f"{quoted(before) if before else ''} {name} {number} {recipient or name_end}"
        call_id = w.new_terminal(ID, "ID")
        pieces = [call_id, w.marker(how.id_end)] if how.id_place == "before" else []
        pieces.append(name)
        if how.index_start:
            pieces += [w.marker(how.index_start), w.terminal("INT")]
        if how.name_again:
            pieces += [w.marker(how.name_again), name]
        pieces.append(name_end if how.name_again else recipient or name_end)
        if how.id_place == "after":
            pieces += [call_id, w.marker(how.id_end)]
        return " ".join(p for p in pieces if p)


def json_call(writer: GrammarWriter, how: JsonCall, name: str, arguments: str) -> str:
    """One call as a JSON object with members for its name, its arguments and its id, in the template's order."""
    parts = {"name": quoted(json.dumps(name, ensure_ascii=False)), "arguments": arguments, "id": writer.terminal("STRING")}
    return _object(writer, how.members(parts, {path: quoted(text) for path, text in how.constants}))


def _object(writer: GrammarWriter, members: Mapping[str, Any]) -> str:
    gap = writer.gap
    parts = []
    for key, value in members.items():
        expression = _object(writer, value) if isinstance(value, dict) else value
        parts.append(f'{quoted(json.dumps(key, ensure_ascii=False))} {writer.assign(":")} {expression} {gap}')
    joined = f' "," {gap} '.join(parts)
    return f'"{{" {gap} {joined} "}}"'
