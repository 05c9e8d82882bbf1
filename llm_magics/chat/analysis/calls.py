"""Find how a template writes tool calls: render calls whose every word is known, and look at the text around them.

One call is ``PRE name MID arguments POST``; two calls add ``BETWEEN``. The end that PRE shares with BETWEEN opens each call and
the rest of PRE the section; POST is divided likewise. :func:`encodings <llm_magics.chat.encodings.encodings>` are tried in turn
on the arguments.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from typing import Any

from llm_magics.chat.encodings.encoding import FIRST, KEYS, SECOND, VALUES, Sample
from llm_magics.chat.encodings.json import MAX_TRIES, JsonArguments, is_text_of, json_arguments
from llm_magics.chat.encodings.syntax import BlockCall, JsonCall, KeyedCall, NamedCall, ToolSyntax
from llm_magics.chat.syntax.compare import common_prefix, common_suffix, safe_prefix, safe_suffix
from llm_magics.chat.syntax.syntax import BlockSyntax
from llm_magics.chat.syntax.tags import closing, is_tag, tags

from .callprobe import IDS, OTHER, CallRenderer, Texts
from .frame import TOOL, USER
from .probe import Probe

_ID_FORM = "functions.{name}:{index}"  # an id that carries the name, if the template does not show its form
_AWKWARD = {"X": "&", "Y": '"', "Z": "<", "W": ">", "V": "'"}  # the capital before each character finds it again


def find_calls(render: CallRenderer) -> tuple[ToolSyntax | None, tuple[str, ...]]:
    """The syntax of a template's tool calls, or None if it was not found; and the ends of a turn after calls.

    e.g. ``{% for c in m.tool_calls %}<call>{{ c.function | tojson }}</call>{% endfor %}`` writes JSON inside ``<call>`` tags.
    """
    texts = render.texts()
    if FIRST in texts.one:
        found = _json_calls(texts) or _keyed_calls(texts) or _text_calls(texts, render)
    else:
        found = _named_by_id(texts)
    return _finished(found, render) if found else (None, ())


def _finished(found: ToolSyntax, render: CallRenderer) -> tuple[ToolSyntax, tuple[str, ...]]:
    """The syntax with its blocks and without the turn's own text; and the ends of a turn after calls."""
    blocks = _blocks(found, render)
    if blocks is not None:
        behind = (found.call_end + found.separator + found.section_end).partition(blocks.start)[0].rstrip()
        end = behind.removesuffix(next(filter(behind.endswith, blocks.ends), ""))  # of the call, not of its block
        found = replace(found, call=BlockCall.of(found.named, blocks), call_start=blocks.call, call_end=end)
        return replace(found, section_start="", section_end="", separator=""), ()
    if render.probe.repairs.split_calls:
        found = replace(found, separator="", parallel=False)
    found, end = _closed_by_its_pair(found), found.section_end
    for mark in filter(None, (render.turn.end.strip(), *tags(render.frame.prompt_on)[:1])):  # ends the turn, or opens the next
        end = end.partition(mark)[0]
    if found.section_start.strip() or found.array:
        return replace(found, section_end=end), ()
    return replace(found, section_start="", section_end=""), (end,) if end.strip() else ()  # without a start, it ends the turn


def find_meant(render: CallRenderer, found: ToolSyntax | None) -> ToolSyntax | None:
    """The JSON that a template means to write if it misplaces a quote, a comma or a brace, e.g. ``{"name": "{{ c.name }}, ``.

    Models write proper JSON there. ``found`` reads what the template itself writes.
    """
    if found is not None and (isinstance(found.call, JsonCall) or "{" not in found.section_start + found.call_start):
        return None
    texts = render.texts()
    first, second = _near_object(texts.one, FIRST, VALUES), _near_object(texts.two, SECOND, OTHER)
    if first is None:
        return None
    span, keys, how = first
    meant = ToolSyntax(JsonCall(keys[:-1], (*keys[:-2], keys[-1])), how)
    return _finished(_around(meant, texts, span, second[0] if second else None), render)[0]


def shown_in_instructions(probe: Probe, found: ToolSyntax) -> ToolSyntax | None:
    """Calls as the instructions show them, if the template writes no marker: ``Answer with functools[{"name": ...}]``."""
    if found.has_marker or not isinstance(found.call, JsonCall):
        return None
    text = probe.text([USER], [TOOL])
    key = re.escape(json.dumps(found.call.name[0]))
    shown = re.search(rf"""(?<!\S)([^\s\[\]{{}}()"'`:,]{{3,40}})\s?(\[?)\s*\{{\s*{key}\s*:""", text)
    if shown is None or not (shown.group(2) or is_tag(shown.group(1))):
        return None
    array = bool(shown.group(2))
    return replace(found, section_start=shown.group(1), array=array, separator=", " if array else found.separator)


def _json_calls(texts: Texts) -> ToolSyntax | None:
    """Calls as objects with a name member, e.g. ``{"name": "{{ f.name }}", "args": {{ f.arguments | tojson }}}``."""
    first = _object_around(texts.one, FIRST)
    if first is None:
        return None
    start, end, value = first
    paths = dict(_paths(value))
    name = next((p for p, v in paths.items() if v == FIRST), None)
    arguments = next((p for p, v in paths.items() if v == VALUES or is_text_of(v, VALUES)), None)
    if name is None or arguments is None or arguments == ():
        return None
    second = _object_around(texts.two, SECOND, texts.two.find(FIRST))
    other = dict(_paths(second[2])) if second else {}
    rest = {p: v for p, v in paths.items() if not isinstance(v, dict) and p[: len(arguments)] != arguments and p != name}
    ids = [p for p, v in rest.items() if v == IDS[0] or (other and other.get(p) != v)]
    places = {"name": name, "arguments": arguments, "id": ids[0] if ids else ()}
    order = sorted(("name", "arguments", *(["id"] if ids else [])), key=lambda part: list(paths).index(places[part]))
    constants = tuple((p, json.dumps(v)) for p, v in rest.items() if p not in ids)
    call = JsonCall(name, arguments, ids[0] if ids else (), tuple(order), constants)
    syntax = ToolSyntax(call, JsonArguments(isinstance(paths[arguments], str)))
    return _around(syntax, texts, (start, end), second[:2] if second else None)


def _keyed_calls(texts: Texts) -> ToolSyntax | None:
    """Calls as objects whose key is the name, e.g. ``{"{{ f.name }}": {{ f.arguments | tojson }}}``."""
    around = _object_around(texts.one, FIRST)
    if around is None or set(around[2]) != {FIRST}:
        return None
    value = around[2][FIRST]
    if value != VALUES and not is_text_of(value, VALUES):
        return None
    second = _object_around(texts.two, SECOND, texts.two.find(FIRST))
    syntax = ToolSyntax(KeyedCall(), JsonArguments(isinstance(value, str)))
    return _around(syntax, texts, around[:2], second[:2] if second else None)


def _near_object(
    text: str, name: str, arguments: dict[str, Any]
) -> tuple[tuple[int, int], tuple[str, ...], JsonArguments] | None:
    """An object whose quotes or braces do not match, e.g. ``{"name": "f, "arguments": {}}``: its start and end; the keys from
    the outermost to the name's, then the arguments'; how the arguments are written."""
    opened = re.search(r'((?:\{\s*"\w+"\s*:\s*)+)"?' + re.escape(name) + r'"?\s*,?\s*"(\w+)"\s*:\s*', text)
    found = json_arguments(text, opened.end(), arguments) if opened else None
    if opened is None or found is None or text[opened.end() : found[1]] not in ("", '"'):
        return None
    keys = re.findall(r'"(\w+)"', opened.group(1))
    closed = re.compile(rf'"?(?:\s*\}}){{0,{len(keys)}}}').match(text, found[2])
    return (opened.start(), closed.end() if closed else found[2]), (*keys, opened.group(2)), found[0]


def _object_around(text: str, word: str, after: int = 0) -> tuple[int, int, dict[str, Any]] | None:
    """The outermost JSON object that holds the word and begins after ``after``: start, end, value."""
    at = text.find(word)
    decoder = json.JSONDecoder()
    for match in islice(re.compile(r"\{").finditer(text, after, max(at, after)), MAX_TRIES):
        try:
            value, end = decoder.raw_decode(text, match.start())
        except (ValueError, RecursionError):
            continue
        if end > at:
            return match.start(), end, value
    return None


def _paths(value: Any, above: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    yield above, value
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _paths(inner, (*above, key))


def _around(syntax: ToolSyntax, texts: Texts, first: tuple[int, int], second: tuple[int, int] | None) -> ToolSyntax:
    """The syntax with the section, markers and separator around two calls, e.g. of ``<calls><c>f()</c><c>g()</c></calls>``."""
    pre, post = texts.one[: first[0]], texts.one[first[1] :]
    if second is None or second[0] < 0:
        syntax = replace(syntax, parallel=False)
        return _array(syntax, pre, "", post) if _is_array(syntax, pre, post) else replace(syntax, call_start=pre, call_end=post)
    first_end = texts.two.find(texts.one[first[0] : first[1]])
    between = texts.two[first_end + first[1] - first[0] : second[0]]
    post = max(post, texts.two[second[1] :], key=len)
    if _is_array(syntax, pre, post) and "]" not in between:
        return _array(syntax, pre, between, post)
    call_start = safe_suffix(pre, between) if pre != common_suffix(pre, between) else pre
    rest = between[: len(between) - len(call_start)]
    call_end = safe_prefix(post, rest) if post != common_prefix(post, rest) else post
    start, end, separator = pre[: len(pre) - len(call_start)], post[len(call_end) :], rest[len(call_end) :]
    return replace(syntax, section_start=start, section_end=end, call_start=call_start, call_end=call_end, separator=separator)


def _closed_by_its_pair(syntax: ToolSyntax) -> ToolSyntax:
    """A call that ends with its opening tag is the template's mistake: ``<do>f()<do>`` means ``<do>f()</do>``."""
    tag = syntax.call_end.strip()
    if not is_tag(tag) or tag != syntax.call_start.strip() or not closing(tag):
        return syntax
    return replace(syntax, call_end=syntax.call_end.replace(tag, closing(tag)))


def _is_array(syntax: ToolSyntax, pre: str, post: str) -> bool:
    """Whether the calls stand in the brackets of a list: ``[{"name": "f"}, {"name": "g"}]`` or ``[f(a=1), g()]``."""
    listed = not isinstance(syntax.call, NamedCall) or bool(syntax.arguments.opening)
    return listed and pre.rstrip()[-1:] == "[" and post.lstrip()[:1] == "]"


def _array(syntax: ToolSyntax, pre: str, between: str, post: str) -> ToolSyntax:
    """The calls as elements of a list, whose brackets are not markers."""
    start, layout = pre.rstrip()[:-1], pre[len(pre.rstrip()) :]
    separator = (between.removesuffix(layout) or ",") if between.strip() else ""
    end = post.lstrip()[1:]
    return replace(syntax, array=True, section_start=start, section_end=end, call_start=layout, separator=separator)


def _text_calls(texts: Texts, render: CallRenderer) -> ToolSyntax | None:
    """Calls as a name and its arguments, e.g. ``<fn={{ f.name }}>{% for k, v in args | items %}<p={{ k }}>{{ v }}</p>``."""
    texts = replace(texts, two=texts.two.replace(IDS[1], IDS[0]))  # so the calls differ in no id
    name_at = texts.one.find(FIRST)
    again, mid_at = _name_again(texts.one) or ("", name_at + len(FIRST))
    sample = Sample(texts.one, mid_at, render.calls)
    found = next((found for encoding in render.encodings if (found := encoding.find(sample))), None)
    if found is None:
        return None
    arguments, start, end = found
    syntax = ToolSyntax(NamedCall(texts.one[mid_at:start], name_again=again), arguments)
    syntax = _around(syntax, texts, (name_at, end), _second_call(texts, name_at, end))
    return _with_escapes(_with_index(_with_id(syntax), texts), render)


def _named_by_id(texts: Texts) -> ToolSyntax | None:
    """Calls whose id, e.g. ``functions.f:0``, carries the name: ``<call>{{ c.id }}<args>{{ f.arguments | tojson }}</call>``."""
    at = texts.one.find(IDS[0])
    found = json_arguments(texts.one, at + len(IDS[0]), VALUES) if at >= 0 else None
    if found is None:
        return None
    how, start, end = found
    call = NamedCall(texts.one[at + len(IDS[0]) : start], id_place="carries", id_form=_ID_FORM)
    second = texts.two.find(IDS[1])
    other = json_arguments(texts.two, second + len(IDS[1]), OTHER) if second >= 0 else None
    return _around(ToolSyntax(call, how), texts, (at, end), (second, other[2]) if other else None)


def _name_again(text: str) -> tuple[str, int] | None:
    """The text between two mentions of the name before the arguments, and where the second mention ends."""
    first = text.find(FIRST) + len(FIRST)
    second = text.find(FIRST, first)
    keys = text.find(KEYS[0])
    return (text[first:second], second + len(FIRST)) if 0 <= second < keys else None


def _second_call(texts: Texts, start: int, end: int) -> tuple[int, int] | None:
    """Where the second call's name begins, and where the call ends: after the tail that also ends the first call."""
    at = texts.two.find(SECOND)
    if at < 0 or FIRST not in texts.two:
        return None
    after = texts.two.rfind(OTHER["qkeyc"]) + len(OTHER["qkeyc"])
    tail = texts.one[texts.one.rfind(VALUES["qkeyb"]) + len(VALUES["qkeyb"]) : end]
    return at, after + len(tail)


def _with_id(syntax: ToolSyntax) -> ToolSyntax:
    """The syntax with the call's id, before or after the name, e.g. of ``[CALL]{{ f.name }}[ID]{{ c.id }}[ARGS]``."""
    call = syntax.named
    if IDS[0] in call.name_end:
        name_end, _, id_end = call.name_end.partition(IDS[0])
        return replace(syntax, call=replace(call, id_place="after", name_end=name_end, id_end=id_end))
    if IDS[0] in syntax.call_start:
        before, _, id_end = syntax.call_start.partition(IDS[0])
        return replace(syntax, call_start=before, call=replace(call, id_place="before", id_end=id_end))
    return syntax


def _with_index(syntax: ToolSyntax, texts: Texts) -> ToolSyntax:
    """The syntax with the number that counts calls, e.g. of ``<call name="{{ f.name }}" index="{{ loop.index }}">``.

    A number that only punctuation divides from the name makes an id with it, e.g. ``f:0``.
    """
    call = syntax.named
    mid = re.search(r"\d+", call.name_end)
    second = re.compile(re.escape(SECOND) + re.sub(r"\\?\d+", r"(\\d+)", re.escape(call.name_end), count=1))
    counted = second.search(texts.two) if mid else None
    if mid is None or counted is None or int(counted.group(1)) != int(mid.group()) + 1:
        return syntax
    before, behind = call.name_end[: mid.start()], call.name_end[mid.end() :]
    glued = re.search(r"[\w.:/-]*$", syntax.call_start)
    lead = glued.group() if glued else ""
    if re.fullmatch(r"[.:/_-]+", before):
        call = replace(call, id_place="carries", id_form=f"{lead}{{name}}{before}{{index}}", name_end=behind)
        return replace(syntax, call=call, call_start=syntax.call_start[: len(syntax.call_start) - len(lead)])
    return replace(syntax, call=replace(call, index_start=before, index_base=int(mid.group()), name_end=behind))


def _with_escapes(syntax: ToolSyntax, render: CallRenderer) -> ToolSyntax:
    """The syntax with the escapes of names and of keys, e.g. ``&amp;`` for ``&`` of a template with ``{{ f.name | e }}``."""
    odd = "QN" + "".join(capital + char for capital, char in _AWKWARD.items()) + "U"
    said = render.calls((odd, {odd.replace("QN", "QK"): "qvala"}))
    pattern = "(.*?)".join(_AWKWARD) + "(.*?)U"
    found = [re.search(lead + pattern, said) for lead in ("QN", "QK")]
    pairs = [tuple(zip(_AWKWARD.values(), match.groups(), strict=True)) if match else () for match in found]
    name, key = (tuple((char, written) for char, written in each if written not in ("", char)) for each in pairs)
    arguments = syntax.arguments.with_escapes(key) if key else syntax.arguments
    return replace(syntax, call=replace(syntax.named, escapes=name), arguments=arguments)


def _blocks(found: ToolSyntax, render: CallRenderer) -> BlockSyntax | None:
    """The blocks of a turn, if calls and answers are opened alike, e.g. by ``<|ai|>{{ kind }}<|body|>{{ text }}<|end|>``.

    An answer then has a header behind the generation prompt, and the call's header holds the name and ends as the answer's.
    """
    turn, reasoning = render.turn, render.reasoning
    head = turn.content_start
    named = found.named.name_again or found.named.name_end
    if not head.strip() or not isinstance(found.call, NamedCall):
        return None
    reopened = _reopening(found, render)
    header_end = (tags(head) or [re.sub(r"^\w+", "", head)])[-1]
    if not reopened or not head.endswith(header_end):
        return None
    if header_end != named and (not header_end.strip() or header_end.strip() not in named):
        return None
    if named.strip() == header_end.strip() and head.endswith(named):
        header_end = named  # includes the layout before it
    content = head[: len(head) - len(header_end)]
    call = (found.section_start + found.call_start).removesuffix(reopened)
    call = call if call.strip() else ""
    addressee = re.sub(r"[\w.:-]+$", "", call)
    last = tags((found.call_end + found.separator + found.section_end).partition(reopened)[0])
    shown = [turn.end, reasoning.end, *render.frame.ends, *last[-1:]]
    ends = tuple(dict.fromkeys(mark for text in shown for mark in tags(text)[:1]))
    return BlockSyntax(reopened, header_end, content, call, addressee if addressee.strip() else "", ends)


def _reopening(found: ToolSyntax, render: CallRenderer) -> str:
    """The end of the generation prompt that also opens a second block, e.g. ``<|ai|>`` of ``{{ text }}<|ai|>{{ call }}``."""
    text = render.body((FIRST, VALUES), said="qsaidword")
    call, opener = found.section_start + found.call_start, render.frame.prompt_on
    at = text.find("qsaidword")
    for before in (call + FIRST, FIRST):  # the call's start may include the opener
        gap = text[at + len("qsaidword") : text.find(before)] if at >= 0 and before in text else ""
        for size in range(min(len(opener), 300), 1, -1):
            if opener[-size:].strip() and gap.endswith(opener[-size:]):
                return opener[-size:]
    return ""
