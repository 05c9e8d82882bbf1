"""What stays of a guess, and what is evaluated again, decided without a model: the draws are scripted."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from llm_magics.engine.guess import speculation
from llm_magics.engine.guess.speculation import Guesses, Speculation
from llm_magics.engine.prefix import common_prefix
from llm_magics.engine.run.slots import Slot

GIVEN = [90, 91, 92]
tokens = st.lists(st.integers(0, 2), max_size=12)


class Scripted:
    """A sequence that draws ``truth``, one token at a time, and ends behind it; ``near`` are the draws that are near ties."""

    def __init__(self, truth: list[int], near: frozenset[int] = frozenset()) -> None:
        self.tokens = GIVEN.copy()
        self.reason = ""
        self.losses: list[str] = []
        self.guesses = Guesses(1000, self.losses)
        self.truth, self.near, self.rows = truth, near, list[int]()

    def near_tie(self, context: Any, row: int, distance: float) -> bool:
        return len(self.tokens) - len(GIVEN) in self.near

    def draw(self, context: Any, row: int) -> None:
        self.rows.append(row)
        n = len(self.tokens) - len(GIVEN)
        if n == len(self.truth):
            self.reason = "stop"
        else:
            self.tokens.append(self.truth[n])


def draw(sequence: Scripted, draft: list[int], exact_rows: int) -> tuple[int, Slot]:
    slot = Slot(0, cached=GIVEN.copy())
    speculating = Speculation((lambda _: None,), exact_rows)  # type: ignore[arg-type,return-value]  # nobody guesses here
    return speculating.draw(None, slot, sequence, 7, len(GIVEN) - 1, draft), slot  # type: ignore[arg-type]


@given(tokens, tokens)
def test_a_guess_stays_as_far_as_the_draws_say_the_same(truth: list[int], draft: list[int]) -> None:
    sequence = Scripted(truth)
    stays, slot = draw(sequence, draft, exact_rows=17)
    right = common_prefix(draft, truth)
    assert stays == len(GIVEN) + right
    assert slot.cached == GIVEN + draft
    assert sequence.tokens == GIVEN + truth[: right + 1]
    assert sequence.rows == list(range(7, 7 + right + 1))
    assert (sequence.guesses.drafted, sequence.guesses.accepted) == (len(draft), right)
    assert (slot.rounded, slot.singly) == (None, 0)


@given(tokens, tokens.filter(bool), st.frozensets(st.integers(0, 12), max_size=2))
def test_a_near_tie_behind_an_inexact_batch_is_drawn_again_from_single_tokens(
    truth: list[int], draft: list[int], near: frozenset[int]
) -> None:
    sequence = Scripted(truth, near)
    stays, slot = draw(sequence, draft, exact_rows=1)
    drawn, right = len(sequence.tokens) - len(GIVEN), common_prefix(draft, truth)
    tie = min((n for n in near if n <= right), default=None)
    if tie is not None:
        assert drawn == tie  # the choice was not made
    if tie is not None or (right * 2 < len(draft) and not sequence.reason):
        assert stays == len(GIVEN) - 1  # all that came out of the batch is cut
        assert (slot.rounded, slot.singly) == (None, len(sequence.tokens))
    else:
        assert stays == len(GIVEN) + right
        assert (slot.rounded, slot.singly) == (len(GIVEN) - 1, 0)
    assert sequence.guesses.drafted == len(draft)


def test_what_would_take_longer_to_repair_than_was_gained_is_left() -> None:
    draft = [1] * (speculation._LONGEST_REPAIR + 1)
    sequence = Scripted(draft, frozenset({3}))
    stays, slot = draw(sequence, draft, exact_rows=1)
    assert stays == len(GIVEN) + len(draft)
    assert slot.rounded == len(GIVEN) - 1
