"""Read tool calls in a template's syntax, from the section's first tag to its last.

The reader gives out events through an :class:`Output`; what of them is certain, and what becomes of an attempt that comes to
nothing, is the parser's business.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable
from itertools import groupby
from typing import Any

from ..events import ModelEvent, ReasoningDelta, TextDelta, ToolCallDelta, ToolCallEnd, ToolCallStart
from ..messages import ToolCall, ToolSpec
from .arguments import LiteralReader, TagReader
from .reader import Malformed, Reader, Reading, Truncated, decoded, scanner_of
from .syntax import JsonFields, Shape, ToolSyntax
from .typed import Typing

_DISTINCT = re.compile(r"(?=.*[<\[{|｜(>])(?=.*\w).{4,}", re.S)


class Calls:
    """The calls of one answer: their numbers, their ids, and where events go. ``open`` has begun and not ended.

    Events of an attempt that may come to nothing are *set aside*; they are released or forgotten together.
    """

    def __init__(self, salt: str) -> None:
        self._salt = salt
        self._given: list[ModelEvent] = []
        self._aside: list[ModelEvent] | None = None
        self.started = 0
        self.finished = 0
        self.open: int | None = None

    def give(self, *events: ModelEvent) -> None:
        """Give events out, or set them aside."""
        (self._given if self._aside is None else self._aside).extend(events)

    def collect(self) -> list[ModelEvent]:
        """Take the events given out since the last time."""
        given, self._given = self._given, []
        return _joined(given)

    def set_aside(self) -> tuple[int, int]:
        """Keep events back from here on; returns what :meth:`forget` needs."""
        self._aside = []
        return self.started, self.finished

    def taken_back(self) -> list[ModelEvent]:
        """The events that were set aside; from here on events are given out again."""
        aside, self._aside = self._aside or [], None
        return aside

    def forget(self, counted: tuple[int, int]) -> None:
        """Number the calls as if those set aside had never been."""
        self.started, self.finished = counted
        self.open = None

    def new_id(self, index: int) -> str:
        """Nine letters and digits, which every template takes; the same again for the same prompt and place."""
        digest = hashlib.sha256(f"{self._salt}\0{index}".encode(errors="surrogatepass")).digest()
        number, text = int.from_bytes(digest[:8], "big"), ""
        while len(text) < 9:
            number, digit = divmod(number, 36)
            text += "0123456789abcdefghijklmnopqrstuvwxyz"[digit]
        return text


def _joined(events: list[ModelEvent]) -> list[ModelEvent]:
    """Make neighbouring deltas of one kind into one."""
    made: list[ModelEvent] = []
    for _, run in groupby(events, key=lambda e: (type(e), getattr(e, "index", -1))):
        same = list(run)
        text = "".join(getattr(e, "text", "") for e in same)
        match same[0]:
            case TextDelta():
                made.append(TextDelta(text))
            case ReasoningDelta():
                made.append(ReasoningDelta(text))
            case ToolCallDelta(index):
                made.append(ToolCallDelta(index, text))
            case _:
                made += same
    return made


class OneCall:
    """One call on its way: arguments wait until name and id are known, then stream."""

    def __init__(self, calls: Calls, *, waits_for_id: bool = False) -> None:
        self._calls = calls
        self._waits_for_id = waits_for_id
        self._pieces: list[str] = []
        self._index = -1
        self.name = ""
        self.id = ""

    def start(self) -> None:
        """Say that the call has begun, once its name is known and nothing more is waited for."""
        if self._index < 0 and self.name and (self.id or not self._waits_for_id):
            self._index = self._calls.started
            self._calls.started += 1
            self._calls.open = self._index
            self.id = self.id or self._calls.new_id(self._index)
            self._calls.give(ToolCallStart(self._index, self.id, self.name))
            if self._pieces:
                self._calls.give(ToolCallDelta(self._index, "".join(self._pieces)))

    def emit(self, piece: str) -> None:
        """Take a piece of the arguments."""
        if not piece:
            return
        self._pieces.append(piece)
        if self._index >= 0:
            self._calls.give(ToolCallDelta(self._index, piece))

    def end(self) -> None:
        """Say that the call is complete. Raises Malformed where its arguments are no JSON object."""
        if not self._pieces:
            self.emit("{}")
        arguments = "".join(self._pieces)
        if not isinstance(decoded(arguments), dict):
            raise Malformed("the arguments are no JSON object")
        self._waits_for_id = False
        self.start()
        self._calls.give(ToolCallEnd(self._index, ToolCall(self.name, arguments, self.id)))
        self._calls.finished += 1
        self._calls.open = None


class CallReader:
    """Reads one section of calls. ``openings`` are the tags by which it may begin, each with what is due from there on."""

    def __init__(self, reader: Reader, syntax: ToolSyntax, tools: Iterable[ToolSpec], calls: Calls) -> None:
        self._in = reader
        self._syntax = syntax
        self._tools = {t.name: t for t in tools}
        self._calls = calls
        self.openings = self._openings()
        self._end_tags = tuple(syntax.section_end.split())
        self.resume_at = 0
        self.entered = False

    def _openings(self) -> dict[str, tuple[str, ...]]:
        """The first tag, and every later tag that is unlike plain text: models leave outer tags out."""
        syntax = self._syntax
        outer = (syntax.section_start if syntax.array else syntax.section_start + syntax.call_start).split()
        whole = [*outer, "[", *syntax.call_start.split()] if syntax.array else outer
        starts = [whole, syntax.call_start.split()]
        found: dict[str, tuple[str, ...]] = {}
        for tags in starts:
            for i, tag in enumerate(tags):
                if (i == 0 and tags is whole) or _DISTINCT.match(tag):
                    found.setdefault(tag, tuple(tags[i:]))
        return {tag: due for tag, due in found.items() if tag != "["}

    def begins(self, ahead: int) -> Reading[bool]:
        """Whether a call that nothing announces may begin ``ahead``: with a brace, or with a tool's name."""
        if self._syntax.shape in (Shape.JSON, Shape.KEYED, Shape.GENERIC):
            return (yield from self._in.peek(ahead)) == "{"
        return (yield from self._in.which(scanner_of(list(self._tools)), ahead)) is not None

    def section(self, due: tuple[str, ...] = ()) -> Reading[None]:
        """Read a section whose tags ``due`` come first. Raises Malformed where it is none; finished calls stay finished.

        ``entered`` says whether the tags were there, ``resume_at`` where the first call began that was not finished.
        """
        self.resume_at, self.entered = self._in.checkpoint(), False
        yield from self._tags(due)
        self.entered = bool(due)
        while True:
            yield from self.call()
            self.resume_at = self._in.checkpoint()
            if not (yield from self._another()):
                yield from self._in.optional(self._syntax.section_end)
                return

    def call(self) -> Reading[None]:
        """Read one call, from behind ``call_start`` to behind ``call_end``."""
        one = OneCall(self._calls, waits_for_id=self._id_comes_late())
        if self._syntax.shape in (Shape.JSON, Shape.GENERIC):
            yield from self._fields(one)
        elif self._syntax.shape is Shape.KEYED:
            yield from self._keyed(one)
        else:
            yield from self._name(one)
            yield from self.arguments(one)
        yield from self._close(one)

    def _id_comes_late(self) -> bool:
        order = self._syntax.fields.order if self._syntax.fields and self._syntax.id_place == "field" else ()
        return "id" in order and order.index("id") > order.index("arguments")

    def _close(self, one: OneCall) -> Reading[None]:
        """A call that tags close is complete when they come; JSON and brackets close themselves."""
        one.end()
        yield from self._in.optional(self._syntax.call_end)

    def _another(self) -> Reading[bool]:
        """Whether another call follows; consumes what stands between."""
        syntax = self._syntax
        ahead = yield from self._in.space_ahead()
        between = syntax.separator.strip()
        if syntax.array:
            return (yield from self._next_element(ahead))
        opens = syntax.call_start.split()
        closes = self._end_tags[:1]
        choices = [*closes, *between.split()[:1], *opens[:1], *self.openings]
        found = yield from self._in.which(scanner_of(choices), ahead)
        if found is None:  # calls that only the section's tags mark out follow each other as they are
            return not opens and not between and bool(closes) and bool((yield from self._in.peek(ahead)))
        if found.value in closes:
            return False
        if between and found.value == between.split()[0]:
            yield from self._in.expect(between)
            if opens:
                yield from self._in.expect(syntax.call_start.rstrip())
            ahead = yield from self._in.space_ahead()
            return bool((yield from self._in.peek(ahead)))
        yield from self._in.space()
        yield from self._tags(self.openings.get(str(found.value), tuple(opens)))
        return True

    def _tags(self, due: tuple[str, ...]) -> Reading[None]:
        """Consume tags with any layout between them."""
        for i, tag in enumerate(due):
            if i:
                yield from self._in.space()
            yield from self._in.exactly(tag)

    def _next_element(self, ahead: int) -> Reading[bool]:
        char = yield from self._in.peek(ahead)
        if char not in (",", "]"):
            return False
        self._in.take(ahead + 1, "marker")
        return char == ","

    # --- shapes JSON and KEYED ----------------------------------------------------------------------------------------------

    def _fields(self, one: OneCall) -> Reading[None]:
        fields = self._syntax.fields or JsonFields()
        yield from self._in.space()
        yield from self._object(one, fields, ())
        if not one.name:
            raise Malformed("the call has no name")
        one.start()

    def _object(self, one: OneCall, fields: JsonFields, above: tuple[str, ...]) -> Reading[None]:
        """Read an object, picking name, arguments and id as they come by."""
        yield from self._in.exactly("{", "call")
        seen: list[str] = []
        while True:
            yield from self._in.space("call")
            char = yield from self._in.peek()
            if char == "}":
                self._in.take(1, "call")
                break
            if seen:
                yield from self._in.exactly(",", "call")
            key = yield from self._in.json_string()
            seen.append(key)
            yield from self._in.space("call")
            yield from self._in.exactly(":", "call")
            yield from self._in.space("call")
            yield from self._member(one, fields, (*above, key))
        if len(fields.arguments) == len(above) + 1 and fields.arguments[:-1] == above and fields.arguments[-1] not in seen:
            self._no_arguments(fields, seen)

    def _no_arguments(self, fields: JsonFields, seen: list[str]) -> None:
        known = {fields.name[-1], fields.name[0], *(fields.id[-1:]), *(p[-1] for p, _ in fields.constants)}
        if set(seen) - known:
            raise Malformed(f"the call has no {fields.arguments[-1]!r}")

    def _member(self, one: OneCall, fields: JsonFields, path: tuple[str, ...]) -> Reading[None]:
        if path == fields.name:
            one.name = yield from self._in.json_string()
            self._check_name(one.name)
            one.start()
        elif path == fields.arguments:
            yield from self._arguments_value(one)
        elif path == fields.id:
            value = decoded((yield from self._in.json_value(_ignore)))
            one.id = value if isinstance(value, str) else json.dumps(value)
            one.start()
        elif any(path == p[: len(path)] for p in (fields.name, fields.arguments, fields.id)):
            yield from self._object(one, fields, path)
        else:
            yield from self._in.json_value(_ignore)

    def _check_name(self, name: str) -> None:
        """Where nothing else says that this is a call, its name must be a tool's."""
        if not name or (not self._syntax.has_marker and name not in self._tools):
            raise Malformed(f"there is no tool {name!r}")

    def _keyed(self, one: OneCall) -> Reading[None]:
        yield from self._in.space()
        yield from self._in.exactly("{", "call")
        one.name = yield from self._in.json_string()
        self._check_name(one.name)
        one.start()
        yield from self._in.space("call")
        yield from self._in.exactly(":", "call")
        yield from self._arguments_value(one)
        yield from self._in.space("call")
        yield from self._in.exactly("}", "call")

    def _arguments_value(self, one: OneCall) -> Reading[None]:
        """Read the arguments: an object, the text of one in a string, or null for none."""
        yield from self._in.space("call")
        char = yield from self._in.peek()
        if char == "{":
            yield from self._in.json_value(one.emit)
        elif char == '"':
            one.emit((yield from self._in.json_string()).strip() or "{}")
        elif decoded((yield from self._in.json_value(_ignore))) is not None:
            raise Malformed("the arguments are no JSON object")

    # --- shapes with the name as text ---------------------------------------------------------------------------------------

    def _name(self, one: OneCall) -> Reading[None]:
        syntax = self._syntax
        yield from self._in.space()
        if syntax.id_place in ("before", "carries"):
            one.id = yield from self._in.name()
        if syntax.id_place == "before":
            yield from self._in.expect(syntax.id_end)
        one.name = self._name_in(one.id) if syntax.id_place == "carries" else (yield from self._in.name())
        behind = syntax.name_end
        if behind and one.name.endswith(behind):  # what follows the name could be a part of it: "f.call("
            one.name, behind = one.name.removesuffix(behind), ""
        self._check_name(one.name)
        if syntax.index_start:
            yield from self._in.expect(syntax.index_start.strip())
            yield from self._in.name()
        if syntax.name_again:
            yield from self._in.expect(syntax.name_again)
            yield from self._in.name()
        yield from self._in.expect(behind)
        if syntax.id_place == "after":
            one.id = yield from self._in.name()
            yield from self._in.expect(syntax.id_end)
        one.start()

    def _name_in(self, call_id: str) -> str:
        """The tool's name inside an id such as ``functions.get_time:0``."""
        form = re.escape(self._syntax.id_form).replace(r"\{name\}", "(?P<name>.+)").replace(r"\{index\}", r"\d+")
        match = re.fullmatch(form, call_id)
        if match and (match["name"] in self._tools or not self._tools):
            return match["name"]
        inside = [n for n in self._tools if re.search(rf"(?<!\w){re.escape(n)}(?!\w)", call_id)]
        if inside:
            return max(inside, key=len)
        if match:
            return match["name"]
        raise Malformed(f"the id {call_id!r} names no tool")

    def arguments(self, one: OneCall) -> Reading[None]:
        """Read the arguments of a call whose name is known."""
        syntax = self._syntax
        if syntax.tagged:
            closers = (syntax.call_end, *syntax.call_end.split(), syntax.section_end, *self.openings)
            tool = self._tools.get(one.name)
            yield from TagReader(self._in, syntax.tagged, Typing(tool.parameters if tool else None), closers).read(one.emit)
            yield from self._closed()
        elif syntax.literal:
            yield from LiteralReader(self._in, syntax.literal).read(one.emit)
        else:
            yield from self._arguments_value(one)

    def _closed(self) -> Reading[None]:
        """What follows tagged arguments must be what closes the call, or a call's start, or the end of the text."""
        tags = self._syntax.call_end.split()
        ahead = yield from self._in.space_ahead()
        closers = [*tags, *self._end_tags[:1], *self.openings]
        found = yield from self._in.which(scanner_of(closers), ahead)
        if found is None and (yield from self._in.peek(ahead)):
            raise Malformed("an argument or the call's end was due")
        if found is None and tags and not self._in.complete:
            raise Truncated("the text ends before the call does")
        if found is not None and found.value in tags[1:]:
            self._in.take(found.end, "marker")


def _ignore(_: Any) -> None:
    """Take a piece of a value that nobody wants."""
