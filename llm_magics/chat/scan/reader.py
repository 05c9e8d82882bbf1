"""Text that arrives in pieces, read by generators: the parser's only view of its input.

A reading function is a generator that yields whenever it needs more text and returns what it read; ``yield from`` composes
readings into a recursive-descent parser that can wait at any character. Consumed text is recorded as *segments*, so that
nothing is lost, and can be given back to a *checkpoint*: the text of a failed attempt becomes plain text again.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Generator, Sequence
from typing import Literal, TypeAlias, TypeVar

from llm_magics.chat.syntax.tags import closer_of, is_tag, marks

from .scanner import Found, Scanner

T = TypeVar("T")
Reading: TypeAlias = Generator[None, None, T]
Kind: TypeAlias = Literal["text", "reasoning", "marker", "call", "dropped"]
Segment: TypeAlias = tuple[Kind, str]

_SPACE = re.compile(r"\s*")
_LAYOUT = re.compile(r"(?:\s|\\[nrt])*")
NAME = re.compile(r"[\w.:/@+-]*")
_PLAIN = re.compile(r'[^"{}\[\]]*')
_IN_STRING = re.compile(r'[^"\\\x00-\x1f]*')
_SCALAR = re.compile(r"[^\s,\]}]*")
_CLOSERS = {"{": "}", "[": "]"}
_MAX_NAME = 512
_MAX_SCALAR = 10_000  # characters of a number or a constant
_MAX_DEPTH = 200
_LONG_TAG = 40


class Malformed(Exception):
    """The text is not what the reading expects. The message says why, for the notes."""


class Truncated(Malformed):
    """The text ends before the reading does."""


class Reader:
    """The input that is not consumed yet, and the record of consumed text."""

    def __init__(self) -> None:
        self.text = ""
        self.at = 0
        self.closed = False  # True: no more text will come
        self.complete = False  # True: the model also ended by itself, and was not cut off
        self.segments: list[Segment] = []
        self._sealed = 0

    def feed(self, text: str) -> None:
        """Append text, and drop consumed text."""
        self.text = self.text[self.at :] + text
        self.at = 0

    @property
    def rest(self) -> int:
        """The number of characters that are not consumed."""
        return len(self.text) - self.at

    def take(self, n: int, kind: Kind) -> str:
        """Consume ``n`` characters as a segment."""
        text = self.text[self.at : self.at + n]
        self.at += len(text)
        if text:
            grows = len(self.segments) > self._sealed and self.segments[-1][0] == kind
            if grows and len(self.segments[-1][1]) < 256:
                self.segments[-1] = (kind, self.segments[-1][1] + text)
            else:
                self.segments.append((kind, text))
        return text

    def checkpoint(self) -> int:
        """Mark a place to return to. No segment grows across it."""
        self._sealed = len(self.segments)
        return self._sealed

    def consumed(self, checkpoint: int) -> str:
        """The text consumed since a checkpoint."""
        return "".join(text for _, text in self.segments[checkpoint:])

    def give_back(self, checkpoint: int) -> None:
        """Unread everything since a checkpoint."""
        raw = self.consumed(checkpoint)
        del self.segments[checkpoint:]
        self._sealed = checkpoint
        if len(raw) <= self.at:  # all of it is still here
            self.at -= len(raw)
        else:
            self.text, self.at = raw + self.text[self.at :], 0

    def more(self) -> Reading[bool]:
        """Wait for more text; False if none will come."""
        before = self.rest
        while self.rest == before and not self.closed:
            yield
        return self.rest > before

    def peek(self, offset: int = 0) -> Reading[str]:
        """The character at ``offset``, or "" at the end of all text."""
        while self.rest <= offset:
            if self.closed:
                return ""
            yield
        return self.text[self.at + offset]

    def run(self, pattern: re.Pattern[str], size: int = 0, most: float = math.inf, what: str = "") -> Reading[int]:
        """Where the match of ``pattern`` that begins ``size`` characters ahead ends; nothing is consumed.

        Raises Malformed if the end is more than ``most`` ahead. Looks at each character once, however the text arrives.
        """
        while True:
            match = pattern.match(self.text, self.at + size)
            size = (match.end() if match else self.at + size) - self.at
            if size > most:
                raise Malformed(f"{what} is too long")
            if size < self.rest or self.closed:
                return size
            yield

    def space(self, kind: Kind = "marker") -> Reading[str]:
        """Consume white space and return it."""
        return self.take((yield from self.run(_SPACE)), kind)

    def space_ahead(self, size: int = 0) -> Reading[int]:
        """Where the white space that begins ``size`` characters ahead ends; nothing is consumed."""
        return (yield from self.run(_SPACE, size))

    def layout_ahead(self, size: int = 0) -> Reading[int]:
        """Where white space and its escapes end: some models write ``\\n`` instead of a line break."""
        size = yield from self.run(_LAYOUT, size)
        while self.text[self.at + size :] == "\\" and not self.closed:
            yield
            size = yield from self.run(_LAYOUT, size)
        return size

    def which(self, scanner: Scanner[T], offset: int = 0) -> Reading[Found[T] | None]:
        """The marker that begins exactly ``offset`` characters ahead, if any, once that is decided; nothing is consumed.

        Its positions count from the first character that is not consumed.
        """
        while True:
            found = scanner.at(self.text, self.at + offset, final=self.closed) if self.rest > offset else None
            if found is not None and found.value is not None:
                return Found(found.start - self.at, found.end - self.at, found.value)
            if (found is None and self.rest > offset) or self.closed:
                return None
            yield

    def until(self, scanner: Scanner[T], kind: Kind, emit: Callable[[str], None]) -> Reading[Found[T] | None]:
        """Consume and emit text up to the next marker, each piece as soon as it is certain; None at the end of all text.

        The marker is not consumed; its positions count from its first character.
        """
        while True:
            found = scanner.find(self.text, self.at, final=self.closed)
            piece = self.take((found.start if found else len(self.text)) - self.at, kind)
            if piece:
                emit(piece)
            if found is not None and found.value is not None:
                return Found(0, found.end - found.start, found.value)
            if self.closed:
                return None
            yield

    def expect(self, marker: str, kind: Kind = "marker") -> Reading[None]:
        """Consume a marker whose layout may differ. Raises Malformed for other text."""
        for tag in marks(marker):
            yield from self.space(kind)
            yield from self.exactly(tag, kind)
        if marker[-1:].isspace():
            yield from self.space(kind)

    def exactly(self, text: str, kind: Kind = "marker") -> Reading[None]:
        """Consume exactly this text. Raises Malformed as soon as it is certain that the text differs."""
        while self.rest < len(text) and text.startswith(self.text[self.at :]) and not self.closed:
            yield
        if not self.text.startswith(text, self.at):
            inside = self.closed and text.startswith(self.text[self.at :])
            raise (Truncated if inside else Malformed)(f"expected {text!r}")
        self.take(len(text), kind)

    def optional(self, marker: str, kind: Kind = "marker") -> Reading[bool]:
        """Consume the whole runs of a marker that are there; False if the first run is not."""
        for i, run in enumerate(marker.split()):
            end = yield from self.ahead(marks(run))
            if not end:
                return i > 0
            self.take(end, kind)
        return True

    def ahead(self, pieces: Sequence[str], offset: int = 0) -> Reading[int]:
        """Where these pieces end, if they come next with any layout before each; 0 if they do not."""
        for piece in pieces:
            offset = yield from self.space_ahead(offset)
            found = yield from self.which(Scanner({piece: True}), offset)
            if found is None:
                return 0
            offset = found.end
        return offset

    def name(self) -> Reading[str]:
        """Consume a tool's name or an id. Raises Malformed if there is none."""
        size = yield from self.run(NAME, 0, _MAX_NAME, "a name")
        if not size:
            raise (Truncated if not self.rest else Malformed)("expected a name")
        if not self.rest > size:
            raise Truncated("the text ends in a name")
        return self.take(size, "call")

    def control_tag(self, ahead: int) -> Reading[int]:
        """The length of a tag that looks like a control token, e.g. ``<|python_tag|>``: models write one beside calls."""
        first = yield from self.peek(ahead)
        close, size = closer_of(first) if first else "", 1
        if not close or (yield from self.peek(ahead + 1)).isalnum():
            return 0
        while (char := (yield from self.peek(ahead + size))) and not char.isspace() and size < _LONG_TAG:
            size += 1
            if char == close:
                tag = self.text[self.at + ahead : self.at + ahead + size]
                return size if is_tag(tag) and any(c.isalnum() for c in tag) else 0
        return 0

    def newline(self) -> Reading[None]:
        """Consume a line break, if there is one."""
        if (yield from self.peek()) == "\n":
            self.take(1, "call")

    def json_value(self, emit: Callable[[str], None]) -> Reading[str]:
        """Consume one JSON value; emit it piece by piece and return it whole. Control characters in its strings get escaped."""
        pieces: list[str] = []

        def say(piece: str) -> None:
            if piece:
                pieces.append(piece)
                emit(piece)

        yield from self.space("call")
        first = yield from self.peek()
        if first == '"':
            yield from self._string(say)
        elif first in _CLOSERS:
            yield from self._container(say)
        else:
            yield from self._scalar(say)
        return "".join(pieces)

    def json_string(self) -> Reading[str]:
        """Consume a JSON string and return its value."""
        pieces: list[str] = []
        yield from self.space("call")
        first = yield from self.peek()
        if first != '"':
            raise (Malformed if first else Truncated)("expected a JSON string")
        yield from self._string(pieces.append)
        return str(decoded("".join(pieces)))

    def _container(self, say: Callable[[str], None]) -> Reading[None]:
        stack: list[str] = []
        while True:
            char = yield from self._past(_PLAIN, say, "inside JSON")
            if char == '"':
                yield from self._string(say)
                continue
            if char in _CLOSERS:
                stack.append(_CLOSERS[char])
                if len(stack) > _MAX_DEPTH:
                    raise Malformed("JSON nests too deeply")
            elif char in "}]" and (not stack or stack.pop() != char):
                raise Malformed("a bracket in JSON closes nothing")
            if char in "{}[]":
                say(self.take(1, "call"))
            if not stack:
                return

    def _string(self, say: Callable[[str], None]) -> Reading[None]:
        say(self.take(1, "call"))
        while (char := (yield from self._past(_IN_STRING, say, "inside a JSON string"))) != '"':
            if char < " ":
                say(json.dumps(self.take(1, "call"))[1:-1])
            elif (yield from self.peek(1)):
                say(self.take(2, "call"))  # a backslash, and the character that it escapes
            else:
                raise Truncated("the text ends inside a JSON string")
        say(self.take(1, "call"))

    def _past(self, pattern: re.Pattern[str], say: Callable[[str], None], where: str) -> Reading[str]:
        """Emit the text that matches, and return the character behind it. Raises Truncated if there is none."""
        while match := pattern.match(self.text, self.at):
            say(self.take(match.end() - self.at, "call"))
            char = yield from self.peek()  # waits: more text may match
            if not char:
                raise Truncated(f"the text ends {where}")
            if not pattern.fullmatch(char):
                return char
        return ""

    def _scalar(self, say: Callable[[str], None]) -> Reading[None]:
        text = self.take((yield from self.run(_SCALAR, 0, _MAX_SCALAR, "a number")), "call")
        if not text and not self.rest:
            raise Truncated("the text ends before a JSON value")
        decoded(text)
        say(text)


def decoded(text: str) -> object:
    """The value of JSON text. Raises Malformed."""
    try:
        return json.loads(text, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise Malformed(f"not valid JSON: {error}") from None


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not a JSON value")


def scanner_of(markers: Sequence[str]) -> Scanner[str]:
    """A scanner whose markers are their own values."""
    return Scanner({m: m for m in markers if m})
