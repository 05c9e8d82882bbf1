"""Read tool calls in a template's syntax, from the section's first tag to its last.

What becomes of an attempt that comes to nothing is the parser's business.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Any

from ..messages import ToolSpec
from .arguments import TagReader
from .callevents import Calls, OneCall
from .literals import LiteralReader
from .reader import NAME, Malformed, Reader, Reading, Truncated, decoded, scanner_of
from .syntax import JsonFields, Shape, ToolSyntax, escape
from .tags import marks, told_apart
from .typed import Typing

_PROSE = frozenset("\"'`.,:;=_-/!?*")  # signs that any text holds


def _distinct(mark: str) -> bool:
    """Whether a piece of a marker is unlike plain text, so that a call may begin with it where outer tags were left out."""
    signs = {c for c in mark if not c.isalnum() and not c.isspace()}
    return len(mark) >= 4 and any(c.isalnum() for c in mark) and bool(signs - _PROSE)


class CallReader:
    """Reads one section of calls. ``openings`` are the tags by which it may begin, each with what is due from there on."""

    def __init__(self, reader: Reader, syntax: ToolSyntax, tools: Iterable[ToolSpec], calls: Calls) -> None:
        self._in = reader
        self._syntax = syntax
        self._tools = {t.name: t for t in tools}
        self._calls = calls
        self.left_out: dict[str, str] = {}  # what stands before each opening, e.g. "<tool_call>\n" before "<function="
        self.openings = self._openings()
        self.resume_at = 0
        self.entered = False
        self._listed = False
        self._spare: dict[str, str] = {}

    def _openings(self) -> dict[str, tuple[str, ...]]:
        """The first tag, and every later tag that is unlike plain text: models leave outer tags out."""
        syntax = self._syntax
        before = syntax.section_start + "[" if syntax.array else syntax.section_start
        outer = syntax.section_start if syntax.array else syntax.section_start + syntax.call_start
        inner = syntax.call_start.split()
        whole = [*outer.split(), "[", *inner] if syntax.array else outer.split()
        found: dict[str, tuple[str, ...]] = {}
        for runs, text, lead in ((whole, before + syntax.call_start, ""), (inner, syntax.call_start, before)):
            at = 0
            for i, run in enumerate(runs):
                at = text.index(run, at)
                if (i == 0 and runs is whole) or _distinct(run):
                    first, *rest = told_apart(run, [m for m in self._markers if m != syntax.call_start])
                    found.setdefault(first, (first, *rest, *(piece for later in runs[i + 1 :] for piece in marks(later))))
                    self.left_out.setdefault(first, lead + text[:at])
                at += len(run)
        return {tag: due for tag, due in found.items() if tag != "["}

    @property
    def syntax(self) -> ToolSyntax:
        """What the calls are written in."""
        return self._syntax

    @property
    def _markers(self) -> list[str]:
        """The markers of a call, one of which another may begin like."""
        syntax = self._syntax
        texts = [syntax.call_start, syntax.call_end, syntax.section_end, syntax.separator, syntax.name_end]
        return [*texts, syntax.tagged.start, syntax.tagged.end] if syntax.tagged else texts

    def _first(self, marker: str) -> tuple[str, ...]:
        """The first piece of a marker, by which it is told from the others; nothing where it is layout alone."""
        return told_apart(marker, self._markers)[:1]

    def begins(self, ahead: int) -> Reading[bool]:
        """Whether a call that nothing announces may begin ahead: with a brace or a tool's name, or a list of these."""
        if self._syntax.array and (yield from self._in.peek(ahead)) == "[":
            ahead = yield from self._in.space_ahead(ahead + 1)
        if self._syntax.shape in (Shape.JSON, Shape.KEYED, Shape.GENERIC):
            return (yield from self._in.peek(ahead)) == "{"
        named = yield from self._in.which(scanner_of(list(self._tools)), ahead)
        if named is None or self._syntax.literal is None:
            return named is not None
        return bool((yield from self._in.ahead(marks(self._syntax.name_end + self._syntax.literal.open), named.end)))

    def empty(self, due: tuple[str, ...]) -> Reading[int]:
        """The length of a section with nothing in it, e.g. ``<tool_call></tool_call>``; 0 where something is."""
        syntax, at = self._syntax, 0
        for piece in due:
            at = (yield from self._in.ahead((piece,), at)) or at
        shut = [*(("]",) if syntax.array else ()), *syntax.call_end.split(), *syntax.section_end.split()]
        closed, last = at, ""
        for run in shut:
            end = yield from self._in.ahead(marks(run), closed)
            closed, last = end or closed, run if end else last
        return closed if last and last == shut[-1] else 0

    def section(self, due: tuple[str, ...] = ()) -> Reading[None]:
        """Read a section whose tags ``due`` come first. Raises Malformed where it is none; finished calls stay finished.

        ``entered`` says whether the tags were there, ``resume_at`` where the first call began that was not finished.
        """
        self.resume_at, self.entered, self._listed = self._in.checkpoint(), False, False
        yield from self._tags(due)
        self.entered = bool(due)
        if self._syntax.array and not self._listed:
            self._listed = yield from self._in.optional("[")
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
        elif self._syntax.has_marker and self._syntax.blocks is None and (yield from self._json_instead()):
            yield from self._fields(one)
        else:
            yield from self._name(one)
            yield from self.arguments(one)
        yield from self._close(one)

    def _json_instead(self) -> Reading[bool]:
        """Whether a JSON object stands where a name is due: between the template's own markers that is a call too."""
        ahead = yield from self._in.space_ahead()
        return (yield from self._in.peek(ahead)) == "{"

    def _id_comes_late(self) -> bool:
        order = self._syntax.fields.order if self._syntax.fields and self._syntax.id_place == "field" else ()
        return "id" in order and order.index("id") > order.index("arguments")

    def _close(self, one: OneCall) -> Reading[None]:
        """A call that tags close is complete when they come; JSON and brackets close themselves."""
        one.end()
        runs = self._syntax.call_end.split()
        for i in range(len(runs)):  # models leave inner closing tags out
            if (yield from self._in.optional(" ".join(runs[i:]))):
                return

    def _another(self) -> Reading[bool]:
        """Whether another call follows; consumes what stands between."""
        syntax = self._syntax
        ahead = yield from self._in.space_ahead()
        between = syntax.separator.strip()
        if syntax.array and self._listed:
            return (yield from self._next_element(ahead))
        opens = self._first(syntax.call_start)
        closes = self._first(syntax.section_end)
        choices = [*closes, *self._first(between), *opens, *self.openings]
        found = yield from self._in.which(scanner_of(choices), ahead)
        if found is None:
            return not opens and (yield from self._unannounced(ahead))
        if found.value in closes:
            return False
        if (found.value,) == self._first(between):
            yield from self._in.expect(between)
            if syntax.call_start.strip():
                yield from self._in.expect(syntax.call_start.rstrip())
            ahead = yield from self._in.space_ahead()
            return bool((yield from self._in.peek(ahead)))
        yield from self._in.space()
        yield from self._tags(self.openings.get(str(found.value), marks(syntax.call_start)))
        return True

    def _unannounced(self, ahead: int) -> Reading[bool]:
        """Whether a call follows that has no marker of its own: as it is, or behind a sign that models put between."""
        syntax = self._syntax
        if not syntax.has_marker and (yield from self._in.peek(ahead)) in (";", ","):
            after = yield from self._in.space_ahead(ahead + 1)
            if not (yield from self.begins(after)):
                return False
            self._in.take(after, "marker")
            return True
        closed = bool(self._first(syntax.section_end)) and not syntax.separator.strip()
        return (yield from self.begins(ahead)) or (closed and bool((yield from self._in.peek(ahead))))

    def _tags(self, due: tuple[str, ...]) -> Reading[None]:
        """Consume tags with any layout between them; the bracket of a list may be left out, and so may tags before JSON."""
        for i, tag in enumerate(due):
            if i:
                yield from self._in.space()
            if tag == "[" and self._syntax.array:
                self._listed = yield from self._in.optional(tag)
            elif i and self._syntax.fields is None and (yield from self._in.peek()) == "{" and not tag.startswith("{"):
                return
            else:
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
        self._spare = {}
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
            self._no_arguments(one, fields, seen)

    def _no_arguments(self, one: OneCall, fields: JsonFields, seen: list[str]) -> None:
        """The arguments' member is not there: none are meant, or the only other object is them, if the tool takes such."""
        known = {fields.name[-1], fields.name[0], *(fields.id[-1:]), *(p[-1] for p, _ in fields.constants)}
        extra = set(seen) - known
        spare = self._spare.get(next(iter(extra)), "") if len(extra) == 1 else ""
        if spare and one.name in self._tools and set(json.loads(spare)) <= set(self._declared(one.name)):
            one.emit(spare)
        elif extra:
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
            value = yield from self._in.json_value(_ignore)
            if path[:-1] == fields.arguments[:-1] and isinstance(decoded(value), dict):
                self._spare[path[-1]] = value

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
        one.name = self._name_in(one.id) if syntax.id_place == "carries" else (yield from self._plain_name())
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

    def _plain_name(self) -> Reading[str]:
        """A name: one of the tools' as the template writes it, however odd, or what looks like a name."""
        odd = {escape(name, self._syntax.escapes): name for name in self._tools if not NAME.fullmatch(name)}
        found = (yield from self._in.which(scanner_of(list(odd)))) if odd else None
        return odd[self._in.take(found.end, "call")] if found else (yield from self._in.name())

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
        syntax, tool = self._syntax, self._tools.get(one.name)
        typing = Typing(tool.parameters if tool else None)
        if syntax.tagged:
            closers = (syntax.call_end, *marks(syntax.call_end), syntax.section_end, *self.openings)
            yield from TagReader(self._in, syntax.tagged, typing, closers, self._declared(one.name)).read(one.emit)
            yield from self._closed()
        elif syntax.literal:
            yield from LiteralReader(self._in, syntax.literal, typing).read(one.emit)
        else:
            yield from self._arguments_value(one)

    def _declared(self, name: str) -> list[str]:
        """The arguments that a tool declares."""
        tool = self._tools.get(name)
        return list(tool.parameters.get("properties") or ()) if tool else []

    def _closed(self) -> Reading[None]:
        """What follows tagged arguments must be what closes the call, or a call's start, or the end of the text."""
        tags = marks(self._syntax.call_end)
        ahead = yield from self._in.space_ahead()
        closers = [*tags, *self._first(self._syntax.section_end), *self.openings]
        found = yield from self._in.which(scanner_of(closers), ahead)
        if found is None and (yield from self._in.peek(ahead)):
            raise Malformed("an argument or the call's end was due")
        if found is None and tags and not self._in.complete:
            raise Truncated("the text ends before the call does")
        if found is not None and found.value in tags[1:]:
            self._in.take(found.end, "marker")


def _ignore(_: Any) -> None:
    """Take a piece of a value that nobody wants."""
