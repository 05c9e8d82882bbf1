"""Read tool calls in a template's syntax, from the section's first tag to its last. The parser decides about failures."""

from __future__ import annotations

import re
from collections.abc import Iterable

from llm_magics.chat.encodings.encoding import Around
from llm_magics.chat.encodings.json import JsonArguments
from llm_magics.chat.encodings.syntax import BlockCall, JsonCall, KeyedCall, NamedCall, ToolSyntax
from llm_magics.chat.scan.reader import NAME, Malformed, Reader, Reading, Truncated, scanner_of
from llm_magics.chat.syntax.syntax import escape
from llm_magics.chat.syntax.tags import marks, tags, told_apart
from llm_magics.messages import ToolSpec

from .callevents import Calls, OneCall
from .callobjects import ObjectReader

_BETWEEN = (";", ",")  # signs that models put between calls
_PROSE = frozenset("\"'`.,:;=_-/!?*")  # signs of any text


def _distinct(mark: str) -> bool:
    """Whether a piece of a marker differs from plain text, so that a call may begin with it if outer tags were left out."""
    signs = {c for c in mark if not c.isalnum() and not c.isspace()}
    return len(mark) >= 4 and any(c.isalnum() for c in mark) and bool(signs - _PROSE)


class CallReader:
    """Reads one section of calls. ``openings``: the tags that may begin it, each with all tags expected from there on."""

    def __init__(self, reader: Reader, syntax: ToolSyntax, tools: Iterable[ToolSpec], calls: Calls) -> None:
        self._in = reader
        self.syntax = syntax
        self._tools = {t.name: t for t in tools}
        self._calls = calls
        self.left_out: dict[str, str] = {}  # the text before each opening, e.g. "<tool_call>\n" before "<function="
        self.openings = self._openings()
        self.resume_at = 0
        self.entered = False
        self._listed = False
        self._open = False  # the last call's end has not come
        self._objects = ObjectReader(reader, syntax, self._tools)

    def _openings(self) -> dict[str, tuple[str, ...]]:
        """The first tag, and every later tag that differs from plain text: models leave outer tags out."""
        syntax = self.syntax
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
    def _markers(self) -> list[str]:
        """The markers of a call: the beginning of one may be another."""
        syntax = self.syntax
        texts = [syntax.call_start, syntax.call_end, syntax.section_end, syntax.separator, syntax.named.name_end]
        return [*texts, *syntax.arguments.tags]

    def _first(self, marker: str) -> tuple[str, ...]:
        """The first piece that tells a marker from the others; nothing if the marker is layout alone."""
        return told_apart(marker, self._markers)[:1]

    def begins(self, ahead: int) -> Reading[bool]:
        """Whether a call without a marker may begin ahead: with a brace or a tool's name, or a list of these."""
        listed = self.syntax.array or (yield from self._list_of_objects(ahead))
        if listed and (yield from self._in.peek(ahead)) == "[":
            ahead = yield from self._in.space_ahead(ahead + 1)
        if not isinstance(self.syntax.call, NamedCall):
            return (yield from self._in.peek(ahead)) == "{"
        named = yield from self._in.which(scanner_of(list(self._tools)), ahead)
        bracket = self.syntax.arguments.opening
        if named is None or not bracket:
            return named is not None
        return bool((yield from self._in.ahead(marks(self.syntax.call.name_end + bracket), named.end)))

    def empty(self, due: tuple[str, ...]) -> Reading[int]:
        """The length of an empty section, e.g. ``<tool_call></tool_call>``; 0 if it is not empty."""
        syntax, at = self.syntax, 0
        for piece in due:
            shuts = piece == "[" and (yield from self._in.ahead(marks(syntax.section_end)[:1], at)) > at  # [end], not a list
            at = at if shuts else (yield from self._in.ahead((piece,), at)) or at
        shut = [*(("]",) if syntax.array else ()), *syntax.call_end.split(), *syntax.section_end.split()]
        closed, last = at, ""
        for run in shut:
            end = yield from self._in.ahead(marks(run), closed)
            closed, last = end or closed, run if end else last
        return closed if last and last == shut[-1] else 0

    def section(self, due: tuple[str, ...] = ()) -> Reading[None]:
        """Read a section that begins with the tags ``due``. Raises Malformed; finished calls stay finished.

        ``entered``: whether the tags were there. ``resume_at``: where the first unfinished call began.
        """
        self.resume_at, self.entered, self._listed = self._in.checkpoint(), False, False
        yield from self._tags(due)
        self.entered = bool(due)
        if not self._listed and (self.syntax.array or (yield from self._list_of_objects(0))):
            self._listed = yield from self._in.optional("[")
        while True:
            yield from self.call()
            self.resume_at = self._in.checkpoint()
            if not (yield from self._another()):
                yield from self._in.optional(self.syntax.section_end)
                return

    def _list_of_objects(self, ahead: int) -> Reading[bool]:
        """Whether a list of JSON objects stands ahead in place of one call: models list several calls."""
        if self.syntax.blocks is not None or not (self.syntax.has_marker or isinstance(self.syntax.call, JsonCall)):
            return False
        ahead = yield from self._in.space_ahead(ahead)
        if (yield from self._in.peek(ahead)) != "[":
            return False
        ahead = yield from self._in.space_ahead(ahead + 1)
        return (yield from self._in.peek(ahead)) == "{"

    def call(self) -> Reading[None]:
        """Read one call, from the end of ``call_start`` to the end of ``call_end``."""
        how = self.syntax.call
        order = how.order if isinstance(how, JsonCall) else ()
        one = OneCall(self._calls, waits_for_id="id" in order and order.index("id") > order.index("arguments"))
        marked = self.syntax.has_marker and not isinstance(how, BlockCall)
        named = isinstance(how, NamedCall)
        if isinstance(how, KeyedCall):
            yield from self._objects.keyed(one)
        elif named != (marked and (yield from (self._json_instead if named else self._name_instead)())):
            if (yield from self._name(one, self.syntax.named)):
                yield from self.arguments(one)
        else:
            yield from self._objects.fields(one, how if isinstance(how, JsonCall) else JsonCall())
        yield from self._close(one)

    def _name_instead(self) -> Reading[bool]:
        """Whether a tool's name and a JSON object stand in place of an object with both."""
        ahead = yield from self._in.space_ahead()
        named = yield from self._in.which(scanner_of(list(self._tools)), ahead)
        if named is None:
            return False
        ahead = yield from self._in.space_ahead(named.end)
        return (yield from self._in.peek(ahead)) == "{"

    def _json_instead(self) -> Reading[bool]:
        """Whether a JSON object stands in place of a name: between the template's own markers, that is a call too."""
        ahead = yield from self._in.space_ahead()
        return (yield from self._in.peek(ahead)) == "{"

    def _close(self, one: OneCall) -> Reading[None]:
        """Read the call's end, as far as the model wrote it: JSON and brackets close themselves."""
        one.end()
        self._open = False
        runs = self.syntax.call_end.split()
        for i in range(len(runs)):  # models leave inner closing tags out
            if (yield from self._in.optional(" ".join(runs[i:]))):
                return
        for tag in tags(self.syntax.call_end)[-1:]:  # and the text before the last one, e.g. a fence
            if (yield from self._in.optional(tag)):
                return
        self._open = bool(runs)

    def _another(self) -> Reading[bool]:
        """Whether another call follows; consume the text between."""
        syntax = self.syntax
        ahead = yield from self._in.space_ahead()
        between = syntax.separator.strip()
        if self._listed:
            if (char := (yield from self._in.peek(ahead))) in (",", "]"):
                self._in.take(ahead + 1, "marker")
            if char == "," or syntax.array:
                return char == ","
            self._listed = False
            yield from self._in.optional(syntax.call_end)
            ahead = yield from self._in.space_ahead()
        opens = self._first(syntax.call_start)
        closes = self._first(syntax.section_end)
        choices = [*closes, *self._first(between), *opens, *self.openings]
        found = yield from self._in.which(scanner_of(choices), ahead)
        if found is None and (yield from self._in.peek(ahead)) in _BETWEEN:
            after = yield from self._in.space_ahead(ahead + 1)
            if (yield from self._in.which(scanner_of([*opens, *self.openings]), after)) is not None:
                self._in.take(ahead + 1, "marker")
                return (yield from self._another())
        if found is None and self._open and isinstance(syntax.call, JsonCall) and (yield from self._in.peek(ahead)) == "{":
            return True  # several objects between one pair of markers
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
        due = self.openings.get(str(found.value), marks(syntax.call_start))
        yield from self._in.space()
        yield from self._tags(due)
        if (yield from self._in.ahead(due[:1])):  # written twice
            yield from self._in.space()
            yield from self._tags(due)
        ahead = yield from self._in.space_ahead()
        return bool((yield from self._in.peek(ahead))) or not self._in.complete

    def _unannounced(self, ahead: int) -> Reading[bool]:
        """Whether a call without its own marker follows, at once or after a sign that models put between."""
        syntax = self.syntax
        size = 0 if syntax.has_marker else (yield from self._in.control_tag(ahead))
        if size or (yield from self._in.peek(ahead)) in _BETWEEN:
            after = yield from self._in.space_ahead(ahead + (size or 1))
            if not (yield from self.begins(after)):
                return False
            self._in.take(after, "marker")
            return True
        closed = bool(self._first(syntax.section_end)) and not syntax.separator.strip()
        return (yield from self.begins(ahead)) or (closed and bool((yield from self._in.peek(ahead))))

    def _tags(self, due: tuple[str, ...]) -> Reading[None]:
        """Consume tags with any layout between them; the bracket of a list and tags before JSON may be left out."""
        in_json = isinstance(self.syntax.call, JsonCall)
        for i, tag in enumerate(due):
            if i:
                yield from self._in.space()
            if tag == "[" and self.syntax.array:
                self._listed = yield from self._in.optional(tag)
            elif i and not in_json and (yield from self._in.peek()) == "{" and not tag.startswith("{"):
                return
            else:
                yield from self._in.exactly(tag)

    def _name(self, one: OneCall, how: NamedCall) -> Reading[bool]:
        """Read the name with its id; whether arguments follow: none do after ``<f/>`` or before the call's end."""
        yield from self._in.space()
        if how.id_place in ("before", "carries"):
            one.id = yield from self._in.name()
        if how.id_place == "before":
            yield from self._in.expect(how.id_end)
        one.name = self._name_in(one.id, how.id_form) if how.id_place == "carries" else (yield from self._plain_name(how))
        behind = how.name_end
        if behind and one.name.endswith(behind):  # a name may contain its end: "f.call("
            one.name, behind = one.name.removesuffix(behind), ""
        self._objects.check_name(one.name)
        if how.index_start:
            yield from self._in.expect(how.index_start.strip())
            yield from self._in.name()
        if how.name_again:
            yield from self._in.expect(how.name_again)
            yield from self._in.name()
        due = yield from self._behind_name(one, how, behind)
        one.start()
        return due

    def _behind_name(self, one: OneCall, how: NamedCall, behind: str) -> Reading[bool]:
        """Read the text between name and arguments; whether arguments follow. Models leave it out before JSON."""
        syntax, arguments = self.syntax, self.syntax.arguments
        if behind.strip() and not isinstance(how, BlockCall) and not (yield from self._in.ahead(marks(behind))):
            if not arguments.closes and (yield from self._closed_in_itself(behind.strip())):
                return False
            if how.id_place == "after" and (yield from self._in.ahead(marks(how.id_end))):
                yield from self._in.expect(how.id_end)
                return True
            if arguments.closes and not arguments.opening and (yield from self._json_instead()):
                return True
            if syntax.call_end.strip() and (yield from self._in.ahead(marks(syntax.call_end)[:1])):
                return False
        yield from self._in.expect(behind)
        if one.name not in self._tools and one.name.removesuffix("/") in self._tools:  # <f/>: names may contain "/"
            one.name = one.name[:-1]
            return False
        if how.id_place == "after":
            one.id = yield from self._in.name()
            yield from self._in.expect(how.id_end)
        return True

    def _closed_in_itself(self, tag: str) -> Reading[bool]:
        """Whether the tag of the name closes itself, e.g. ``<invoke name="f"/>``, a call without arguments."""
        if tag[-1].isalnum():
            return False
        found = yield from self._in.which(scanner_of([f"{tag[:-1]}{blank}/{tag[-1]}" for blank in ("", " ")]))
        if found is not None:
            self._in.take(found.end, "marker")
        return found is not None

    def _plain_name(self, how: NamedCall) -> Reading[str]:
        """A tool's name as the template writes it, however odd, or any text that looks like a name."""
        odd = {escape(name, how.escapes): name for name in self._tools if not NAME.fullmatch(name)}
        found = (yield from self._in.which(scanner_of(list(odd)))) if odd else None
        return odd[self._in.take(found.end, "call")] if found else (yield from self._in.name())

    def _name_in(self, call_id: str, id_form: str) -> str:
        """The tool's name in an id, e.g. ``functions.get_time:0``."""
        form = re.escape(id_form).replace(r"\{name\}", "(?P<name>.+)").replace(r"\{index\}", r"\d+")
        match = re.fullmatch(form, call_id)
        inside = [n for n in self._tools if re.search(rf"(?<!\w){re.escape(n)}(?!\w)", call_id)]
        if match and (match["name"] in self._tools or not inside):
            return match["name"]
        if inside:
            return max(inside, key=len)
        raise Malformed(f"the id {call_id!r} does not name a tool")

    def arguments(self, one: OneCall) -> Reading[None]:
        """Read the arguments of a call whose name is known; models may write a JSON object in place of tags."""
        syntax, how = self.syntax, self.syntax.arguments
        closers = (syntax.call_end, *marks(syntax.call_end), syntax.section_end, *self.openings)
        around = Around(self._tools.get(one.name), syntax.call_end, closers)
        braced = any(tag.strip().startswith("{") for tag in how.tags[:1])
        if not how.closes and not braced and (yield from self._json_instead()):
            how = JsonArguments()
        yield from how.read(self._in, around, one.emit)
        if not syntax.arguments.closes:
            yield from self._closed()

    def _closed(self) -> Reading[None]:
        """After tagged arguments, expect the call's end, a call's start or the end of the text."""
        ends = marks(self.syntax.call_end)
        ahead = yield from self._in.layout_ahead()
        closers = [*ends, *self._first(self.syntax.section_end), *self.openings]
        found = yield from self._in.which(scanner_of(closers), ahead)
        if found is not None:
            self._in.take(ahead, "marker")
            ahead = 0
        if found is None and (yield from self._in.peek(ahead)):
            raise Malformed("expected an argument or the end of the call")
        if found is None and ends and not self._in.complete:
            raise Truncated("the text ends before the call does")
        if found is not None and found.value in ends[1:]:
            self._in.take(found.end, "marker")
