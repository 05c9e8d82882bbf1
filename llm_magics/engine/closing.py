"""Ending a JSON text in time: the text is complete and valid within its limit of tokens, whatever the model prefers.

Theory of operation. From any point of a text under a grammar there is a short *way out* (``engine/wayout.py``): close the
string, write the missing required members with their shortest values, close all brackets. Each token that the model draws is
compared with it:

- far from the limit, every token stands;
- after three quarters of the limit, or when the text repeats itself, the text is *brought to its end*: a token that opens
  another item, member or object is replaced by the first token of the way out, and a long string is closed;
- a token behind which no way out fits, or is found, is also replaced. So a way out that fits is known at every point.

So an array without a maximum ends, and no text is cut off. Only a limit below the shortest valid text is refused, at once.

Within that hard limit, the JSON has a *soft limit*: the requested one, else ``SOFT_LIMIT``, or three times the shortest valid
text if that is more. It counts from the first token of the JSON, without the reasoning before, and it is never refused.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from llm_magics.errors import SchemaError

from .values import Hurry, JsonText
from .wayout import Place, WayOut

SOFT_LIMIT = 500  # tokens, if a request names none
END = -1  # in place of a token: the end of the text

_SHORTEST_TIMES = 3  # a soft limit is at least this many times the shortest text
_LONG_STRING = 24  # tokens that a string may take once the text is brought to its end
_REPEATED = 64  # tokens of one short sequence repeated, e.g. 16 times `"salt", `
_LONGEST_PERIOD = 32
_TIGHT = 64  # tokens; forced tokens are checked if fewer than this and twice the way out are left
_MOST_COUNTED = 20_000  # tokens of a shortest text, for the message of a refusal
_OPENING = frozenset(b",[{")


@dataclass(frozen=True, slots=True)
class Allowed:
    """The hard limit of a text, reasoning included; the soft limit of its JSON; what sets the hard limit."""

    tokens: int
    soft: int = SOFT_LIMIT
    bound: Hurry = "limit"


class Closer:
    """Watches one JSON text under one grammar. ``matcher`` is the grammar's state, which the closer may roll back; ``prelude``
    are the tokens of ``text.prelude_end``. The rest is as for :class:`~llm_magics.engine.wayout.WayOut`."""

    def __init__(
        self, matcher: Any, piece: Callable[[int], bytes], bytes_as_tokens: Mapping[int, int],
        tokenize: Callable[[str], tuple[int, ...]], text: JsonText, allowed: Allowed, prelude: tuple[int, ...] = (),
    ) -> None:  # fmt: skip
        self._matcher = matcher
        self._piece = piece
        self._ways = WayOut(text, piece, bytes_as_tokens, tokenize, prelude)
        self._opens, self._closes = text.prelude_start.encode(), text.prelude_end.encode()
        self._others = tuple(other.encode() for other in text.others)
        self._allowed = allowed
        self._limit, self._hurry_from, self._bound = allowed.tokens, allowed.tokens * 3 // 4, allowed.bound
        self._place = Place(before=b"" if self._closes or self._others else None)
        self._way: list[int] = []  # a way out from here that fits
        self._shortest = 0
        self._written: list[int] = []
        self._off = False  # the text turned out not to be JSON
        self.hurried: Hurry = ""  # why a token was first replaced

    def begin(self) -> None:
        """Find the first way out. Raises SchemaError if the shortest valid text exceeds the limit."""
        way = self._ways.find(self._matcher, self._place, self._limit)
        if way is None:
            raise _too_short(self._allowed, self._needed())
        self._way, self._shortest = way, len(way)
        if self._place.before is None:
            self._limit_softly()

    @property
    def complete(self) -> bool:
        return not self._off and bool(self._matcher.is_accepting())

    @property
    def over(self) -> bool:
        """Whether the text is complete at its limit."""
        return len(self._written) >= self._limit and self.complete

    def may_force(self, tokens: list[int]) -> bool:
        """Whether tokens that the grammar forces leave room for a way out."""
        left = self._limit - len(self._written)
        if self._elsewhere or left > len(tokens) + 2 * len(self._way) + _TIGHT:
            return True
        copy, place = self._matcher.deep_copy(), replace(self._place)
        if place.before is not None or copy.try_consume_tokens(tokens) < len(tokens):
            return False
        place.read(b"".join(map(self._piece, tokens)))
        return self._ways.find(copy, place, left - len(tokens)) is not None

    def took(self, token: int) -> None:
        """Note a token that the model did not draw."""
        followed = self._way[:1] == [token]
        self._note(token)
        if not self._elsewhere:
            self._way = self._way[1:] if followed else self._way_from_here() or []

    def instead(self, token: int) -> int | None:
        """The token to write in place of ``token``, which the grammar has just taken; None to keep it, END if the complete text
        must end. Unless None, the grammar's state is rolled back to before ``token``."""
        place, before = replace(self._place), self._way
        outside = self._note(token)
        if self._elsewhere:
            return None
        why = self._why_hurry()
        if not why:
            self._place.string_tokens = 0  # tokens far from the limit do not count against a string
        opens = bool(why and _OPENING.intersection(outside))
        way = self._way_from_here(anew=opens)
        long = self._place.string_tokens > _LONG_STRING
        if way is not None and not long and not (opens and self._goes_on(token, way, place)):
            self._way = way
            return None
        self._written.pop()
        self._matcher.rollback(1)
        self._place, self._way, self.hurried = place, before, self.hurried or why or self._bound
        if opens:  # the last way out may open the same
            self._way = self._way_from_here(anew=True) or before
        if self._way:
            return self._way[0]
        return END if self.complete else token  # after forced tokens, no way out may be known

    @property
    def _elsewhere(self) -> bool:
        """Whether the text is not JSON, or may begin the text that replaces the JSON."""
        begun = (self._place.before or b"").lstrip()
        return self._off or (begun != b"" and any(other.startswith(begun) for other in self._others))

    def _limit_softly(self) -> None:
        soft = max(self._allowed.soft, _SHORTEST_TIMES * self._shortest)
        begun = len(self._written)
        if begun + soft < self._limit:
            self._limit, self._hurry_from, self._bound = begun + soft, begun + soft * 3 // 4, "soft"

    def _why_hurry(self) -> Hurry:
        """Why the text must be brought to its end now; empty if it need not."""
        if self._place.before is not None:
            return ""
        if self.hurried or len(self._written) >= self._hurry_from:
            return self.hurried or self._bound
        return "repeats" if self._repeats() else ""

    def _way_from_here(self, *, anew: bool = False) -> list[int] | None:
        """A way out that fits, or None: the last one if it still leads out, unless ``anew``."""
        left = self._limit - len(self._written)
        if left < 0:
            return None
        if not anew and self._way and len(self._way) <= left and self._ways.still_leads_out(self._matcher, self._way):
            return self._way
        try:
            return self._ways.find(self._matcher, self._place, left)
        except SchemaError:
            return None

    def _goes_on(self, token: int, after: list[int], place: Place) -> bool:
        """Whether a token that opens something leads away from the end: the way out behind it is not shorter."""
        self._matcher.rollback(1)
        before = self._ways.find(self._matcher, place, self._limit)
        self._matcher.consume_token(token)
        return before is not None and self._size(after) >= self._size(before)

    def _repeats(self) -> bool:
        """Whether the text ends in repetitions of a short sequence of tokens."""
        written = self._written
        for period in range(1, min(_LONGEST_PERIOD, len(written) // 2) + 1):
            times = -(-_REPEATED // period)
            if written[-1] == written[-1 - period] and written[-period * times :] == written[-period:] * times:
                return True
        return False

    def _size(self, tokens: list[int]) -> int:
        return sum(len(self._piece(token)) for token in tokens)

    def _needed(self) -> int:
        """How many tokens the shortest valid text takes; 0 if they are too many to count."""
        return len(self._ways.find(self._matcher, self._place, _MOST_COUNTED) or ())

    def _note(self, token: int) -> bytes:
        """Move the place over a token; return the token's bytes outside strings."""
        self._written.append(token)
        place, data = self._place, self._piece(token)
        if place.before is not None:
            data = self._after_prelude(place.before + data)
        outside = place.read(data)
        place.string_tokens = place.string_tokens + 1 if place.in_string and not outside else 0
        return outside

    def _after_prelude(self, text: bytes) -> bytes:
        """The part of a text that is JSON: the part behind the prelude, or all of a text that does not begin as a prelude."""
        place, begun = self._place, text.lstrip()
        closes = b"" if place.closed else self._closes
        if closes and closes in text:
            rest = text.partition(closes)[2]
            place.closed = True
            return self._after_prelude(rest) if self._others else self._begin(rest)
        may_open = [self._opens] if closes and self._opens else []
        if any(begun.startswith(other) for other in self._others):
            self._off = True
        undecided = any(o.startswith(begun) or begun.startswith(o) for o in (*self._others, *may_open))
        if begun and not undecided and (may_open or not closes):
            return self._begin(text)
        place.before = text
        return b""

    def _begin(self, text: bytes) -> bytes:
        self._place.before = None
        self._limit_softly()
        return text


def _too_short(allowed: Allowed, needed: int) -> SchemaError:
    about = f"about {needed:,}" if needed else f"more than {_MOST_COUNTED:,}"
    what = f"The shortest JSON that is valid under the schema takes {about} tokens; "
    if allowed.bound == "context":
        left = f"{max(allowed.tokens, 0):,} are left of the context."
        return SchemaError(what + left, "Load the model with a larger context (ctx), or start a new thread.")
    more = "Allow more tokens (--max-tokens, or max_tokens in Python), or simplify the schema."
    return SchemaError(f"{what}{allowed.tokens:,} are allowed.", more)
