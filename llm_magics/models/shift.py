"""Drops turns of a conversation when its context is full: the oldest, whole ones, never the system prompt or the tools.

The template renders the other turns as if the dropped ones had never been. So all that precedes them stays in place: the system
prompt, and the tools' definitions, which some templates write into the first message. If the longer prompt is the shorter one
plus a stretch of whole tokens, the engine is told that stretch: it drops the stretch when the context is full, also within an
answer, and need not evaluate the rest again. A dropped turn stays out of later requests of the conversation.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise

from llm_magics.engine.prefix import common_prefix
from llm_magics.messages import Message

from .base import Request
from .tokens import Pieces, Rendered

_CUTS = 6  # places for a cut, beside the first that makes the conversation fit; each costs a rendering
_REMEMBERED = 256  # conversations


@dataclass(frozen=True, slots=True)
class Cut:
    """A conversation without its ``n_turns`` oldest turns."""

    n_turns: int
    request: Request
    rendered: Rendered


@dataclass(frozen=True, slots=True)
class Fitted:
    """A request as it goes to the engine, without ``left_out`` turns. ``droppable`` are ranges of its tokens that may be
    dropped, up to each of the ``cuts`` in turn."""

    request: Request
    rendered: Rendered
    left_out: int = 0
    droppable: tuple[tuple[int, int], ...] = ()
    cuts: tuple[Cut, ...] = ()

    def after(self, dropped: int) -> Fitted:
        """The request as evaluated after the engine dropped the first ``dropped`` ranges, with the ids that it kept."""
        if not dropped:
            return self
        cut = self.cuts[dropped - 1]
        start, end = self.droppable[0][0], self.droppable[dropped - 1][1]
        ids = self.rendered.ids[:start] + self.rendered.ids[end:]
        return Fitted(cut.request, replace(cut.rendered, ids=ids), self.left_out + cut.n_turns)


class ContextShift:
    """Fits requests into a context of ``n_ctx`` tokens, and remembers the dropped turns of each conversation."""

    def __init__(self, n_ctx: int, render: Callable[[Request], Rendered], pieces: Pieces) -> None:
        self._n_ctx = n_ctx
        self._render = render
        self._pieces = pieces
        self._gone: OrderedDict[str, list[tuple[Message, ...]]] = OrderedDict()

    def shorten(self, request: Request) -> tuple[Request, int]:
        """The request without the dropped turns of its conversation, and how many those are."""
        gone = self._gone.get(request.conversation, []) if request.conversation else []
        turns = _turns(request.messages)
        n = len(gone) if turns[: len(gone)] == gone else 0  # else it is another conversation
        return _without(request, n), n

    def fit(self, request: Request) -> Fitted:
        """Say which turns may be dropped; drop some at once if the prompt is too long and the engine cannot drop them."""
        request, left_out = self.shorten(request)
        rendered = self._render(request)
        room = self._n_ctx - len(rendered.ids)
        if request.max_tokens is not None and request.max_tokens <= room:
            return Fitted(request, rendered, left_out)
        cuts = tuple(self._cuts(request))
        droppable = self._droppable(rendered, cuts)
        if not droppable and room < 0 and cuts:
            return Fitted(cuts[0].request, cuts[0].rendered, left_out + cuts[0].n_turns)
        return Fitted(request, rendered, left_out, droppable, cuts if droppable else ())

    def remember(self, request: Request, left_out: int) -> None:
        """Note that the first ``left_out`` turns of this whole request are dropped from its conversation."""
        if request.conversation:
            self._gone.pop(request.conversation, None)
            self._gone[request.conversation] = _turns(request.messages)[:left_out]
            while len(self._gone) > _REMEMBERED:
                self._gone.popitem(last=False)

    def _cuts(self, request: Request) -> list[Cut]:
        """The conversation without more and more of its oldest turns, from the fewest that make it fit; its last turn stays."""
        most = len(_turns(request.messages)) - 1
        if most < 1:
            return []
        cuts = {0: self._cut(request, 0)}
        least, enough = 0, most
        while not self._fits(cuts[least]) and least < enough:
            middle = (least + enough) // 2
            cuts[middle] = self._cut(request, middle)
            least, enough = (least, middle) if self._fits(cuts[middle]) else (middle + 1, enough)
            cuts[least] = cuts.get(least) or self._cut(request, least)
        numbers = {least, *(least + (most - least) * i // _CUTS for i in range(1, _CUTS + 1))} - {0}
        return [cuts.get(n) or self._cut(request, n) for n in sorted(numbers)]

    def _cut(self, request: Request, n: int) -> Cut:
        without = _without(request, n)
        return Cut(n, without, self._render(without))

    def _fits(self, cut: Cut) -> bool:
        """Whether an eighth of the context is left, as after the engine's own drop."""
        return len(cut.rendered.ids) <= self._n_ctx - self._n_ctx // 8

    def _droppable(self, rendered: Rendered, cuts: Sequence[Cut]) -> tuple[tuple[int, int], ...]:
        """The tokens that each cut removes beyond the cut before; empty if they are not one stretch of whole tokens."""
        whole = _text(rendered)
        texts = [_text(cut.rendered) for cut in cuts]
        ids = rendered.ids
        pieces = self._pieces(ids)
        spelled = b"".join(pieces)
        if not texts or not spelled.endswith(whole):
            return ()
        extra = len(spelled) - len(whole)  # a BOS, or the vocabulary's space in front
        edges = {at - extra: i for i, at in enumerate(accumulate(map(len, pieces), initial=0))}
        low = max(len(text) - _common_end(whole, text) for text in texts)
        high = min(common_prefix(whole, text) for text in texts)
        for start in range(high, low - 1, -1):
            ends = [start + len(whole) - len(text) for text in texts]
            if start in edges and all(end in edges for end in ends):
                return tuple(pairwise(edges[at] for at in (start, *ends)))
        return ()


def _turns(messages: Sequence[Message]) -> list[tuple[Message, ...]]:
    """A conversation's turns, each from a user's message to the next, without system messages."""
    numbers = _turn_numbers(messages)
    last = max((n for n in numbers if n is not None), default=-1)
    return [tuple(m for m, number in zip(messages, numbers, strict=True) if number == n) for n in range(last + 1)]


def _turn_numbers(messages: Sequence[Message]) -> list[int | None]:
    """The number of each message's turn, from 0; None for a system message."""
    numbers: list[int | None] = []
    turn = -1
    for message in messages:
        if message.role == "system":
            numbers.append(None)
            continue
        turn = turn + 1 if message.role == "user" else max(turn, 0)
        numbers.append(turn)
    return numbers


def _without(request: Request, n: int) -> Request:
    numbers = zip(request.messages, _turn_numbers(request.messages), strict=True)
    kept = tuple(message for message, number in numbers if number is None or number >= n)
    return replace(request, messages=kept) if n else request


def _text(rendered: Rendered) -> bytes:
    return "".join(piece.text for piece in rendered.pieces).encode()


def _common_end(a: bytes, b: bytes) -> int:
    return common_prefix(a[::-1], b[::-1])
