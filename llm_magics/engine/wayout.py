"""The way out of a JSON text: a short run of tokens that completes the text from any point.

Theory of operation. A copy of the grammar's state is walked until the text is complete. Where a value is expected, the
schema's shortest values (``JsonText.values``) are tried, the shortest first; where a key is expected, the keys that some object
requires. Otherwise forced tokens are taken, and at a choice one byte, closing bytes before opening ones. The grammar checks
every step, so a way out is always valid.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from llm_magics.errors import SchemaError

from .values import JsonText

_OUTSIDE = b'}],:0"123456789-ntf[{ '  # tried outside strings, closing bytes first
_INSIDE = b'"0123456789-:.TZ+@/ abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSUVWXY_'
_ESCAPED = b"n0"
_QUOTE = 0x22
_BLANK = b" \t\r\n"


@dataclass(slots=True)
class Place:
    """A point of a text: ``before`` is the text before the JSON, None once the JSON has begun; ``opened`` its open brackets."""

    before: bytes | None = None
    closed: bool = False  # the prelude has ended
    opened: tuple[int, ...] = ()
    in_string: bool = False
    escaped: bool = False
    key: bool = False  # this or the next string is a key
    fresh: bool = False  # the string has just been opened
    due: bool = True  # a value is expected
    string_tokens: int = field(default=0, compare=False)

    def read(self, data: bytes) -> bytes:
        """Move over JSON text; return its bytes outside strings."""
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
        if byte in _BLANK:
            return
        self.due = byte in b"[:" or (byte == 0x2C and self.opened[-1:] != (0x7B,))
        if byte == _QUOTE:
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


class WayOut:
    """Finds ways out under one schema. ``bytes_as_tokens`` maps a byte to its token; ``tokenize`` spells as the model does."""

    def __init__(
        self, text: JsonText, piece: Callable[[int], bytes], bytes_as_tokens: Mapping[int, int],
        tokenize: Callable[[str], tuple[int, ...]], prelude: tuple[int, ...] = (),
    ) -> None:  # fmt: skip
        self._piece = piece
        self._tokens = bytes_as_tokens
        self._tokenize = tokenize
        self._opens = text.prelude_start.encode()
        self._prelude = list(prelude)
        self._values = self._spelled(text.values)
        self._keys = self._spelled(tuple(json.dumps(key, ensure_ascii=False)[1:] for key in text.required))

    def find(self, matcher: Any, place: Place, most: int) -> list[int] | None:
        """The tokens that complete a text at ``place`` in ``matcher``; None if there are more than ``most``. Changes neither.

        Raises SchemaError if no end is found.
        """
        matcher, place, way, tried = matcher.deep_copy(), replace(place), list[int](), Counter[int]()
        thinking = place.before is not None and not place.closed and (place.before.strip() != b"" or not self._opens)
        while not (matcher.is_stopped() or matcher.is_accepting()):
            if thinking and self._prelude and matcher.validate_tokens(self._prelude) == len(self._prelude):
                step, thinking, read = self._prelude, False, False
            else:
                step = self._due(matcher, place) or matcher.compute_ff_tokens() or self._byte(matcher, place, tried)
                read = not thinking
            if not step or matcher.try_consume_tokens(step) < len(step):
                raise SchemaError("No end was found for the JSON under this schema.", "Simplify the schema.")
            way += step
            if len(way) > most:
                return None
            if read:
                place.read(b"".join(map(self._piece, step)))
        return way

    def still_leads_out(self, matcher: Any, way: list[int]) -> bool:
        """Whether an earlier way also completes the text from here."""
        if matcher.validate_tokens(way) < len(way):
            return False
        copy = matcher.deep_copy()
        return bool(copy.try_consume_tokens(way) == len(way) and copy.is_accepting())

    def _spelled(self, texts: tuple[str, ...]) -> list[list[int]]:
        return [tokens for text in texts if (tokens := self._spell(text))]

    def _spell(self, text: str) -> list[int]:
        """A text's tokens, as the model's tokenizer or byte by byte; empty if the vocabulary cannot spell the text."""
        data = text.encode("utf-8", "replace")
        tokens = list(self._tokenize(text))
        if b"".join(map(self._piece, tokens)) == data:  # some tokenizers put a blank before a text
            return tokens
        return [self._tokens[byte] for byte in data] if all(byte in self._tokens for byte in data) else []

    def _due(self, matcher: Any, place: Place) -> list[int]:
        """A whole value or key that is expected here; empty if none is, or if an array may be closed instead."""
        spelled: list[list[int]] = []
        if place.key and place.fresh:
            spelled = self._keys
        elif place.due and not place.in_string and not self._takes(matcher, self._tokens.get(0x5D, -1)):
            spelled = self._values
        return next((tokens for tokens in spelled if matcher.validate_tokens(tokens) == len(tokens)), [])

    def _byte(self, matcher: Any, place: Place, tried: Counter[int]) -> list[int]:
        """One allowed byte, else any token. In a string, the quote, else the byte ``tried`` least often, so that every byte
        that a pattern may need is tried in time."""
        choices = list(_OUTSIDE if not place.in_string else _ESCAPED if place.escaped else _INSIDE)
        if place.in_string:
            choices.sort(key=lambda byte: -1 if byte == _QUOTE else tried[byte])
        for byte in choices:
            token = self._tokens.get(byte, -1)
            if self._takes(matcher, token):
                tried[byte] += 1
                return [token]
        mask = matcher.compute_bitmask()
        allowed = [8 * at + bit for at, byte in enumerate(mask) if byte for bit in range(8) if byte >> bit & 1][:1_000]
        return [min(allowed, key=lambda token: len(self._piece(token)) or 99)] if allowed else []

    def _takes(self, matcher: Any, token: int) -> bool:
        return token >= 0 and bool(matcher.validate_tokens([token]) == 1)
