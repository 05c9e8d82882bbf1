"""Arguments as literals, with the quotes of Python, of JSON or of the template: ``(a=1, b='x')`` or ``{a:<|"|>x<|"|>}``."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, replace
from typing import Any, Literal

from llm_magics.chat.grammar.text import GrammarWriter, quoted
from llm_magics.chat.grammar.values import PYTHON_CONSTANTS, Notation, ValueWriter, other_name
from llm_magics.chat.scan.reader import Malformed, Reader, Reading, Truncated, decoded, scanner_of
from llm_magics.chat.syntax.compare import common_prefix
from llm_magics.chat.syntax.origin import concat
from llm_magics.chat.syntax.tags import tags
from llm_magics.schema.nodes import Normalised, is_never, properties_of

from .encoding import FIRST, MAX_KEY, Around, Emit, Encoding, Gaps, Sample, dumps, escaped, members_of, outside, text_until
from .typed import json_of

_PAIRS = {"(": ")", "{": "}", "[": "]"}
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f", "a": "\a", "v": "\v", "0": "\0", "\n": ""}
_HEX = {"x": 2, "u": 4, "U": 8}
_CONSTANTS = {"true": "true", "false": "false", "null": "null", "none": "null"}
_BARE = re.compile(r"[\w.+-]*")


@dataclass(frozen=True, slots=True)
class LiteralArguments(Encoding):
    """Arguments as ``open key assign VALUE (separator key assign VALUE)* close``.

    Strings stand between ``quote_start`` and ``quote_end``. ``escapes``: backslashes escape inside them, as in JSON and Python.
    ``bare_keys``: the keys of nested objects are unquoted too. ``quotes_all``: values of every type are in quotes, and the
    schema decides their type. ``constants``: true/false/null or True/False/None; a reader takes both.
    """

    label = "string"

    open: str = "("  # e.g. "(" or "{"
    close: str = ")"  # e.g. ")" or "}"
    assign: str = "="  # e.g. "=" or ":"
    separator: str = ", "
    quote_start: str = "'"  # e.g. '"', or '<|"|>'
    quote_end: str = "'"
    escapes: bool = True
    bare_keys: bool = False
    quotes_all: bool = False
    constants: Literal["json", "python"] = "python"

    @property
    def kind(self) -> str:
        return "pythonic" if self.escapes else "literal"

    @property
    def opening(self) -> str:
        return self.open

    @property
    def markers(self) -> tuple[str, ...]:
        return self.quote_start, self.quote_end

    @classmethod
    def find(cls, sample: Sample) -> tuple[LiteralArguments, int, int] | None:
        gaps = sample.gaps()
        if gaps is None:
            return None
        found = _in_quotes(gaps, gaps.numbers, sample) if gaps.quoted and gaps.numbers else _alike(gaps)
        if found is None:
            return None
        how, used = found
        return how, sample.at + gaps.to_key.rfind(how.open), len(sample.text) - len(gaps.rest) + used

    def write(self, arguments: str) -> list[str]:
        return [self._object(members_of(arguments), self.open, self.close, top=True)]

    def _object(self, members: dict[str, Any], start: str, end: str, *, top: bool = False) -> str:
        pieces: list[str] = [start]
        for key, value in members.items():
            written = outside(key) if top or self.bare_keys else self._value(key)
            pieces += [self.separator if len(pieces) > 1 else "", written, self.assign if top or self.bare_keys else ": "]
            alike = top and self.quotes_all and not self.escapes and not isinstance(value, str)
            pieces += [self.quote_start, dumps(value), self.quote_end] if alike else [self._value(value)]
        return concat([*pieces, end])

    def _value(self, value: Any) -> str:
        if isinstance(value, dict):
            return self._object(value, "{", "}")
        if isinstance(value, list):
            return concat(["[", *[piece for v in value for piece in (self.separator, self._value(v))][1:], "]"])
        if isinstance(value, str):
            text = escaped(value) if self.escapes else value
            if self.escapes and self.quote_end == "'":
                text = text.replace('\\"', '"').replace("'", "\\'")
            return concat([self.quote_start, outside(text), self.quote_end])
        return dumps(value, self.constants)

    def read(self, reader: Reader, around: Around, emit: Emit) -> Reading[None]:
        return LiteralReader(reader, self, around.parameters).read(emit)

    def constrain(self, writer: GrammarWriter, schema: Normalised, end: str) -> str:
        values, node = ValueWriter(writer, schema, self._notation()), schema.object()
        assign = writer.assign(self.assign.strip() or self.assign)
        members = {key: f"{quoted(key)} {assign} {values.value(sub)} {writer.gap}" for key, sub in properties_of(node).items()}
        rest, extra = node.get("additionalProperties", {}), ""
        if not is_never(rest):
            extra = writer.rule(f"{other_name(writer, members)} {assign} {values.value(rest)} {writer.gap}")
        comma = f"{quoted(self.separator.strip())} {writer.gap}"
        body = values.members(members, extra, writer.marker(self.close), comma, node)
        return f"{writer.marker(self.open)} {writer.gap} {body} {end}"

    def _notation(self) -> Notation:
        """How values are written. A model may use either plain quote if the template uses one of them."""
        assign, escape = self.assign if self.bare_keys else ":", 1 if self.escapes else 0
        more: dict[str, Any] = {"bare_keys": self.bare_keys, "assign": assign.strip() or assign, "escape": escape}
        more["separator"] = self.separator.strip()
        if self.quote_start not in ("'", '"') or self.quote_start != self.quote_end:
            return Notation(PYTHON_CONSTANTS, ((self.quote_start, self.quote_end),), (), "", **more)
        both = [(('"', '"'), "DOUBLE"), (("'", "'"), "SINGLE")]
        quotes, names = zip(*sorted(both, key=lambda pair: pair[0][0] != self.quote_start), strict=True)
        names = names if self.escapes else tuple(f"{name}_RAW" for name in names)
        return Notation(PYTHON_CONSTANTS, quotes, names, names[0], **more)


def _in_quotes(gaps: Gaps, numbers: tuple[str, str], sample: Sample) -> tuple[LiteralArguments, int] | None:
    """Literals whose strings alone have quotes, e.g. ``(qkeya='qvala', qkeyb='qvalb')``, and their share of the rest."""
    to_next = gaps.to_next
    if not numbers[1].strip():  # a template's mistake: nothing separates its arguments
        numbers, to_next = (numbers[0], ", "), to_next.rstrip() + ", "
    start, end = gaps.to_value[len(numbers[0]) :], to_next[: len(to_next) - len(numbers[1])]
    opened = gaps.to_key.strip()[-1:]
    close = (_PAIRS | {"<": ">"}).get(opened, "")
    if not close or not gaps.rest.startswith(end + close):
        return None
    samples = sample.calls((FIRST, {"qkeya": True, "qkeyb": {"qsub": "qitem"}}))
    how = LiteralArguments(opened, close, *numbers, start, end, escapes=start in ("'", '"'))
    bare_keys = not re.search(r"""["']qsub["']""", samples)
    python = re.search(re.escape(numbers[0]) + "True", samples)
    return replace(how, bare_keys=bare_keys, constants="python" if python else "json"), len(end + close)


def _alike(gaps: Gaps) -> tuple[LiteralArguments, int] | None:
    """Literals whose strings and numbers are written alike: all in quotes (``a:<q>x<q>``), or none (``a=x``).

    If everything is in quotes, the schema decides the type. Without any, a value's end would be unclear, so the quotes of JSON
    and Python are expected.
    """
    to_value, to_next = gaps.to_value, gaps.to_next
    opened, quote = gaps.to_key.strip()[-1:], common_prefix(to_next, gaps.rest)
    close = _PAIRS.get(opened, "")
    if not close or not gaps.rest.startswith(quote + close) or not to_value.strip():
        return None
    start = next((t for t in reversed([*tags(to_value), quote]) if t and to_value.endswith(t)), "") if quote else ""
    if quote and not start:
        return None
    assign, separator = to_value.removesuffix(start), to_next[len(quote) :] if to_next[len(quote) :].strip() else ", "
    escapes = quote in ("", "'", '"')
    how = LiteralArguments(opened, close, assign, separator, start or "'", quote or "'", escapes, quotes_all=bool(quote))
    return how, len(quote + close)


class LiteralReader:
    """Reads ``(a=1, b='x')`` or ``{a:1,b:<|"|>x<|"|>}``; takes both plain quotes and both spellings of constants."""

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
        syntax = self._syntax
        yield from self._in.space("call")
        yield from self._in.exactly(syntax.open, "call")
        yield from self._members(syntax.close, syntax.assign.strip(), emit)

    def _members(self, close: str, assign: str, emit: Emit, depth: int = 0) -> Reading[None]:
        started = False
        while (yield from self._another(close, started)):
            key = yield from self._key()
            yield from self._in.space("call")
            yield from self._in.exactly(assign, "call")
            emit((", " if started else "{") + quoted(key) + ": ")
            started = True
            types = frozenset() if depth else self._schema.types(self._schema.member(self._schema.root, key))
            if not (types and self._syntax.quotes_all and (yield from self._typed(types, emit))):
                yield from self._value(emit, depth + 1, close if types == {"string"} else "")
        emit("}" if started else "{}")

    def _another(self, close: str, started: bool) -> Reading[bool]:
        """Continue to the next member or element; False after the closing bracket. A comma may come before that one."""
        yield from self._in.space("call")
        if started and (yield from self._in.peek()) != close:
            yield from self._in.exactly(self._separator, "call")
            yield from self._in.space("call")
        if (yield from self._in.peek()) != close:
            return True
        self._in.take(len(close), "call")
        return False

    def _key(self) -> Reading[str]:
        opened = yield from self._in.which(self._opens)
        if opened is None:
            return (yield from self._in.name()) if self._syntax.assign != ":" else (yield from self._word())
        return (yield from self._spelled(str(opened.value)))

    def _spelled(self, quote: str) -> Reading[str]:
        pieces: list[str] = []
        yield from self._string(quote, pieces.append)
        return str(decoded("".join(pieces)))

    def _word(self) -> Reading[str]:
        """A bare key before a colon; elsewhere a name may contain colons."""
        key = _unquoted((yield from text_until(self._in, [":", ",", "}", "{"], "an argument's name")).strip())
        if not key or len(key) > MAX_KEY:
            raise Malformed("expected an argument's name")
        return key

    def _value(self, emit: Emit, depth: int, unquoted_to: str = "") -> Reading[None]:
        """Read a value; if only a string is admitted, ``unquoted_to`` ends one that the model did not quote."""
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
            text = yield from text_until(self._in, [self._separator, unquoted_to], "a value")
            emit(quoted(_unquoted(text.strip())))
        else:
            yield from self._bare(emit)

    def _typed(self, types: frozenset[str], emit: Emit) -> Reading[bool]:
        """Read a value of any type in quotes: the schema decides its type. False if no quote comes."""
        opened = yield from self._in.which(self._opens)
        if opened is None:
            return False
        emit(json_of((yield from self._spelled(str(opened.value))), types))
        return True

    def _elements(self, close: str, emit: Emit, depth: int) -> Reading[None]:
        emit("[")
        started = False
        while (yield from self._another(close, started)):
            emit(", " if started else "")
            started = True
            yield from self._value(emit, depth + 1)
        emit("]")

    def _string(self, quote: str, emit: Emit) -> Reading[None]:
        emit('"')
        self._in.take(len(quote), "call")
        end = self._quotes[quote]
        stops = scanner_of([end, "\\"] if self._syntax.escapes else [end])
        while True:
            found = yield from self._in.until(stops, "call", lambda piece: emit(escaped(piece)))
            if found is None:
                raise Truncated("the text ends inside a string")
            if found.value != end:
                emit((yield from self._escape()))
            elif (yield from self._ends_here(quote, found.end)):
                self._in.take(found.end, "call")
                emit('"')
                return
            else:
                emit(escaped(self._in.take(found.end, "call")))

    def _ends_here(self, quote: str, size: int) -> Reading[bool]:
        """Whether a quote ends its string: an apostrophe in a word, which templates do not escape, does not end it."""
        if len(quote) > 1:
            return True
        ahead = size
        while (char := (yield from self._in.peek(ahead))).isspace():
            ahead += 1
        return not char or char in ",:)]}" or char == self._separator[0]

    def _escape(self) -> Reading[str]:
        kind = yield from self._in.peek(1)
        size = _HEX.get(kind, 0)
        if not (yield from self._in.peek(1 + size)):
            raise Truncated("the text ends inside a string")
        text = self._in.take(2 + size, "call")
        if not size:
            return escaped(_ESCAPES.get(kind, kind if kind in "\\'\"/" else text))
        try:
            code = int(text[2:], 16)
            return text if kind == "u" else escaped(chr(code))  # half of a surrogate pair must stay an escape
        except (ValueError, OverflowError):
            raise Malformed(f"{text} is not a character") from None

    def _bare(self, emit: Emit) -> Reading[None]:
        size = yield from self._in.run(_BARE)
        if size == self._in.rest:
            raise Truncated("the text ends in a value")
        text = self._in.take(size, "call")
        emit(_CONSTANTS.get(text.lower()) or _number(text))


def _unquoted(text: str) -> str:
    """A string without JSON's quotes, which models write in place of a template's own."""
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
            raise Malformed(f"{text!r} is not a value") from None
