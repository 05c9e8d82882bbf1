"""Ending a JSON text in time: it is complete and valid within its limit of tokens, whatever the model would rather write.

Theory of operation. From any point of a text under a grammar there is a short *way out* (``engine/wayout.py``): close the
string, write the members that are still required with the shortest values there are, close what is open. What the model writes
is compared with it, token by token:

- far from the limit, nothing happens: the model writes what it likes;
- after three quarters of the limit, or when the text repeats itself, the text is *brought to its end*: a token that opens
  another item, member or object is replaced by the first token of the way out, and a string that goes on and on is closed;
- a token behind which no way out fits, or is found, is replaced likewise. So a way out that fits is known at every point.

An array without a maximum therefore ends, and a text is never cut off in the middle. Only a limit that is smaller than the
shortest valid text is refused, before anything is generated.

Below the limit that holds in any case, the JSON has a *soft limit*: what is asked for, else ``SOFT_LIMIT``, or three times the
shortest valid text if that is more. It counts from the first token of the JSON, so what is thought before it does not matter,
and it is never refused.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from llm_magics.errors import SchemaError

from .values import Hurry, JsonText
from .wayout import Place, WayOut

SOFT_LIMIT = 500
"""The soft limit of a request that names none."""

END = -1
"""No token, but the end of the text."""

_SHORTEST_TIMES = 3  # a soft limit is at least so many times the shortest text
_LONG_STRING = 24  # tokens that a string may go on for once the text is to end
_REPEATED = 64  # tokens of the same few again and again, e.g. 16 times `"salt", `
_LONGEST_PERIOD = 32
_TIGHT = 64  # tokens; forced tokens are looked at where less than this and twice the way out are left
_MOST_COUNTED = 20_000  # tokens of a shortest text, to say how many it would take
_OPENING = frozenset(b",[{")


@dataclass(frozen=True, slots=True)
class Allowed:
    """How many tokens a text may take, with what is thought before it; how many its JSON may, softly; what sets the first."""

    tokens: int
    soft: int = SOFT_LIMIT
    bound: Hurry = "limit"


class Closer:
    """Watches one JSON text under one grammar. ``matcher`` is the grammar's state, which this may take back; ``prelude`` are
    the tokens of ``text.prelude_end``. The rest is as for :class:`~llm_magics.engine.wayout.WayOut`."""

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
        self._off = False  # the text turned out to be something else than JSON
        self.hurried: Hurry = ""
        """Why the model was kept from going on as it wanted to; empty if it was not."""

    def begin(self) -> None:
        """Find the first way out. Raises SchemaError if the shortest valid text does not fit into the limit."""
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
        """Whether the limit is reached; the text is complete then."""
        return not self._off and len(self._written) >= self._limit and self.complete

    def may_force(self, tokens: list[int]) -> bool:
        """Whether tokens that the grammar forces leave room for a way out, spelled as they are."""
        left = self._limit - len(self._written)
        if self._elsewhere or left > len(tokens) + 2 * len(self._way) + _TIGHT:
            return True
        copy, place = self._matcher.deep_copy(), replace(self._place)
        if place.before is not None or copy.try_consume_tokens(tokens) < len(tokens):
            return False
        place.read(b"".join(map(self._piece, tokens)))
        return self._ways.find(copy, place, left - len(tokens)) is not None

    def took(self, token: int) -> None:
        """Note a token that was not the model's choice."""
        followed = self._way[:1] == [token]
        self._note(token)
        if not self._elsewhere:
            self._way = self._way[1:] if followed else self._way_from_here() or []

    def instead(self, token: int) -> int | None:
        """Say which token to write in place of ``token``, which the grammar has just taken; None if it may stand, END if the
        text is complete and has to end here.

        If one is named, the grammar's state is again what it was before ``token``.
        """
        place, before = replace(self._place), self._way
        outside = self._note(token)
        if self._elsewhere:
            return None
        why = self._why_hurry()
        if not why:
            self._place.string_tokens = 0  # what was written while there was room is nothing to hold against a string
        opens = bool(why and _OPENING.intersection(outside))
        way = self._way_from_here(anew=opens)
        long = self._place.string_tokens > _LONG_STRING
        if way is not None and not long and not (opens and self._goes_on(token, way, place)):
            self._way = way
            return None
        self._written.pop()
        self._matcher.rollback(1)
        self._place, self._way, self.hurried = place, before, self.hurried or why or self._bound
        if opens:  # an earlier way out may open the same
            self._way = self._way_from_here(anew=True) or before
        if self._way:
            return self._way[0]
        return END if self.complete else token  # forced tokens led where no way out is known

    # --- deciding -----------------------------------------------------------------------------------------------------------

    @property
    def _elsewhere(self) -> bool:
        """Whether the text is no JSON, or may be the beginning of what stands in its place."""
        begun = (self._place.before or b"").lstrip()
        return self._off or (begun != b"" and any(other.startswith(begun) for other in self._others))

    def _limit_softly(self) -> None:
        soft = max(self._allowed.soft, _SHORTEST_TIMES * self._shortest)
        begun = len(self._written)
        if begun + soft < self._limit:
            self._limit, self._hurry_from, self._bound = begun + soft, begun + soft * 3 // 4, "soft"

    def _why_hurry(self) -> Hurry:
        """Why the text is to be brought to its end by now; empty while it is not."""
        if self._place.before is not None:
            return ""
        if self.hurried or len(self._written) >= self._hurry_from:
            return self.hurried or self._bound
        return "repeats" if self._repeats() else ""

    def _way_from_here(self, *, anew: bool = False) -> list[int] | None:
        """A way out that fits, or None; the last one where it still leads out, unless it is to be found ``anew``."""
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
        """Whether a token that opens something leads away from the end: the way out is no shorter behind it."""
        self._matcher.rollback(1)
        before = self._ways.find(self._matcher, place, self._limit)
        self._matcher.consume_token(token)
        return before is not None and self._size(after) >= self._size(before)

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

    def _needed(self) -> int:
        """How many tokens the shortest valid text takes; 0 where that is too many to count."""
        return len(self._ways.find(self._matcher, self._place, _MOST_COUNTED) or ())

    # --- where the text stands ------------------------------------------------------------------------------------------------

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
