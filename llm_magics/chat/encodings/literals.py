"""Read arguments that are written as literals: Python's, JSON's, or with quotes of the template's own."""

from __future__ import annotations

import json
import re

from llm_magics.chat.scan.reader import Malformed, Reader, Reading, Truncated, decoded, scanner_of
from llm_magics.chat.syntax.syntax import LiteralArguments
from llm_magics.schema.nodes import Normalised

from .tagged import MAX_KEY, Emit, escaped, quoted
from .typed import json_of

_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f", "a": "\a", "v": "\v", "0": "\0", "\n": ""}
_HEX = {"x": 2, "u": 4, "U": 8}
_CONSTANTS = {"true": "true", "false": "false", "null": "null", "none": "null"}
_BARE = re.compile(r"[\w.+-]*")


class LiteralReader:
    """Reads ``(a=1, b='x')`` or ``{a:1,b:<|"|>x<|"|>}``: keys bare on top, values in Python's, JSON's or the template's own
    spelling. Both quotes and both spellings of constants are taken, whichever the template writes."""

    def __init__(self, reader: Reader, syntax: LiteralArguments, schema: Normalised) -> None:
        self._in = reader
        self._syntax = syntax
        self._schema = schema
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
            emit((", " if started else "{") + quoted(key) + ": ")
            started = True
            types = frozenset() if depth else self._schema.types(self._schema.member(self._schema.root, key))
            if not (types and self._syntax.quotes_all and (yield from self._typed(types, emit))):
                yield from self._value(emit, depth + 1, close if types == {"string"} else "")

    def _key(self) -> Reading[str]:
        opened = yield from self._in.which(self._opens)
        if opened is None:
            return (yield from self._in.name()) if self._syntax.assign != ":" else (yield from self._word())
        pieces: list[str] = []
        yield from self._string(str(opened.value), pieces.append)
        return str(decoded("".join(pieces)))

    def _word(self) -> Reading[str]:
        """A bare key before a colon, which a name may otherwise hold."""
        pieces: list[str] = []
        if (yield from self._in.until(scanner_of([":", ",", "}", "{"]), "call", pieces.append)) is None:
            raise Truncated("the text ends in an argument's name")
        key = _unquoted("".join(pieces).strip())
        if not key or len(key) > MAX_KEY:
            raise Malformed("an argument's name was due")
        return key

    def _value(self, emit: Emit, depth: int, unquoted_to: str = "") -> Reading[None]:
        """Read a value; ``unquoted_to`` is what ends a string that the model forgot to quote, if only a string is admitted."""
        if depth > 50:
            raise Malformed("arguments nest too deeply")
        yield from self._in.space("call")
        opened = yield from self._in.which(self._opens)
        if opened is not None:
            yield from self._string(str(opened.value), emit)
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

    def _typed(self, types: frozenset[str], emit: Emit) -> Reading[bool]:
        """A value in quotes that any type is written in: the schema says which it is. False where no quote stands."""
        quote = yield from self._in.which(self._opens)
        if quote is None:
            return False
        pieces: list[str] = []
        yield from self._string(str(quote.value), pieces.append)
        emit(json_of(str(decoded("".join(pieces))), types))
        return True

    def _unquoted(self, close: str, emit: Emit) -> Reading[None]:
        """A string without its quotes, up to the next separator or the end of the arguments."""
        pieces: list[str] = []
        if (yield from self._in.until(scanner_of([self._separator, close]), "call", pieces.append)) is None:
            raise Truncated("the text ends in a value")
        emit(quoted(_unquoted("".join(pieces).strip())))

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


def _unquoted(text: str) -> str:
    """A string without the quotes of JSON, which models write where a template has quotes of its own."""
    if not (len(text) > 1 and text[0] == text[-1] == '"'):
        return text
    try:
        return str(decoded(text))
    except Malformed:
        return text[1:-1]


def _number(text: str) -> str:
    try:
        decoded(text)
        return text
    except Malformed:
        try:
            return json.dumps(int(text, 0) if text.lstrip("+-")[:2].lower() in ("0x", "0o", "0b") else float(text))
        except ValueError:
            raise Malformed(f"{text!r} is no value") from None
