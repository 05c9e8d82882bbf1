"""Find how tool calls are written, by rendering calls whose every word is known and reading off what stands around them.

One call is ``PRE name MID arguments POST``; a second one adds ``BETWEEN``. What PRE and BETWEEN share at their ends opens each
call, what is left of PRE opens the section; likewise behind. Then the arguments: JSON is found by parsing it; anything else by
what stands before and after keys and values of each JSON type.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from ..messages import Message, ToolCall, ToolSpec
from .diff import common_prefix, common_suffix, safe_prefix, safe_suffix, tags
from .repair import Probe
from .syntax import BlockSyntax, JsonFields, LiteralArguments, ReasoningSyntax, Shape, TaggedArguments, ToolSyntax, TurnSyntax
from .turns import USER, Frame

PROBE_NAMES = _FIRST, _SECOND = "qfirsttool", "qsecondtool"
_KEYS = ("qkeya", "qkeyb", "qkeyc")
_IDS = ("qidfirst1", "qidsecon2")
_VALUES = {"qkeya": "qvala", "qkeyb": "qvalb"}
_OTHER = {"qkeyc": "qvalc"}
_SAMPLES: dict[str, Any] = {
    "string": "qvala",
    "integer": 31259,
    "number": 31259.5,
    "boolean": True,
    "array": [31259, "qitem"],
    "object": {"qsub": "qitem"},
    "null": None,
}


@dataclass(frozen=True, slots=True)
class _Texts:
    """The same turn with one call, with two, and with a call of each JSON type; without the turn's opener and end."""

    one: str
    two: str

    @property
    def pre(self) -> str:
        return self.one[: self.one.find(_FIRST)]


def find_calls(
    probe: Probe, frame: Frame, turn: TurnSyntax, reasoning: ReasoningSyntax | None
) -> tuple[ToolSyntax | None, tuple[str, ...]]:
    """The syntax of a template's tool calls and what may end a turn after calls; None where it cannot be read off."""
    render = _Renderer(probe, frame, turn, reasoning)
    texts = _Texts(render.calls((_FIRST, _VALUES)), render.calls((_FIRST, _VALUES), (_SECOND, _OTHER)))
    if _FIRST not in texts.one:
        return None, ()
    found = _json_calls(texts) or _keyed_calls(texts) or _text_calls(texts, render)
    if found is None:
        return None, ()
    blocks = _blocks(found, turn, reasoning, frame, render)
    if blocks is not None:
        found = replace(found, shape=Shape.RECIPIENT, blocks=blocks, section_start="", section_end="", separator="")
        return replace(found, call_start=blocks.call, call_end=_body_end(found, blocks)), ()
    if probe.repairs.split_calls:
        found = replace(found, separator="", parallel=False)
    if turn.end.strip():
        found = replace(found, section_end=found.section_end.partition(turn.end.strip())[0])
    if found.section_start.strip() or found.array:
        return found, ()
    ends = (found.section_end,) if found.section_end.strip() else ()  # what closes nothing ends the turn
    return replace(found, section_start="", section_end=""), ends


class _Renderer:
    """Renders turns that consist of calls."""

    def __init__(self, probe: Probe, frame: Frame, turn: TurnSyntax, reasoning: ReasoningSyntax | None) -> None:
        self._probe = probe
        self._frame = frame
        self._turn = turn
        self._reasoning = reasoning

    def calls(self, *calls: tuple[str, dict[str, Any]], said: str = "") -> str:
        """The turn's text from after its opener, empty thought and empty content, to before the turn's end."""
        body = self.body(*calls, said=said)
        body = self._without_empties(body)
        return _without_turn_end(body, [self._turn.end, *self._frame.ends])

    def body(self, *calls: tuple[str, dict[str, Any]], said: str = "") -> str:
        made = tuple(ToolCall(name, json.dumps(args), i) for (name, args), i in zip(calls, _IDS, strict=False))
        tools = [ToolSpec(name, "qtext", _schema(args)) for name, args in calls]
        message = Message("assistant", said, tool_calls=made)
        return self._frame.body_of(self._probe, [USER, message], tools)

    def _without_empties(self, body: str) -> str:
        markers = []
        if self._reasoning:
            markers += [self._reasoning.start.strip(), self._reasoning.end.strip()]
        if self._turn.content_end:
            markers += [self._turn.content_start.strip(), self._turn.content_end.strip()]
        for marker in markers:
            lead = len(body) - len(body.lstrip())
            if marker and body[lead:].startswith(marker):
                body = body[lead + len(marker) :]
        layout = self._reasoning.end[len(self._reasoning.end.rstrip()) :] if self._reasoning else ""
        return body.removeprefix(layout)


def _schema(arguments: dict[str, Any]) -> dict[str, Any]:
    types = {bool: "boolean", int: "integer", float: "number", list: "array", dict: "object", type(None): "null"}
    properties = {key: {"type": types.get(type(value), "string"), "description": "qtext"} for key, value in arguments.items()}
    return {"type": "object", "properties": properties}


def _without_turn_end(body: str, ends: list[str]) -> str:
    """Cut off the end of the turn, which a plain answer has too; layout at the very end does not count."""
    trimmed = body.rstrip()
    best = max((safe_suffix(trimmed, e.rstrip()) for e in ends if e.strip()), key=len, default="")
    return trimmed[: len(trimmed) - len(best)] if re.search(r"[^\w\s]", best) else body


# --- JSON objects that hold the name ----------------------------------------------------------------------------------------


def _json_calls(texts: _Texts) -> ToolSyntax | None:
    spans = [_object_around(texts.one, _FIRST)]
    if spans[0] is None:
        return None
    start, end, value = spans[0]
    paths = dict(_paths(value))
    name = next((p for p, v in paths.items() if v == _FIRST), None)
    arguments = next((p for p, v in paths.items() if v == _VALUES or _is_text_of(v, _VALUES)), None)
    if name is None or arguments is None or arguments == ():
        return None
    second = _object_around(texts.two, _SECOND, texts.two.find(_FIRST))
    other = dict(_paths(second[2])) if second else {}
    rest = {p: v for p, v in paths.items() if not isinstance(v, dict) and p[: len(arguments)] != arguments and p != name}
    ids = [p for p, v in rest.items() if v == _IDS[0] or (other and other.get(p) != v)]
    places = {"name": name, "arguments": arguments, "id": ids[0] if ids else ()}
    order = sorted(("name", "arguments", *(["id"] if ids else [])), key=lambda part: list(paths).index(places[part]))
    fields = JsonFields(
        name,
        arguments,
        ids[0] if ids else (),
        isinstance(paths[arguments], str),
        tuple(order),
        tuple((p, json.dumps(v)) for p, v in rest.items() if p not in ids),
    )
    syntax = ToolSyntax(Shape.JSON, fields=fields, id_place="field" if ids else "")
    return _around(syntax, texts, (start, end), second[:2] if second else None)


def _keyed_calls(texts: _Texts) -> ToolSyntax | None:
    around = _object_around(texts.one, _FIRST)
    if around is None or set(around[2]) != {_FIRST}:
        return None
    value = around[2][_FIRST]
    if value != _VALUES and not _is_text_of(value, _VALUES):
        return None
    second = _object_around(texts.two, _SECOND, texts.two.find(_FIRST))
    syntax = ToolSyntax(Shape.KEYED, arguments_as_text=isinstance(value, str))
    return _around(syntax, texts, around[:2], second[:2] if second else None)


def _object_around(text: str, word: str, after: int = 0) -> tuple[int, int, dict[str, Any]] | None:
    """The outermost JSON object, beginning after ``after``, that holds the word: start, end, value."""
    at = text.find(word)
    decoder = json.JSONDecoder()
    for match in re.finditer(r"\{", text[:at]):
        if match.start() < after:
            continue
        try:
            value, end = decoder.raw_decode(text, match.start())
        except ValueError:
            continue
        if end > at:
            return match.start(), end, value
    return None


def _paths(value: Any, above: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    yield above, value
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _paths(inner, (*above, key))


def _is_text_of(value: Any, arguments: dict[str, Any]) -> bool:
    if not isinstance(value, str):
        return False
    try:
        return bool(json.loads(value) == arguments)
    except ValueError:
        return False


# --- what stands around calls -----------------------------------------------------------------------------------------------


def _around(syntax: ToolSyntax, texts: _Texts, first: tuple[int, int], second: tuple[int, int] | None) -> ToolSyntax:
    """Read section, call markers and separator off what stands before, between and behind."""
    pre, post = texts.one[: first[0]], texts.one[first[1] :]
    if second is None or second[0] < 0:
        if _is_array(syntax, pre, post):
            return replace(_array(syntax, pre, "", post), parallel=False)
        return replace(syntax, call_start=pre, call_end=post, parallel=False)
    first_end = texts.two.find(texts.one[first[0] : first[1]])
    between = texts.two[first_end + first[1] - first[0] : second[0]]
    post = max(post, texts.two[second[1] :], key=len)
    if _is_array(syntax, pre, post):
        return _array(syntax, pre, between, post)
    call_start = safe_suffix(pre, between) if pre != common_suffix(pre, between) else pre
    rest = between[: len(between) - len(call_start)]
    call_end = safe_prefix(post, rest) if post != common_prefix(post, rest) else post
    return replace(
        syntax,
        section_start=pre[: len(pre) - len(call_start)],
        section_end=post[len(call_end) :],
        call_start=call_start,
        call_end=call_end,
        separator=rest[len(call_end) :],
    )


def _is_array(syntax: ToolSyntax, pre: str, post: str) -> bool:
    """Whether the calls stand in the brackets of a JSON array."""
    return syntax.shape in (Shape.JSON, Shape.KEYED) and pre.rstrip()[-1:] == "[" and post.lstrip()[:1] == "]"


def _array(syntax: ToolSyntax, pre: str, between: str, post: str) -> ToolSyntax:
    """The calls are elements of a JSON array: its brackets are no markers."""
    start, layout = pre.rstrip()[:-1], pre[len(pre.rstrip()) :]
    end = post.lstrip()[1:]
    separator = "," if between.strip() else ""
    return replace(syntax, array=True, section_start=start, section_end=end, call_start=layout, separator=separator)


# --- calls as text: the name, then the arguments ----------------------------------------------------------------------------


def _text_calls(texts: _Texts, render: _Renderer) -> ToolSyntax | None:
    texts = replace(texts, two=texts.two.replace(_IDS[1], _IDS[0]))  # an id is no difference between calls
    name_at = texts.one.find(_FIRST)
    again = _name_again(texts.one)
    mid_at = again[1] if again else name_at + len(_FIRST)
    found = _json_arguments(texts.one, mid_at, _VALUES)
    if found:
        start, end, as_text = found
        syntax = ToolSyntax(Shape.NAME_JSON, arguments_as_text=as_text, name_again=again[0] if again else "")
        syntax = replace(syntax, name_end=texts.one[mid_at:start])
    else:
        read = _read_arguments(texts.one, mid_at, render)
        if read is None:
            return None
        syntax, end = read
        syntax = replace(syntax, name_again=again[0] if again else "")
    second = _second_call(texts, name_at, end)
    syntax = _around(syntax, texts, (name_at, end), second)
    return _with_index(_with_id(syntax), texts, syntax)


def _name_again(text: str) -> tuple[str, int] | None:
    """The text between two mentions of the name before the arguments, and where the second one ends."""
    first = text.find(_FIRST) + len(_FIRST)
    second = text.find(_FIRST, first)
    keys = text.find(_KEYS[0])
    return (text[first:second], second + len(_FIRST)) if 0 <= second < keys else None


def _json_arguments(text: str, at: int, arguments: dict[str, Any]) -> tuple[int, int, bool] | None:
    for match in re.finditer(r'[{"]', text[at:]):
        try:
            value, end = json.JSONDecoder().raw_decode(text, at + match.start())
        except ValueError:
            continue
        if value == arguments:
            return at + match.start(), end, False
        if _is_text_of(value, arguments):
            return at + match.start(), end, True
    return None


def _second_call(texts: _Texts, start: int, end: int) -> tuple[int, int] | None:
    """Where the second call's name begins; its end is where the text after the first call's end comes again."""
    at = texts.two.find(_SECOND)
    if at < 0 or _FIRST not in texts.two:
        return None
    after = texts.two.rfind(_OTHER["qkeyc"]) + len(_OTHER["qkeyc"])
    tail = texts.one[texts.one.rfind(_VALUES["qkeyb"]) + len(_VALUES["qkeyb"]) : end]
    return at, after + len(tail)


def _with_id(syntax: ToolSyntax) -> ToolSyntax:
    """Find the call's id before or after the name."""
    if _IDS[0] in syntax.name_end:
        name_end, _, id_end = syntax.name_end.partition(_IDS[0])
        return replace(syntax, id_place="after", name_end=name_end, id_end=id_end)
    if _IDS[0] in syntax.call_start:
        before, _, id_end = syntax.call_start.partition(_IDS[0])
        return replace(syntax, id_place="before", call_start=before, id_end=id_end)
    return syntax


def _with_index(syntax: ToolSyntax, texts: _Texts, plain: ToolSyntax) -> ToolSyntax:
    """Find a running number behind the name; glued to the name it makes the two an id."""
    mid = re.search(r"\d+", syntax.name_end)
    second = re.compile(re.escape(_SECOND) + re.sub(r"\\?\d+", r"(\\d+)", re.escape(syntax.name_end), count=1))
    counted = second.search(texts.two) if mid else None
    if mid is None or counted is None or int(counted.group(1)) != int(mid.group()) + 1:
        return syntax
    before, behind = syntax.name_end[: mid.start()], syntax.name_end[mid.end() :]
    glued = re.search(r"[\w.:/-]*$", syntax.call_start)
    lead = glued.group() if glued else ""
    if re.fullmatch(r"[.:/_-]+", before):
        start = syntax.call_start[: len(syntax.call_start) - len(lead)]
        form = f"{lead}{{name}}{before}{{index}}"
        return replace(syntax, id_place="carries", id_form=form, call_start=start, name_end=behind)
    return replace(syntax, index_start=before, index_base=int(mid.group()), name_end=behind)


# --- arguments that are not one JSON object ---------------------------------------------------------------------------------


def _read_arguments(text: str, mid_at: int, render: _Renderer) -> tuple[ToolSyntax, int] | None:
    """Arguments as tags or as literals: the syntax with ``name_end`` set, and where the arguments end in ``text``."""
    first, key2 = (text.find(word, mid_at) for word in _KEYS[:2])
    value, value2 = (text.find(word, mid_at) for word in _VALUES.values())
    if not mid_at <= first < value < key2 < value2:
        return None
    to_key = text[mid_at:first]
    to_value = text[first + len(_KEYS[0]) : value]
    to_next = text[value + len(_VALUES["qkeya"]) : key2]
    rest = text[value2 + len(_VALUES["qkeyb"]) :]
    numbers = _number_gap(render) or _string_gap(to_value, to_next)
    if numbers is not None and to_value.startswith(numbers[0]) and to_value != numbers[0] and to_next.endswith(numbers[1]):
        return _read_literals(text, rest, to_key, to_value, to_next, numbers, render)
    return _read_tags(text, rest, to_key, to_value, to_next, render)


def _number_gap(render: _Renderer) -> tuple[str, str] | None:
    """What stands between key and value, and between value and next key, where the values are numbers."""
    text = render.calls((_FIRST, {"qkeya": 31259, "qkeyb": 41259}))
    match = re.search(r"qkeya(.*?)31259(.*?)qkeyb", text, re.S)
    return (match.group(1), match.group(2)) if match else None


def _string_gap(to_value: str, to_next: str) -> tuple[str, str] | None:
    """The same, read off strings in plain quotes, where a template cannot write numbers at all."""
    quote = to_value[-1:]
    return (to_value[:-1], to_next[1:]) if quote in ("'", '"') and to_next.startswith(quote) and to_next[1:] else None


def _read_literals(
    text: str, rest: str, to_key: str, to_value: str, to_next: str, numbers: tuple[str, str], render: _Renderer
) -> tuple[ToolSyntax, int] | None:
    quote_start = to_value[len(numbers[0]) :]
    quote_end = to_next[: len(to_next) - len(numbers[1])]
    pairs = {"(": ")", "{": "}", "[": "]", "<": ">"}
    opened = to_key.strip()
    if not opened or opened[-1] not in pairs or not rest.startswith(quote_end):
        return None
    close = pairs[opened[-1]]
    behind = rest[len(quote_end) :]
    if not behind.startswith(close):
        return None
    samples = render.calls((_FIRST, {"qkeya": True, "qkeyb": {"qsub": "qitem"}}))
    plain_quote = quote_start in ("'", '"')
    literal = LiteralArguments(
        open=opened[-1],
        close=close,
        assign=numbers[0],
        separator=numbers[1],
        quote_start=quote_start,
        quote_end=quote_end,
        escapes=plain_quote,
        bare_keys=not re.search(r"""["']qsub["']""", samples),
        constants="python" if re.search(re.escape(numbers[0]) + "True", samples) else "json",
    )
    shape = Shape.PYTHONIC if plain_quote else Shape.LITERAL
    end = len(text) - len(behind) + len(close)
    return ToolSyntax(shape, literal=literal, name_end=to_key[: to_key.rfind(opened[-1])]), end


def _read_tags(
    text: str, rest: str, to_key: str, to_value: str, to_next: str, render: _Renderer
) -> tuple[ToolSyntax, int] | None:
    mirrored = _KEYS[0] in to_next
    shared = to_next.replace(_KEYS[0], "") if mirrored else to_next
    start = safe_suffix(to_key, shared)
    if mirrored:
        closer, _, tail = to_next.partition(_KEYS[0])
        start = safe_suffix(to_key, f"<q{tail}")
        end, end_tail, separator = closer, tail[: len(tail) - len(start)], ""
        behind = rest.partition(_KEYS[1])[2]
        if not (rest.startswith(closer) and behind.startswith(end_tail)):
            return None
        used = len(closer) + len(_KEYS[1]) + len(end_tail)
    else:
        gap = to_next[: len(to_next) - len(start)]
        end = safe_prefix(gap, rest) if gap != common_prefix(gap, rest) else gap
        end_tail, separator, used = "", gap[len(end) :], len(end)
    if not end.strip() or not start:
        return None
    tagged = TaggedArguments(start, to_value, end, separator, end_has_key=mirrored, end_tail=end_tail)
    tagged = _with_types(tagged, render)
    tagged = _with_values(tagged, render)
    name_end = to_key[: len(to_key) - len(start)]
    return ToolSyntax(Shape.TAGGED, tagged=tagged, name_end=name_end), len(text) - len(rest) + used


def _with_types(tagged: TaggedArguments, render: _Renderer) -> TaggedArguments:
    """Find whether the tag names the value's type, by rendering one value of each."""
    begins = {"string": "qvala", "integer": "31259", "number": "31259", "boolean": "[Tt]rue"}
    begins |= {"array": r"\[", "object": r"\{", "null": "[Nn](ull|one)"}
    gaps: dict[str, str] = {}
    for kind, value in _SAMPLES.items():
        found = re.search(f"{_KEYS[0]}(.*?){begins[kind]}", render.calls((_FIRST, {_KEYS[0]: value})), re.S)
        if found:
            gaps[kind] = found.group(1)
    if len({gaps.get(kind, "") for kind in ("string", "integer", "boolean")}) < 2:
        return tagged
    string = gaps["string"]
    other = next(g for g in gaps.values() if g != string)
    start = safe_prefix_word(string, other)
    end = safe_suffix_word(string, other)
    named = {}
    for kind, gap in gaps.items():
        if gap.startswith(start) and end in gap[len(start) :]:
            named[kind] = gap[len(start) : gap.find(end, len(start))]
    return replace(tagged, type_start=start, key_end=end, type_names=tuple(named.items()))


def safe_prefix_word(a: str, b: str) -> str:
    """The common beginning, ending outside a word."""
    shared = common_prefix(a, b)
    return re.sub(r"\w+$", "", shared) if re.match(r"\w", a[len(shared) :]) or re.match(r"\w", b[len(shared) :]) else shared


def safe_suffix_word(a: str, b: str) -> str:
    """The common end, beginning outside a word."""
    return re.sub(r"^\w+", "", common_suffix(a, b))


def _with_values(tagged: TaggedArguments, render: _Renderer) -> TaggedArguments:
    """Find how constants, nested values and awkward strings are written."""
    said = render.calls((_FIRST, {"qkeya": True}))
    constants = "python" if "True" in said else "json"
    nested = render.calls((_FIRST, {"qkeya": {"qsub": "qitem"}, "qkeyb": ["qelement"]}))
    mark = re.search(re.escape(tagged.start.strip()) + "qsub" + re.escape(tagged.key_end), nested)
    item = ""
    if mark:
        listed = re.search(r"(\w+)" + re.escape(tagged.key_end) + "qelement", nested)
        item = listed.group(1) if listed else ""
    awkward = "qa<qb>&qc"
    text = render.calls((_FIRST, {"qkeya": awkward}))
    around = re.escape(tagged.key_end) + r"([^\n]{1,20})" + re.escape(awkward) + r"([^\n]{1,20}?)" + re.escape(tagged.end)
    raw = re.search(around, text)
    return replace(
        tagged,
        constants=constants,  # type: ignore[arg-type]
        nested=bool(mark),
        item=item,
        raw_start=raw.group(1) if raw else "",
        raw_end=raw.group(2) if raw else "",
    )


# --- blocks with headers ----------------------------------------------------------------------------------------------------


def _blocks(
    found: ToolSyntax, turn: TurnSyntax, reasoning: ReasoningSyntax | None, frame: Frame, render: _Renderer
) -> BlockSyntax | None:
    """The call's header, where the block of a call is opened as the block of an answer is.

    So it is where an answer needs a header behind the generation prompt, and the name stands in the call's header: answer's
    and call's headers then end alike.
    """
    head = turn.content_start
    named = found.name_again or found.name_end
    if not head.strip() or found.shape not in (Shape.NAME_JSON, Shape.TAGGED, Shape.LITERAL, Shape.PYTHONIC):
        return None
    reopened = _reopening(found, frame, render)
    header_end = (tags(head) or [re.sub(r"^\w+", "", head)])[-1]
    if not reopened or not head.endswith(header_end):
        return None
    if header_end != named and (not header_end.strip() or header_end.strip() not in named):
        return None
    content = head[: len(head) - len(header_end)]
    thought = reasoning.start if reasoning else ""
    thought = thought[: len(thought) - len(header_end)] if thought.endswith(header_end) else ""
    call = found.section_start + found.call_start
    addressee = re.sub(r"[\w.:-]+$", "", call)
    last = tags((found.call_end + found.separator + found.section_end).partition(reopened)[0])
    shown = [turn.end, reasoning.end if reasoning else "", *frame.ends, *last[-1:]]
    ends = tuple(dict.fromkeys(mark for text in shown for mark in tags(text)[:1]))
    return BlockSyntax(reopened, header_end, content, thought, call, addressee if addressee.strip() else "", ends)


def _reopening(found: ToolSyntax, frame: Frame, render: _Renderer) -> str:
    """The end of the generation prompt that comes again before a second block, or ""."""
    text = render.body((_FIRST, _VALUES), said="qsaidword")
    call = (found.section_start + found.call_start) or ""
    at = text.find("qsaidword")
    gap = text[at + len("qsaidword") : text.find(call + _FIRST)] if at >= 0 and call + _FIRST in text else ""
    for size in range(len(frame.prompt_on), 1, -1):
        if frame.prompt_on[-size:].strip() and gap.endswith(frame.prompt_on[-size:]):
            return frame.prompt_on[-size:]
    return ""


def _body_end(found: ToolSyntax, blocks: BlockSyntax) -> str:
    """What closes a call inside its block: what stands behind the arguments, without the block's own end."""
    behind = (found.call_end + found.separator + found.section_end).partition(blocks.start)[0]
    end = next((e for e in blocks.ends if behind.rstrip().endswith(e)), "")
    return behind.rstrip().removesuffix(end)
