"""What goes into the next batch, decided from the slots' state alone: no model, no llama.cpp."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass, field, replace

from hypothesis import given
from hypothesis import strategies as st

from llm_magics.engine.prefix import common_prefix, keep_length
from llm_magics.engine.run.compose import Limits, Part, Phase, compose

PHASES = (Phase.SEATED, Phase.READING, Phase.GENERATING)


@dataclass
class Request:
    tokens: list[int]
    n_prompt: int
    phase: Phase
    rank: tuple[int, int]


@dataclass
class Seat:
    index: int
    cached: list[int]
    sequence: Request
    singly: int = 0
    conversation: str = ""
    last_used: int = 0
    exact: list[int] = field(init=False)

    def __post_init__(self) -> None:
        self.exact = self.cached


def seat(index: int, tokens: list[int], n_prompt: int, n_cached: int, rank: tuple[int, int], *, begun: bool = True) -> Seat:
    """A slot in a state that can be: what it holds is the beginning of its sequence's tokens."""
    phase = Phase.GENERATING if n_cached >= n_prompt else Phase.READING if begun else Phase.SEATED
    return Seat(index, tokens[:n_cached], Request(tokens, n_prompt, phase, rank))


@st.composite
def states(draw: st.DrawFn) -> tuple[list[Seat], Limits, set[int]]:
    n = draw(st.integers(0, 6))
    numbers = draw(st.permutations(range(n)))
    common = [7] * draw(st.integers(0, 120))
    seats = []
    for i in range(n):
        own = draw(st.lists(st.integers(0, 3), min_size=1, max_size=60))
        tokens = [*common[: draw(st.integers(0, len(common)))], *own]
        n_prompt = draw(st.integers(max(1, len(tokens) - 5), len(tokens)))
        n_cached = draw(st.integers(0, len(tokens) - 1))
        begun = draw(st.booleans()) or n_cached >= n_prompt
        one = seat(i, tokens, n_prompt, n_cached, (draw(st.integers(0, 2)), numbers[i]), begun=begun)
        seats.append(replace(one, singly=draw(st.sampled_from([0, 0, len(tokens)]))))
    limits = Limits(
        draw(st.integers(8, 64)),
        draw(st.sampled_from([0.0, 0.001, 0.01, 0.1])),
        cuttable=draw(st.booleans()),
        sharing=draw(st.booleans()),
        guessing=draw(st.booleans()),
    )
    return seats, limits, {i for i in range(n) if draw(st.integers(0, 4)) == 0}


def planned(seats: list[Seat], limits: Limits, paused: set[int]) -> dict[int, Part[Seat]]:
    parts = compose(seats, limits, paused)
    assert len({part.slot.index for part in parts}) == len(parts)
    return {part.slot.index: part for part in parts}


@given(states())
def test_no_batch_passes_its_capacity_and_no_part_is_empty(state: tuple[list[Seat], Limits, set[int]]) -> None:
    seats, limits, paused = state
    parts = compose(seats, limits, paused)
    assert sum(part.n for part in parts) <= limits.capacity
    assert all(part.n > 0 for part in parts)


@given(states())
def test_a_part_goes_on_where_its_slot_ends_and_draws_behind_the_last_token_only(
    state: tuple[list[Seat], Limits, set[int]]
) -> None:
    seats, limits, paused = state
    for part in compose(seats, limits, paused):
        tokens = part.slot.sequence.tokens
        assert part.last == (part.start + part.n == len(tokens))
        assert part.source is not None or part.start == len(part.slot.cached)
        if part.slot.singly > part.start:
            assert part.n == 1


@given(states())
def test_every_sequence_that_generates_gets_its_row(state: tuple[list[Seat], Limits, set[int]]) -> None:
    """All but those that stand back for a prompt that matters more, as long as the capacity holds them."""
    seats, limits, paused = state
    parts = planned(seats, limits, paused)
    ready = [s for s in seats if s.index not in paused]
    reading = [s.sequence.rank[0] for s in ready if s.sequence.phase is not Phase.GENERATING]
    room = limits.capacity
    for one in ready:
        if one.sequence.phase is Phase.GENERATING and one.sequence.rank[0] <= min(reading, default=9):
            due = len(one.sequence.tokens) - len(one.cached)
            wanted = 1 if one.singly > len(one.cached) else due
            got = parts[one.index].n if one.index in parts else 0
            assert got == min(wanted, room)
            room -= got


@given(states())
def test_nobody_who_is_paused_or_matters_less_than_a_prompt_is_in_the_batch(
    state: tuple[list[Seat], Limits, set[int]]
) -> None:
    seats, limits, paused = state
    parts = compose(seats, limits, paused)
    ready = [s for s in seats if s.index not in paused]
    urgent = min((s.sequence.rank[0] for s in ready if s.sequence.phase is not Phase.GENERATING), default=9)
    for part in parts:
        assert part.slot.index not in paused
        assert part.slot.sequence.rank[0] <= urgent
    prompts = [part.slot.sequence.rank for part in parts if part.slot.sequence.phase is not Phase.GENERATING]
    assert prompts == sorted(prompts)
    assert {rank[0] for rank in prompts} <= {urgent}


@given(states())
def test_what_can_go_on_goes_on(state: tuple[list[Seat], Limits, set[int]]) -> None:
    """No state is a standstill: of those that wait for a prefix, the oldest waits for nobody."""
    seats, limits, paused = state
    assert bool(compose(seats, limits, paused)) == any(s.index not in paused for s in seats)


@given(states())
def test_prompts_get_a_share_that_keeps_a_step_short_while_somebody_generates(
    state: tuple[list[Seat], Limits, set[int]]
) -> None:
    seats, limits, paused = state
    parts = compose(seats, limits, paused)
    rows = [part for part in parts if part.slot.sequence.phase is Phase.GENERATING]
    prompts = [part for part in parts if part.slot.sequence.phase is not Phase.GENERATING]
    if rows and prompts:
        outranked = min(part.slot.sequence.rank[0] for part in rows) < prompts[0].slot.sequence.rank[0]
        seconds, least = (0.1, 8) if outranked else (0.25, 32)
        share = max(least, int(seconds / limits.seconds_per_token)) if limits.seconds_per_token else least
        assert sum(part.n for part in prompts) <= share


@given(states())
def test_a_slot_stands_on_an_older_ones_exact_tokens_and_only_before_it_has_begun(
    state: tuple[list[Seat], Limits, set[int]]
) -> None:
    seats, limits, paused = state
    holds = {one.index: len(one.exact) for one in seats}
    for part in compose(seats, limits, paused):
        if part.source is not None:
            mine, theirs = part.slot.sequence, part.source.sequence
            assert limits.sharing
            assert mine.phase is Phase.SEATED
            assert theirs.rank[1] < mine.rank[1]
            assert len(part.slot.cached) < part.start <= min(holds[part.source.index], len(mine.tokens) - 1)
            assert mine.tokens[: part.start] == theirs.tokens[: part.start]
        holds[part.slot.index] = max(holds[part.slot.index], part.start)


@given(states())
def test_who_is_left_out_waits_for_a_prefix_or_for_room(state: tuple[list[Seat], Limits, set[int]]) -> None:
    seats, limits, paused = state
    parts = planned(seats, limits, paused)
    ready = [s for s in seats if s.index not in paused]
    urgent = min((s.sequence.rank[0] for s in ready if s.sequence.phase is not Phase.GENERATING), default=9)
    full = sum(part.n for part in parts.values()) >= 8  # the least share there is
    for one in ready:
        mine = one.sequence
        if one.index in parts or mine.phase is Phase.GENERATING or mine.rank[0] != urgent or full:
            continue
        assert limits.sharing
        assert mine.phase is Phase.SEATED
        assert any(
            keep_length(mine.tokens, s.sequence.tokens) > max(common_prefix(mine.tokens, s.exact), len(one.cached) + 31)
            for s in ready
            if s.sequence.rank[1] < mine.rank[1]
        )


@given(states())
def test_a_plan_changes_nothing_and_is_the_same_again(state: tuple[list[Seat], Limits, set[int]]) -> None:
    seats, limits, paused = state
    before = repr(seats)
    assert compose(seats, limits, paused) == compose(seats, limits, paused)
    assert repr(seats) == before


def test_a_guess_may_follow_a_sequence_that_is_alone_and_generates() -> None:
    limits = Limits(64, guessing=True)
    alone, other = seat(0, [1, 2, 3], 2, 2, (0, 1)), seat(1, [1, 2, 3], 2, 2, (0, 2))
    assert [part.guess for part in compose([alone], limits)] == [True]
    assert [part.guess for part in compose([alone], limits._replace(guessing=False))] == [False]
    assert [part.guess for part in compose([alone, other], limits)] == [False, False]
    assert [part.guess for part in compose([replace(alone, singly=3)], limits)] == [False]
    assert [part.guess for part in compose([seat(0, [1, 2, 3], 3, 0, (0, 1))], limits)] == [False]


def test_a_memory_that_cannot_be_cut_back_stops_before_the_last_token_of_a_prompt() -> None:
    reading = seat(0, list(range(20)), 20, 0, (0, 1))
    assert [part.n for part in compose([reading], Limits(64))] == [20]
    assert [part.n for part in compose([reading], Limits(64, cuttable=False))] == [19]


def test_a_common_prefix_is_waited_for_and_then_taken_over() -> None:
    tokens = list(range(100))
    limits = Limits(64)
    first = seat(0, [*tokens, 1], 101, 0, (0, 1))
    second = seat(1, [*tokens, 2], 101, 0, (0, 2), begun=False)
    assert [part.slot.index for part in compose([first, second], limits)] == [0]
    assert [part.slot.index for part in compose([first, second], limits._replace(sharing=False))] == [0]  # it fills the batch
    done = seat(0, [*tokens, 1], 101, 101, (0, 1))
    (_, part) = compose([replace(done, cached=[*tokens, 1][:100]), second], limits)
    assert (part.start, part.n, part.source is not None) == (100, 1, True)
    (part,) = compose([replace(first, cached=tokens[:40]), second], limits, {0})  # whoever is paused is not waited for
    assert (part.slot.index, part.start, part.n) == (1, 40, 61)


def test_it_needs_no_llama_cpp() -> None:
    code = "import sys, llm_magics.engine.run.compose; sys.exit('llama_cpp' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
