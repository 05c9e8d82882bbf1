"""Read a call's arguments from tags. Strings stream; other values come out whole, because only their end tells their type."""

from __future__ import annotations

import json
from typing import Any

from llm_magics.chat.encodings.encoding import MAX_KEY, Around, Emit, escaped, text_until
from llm_magics.chat.encodings.typed import json_of
from llm_magics.chat.grammar.text import quoted
from llm_magics.chat.scan.reader import Malformed, Reader, Reading, Truncated, decoded, scanner_of
from llm_magics.chat.syntax.syntax import escape, unescape
from llm_magics.chat.syntax.tags import marks, told_apart
from llm_magics.schema.nodes import TYPES, Node, properties_of

from .tags import Tags


class TagReader:
    """Reads ``start KEY key_end VALUE end`` until something else comes."""

    def __init__(self, reader: Reader, tags: Tags, around: Around) -> None:
        closers = around.closers or ("",)
        self._in = reader
        self._tags = tags
        self._schema = around.parameters
        self._start = tags.start.strip()
        (self._first,) = told_apart(self._start, closers)[:1]
        follow = [told_apart(c, (self._start,))[0] for c in closers if c.strip()]
        self._follows = scanner_of([self._first, *follow])
        self._separator = tags.separator.strip()
        self._closers = closers
        ends = closers[0].split()
        lined = len(ends) > 1 and closers[0][:1] == "\n"
        self._shut = "\n" + ends[0] if lined else ""  # the first tag of the call's end, on its own line

    def read(self, emit: Emit) -> Reading[None]:
        """Read all arguments and emit the JSON object. Raises Malformed if an argument that is not a list comes twice."""
        seen: list[str] = []
        elements: list[str] = []  # of a list, which may come one element at a time
        while (yield from self._another(bool(seen))):
            key = yield from self._key()
            node = self._schema.member(self._schema.root, key)
            if elements and key == seen[-1]:
                yield from self._value(key, node, elements.append)
                continue
            emit(_list_of(elements))
            elements = []
            if key in seen:
                raise Malformed(f"the argument {key!r} comes twice")
            emit((", " if seen else "{") + quoted(key) + ": ")
            seen.append(key)
            listed = "array" in (types := self._schema.types(node)) and "string" not in types
            yield from self._value(key, node, elements.append if listed else emit)
        emit(_list_of(elements))
        emit("}" if seen else "{}")

    def _another(self, started: bool) -> Reading[bool]:
        if started and self._separator:
            yield from self._in.optional(self._separator)
        ahead = yield from self._in.layout_ahead()
        found = yield from self._in.which(self._follows, ahead)  # the longest marker: "<" may begin "</call>"
        if found is not None:
            self._in.take(ahead, "marker")
        if found is None or found.value != self._first:
            return False
        yield from self._in.expect(self._start)
        return True

    def _key(self) -> Reading[str]:
        """Read the key, the type if the tag names one, and ``key_end``."""
        tags = self._tags
        stops = list(dict.fromkeys((marks(tags.type_start or tags.key_end)[0], marks(tags.key_end)[0])))
        key = yield from text_until(self._in, stops, "an argument's name", MAX_KEY)
        found = yield from self._in.which(scanner_of(stops))
        self._type = ""
        if tags.type_start and found and found.value == stops[0]:  # models leave the type out
            yield from self._in.expect(tags.type_start.strip())
            self._type = (yield from text_until(self._in, stops[-1:], "an argument's type")).strip()
        for i, piece in enumerate(marks(tags.key_end)):
            self._in.take((yield from self._in.layout_ahead()) if i else (yield from self._in.space_ahead()), "marker")
            yield from self._in.exactly(piece)
        if tags.key_end.endswith("\n"):
            yield from self._in.newline()
        elif tags.key_end.endswith(" ") and (yield from self._in.peek()) == " ":
            self._in.take(1, "marker")
        return unescape(key.strip(), tags.escapes)

    def _value(self, key: str, node: Node, emit: Emit) -> Reading[None]:
        types = self._schema.types(node)
        if self._type:
            named = {name: kind for kind, name in reversed(self._tags.type_names)}
            if named.get(self._type) == "string" or self._type == dict(self._tags.type_names).get("string"):
                types = frozenset({"string"})
            elif "string" in types:
                types = types - {"string"} or frozenset(TYPES) - {"string"}
        if types == {"string"} and not self._tags.json_values:
            emit('"')
            yield from self._raw(key, lambda piece: emit(escaped(piece)))
            emit('"')
        elif self._tags.nested and "string" not in types:
            emit(json.dumps((yield from self._nested(key, node, 0)), ensure_ascii=False))
        else:
            pieces: list[str] = []
            yield from self._raw(key, pieces.append)
            emit(_json_string("".join(pieces)) if types == {"string"} else json_of("".join(pieces), types))

    def _end(self, key: str) -> str:
        tags = self._tags
        key = escape(key, tags.escapes)
        return tags.end.strip() + key + tags.end_tail.strip() if tags.end_has_key else tags.end.strip()

    def _raw(self, key: str, emit: Emit) -> Reading[None]:
        """Text up to a closing tag that stands alone, without the template's line break or blank."""
        tags, end = self._tags, self._end(key)
        quoted = bool(tags.raw_start) and (yield from self._in.which(scanner_of([tags.raw_start.strip()]))) is not None
        if quoted:
            yield from self._in.exactly(tags.raw_start.strip())
        ends = [tags.raw_end.strip() + end] if quoted else [end]
        if tags.end[:1] in ("\n", " ") and not quoted:
            ends.append(tags.end[0] + end)
        implied = self._implied(key)
        scanner = scanner_of([*ends, *implied])
        while True:
            found = yield from self._in.until(scanner, "call", emit)
            if found is None:
                raise Truncated("the text ends in an argument")
            if found.value not in implied:
                if (yield from self._stands_alone(found.end)):
                    self._in.take(found.end, "marker")
                    return
            elif found.value != self._shut or (yield from self._ends_call(found.end)):
                return
            emit(self._in.take(1, "call"))

    def _implied(self, key: str) -> list[str]:
        """The ends of a value without a closing tag: at a line's start, another argument's tag or the call's end."""
        if self._tags.start[:1] != "\n" or self._tags.type_start:
            return []
        others = [k for k in properties_of(self._schema.object()) if k != key]
        shut = [self._shut] if self._shut else []
        return [*(f"\n{self._start}{k}{self._tags.key_end.strip()}" for k in others), *shut]

    def _ends_call(self, size: int) -> Reading[bool]:
        """Whether the call's whole end stands ``size`` ahead, and the next call or the end of all text after it."""
        for run in self._closers[0].split()[1:]:
            size = (yield from self._in.ahead(marks(run), size)) or size
        ahead = yield from self._in.space_ahead(size)
        if not (yield from self._in.peek(ahead)):
            return self._in.complete
        return (yield from self._in.which(scanner_of([c.strip() for c in self._closers[1:]]), ahead)) is not None

    def _stands_alone(self, size: int) -> Reading[bool]:
        """Whether a text that may follow a closing tag stands ``size`` ahead."""
        ahead = yield from self._in.layout_ahead(size)
        if not (yield from self._in.peek(ahead)):
            return True
        if self._separator and (yield from self._in.which(scanner_of([self._separator]), ahead)) is not None:
            return True
        return (yield from self._in.which(self._follows, ahead)) is not None

    def _nested(self, key: str, node: Node, depth: int) -> Reading[Any]:
        """Read a value whose objects and arrays are tags again."""
        if depth > 50:
            raise Malformed("arguments nest too deeply")
        end = self._end(key)
        members: list[tuple[str, Any]] = []
        either = scanner_of([self._start, end])
        pieces: list[str] = []
        while True:
            found = yield from self._in.until(either, "call", pieces.append)
            if found is None:
                raise Truncated("the text ends in an argument")
            if found.value == end:
                self._in.take(found.end, "marker")
                break
            yield from self._in.expect(self._start)
            inner = yield from self._key()
            listed = inner == self._tags.item
            of = self._schema.items(node) if listed else self._schema.member(node, inner)
            members.append((inner, (yield from self._member(inner, of, depth + 1))))
        types = self._schema.types(node)
        if not members:
            text = "".join(pieces)
            if not text.strip() and "string" not in types:
                return [] if "array" in types and "object" not in types else {} if "object" in types else None
            return json.loads(json_of(text, types))
        if "array" in types and all(k == self._tags.item for k, _ in members):
            return [v for _, v in members]
        return dict(members)

    def _member(self, key: str, node: Node, depth: int) -> Reading[Any]:
        if self._schema.types(node) != {"string"}:
            return (yield from self._nested(key, node, depth))
        end = self._end(key)
        text = yield from text_until(self._in, [end], "an argument")
        self._in.take(len(end), "marker")
        return text


def _list_of(elements: list[str]) -> str:
    """The JSON text of a value from its elements: the only one, or the list of all."""
    if len(elements) < 2:
        return "".join(elements)
    values = [decoded(text) for text in elements]
    joined = [item for value in values for item in (value if isinstance(value, list) else [value])]
    return json.dumps(joined, ensure_ascii=False)


def _json_string(text: str) -> str:
    """The JSON text of a string that should be in quotes; models leave them out."""
    try:
        return text.strip() if isinstance(decoded(text.strip()), str) else json.dumps(text, ensure_ascii=False)
    except Malformed:
        return json.dumps(text, ensure_ascii=False)
