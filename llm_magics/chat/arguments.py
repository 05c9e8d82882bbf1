"""Read a call's arguments in the encodings that are not JSON, giving out JSON text as it becomes certain.

Both readers are generators over a :class:`Reader <llm_magics.chat.reader.Reader>`; ``emit`` takes pieces of the JSON object
that the arguments spell. Strings stream; other values come out whole, because only their end tells their type.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any

from .reader import Malformed, Reader, Reading, Truncated, decoded, scanner_of
from .syntax import LiteralArguments, TaggedArguments
from .tags import marks, told_apart
from .typed import Typing, json_of

Emit = Callable[[str], None]
_MAX_KEY = 256
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f", "a": "\a", "v": "\v", "0": "\0", "\n": ""}
_HEX = {"x": 2, "u": 4, "U": 8}
_CONSTANTS = {"true": "true", "false": "false", "null": "null", "none": "null"}
_BARE = re.compile(r"[\w.+-]*")


def escaped(text: str) -> str:
    """Text as it stands inside a JSON string."""
    return json.dumps(text, ensure_ascii=False)[1:-1]


# --- tags -------------------------------------------------------------------------------------------------------------------


class TagReader:
    """Reads ``start KEY key_end VALUE end`` until something else comes. ``closers`` are what may follow the last value."""

    def __init__(self, reader: Reader, tags: TaggedArguments, typing: Typing, closers: tuple[str, ...]) -> None:
        self._in = reader
        self._tags = tags
        self._typing = typing
        self._start = tags.start.strip()
        (self._first,) = told_apart(self._start, closers)[:1]
        follow = [told_apart(c, (self._start,))[0] for c in closers if c.strip()]
        self._follows = scanner_of([self._first, *follow])
        self._separator = tags.separator.strip()

    def read(self, emit: Emit) -> Reading[None]:
        """Read all arguments and emit the JSON object."""
        started = False
        while (yield from self._another(started)):
            key = yield from self._key()
            emit((", " if started else "{") + json.dumps(key, ensure_ascii=False) + ": ")
            started = True
            yield from self._value(key, self._typing.property(None, key), emit)
        emit("}" if started else "{}")

    def _another(self, started: bool) -> Reading[bool]:
        if started and self._separator:
            yield from self._in.optional(self._separator)
        ahead = yield from self._in.space_ahead()
        found = yield from self._in.which(self._follows, ahead)  # the longest marker counts: "<" may begin "</call>"
        if found is None or found.value != self._first:
            return False
        yield from self._in.expect(self._start)
        return True

    def _key(self) -> Reading[str]:
        """Read the key, the type if the tag names one, and ``key_end``."""
        tags, pieces = self._tags, list[str]()
        stop = marks(tags.type_start or tags.key_end)[0]

        def collect(piece: str) -> None:
            pieces.append(piece)
            if sum(map(len, pieces)) > _MAX_KEY:
                raise Malformed("an argument's name is too long")

        if (yield from self._in.until(scanner_of([stop]), "call", collect)) is None:
            raise Truncated("the text ends in an argument's name")
        self._type = ""
        if tags.type_start:
            yield from self._in.expect(tags.type_start.strip())
            self._type = (yield from self._quoted_type()).strip()
        yield from self._in.expect(tags.key_end.strip())
        if tags.key_end.endswith("\n"):
            yield from self._in.newline()
        return "".join(pieces).strip()

    def _quoted_type(self) -> Reading[str]:
        pieces: list[str] = []
        stop = marks(self._tags.key_end)[0]
        if (yield from self._in.until(scanner_of([stop]), "call", pieces.append)) is None:
            raise Truncated("the text ends in an argument's type")
        return "".join(pieces)

    def _value(self, key: str, schema: Mapping[str, Any], emit: Emit) -> Reading[None]:
        types = self._typing.types(schema)
        if self._type:
            named = {name: kind for kind, name in reversed(self._tags.type_names)}
            if named.get(self._type) == "string" or self._type == dict(self._tags.type_names).get("string"):
                types = frozenset({"string"})
            elif "string" in types:
                types = types - {"string"} or frozenset({"number", "integer", "boolean", "null", "array", "object"})
        if self._tags.json_values and types == {"string"}:
            quoted: list[str] = []
            yield from self._raw(key, quoted.append)
            emit(_json_string("".join(quoted)))
        elif types == {"string"}:
            emit('"')
            yield from self._raw(key, lambda piece: emit(escaped(piece)))
            emit('"')
        elif self._tags.nested and "string" not in types:
            emit(json.dumps((yield from self._nested(key, schema, 0)), ensure_ascii=False))
        else:
            pieces: list[str] = []
            yield from self._raw(key, pieces.append)
            emit(json_of("".join(pieces), types))

    def _end(self, key: str) -> str:
        tags = self._tags
        return tags.end.strip() + key + tags.end_tail.strip() if tags.end_has_key else tags.end.strip()

    def _raw(self, key: str, emit: Emit) -> Reading[None]:
        """Text up to the closing tag, less the template's one line break; a closing tag that nothing follows is text."""
        tags, end = self._tags, self._end(key)
        quoted = bool(tags.raw_start) and (yield from self._in.which(scanner_of([tags.raw_start.strip()]))) is not None
        if quoted:
            yield from self._in.exactly(tags.raw_start.strip())
        ends = [tags.raw_end.strip() + end] if quoted else [end]
        if tags.end[:1] == "\n" and not quoted:
            ends.append("\n" + end)
        implied = self._implied(key)
        scanner = scanner_of([*ends, *implied])
        while True:
            found = yield from self._in.until(scanner, "call", emit)
            if found is None:
                raise Truncated("the text ends in an argument")
            if found.value in implied:
                return
            if (yield from self._stands_alone(found.end)):
                self._in.take(found.end, "marker")
                return
            emit(self._in.take(1, "call"))

    def _implied(self, key: str) -> list[str]:
        """What ends a value whose closing tag the model left out: at a line's start, the tag of another argument of the tool."""
        if self._tags.start[:1] != "\n" or self._tags.type_start:
            return []
        others = [k for k in self._typing.keys() if k != key]
        return [f"\n{self._start}{k}{self._tags.key_end.strip()}" for k in others]

    def _stands_alone(self, size: int) -> Reading[bool]:
        """Whether what follows a closing tag is what may follow one."""
        ahead = size
        while (char := (yield from self._in.peek(ahead))).isspace():
            ahead += 1
        if not char:
            return True
        if self._separator and (yield from self._in.which(scanner_of([self._separator]), ahead)) is not None:
            return True
        return (yield from self._in.which(self._follows, ahead)) is not None

    def _nested(self, key: str, schema: Mapping[str, Any], depth: int) -> Reading[Any]:
        """A value whose objects and arrays are tags again."""
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
            of = self._typing.items(schema) if listed else self._typing.property(schema, inner)
            members.append((inner, (yield from self._member(inner, of, depth + 1))))
        types = self._typing.types(schema)
        if not members:
            text = "".join(pieces)
            if not text.strip() and not types & {"string"}:
                return [] if "array" in types and "object" not in types else {} if "object" in types else None
            return json.loads(json_of(text, types))
        if "array" in types and all(k == self._tags.item for k, _ in members):
            return [v for _, v in members]
        return dict(members)

    def _member(self, key: str, schema: Mapping[str, Any], depth: int) -> Reading[Any]:
        if self._typing.types(schema) != {"string"}:
            return (yield from self._nested(key, schema, depth))
        pieces: list[str] = []
        end = scanner_of([self._end(key)])
        if (found := (yield from self._in.until(end, "call", pieces.append))) is None:
            raise Truncated("the text ends in an argument")
        self._in.take(found.end, "marker")
        return "".join(pieces)


def _json_string(text: str) -> str:
    """The JSON text of a string that should be quoted, and is not always."""
    try:
        return text.strip() if isinstance(decoded(text.strip()), str) else json.dumps(text, ensure_ascii=False)
    except Malformed:
        return json.dumps(text, ensure_ascii=False)


# --- literals ---------------------------------------------------------------------------------------------------------------


class LiteralReader:
    """Reads ``(a=1, b='x')`` or ``{a:1,b:<|"|>x<|"|>}``: keys bare on top, values in Python's, JSON's or the template's own
    spelling. Both quotes and both spellings of constants are taken, whichever the template writes."""

    def __init__(self, reader: Reader, syntax: LiteralArguments, typing: Typing) -> None:
        self._in = reader
        self._syntax = syntax
        self._typing = typing
        self._quotes = {syntax.quote_start: syntax.quote_end}
        if syntax.escapes:
            self._quotes |= {'"': '"', "'": "'"}
        self._opens = scanner_of(list(self._quotes))
        self._separator = syntax.separator.strip() or ","
        self._inner_assign = syntax.assign.strip() if syntax.bare_keys else ":"

    def read(self, emit: Emit) -> Reading[None]:
        """Read all arguments and emit the JSON object."""
        syntax = self._syntax
        yield from self._in.space("call")
        yield from self._in.exactly(syntax.open, "call")
        yield from self._members(syntax.close, syntax.assign.strip(), emit)

    def _members(self, close: str, assign: str, emit: Emit, depth: int = 0) -> Reading[None]:
        started = False
        while True:
            yield from self._in.space("call")
            if (yield from self._in.peek()) == close:
                self._in.take(len(close), "call")
                emit("}" if started else "{}")
                return
            if started:
                yield from self._in.exactly(self._separator, "call")
                yield from self._in.space("call")
                if (yield from self._in.peek()) == close:  # Python allows a comma at the end
                    continue
            key = yield from self._key()
            yield from self._in.space("call")
            yield from self._in.exactly(assign, "call")
            emit((", " if started else "{") + json.dumps(key, ensure_ascii=False) + ": ")
            started = True
            text = not depth and self._typing.types(self._typing.property(None, key)) == {"string"}
            yield from self._value(emit, depth + 1, close if text else "")

    def _key(self) -> Reading[str]:
        quoted = yield from self._in.which(self._opens)
        if quoted is None:
            return (yield from self._in.name()) if self._syntax.assign != ":" else (yield from self._word())
        pieces: list[str] = []
        yield from self._string(str(quoted.value), pieces.append)
        return str(decoded("".join(pieces)))

    def _word(self) -> Reading[str]:
        """A bare key before a colon, which a name may otherwise hold."""
        pieces: list[str] = []
        if (yield from self._in.until(scanner_of([":", ",", "}", "{"]), "call", pieces.append)) is None:
            raise Truncated("the text ends in an argument's name")
        key = "".join(pieces).strip()
        if not key or len(key) > _MAX_KEY:
            raise Malformed("an argument's name was due")
        return key

    def _value(self, emit: Emit, depth: int, unquoted_to: str = "") -> Reading[None]:
        """Read a value; ``unquoted_to`` is what ends a string that the model forgot to quote, if only a string is admitted."""
        if depth > 50:
            raise Malformed("arguments nest too deeply")
        yield from self._in.space("call")
        quoted = yield from self._in.which(self._opens)
        if quoted is not None:
            yield from self._string(str(quoted.value), emit)
            return
        char = yield from self._in.peek()
        if char == "{":
            self._in.take(1, "call")
            yield from self._members("}", self._inner_assign, emit, depth)
        elif char in ("[", "("):
            self._in.take(1, "call")
            yield from self._elements("]" if char == "[" else ")", emit, depth)
        elif unquoted_to:
            yield from self._unquoted(unquoted_to, emit)
        else:
            yield from self._bare(emit)

    def _unquoted(self, close: str, emit: Emit) -> Reading[None]:
        """A string without its quotes, up to the next separator or the end of the arguments."""
        pieces: list[str] = []
        if (yield from self._in.until(scanner_of([self._separator, close]), "call", pieces.append)) is None:
            raise Truncated("the text ends in a value")
        emit(json.dumps("".join(pieces).strip(), ensure_ascii=False))

    def _elements(self, close: str, emit: Emit, depth: int) -> Reading[None]:
        emit("[")
        started = False
        while True:
            yield from self._in.space("call")
            if (yield from self._in.peek()) == close:
                self._in.take(1, "call")
                emit("]")
                return
            if started:
                yield from self._in.exactly(self._separator, "call")
                yield from self._in.space("call")
                if (yield from self._in.peek()) == close:
                    continue
                emit(", ")
            started = True
            yield from self._value(emit, depth + 1)

    def _string(self, quote: str, emit: Emit) -> Reading[None]:
        emit('"')
        self._in.take(len(quote), "call")
        end = self._quotes[quote]
        stops = scanner_of([end, "\\"] if self._syntax.escapes else [end])
        while True:
            found = yield from self._in.until(stops, "call", lambda piece: emit(escaped(piece)))
            if found is None:
                raise Truncated("the text ends inside a string")
            if found.value == end and (yield from self._ends_here(quote, found.end)):
                self._in.take(found.end, "call")
                emit('"')
                return
            if found.value == end:
                emit(escaped(self._in.take(found.end, "call")))
                continue
            emit((yield from self._escape()))

    def _ends_here(self, quote: str, size: int) -> Reading[bool]:
        """Whether a quote ends its string: an apostrophe in a word, which templates do not escape, does not."""
        if len(quote) > 1:
            return True
        ahead = size
        while (char := (yield from self._in.peek(ahead))).isspace():
            ahead += 1
        return not char or char in ",:)]}" or char == self._separator[0]

    def _escape(self) -> Reading[str]:
        """Read an escape and return it as JSON writes it."""
        kind = yield from self._in.peek(1)
        if not kind:
            raise Truncated("the text ends inside a string")
        size = _HEX.get(kind, 0)
        if size and not (yield from self._in.peek(1 + size)):
            raise Truncated("the text ends inside a string")
        text = self._in.take(2 + size, "call")
        if not size:
            return escaped(_ESCAPES.get(kind, kind if kind in "\\'\"/" else text))
        try:
            code = int(text[2:], 16)
            return text if kind == "u" else escaped(chr(code))  # halves of a surrogate pair stay escapes
        except (ValueError, OverflowError):
            raise Malformed(f"{text} is no character") from None

    def _bare(self, emit: Emit) -> Reading[None]:
        """A number or a constant."""
        size = 0
        while True:
            match = _BARE.match(self._in.text, self._in.at + size)
            size = (match.end() if match else self._in.at + size) - self._in.at
            if size < self._in.rest or self._in.closed:
                break
            yield
        if size == self._in.rest:
            raise Truncated("the text ends in a value")
        text = self._in.take(size, "call")
        constant = _CONSTANTS.get(text.lower())
        emit(constant if constant is not None else _number(text))


def _number(text: str) -> str:
    try:
        decoded(text)
        return text
    except Malformed:
        try:
            return json.dumps(int(text, 0) if text.lstrip("+-")[:2].lower() in ("0x", "0o", "0b") else float(text))
        except ValueError:
            raise Malformed(f"{text!r} is no value") from None
