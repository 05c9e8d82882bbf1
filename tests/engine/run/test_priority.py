"""What is evaluated together, and what a prompt that matters more finds: counted in steps, over a stand-in for llama.cpp."""

from __future__ import annotations

from typing import Any

import pytest

from llm_magics.engine.native.constraint import ConstraintEngine
from llm_magics.engine.native.context import Batch
from llm_magics.engine.run.compose import Phase
from llm_magics.engine.run.scheduler import Scheduler
from llm_magics.engine.run.sequence import Sequence
from llm_magics.engine.values import GenerateRequest, SamplerSettings, Tokens
from tests.bench.host import StubContext, StubModel

N_VOCAB, N_SLOTS, N_CTX = 500, 4, 4096
PREFIX = tuple(range(100, 300))


class Recorder(StubContext):
    """Takes down how many tokens of each sequence every batch had, and what was aborted."""

    def __init__(self) -> None:
        super().__init__(N_VOCAB)
        self.batches: list[dict[int, int]] = []
        self.aborted = 0
        self.room = N_CTX
        self.held: dict[int, int] = {}  # tokens by sequence
        self.during: Any = None  # called in the midst of an evaluation
        recorder = self

        class Flag:
            def set(self) -> None:
                recorder.aborted += 1

            def clear(self) -> None:
                pass

        self.abort: Any = Flag()

    def decode(self, batch: Batch) -> int:
        counts: dict[int, int] = {}
        for i in range(batch.n):
            counts[batch.sequences[i]] = counts.get(batch.sequences[i], 0) + 1
        if sum(self.held.values()) + batch.n > self.room:
            return 1
        for sequence, n in counts.items():
            self.held[sequence] = self.held.get(sequence, 0) + n
        self.batches.append(counts)
        if self.during is not None:
            self.during()
        return super().decode(batch)

    def cut(self, sequence: int, position: int) -> bool:
        self.held[sequence] = min(position, self.held.get(sequence, 0))
        return True

    def forget(self, sequence: int) -> None:
        self.held.pop(sequence, None)

    def copy(self, source: int, target: int, end: int) -> None:
        pass

    def state_size(self, sequence: int) -> int:
        return 0

    def save(self, sequence: int, *, partial: bool) -> bytes:
        return b""

    def restore(self, sequence: int, state: bytes, *, partial: bool) -> bool:
        return True


class Bench:
    """A scheduler over the stand-in, stepped by hand."""

    def __init__(self) -> None:
        self.model: Any = StubModel(N_VOCAB)
        self.context: Any = Recorder()
        self.scheduler = Scheduler(self.model, self.context, n_slots=N_SLOTS, n_ctx=N_CTX)

    def add(self, prompt: tuple[int, ...], priority: int, max_tokens: int = 50, conversation: str = "") -> Sequence:
        greedy = SamplerSettings(temperature=0)
        request = GenerateRequest(prompt, greedy, max_tokens, priority=priority, conversation=conversation)
        sequence = Sequence(request, self.model, ConstraintEngine(self.model), N_CTX)
        self.scheduler.add(sequence)
        return sequence

    def until_first_token(self, sequence: Sequence) -> list[dict[int, int]]:
        """Step on until a sequence's first token; the batches that took."""
        begin = len(self.context.batches)
        while True:
            assert self.scheduler.step()
            assert len(self.context.batches) - begin < 50
            while not sequence.channel.queue.empty():
                if isinstance(sequence.channel.queue.get(), Tokens):
                    return self.context.batches[begin:]


def drained(sequence: Sequence) -> list[Any]:
    """What a sequence has told its consumer."""
    return [sequence.channel.queue.get() for _ in range(sequence.channel.queue.qsize())]


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_a_cell_beside_a_full_map_needs_one_batch_of_its_own_tokens_alone(bench: Bench) -> None:
    for i in range(10):
        bench.add((*PREFIX, i, i + 1, i + 2), priority=5)
    for steps in (1, 2, 3, 5, 8):
        for _ in range(steps):
            bench.scheduler.step()
        cell = bench.add((*PREFIX, 400 + steps, 401, 402, 403), priority=0, max_tokens=2)
        (batch,) = bench.until_first_token(cell)
        assert list(batch.values()) == [4]  # the prefix is what the rows have evaluated already
        bench.scheduler.step()


def test_a_cell_does_not_wait_for_a_row_that_stands_back_for_it(bench: Bench) -> None:
    long = tuple(i % 480 for i in range(1500))
    bench.add((*long, 1), priority=5)
    bench.scheduler.step()  # the row has a third of what both share
    cell = bench.add((*long, 2), priority=0)
    batches = bench.until_first_token(cell)
    assert [sum(batch.values()) for batch in batches] == [512, 477]  # what the row has done is not done again
    assert all(len(batch) == 1 for batch in batches)


def test_rows_go_on_once_the_cell_has_its_first_token(bench: Bench) -> None:
    rows = [bench.add((*PREFIX, i, i + 1), priority=5, max_tokens=30) for i in range(6)]
    for _ in range(4):
        bench.scheduler.step()
    bench.until_first_token(bench.add((1, 2, 3), priority=0))
    bench.scheduler.step()
    assert len(bench.context.batches[-1]) == N_SLOTS
    while bench.scheduler.step():
        pass
    assert [len(row.tokens) - row.n_prompt for row in rows] == [30] * 6


def test_a_batch_that_matters_less_is_cut_short_and_one_that_matters_as_much_is_not(bench: Bench) -> None:
    for priority, arriving, aborts in ((5, 0, 1), (5, 5, 0), (0, 0, 0), (0, 5, 0)):
        for i in range(3):
            bench.add((7, 8, i), priority=priority, max_tokens=4)
        bench.scheduler.step()
        bench.context.aborted = 0
        bench.context.during = lambda arriving=arriving: bench.scheduler.interrupt(arriving)
        bench.scheduler.step()
        assert bench.context.aborted == aborts
        bench.context.during = None
        while bench.scheduler.step():
            pass
        bench.scheduler.interrupt(0)  # nothing is being evaluated
        assert bench.context.aborted == aborts


def test_a_call_that_comes_while_a_batch_is_made_up_is_heard_before_it_is_evaluated(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill = bench.scheduler._fill
    for i, (arriving, comes_first) in enumerate(((0, True), (None, True), (5, False))):
        bench.add(tuple(range(i * 150, i * 150 + 150)), priority=5, max_tokens=1)
        n = len(bench.context.batches)

        def fill_and_be_called(arriving: int | None = arriving) -> Any:
            parts = fill()
            bench.scheduler.interrupt(arriving)
            return parts

        monkeypatch.setattr(bench.scheduler, "_fill", fill_and_be_called)
        assert bench.scheduler.step()
        assert (len(bench.context.batches) == n) == comes_first
        monkeypatch.setattr(bench.scheduler, "_fill", fill)
        while bench.scheduler.step():
            pass
        assert len(bench.context.batches) == n + 1  # the call is forgotten, and the batch is evaluated once


def test_a_cell_that_finds_the_memory_full_of_rows_does_not_wait_for_one_to_end(bench: Bench) -> None:
    bench.context.room = 400
    rows = [bench.add(tuple(range(i * 100, i * 100 + 90)), priority=5, max_tokens=120) for i in range(4)]
    for _ in range(60):
        bench.scheduler.step()
    assert bench.scheduler.n_waiting > 0  # they do not all fit
    cell = bench.add(tuple(range(450, 490)), priority=0, max_tokens=3)
    (batch,) = bench.until_first_token(cell)
    assert list(batch.values()) == [40]
    assert all(not row.reason for row in rows)
    while bench.scheduler.step():
        pass
    assert [len(row.tokens) - row.n_prompt for row in rows] == [120] * 4


def test_those_who_wait_for_room_get_it_when_all_that_ran_have_failed(bench: Bench) -> None:
    bench.context.room = 400
    rows = [bench.add(tuple(range(i * 100, i * 100 + 90)), priority=5, max_tokens=120) for i in range(4)]
    for _ in range(60):
        bench.scheduler.step()
    waiting = bench.scheduler.n_waiting
    assert waiting > 0
    evaluate, bench.context.decode = bench.context.decode, lambda batch: -3  # llama.cpp fails
    bench.scheduler.step()
    bench.context.decode = evaluate
    while bench.scheduler.step():
        pass
    assert sum(len(row.tokens) - row.n_prompt == 120 for row in rows) == waiting
    assert bench.scheduler.n_waiting == 0


def test_a_conversation_keeps_its_slot_when_its_first_batch_is_cut_short(bench: Bench) -> None:
    sequence = bench.add((1, 2, 3), priority=5, conversation="mine")
    bench.context.decode, evaluate = lambda batch: 2, bench.context.decode  # aborted
    bench.scheduler.step()
    bench.context.decode = evaluate
    bench.until_first_token(sequence)
    assert [slot.conversation for slot in bench.scheduler._slots.all if slot.sequence is sequence] == ["mine"]


@pytest.mark.parametrize("goes", [False, True], ids=["fails", "goes meanwhile"])
def test_a_prefix_that_cannot_be_taken_over_costs_at_most_the_one_it_was_for(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, *, goes: bool
) -> None:
    first, second = (bench.add((*PREFIX, i), priority=0, max_tokens=9) for i in (1, 2))
    bench.scheduler.step()
    real, seen = bench.scheduler._stand_on, []

    def stand_on(source: Any, part: Any, sequence: Sequence) -> bool:
        seen.append(sequence)
        if not goes:
            raise RuntimeError("on purpose")
        if len(seen) == 1:
            bench.scheduler._slots.forget(source)
        return real(source, part, sequence)

    monkeypatch.setattr(bench.scheduler, "_stand_on", stand_on)
    while bench.scheduler.step():
        pass
    assert seen[0] is second
    ends = [drained(one)[-1] for one in (first, second)]
    assert [isinstance(end, Exception) for end in ends] == [False, not goes]
    assert [len(one.tokens) - one.n_prompt for one in (first, second)] == [9, 9 if goes else 0]


def test_a_request_is_always_in_the_phase_that_its_slot_says(bench: Bench) -> None:
    """Rows that wait, give up their slots for cells and lose their cache; all get to their end, and none goes on from there."""
    bench.context.room = 420
    rows = [bench.add(tuple(range(i * 60, i * 60 + 50)), priority=5, max_tokens=60) for i in range(6)]
    cells: list[Sequence] = []
    taken, at = set(), {}
    for step in range(600):
        if step % 40 == 20:
            cells.append(bench.add((450 + step // 40, 451, 452), priority=0, max_tokens=5))
        bench.scheduler.step()
        for one in rows + cells:
            if (before := at.get(one, Phase.WAITING)) is not one.phase:
                taken.add((before, one.phase))
            at[one] = one.phase
        for slot in bench.scheduler._slots.all:
            if slot.sequence is not None and slot.sequence.phase is not Phase.SEATED:
                generating = len(slot.cached) >= slot.sequence.n_prompt
                assert slot.sequence.phase is (Phase.GENERATING if generating else Phase.READING)
    assert {one.phase for one in rows + cells} == {Phase.DONE}
    assert {(Phase.WAITING, Phase.GENERATING), (Phase.GENERATING, Phase.SUSPENDED), (Phase.GENERATING, Phase.DONE)} <= taken
    assert not {pair for pair in taken if pair[0] is Phase.DONE}


def test_while_nobody_comes_or_goes_every_batch_has_the_same_shape(bench: Bench) -> None:
    for i in range(3):
        bench.add((i, 1, 2), priority=0, max_tokens=40)
    bench.scheduler.step()
    before = len(bench.context.batches)
    for _ in range(30):
        bench.scheduler.step()
    assert [list(batch.items()) for batch in bench.context.batches[before:]] == [[(0, 1), (1, 1), (2, 1)]] * 30


def test_an_outranked_prompt_gets_small_pieces_of_a_step(bench: Bench) -> None:
    cell = bench.add((1, 2, 3), priority=0, max_tokens=200)
    bench.until_first_token(cell)
    bench.scheduler._limits = bench.scheduler._limits._replace(seconds_per_token=0.01)
    bench.add(tuple(i % 480 for i in range(1000)), priority=5)
    bench.scheduler.step()
    outranked = max(bench.context.batches[-1].values())
    bench = Bench()
    cell = bench.add((1, 2, 3), priority=0, max_tokens=200)
    bench.until_first_token(cell)
    bench.scheduler._limits = bench.scheduler._limits._replace(seconds_per_token=0.001)
    bench.add(tuple(i % 480 for i in range(1000)), priority=0)
    bench.scheduler.step()
    equal = max(bench.context.batches[-1].values())
    assert (outranked, equal) == (10, 250)
