"""Speculation: guesses the next tokens, checks them in one batch, and repairs what rounding may have changed.

A guess is evaluated in one batch behind the last token, and every position is then drawn as usual. The guess is kept as far as
the draws agree, so neither greedy output nor a sampled distribution changes. Batches of several tokens may round differently
from single ones (see :mod:`.exact`). If no batch is exact, a greedy choice that rounding could flip is made again: the last
tokens, if they are few, are evaluated again one by one.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import Protocol

from llm_magics.engine.native.context import Context
from llm_magics.engine.native.model import Model
from llm_magics.engine.prefix import common_prefix
from llm_magics.engine.values import MAX_DRAFT, EngineConfig
from llm_magics.errors import EngineError

from .draft import Draft
from .exact import exact_rows
from .lookup import Guesser, Lookup

_NEAR = 0.5  # between two logits: more than rounding was ever seen to change
_LONGEST_REPAIR = 16  # most tokens to evaluate again: more would cost what the guesses have gained

Maker = Callable[[list[int]], Guesser]


class Guesses:
    """One sequence's guesses and their success. An error ends the guessing, not the sequence, and is added to ``losses``."""

    def __init__(self, n_vocab: int, losses: list[str]) -> None:
        self.drafted = self.accepted = 0
        self._n_vocab = n_vocab
        self._losses = losses
        self._broken = False
        self._guessers: list[Guesser] | None = None
        self._guesser: Guesser | None = None  # whose guess is being checked

    def propose(self, makers: tuple[Maker, ...], tokens: list[int], limit: int) -> list[int]:
        """The first guess that a guesser offers, of at most ``limit`` tokens; ``makers`` make the guessers over the tokens."""
        if limit <= 0 or self._broken:
            return []
        try:
            if self._guessers is None:
                self._guessers = [make(tokens) for make in makers]
            for guesser in self._guessers:
                if guess := guesser.propose(limit):
                    # llama.cpp refuses the whole batch if a token does not exist
                    if len(guess) > limit or min(guess) < 0 or max(guess) >= self._n_vocab:
                        raise EngineError(f"A guess must have at most {limit} tokens below {self._n_vocab}.")
                    self._guesser = guesser
                    return guess
        except Exception as error:
            self._stop(error)
        return []

    def learn(self, proposed: int, accepted: int) -> None:
        self.drafted += proposed
        self.accepted += accepted
        if self._guesser is not None:
            try:
                self._guesser.learn(proposed, accepted)
            except Exception as error:
                self._stop(error)

    def forget_places(self) -> None:
        """Drop the guessers after tokens have moved, because they know tokens by their places."""
        self._guessers = None

    def _stop(self, error: Exception) -> None:
        self._broken, self._guesser = True, None
        self._losses.append(f"guessing ended with {type(error).__name__}: {error}")


class Guessed(Protocol):
    """A sequence whose next tokens are guessed."""

    tokens: list[int]
    reason: str
    guesses: Guesses

    def near_tie(self, context: Context, row: int, distance: float) -> bool: ...
    def draw(self, context: Context, row: int) -> None: ...


class Seat(Protocol):
    """The sequence's slot; see :class:`~llm_magics.engine.run.slots.Slot`."""

    cached: list[int]
    rounded: int | None
    singly: int


class Speculation:
    """Guesses for a sequence that runs alone, in batches of up to ``exact_rows`` tokens, or of any size if that is 1."""

    def __init__(self, makers: tuple[Maker, ...] = (), exact_rows: int = 1, draft: Draft | None = None) -> None:
        self._makers = makers
        self._exact_rows = exact_rows
        self.draft = draft
        self.on = bool(makers)

    @classmethod
    def open(cls, config: EngineConfig, model: Model, context: Context, check: Callable[[], None]) -> Speculation:
        """Load the draft model, if there is one, and find how many rows are exact. Free the result.

        The context must be new; it is empty again afterwards. ``check`` is called at times, and may raise to end this.
        """
        with ExitStack() as on_failure:
            draft = Draft(config, model, lambda _: check()) if config.draft else None
            if draft is not None:
                on_failure.callback(draft.free)
            makers = _makers(config, model, draft)
            found = cls(makers, exact_rows(model, context, config, check) if makers else 1, draft)
            on_failure.pop_all()
            return found

    def free(self) -> None:
        if self.draft is not None:
            self.draft.free()

    def guess(self, sequence: Guessed, n: int, room: int) -> list[int]:
        """Guess up to ``room`` tokens behind a part of ``n`` tokens in its batch."""
        most = self._exact_rows - n if self._exact_rows > 1 else MAX_DRAFT
        return sequence.guesses.propose(self._makers, sequence.tokens, min(most, MAX_DRAFT, room))

    def draw(self, context: Context, seat: Seat, sequence: Guessed, row: int, start: int, draft: list[int]) -> int:
        """Draw from ``row``, that of the last cached token, then from the rows of the guess while it comes true.

        This batch's tokens began at ``start``. Return how many of the slot's tokens, with the guess, may stay: cut the rest.
        """
        if draft and self._exact_rows == 1 and seat.rounded is None:
            seat.rounded = start
        base, right = len(seat.cached), 0
        while not sequence.reason and right == len(sequence.tokens) - base:
            short = _is_short(seat, base + len(draft) if right else base)
            if short and sequence.near_tie(context, row + right, _NEAR):
                return _repair(seat, sequence, len(draft), right)
            sequence.draw(context, row + right)
            right = common_prefix(draft, sequence.tokens[base:])
        if not draft:
            return base
        seat.cached.extend(draft)
        if right * 2 < len(draft) and not sequence.reason and _is_short(seat, base + right):
            return _repair(seat, sequence, len(draft), right)  # the guess has gained less than its rounding may cost later
        sequence.guesses.learn(len(draft), right)
        return base + right


def _is_short(seat: Seat, length: int) -> bool:
    """Whether the differently rounded part of ``length`` tokens is short enough to evaluate again."""
    return seat.rounded is not None and length - seat.rounded <= _LONGEST_REPAIR


def _repair(seat: Seat, sequence: Guessed, drafted: int, right: int) -> int:
    """Have the differently rounded tokens evaluated again one by one; return how many tokens stay."""
    if drafted:
        sequence.guesses.learn(drafted, right)
    assert seat.rounded is not None
    stays, seat.rounded, seat.singly = seat.rounded, None, len(sequence.tokens)
    return stays


def _makers(config: EngineConfig, model: Model, draft: Draft | None) -> tuple[Maker, ...]:
    lookup = config.speculation != "off" and model.cuttable
    return (*((Lookup,) if lookup else ()), *((draft.guesser,) if draft is not None else ()))
