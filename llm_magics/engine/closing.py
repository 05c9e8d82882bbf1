"""Ending a JSON text in time: it is complete and valid within its limit of tokens, whatever the model would rather write.

Theory of operation. From any point of a text under a grammar there is a short *way out*: close the string, write the members
that are still required with the shortest values there are, close what is open. It is found by walking a copy of the grammar's
state, one byte at a time where there is a choice. What the model writes is then compared with the way out:

- far from the limit, nothing happens: the model writes what it likes;
- after three quarters of the limit, or of a softer one that counts from where the JSON begins, or when the text repeats itself,
  the text is *brought to its end*: a token that opens another item, member or object is replaced by the first token of the way
  out, and a string that goes on and on is closed;
- a token behind which the way out would no longer fit is replaced likewise, so the way out always fits.

An array without a maximum therefore ends, and a text is never cut off in the middle. Only a limit that is smaller than the
shortest valid text is refused, before anything is generated.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from ..errors import SchemaError
from .values import Hurry, JsonText

SOFT_LIMIT = 512
"""The soft limit of a request that names none: the JSON is brought to its end by then, and may need a few tokens more."""

_LONGEST_WAY = 4_096  # tokens
_NEAR = 64  # tokens before the limit from which on every token is checked
_EVERY = 16  # tokens between two checks before that
_LONG_STRING = 24  # tokens that a string may go on for once the text is to end
_REPEATED = 64  # tokens of the same few again and again, e.g. 16 times `"salt", `
_LONGEST_PERIOD = 32
_OUTSIDE = b'}],:"0123456789-ntf[{ '  # what the way out tries outside strings: what ends something first
_INSIDE = b'"0123456789-:.TZ+@/ abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSUVWXY_'
_ESCAPED = b"n0"
_QUOTE = 0x22
_OPENING = frozenset(b",[{")


@dataclass(slots=True)
class Place:
    """Where one stands: ``before`` is the text before the JSON, None once that has begun; ``opened`` its open brackets."""

    before: bytes | None = None
    opened: tuple[int, ...] = ()
    in_string: bool = False
    escaped: bool = False
    key: bool = False  # the next string is a key, or this one is
    fresh: bool = False  # the string has just been opened
    string_tokens: int = field(default=0, compare=False)

    def read(self, data: bytes) -> bytes:
        """Go on over JSON text; return those of its bytes that stand outside strings."""
        outside = bytearray()
        for byte in data:
            if not self.in_string:
                outside.append(byte)
                self._structure(byte)
                continue
            self.fresh = False
            if self.escaped:
                self.escaped = False
            elif byte in b'\\"':
                self.escaped, self.in_string = byte == 0x5C, byte == 0x5C
        return bytes(outside)

    def _structure(self, byte: int) -> None:
        if byte == 0x22:
            self.in_string = self.fresh = True
        elif byte in b"{[":
            self.opened = (*self.opened, byte)
            self.key = byte == 0x7B
        elif byte in b"}]":
            self.opened = self.opened[:-1]
        elif byte == 0x2C:
            self.key = self.opened[-1:] == (0x7B,)
        elif byte == 0x3A:
            self.key = False


class Closer:
    """Watches one JSON text under one grammar. ``matcher`` is the grammar's state, which this may take back.

    ``limit`` is how many tokens the text may have, ``soft`` how many its JSON should have; after three quarters of either it is
    brought to its end.
    ``bytes_as_tokens`` maps a byte to the token that is this byte alone; ``prelude`` are the tokens of ``text.prelude_end``.
    """

    def __init__(
        self,
        matcher: Any,
        piece: Callable[[int], bytes],
        bytes_as_tokens: Mapping[int, int],
        text: JsonText,
        limit: int,
        soft: int,
        prelude: tuple[int, ...] = (),
    ) -> None:
        self._matcher = matcher
        self._piece = piece
        self._tokens = bytes_as_tokens
        self._names = tuple(name.encode() for name in text.required)
        self._opens, self._closes = text.prelude_start.encode(), text.prelude_end.encode()
        self._others = tuple(other.encode() for other in text.others)
        self._prelude = list(prelude)
        self._limit, self._soft = limit, soft
        self._begun_at = 0  # how many tokens were written when the JSON began
        self._place = Place(before=b"" if self._closes or self._others else None)
        self._way: list[int] | None = None  # the way out from here, while it is known
        self._longest = 0
        self._written: list[int] = []
        self._off = False  # the text turned out to be something else than JSON
        self.hurried: Hurry = ""
        """Why the model was kept from going on as it wanted to, "" if it was not."""

    def begin(self) -> None:
        """Find the first way out. Raises SchemaError if the shortest valid text does not fit into the limit."""
        needed = len(self._way_out())
        if needed > self._limit:
            what = f"The shortest JSON that is valid under the schema takes about {needed} tokens; {self._limit} are allowed."
            raise SchemaError(what, "Allow more tokens (max_tokens, or a larger context), or simplify the schema.")

    @property
    def complete(self) -> bool:
        """Whether the text may end here."""
        return not self._off and bool(self._matcher.is_accepting())

    def took(self, token: int) -> None:
        """Note a token that was not the model's choice."""
        self._way = self._way[1:] if self._way and self._way[0] == token else None
        self._note(token)

    def instead(self, token: int) -> int | None:
        """Say which token to write in place of ``token``, which the grammar has just taken; None if it may stand.

        If one is named, the grammar's state is again what it was before ``token``.
        """
        place, way = replace(self._place), self._way
        outside = self._note(token)
        self._way = None
        if self._off:
            return None
        left = self._limit - len(self._written)
        hurrying = self.hurried or self._hurry()
        if not hurrying:
            self._place.string_tokens = 0  # what was written while there was room is nothing to hold against a string
        if not hurrying and left > 3 * self._longest + _NEAR and len(self._written) % _EVERY:
            return None
        if len(self._way_out()) <= left and not (hurrying and self._goes_on(token, outside, way)):
            return None
        self._written.pop()
        self._matcher.rollback(1)
        self._place, self._way, self.hurried = place, way, hurrying or "limit"
        return (self._way_out() or [token])[0]

    # --- deciding -----------------------------------------------------------------------------------------------------------

    def _hurry(self) -> Hurry:
        """Why the text is to be brought to its end from here on, "" if it is not yet."""
        if self._place.before is not None:
            return ""
        if len(self._written) >= self._limit * 3 // 4:
            return "limit"
        if len(self._written) - self._begun_at >= self._soft * 3 // 4:
            return "soft"
        return "repeats" if self._repeats() else ""

    def _goes_on(self, token: int, outside: bytes, before: list[int] | None) -> bool:
        """Whether a token leads away from the end: it opens something that the way out does not, or is one more of a string."""
        if not _OPENING.intersection(outside):
            return self._place.string_tokens > _LONG_STRING
        after = self._way_out()
        if before is None:
            self._matcher.rollback(1)
            before = self._found(replace(self._place))  # the place matters for keys only, and those are open in neither
            self._matcher.consume_token(token)
        return self._size(after) >= self._size(before)

    def _repeats(self) -> bool:
        """Whether the text ends in the same few tokens again and again."""
        written = self._written
        for period in range(1, min(_LONGEST_PERIOD, len(written) // 2) + 1):
            times = -(-_REPEATED // period)
            if written[-1] == written[-1 - period] and written[-period * times :] == written[-period:] * times:
                return True
        return False

    def _size(self, tokens: list[int]) -> int:
        return sum(len(self._piece(token)) for token in tokens)

    def _note(self, token: int) -> bytes:
        """Go on over a token; return its bytes outside strings."""
        self._written.append(token)
        place, data = self._place, self._piece(token)
        if place.before is not None:
            data = self._after_prelude(place.before + data)
        outside = place.read(data)
        place.string_tokens = place.string_tokens + 1 if place.in_string and not outside else 0
        return outside

    def _after_prelude(self, text: bytes) -> bytes:
        """What of a text is JSON: what comes behind the prelude, or all of it if it does not begin as one."""
        place, begun = self._place, text.lstrip()
        if self._closes and self._closes in text:
            rest = text.partition(self._closes)[2]
            self._closes = b""
            return self._after_prelude(rest) if self._others else self._begin(rest)
        may_open = [self._opens] if self._closes and self._opens else []
        if any(begun.startswith(other) for other in self._others):
            self._off = True
        undecided = any(o.startswith(begun) or begun.startswith(o) for o in (*self._others, *may_open))
        if begun and not undecided and (may_open or not self._closes):
            return self._begin(text)
        place.before = text
        return b""

    def _begin(self, text: bytes) -> bytes:
        self._place.before, self._begun_at = None, len(self._written)
        return text

    # --- the way out --------------------------------------------------------------------------------------------------------

    def _way_out(self) -> list[int]:
        """The tokens that complete the text from here. Raises SchemaError if none are found."""
        if self._way is None:
            self._way = self._found(replace(self._place))
            self._longest = max(self._longest, len(self._way))
        return self._way

    def _found(self, place: Place) -> list[int]:
        matcher, way, tried = self._matcher.deep_copy(), list[int](), Counter[int]()
        thinking = place.before is not None and (place.before.strip() != b"" or not self._opens)
        while not (matcher.is_stopped() or matcher.is_accepting()):
            if thinking and self._prelude and matcher.validate_tokens(self._prelude) == len(self._prelude):
                step, thinking = self._prelude, False
            else:
                step = matcher.compute_ff_tokens() or self._step(matcher, place, tried)
            if not step or len(way) > _LONGEST_WAY or matcher.try_consume_tokens(step) < len(step):
                raise SchemaError("No end was found for the JSON under this schema.", "Simplify the schema.")
            way += step
            if not thinking and step is not self._prelude:
                place.read(b"".join(map(self._piece, step)))
        return way

    def _step(self, matcher: Any, place: Place, tried: Counter[int]) -> list[int]:
        """The next tokens of the way out where there is a choice: a key that is due, or one byte.

        In a string, that is the quote or else the byte that was ``tried`` least often, so that what a pattern waits for comes.
        """
        if place.key and place.fresh:
            for name in self._names:
                spelled = [self._tokens[byte] for byte in name + b'"' if byte in self._tokens]
                if matcher.validate_tokens(spelled) == len(spelled):
                    return spelled
        choices = list(_OUTSIDE if not place.in_string else _ESCAPED if place.escaped else _INSIDE)
        if place.in_string:
            choices.sort(key=lambda byte: -1 if byte == _QUOTE else tried[byte])
        for byte in choices:
            token = self._tokens.get(byte)
            if token is not None and matcher.validate_tokens([token]) == 1:
                tried[byte] += 1
                return [token]
        return self._any(matcher)

    def _any(self, matcher: Any) -> list[int]:
        """Any token that is allowed here, the shortest first."""
        mask = matcher.compute_bitmask()
        allowed = [8 * at + bit for at, byte in enumerate(mask) if byte for bit in range(8) if byte >> bit & 1][:1_000]
        return [min(allowed, key=lambda token: len(self._piece(token)) or 99)] if allowed else []
