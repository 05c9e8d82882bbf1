"""Which sequences are evaluated together: continuous batching over the slots of one context.

Each step fills one batch, lets llama.cpp evaluate it, and draws one token for each sequence whose last token was in it. First
come the sequences that generate (a sampled token, tokens that a grammar forced, a guess of prompt lookup), then chunks of
prompts, the important and the older first. While somebody generates, prompts get a share of the batch that keeps a step short.
A prompt that shares its beginning with one that is being evaluated waits for it and then stands on it, so that a system prompt
is computed once for all.

A prompt that matters more than what runs gets its first token as soon as on a quiet engine: the batch that is being evaluated
is cut short, a sequence that matters less gives up its slot, and all such stand back until the first token is there.

While nobody comes or goes, every step has the shape of the one before: as many tokens, of the same sequences in the same order.
llama.cpp then keeps its graph, and on an NVIDIA GPU the CUDA graph that was recorded of it. A prompt, a forced run of tokens or
a guess changes the shape, which costs the recording and no more: the second step of one shape is recorded again.

All of this runs in the engine's thread, except :meth:`Scheduler.interrupt`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from llm_magics.engine import prefix
from llm_magics.engine.guess.lookup import Guesser
from llm_magics.engine.native import llama
from llm_magics.engine.native.context import Batch, Context
from llm_magics.engine.native.model import Model
from llm_magics.engine.native.sampling import NotANumberError
from llm_magics.engine.values import MAX_DRAFT
from llm_magics.errors import EngineError

from .parking import Parking
from .sequence import Sequence
from .slots import Slot, Slots

_DONE, _NO_ROOM, _ABORTED = 0, 1, 2
_LONG_BATCH = 32  # tokens; a batch longer than this is worth aborting for an interrupt
_SHORT_STEP = 0.25  # seconds that a step may take while somebody generates
_SHORTER_STEP = 0.1  # the same where who generates matters more than the prompts
_LEAST_CHUNK = 32  # tokens of prompts that a step takes in any case
_LEAST_OUTRANKED_CHUNK = 8
_NEAR = 0.5  # between two logits: more than rounding was ever seen to move them towards each other
_LONGEST_REPAIR = 16  # tokens that are evaluated once more at most: more would cost what the guesses have gained
_WORTH_WAITING = 32  # shared tokens for which a prompt waits until another sequence has evaluated them


@dataclass(frozen=True, slots=True)
class _Part:
    """One slot's share of a batch: ``n`` tokens, ``draft`` guessed ones behind them; ``row`` is where the logits of the last of
    the ``n`` are, -1 for none, and the draft's follow it. ``exact`` says that they round as single tokens do."""

    slot: Slot
    sequence: Sequence
    n: int
    row: int
    draft: list[int]
    exact: bool = True


class Scheduler:
    """Runs sequences over the slots of one context. ``n_ctx`` bounds one sequence; ``guessers`` make what guesses for it while
    it runs alone, from its list of tokens, and batches of up to ``exact_rows`` tokens check them exactly.

    Where no wider batch is exact, guesses are checked in any, and greedy choices that rounding could turn are made again from
    tokens that were evaluated one by one, as long as those are few."""

    def __init__(
        self,
        model: Model,
        context: Context,
        *,
        n_slots: int,
        n_ctx: int,
        reuse: bool = True,
        guessers: tuple[Callable[[list[int]], Guesser], ...] = (),
        parking: Parking | None = None,
        device_sampling: bool = False,
        exact_rows: int = 1,
    ) -> None:
        self._context = context
        self._batch = Batch(context.n_batch)
        self._slots = Slots(model, context, n_slots, reuse=reuse, parking=parking or Parking(0))
        self._waiting: list[Sequence] = []
        self._n_ctx = n_ctx
        self._guessers = guessers
        self._exact_rows = exact_rows
        self._device_sampling = device_sampling
        self._numbered = 0
        self._crowded = False  # the memory was full: nobody is admitted until somebody has ended
        self._seconds_per_token = 0.0  # of long batches
        self._long_batch = False
        self._tainted = False  # the memory holds what is no number
        self._n_failed = 0  # sequences, while the batch is made up
        self._batch_priority: int | None = None  # of the batch that is being evaluated, where it can be cut short
        self._calls: list[int | None] = []  # what interrupt() was asked since the last batch

    # --- from outside -------------------------------------------------------------------------------------------------------

    def add(self, sequence: Sequence) -> None:
        """Queue a sequence: smaller priority numbers first, then first come, first served."""
        self._numbered += 1
        sequence.number = self._numbered
        self._queue(sequence)

    def interrupt(self, priority: int | None = None) -> None:
        """Cut a long evaluation short, so that a cancelled sequence is noticed, or one of this ``priority`` if all in the batch
        matter less. Any thread may call this, once it has left word of what the engine is to do: where it comes before the
        evaluation, that does not begin; where it comes too late, it only repeats a step."""
        self._calls.append(priority)  # before looking, as the engine looks at the calls after saying what it evaluates
        if self._cuts(priority):
            self._context.abort.set()

    def _cuts(self, priority: int | None) -> bool:
        running = self._batch_priority
        return self._long_batch if priority is None else running is not None and priority < running

    @property
    def n_waiting(self) -> int:
        """How many sequences wait for a slot."""
        return len(self._waiting)

    def end_all(self, error: Exception | None = None) -> None:
        """End every sequence: as interrupted, or with an error."""
        running = [slot.sequence for slot in self._slots.all if slot.sequence is not None]
        everyone, self._waiting = running + self._waiting, []
        for slot in self._slots.all:
            self._slots.vacate(slot)
        for sequence in everyone:
            if error is not None:
                sequence.fail(error)
            else:
                _finish(sequence, "interrupted")

    # --- one step -----------------------------------------------------------------------------------------------------------

    def step(self) -> bool:
        """Evaluate one batch and draw the tokens that follow from it; False where there was nothing to evaluate, which stays so
        until somebody asks, cancels, or catches up with what came."""
        self._drop_cancelled()
        self._admit()
        self._n_failed = 0
        parts = self._fill()
        if not parts:
            return self._n_failed > 0  # then somebody else may have the slot
        self._long_batch = long = self._batch.n > _LONG_BATCH
        if long or self._slots.cuttable:  # another memory may lose more by being cut short than a short step takes
            self._batch_priority = min(part.sequence.request.priority for part in parts)
        begin = time.perf_counter() if long else 0.0
        called = bool(self._calls) and any(map(self._cuts, self._calls))  # while the batch was made up
        code = _ABORTED if called else self._context.decode(self._batch)
        self._long_batch, self._batch_priority = False, None
        self._calls.clear()
        if code != _DONE:
            self._recover(parts, code)
            return True
        if long:
            seconds = (time.perf_counter() - begin) / self._batch.n
            self._seconds_per_token = seconds if not self._seconds_per_token else 0.7 * self._seconds_per_token + 0.3 * seconds
        for part in parts:
            self._advance(part)
        if self._tainted:
            self._tainted = False
            self._slots.wipe()
        return True

    def _drop_cancelled(self) -> None:
        for slot in self._slots.all:
            if slot.sequence is not None and slot.sequence.channel.cancelled:
                self._end(slot, "interrupted")
        if any(sequence.channel.cancelled for sequence in self._waiting):
            for sequence in [s for s in self._waiting if s.channel.cancelled]:
                self._waiting.remove(sequence)
                self._slots.unpark(sequence.parking)
                _finish(sequence, "interrupted")

    # --- who runs -----------------------------------------------------------------------------------------------------------

    def _queue(self, sequence: Sequence) -> None:
        rank = (sequence.request.priority, sequence.number)
        at = len(self._waiting)
        while at and (self._waiting[at - 1].request.priority, self._waiting[at - 1].number) > rank:
            at -= 1
        self._waiting.insert(at, sequence)

    def _admit(self) -> None:
        while True:
            sequence = next((s for s in self._waiting if s.channel.may_run()), None)
            if sequence is None or not self._has_place_for(sequence.request.priority):
                return
            self._waiting.remove(sequence)
            slot: Slot | None = None
            try:
                slot = self._slots.choose(sequence)
                lost = self._slots.seat(slot, sequence)
                self._shift(slot)
                if not sequence.started:
                    sequence.start(len(slot.cached), lost)
            except Exception as error:
                if slot is not None:
                    self._leave(slot)
                sequence.fail(error)

    def _has_place_for(self, priority: int) -> bool:
        """Whether a slot is free, or can be made free, for a sequence that matters so much."""
        if not self._crowded:
            return bool(self._slots.free()) or self._yield_a_slot(priority)
        running = [slot for slot in self._slots.all if slot.sequence is not None]
        least = max(running, key=lambda slot: _rank(slot.sequence))
        if _rank(least.sequence)[0] <= priority:
            return False
        self._suspend(least)
        self._slots.forget(least)
        return True

    def _yield_a_slot(self, priority: int) -> bool:
        """Take the slot of a sequence whose consumer does not keep up, or else of the least important and youngest one, if it
        matters less than ``priority``."""
        running = [slot for slot in self._slots.all if slot.sequence is not None]
        paused = [slot for slot in running if slot.sequence is not None and not slot.sequence.channel.may_run()]
        least = max(paused or running, key=lambda slot: _rank(slot.sequence))
        if not paused and _rank(least.sequence)[0] <= priority:
            return False
        self._suspend(least)
        return True

    def _suspend(self, slot: Slot) -> None:
        """Put a sequence back into the queue, and park its state."""
        sequence = slot.sequence
        assert sequence is not None
        try:
            self._slots.park(slot, sequence.parking)
        except Exception as error:
            sequence.lose(f"its state could not be kept aside: {error}")
        self._slots.vacate(slot)
        sequence.draw_on_host()
        self._queue(sequence)

    # --- what is evaluated --------------------------------------------------------------------------------------------------

    def _fill(self) -> list[_Part]:
        self._batch.clear()
        parts: list[_Part] = []
        generating: list[Slot] = []
        prompting: list[Slot] = []
        for slot in self._slots.all:
            if slot.sequence is not None and slot.sequence.channel.may_run():
                (generating if len(slot.cached) >= slot.sequence.n_prompt else prompting).append(slot)
        urgent = min((_rank(slot.sequence)[0] for slot in prompting), default=0)
        if prompting:  # who matters less than a waiting prompt stands back until that has its first token
            prompting = [slot for slot in prompting if _rank(slot.sequence)[0] == urgent]
            generating = [slot for slot in generating if _rank(slot.sequence)[0] <= urgent]
        guess = bool(self._guessers) and len(generating) == 1 and not prompting
        first = min((_rank(slot.sequence)[0] for slot in generating), default=urgent) if prompting else urgent
        for slot in generating:
            self._put(parts, slot, self._batch.capacity, guess=guess)
        budget = self._batch.capacity
        if generating and prompting:
            outranked = first < urgent
            budget = self._chunk(*((_SHORTER_STEP, _LEAST_OUTRANKED_CHUNK) if outranked else (_SHORT_STEP, _LEAST_CHUNK)))
        for slot in sorted(prompting, key=lambda slot: _rank(slot.sequence)):
            budget -= self._put(parts, slot, budget)
        return parts

    def _chunk(self, seconds: float, least: int) -> int:
        """How many tokens of prompts keep a step of the engine about that short, but at least so many."""
        return max(least, int(seconds / self._seconds_per_token)) if self._seconds_per_token else least

    def _put(self, parts: list[_Part], slot: Slot, budget: int, *, guess: bool = False) -> int:
        """Put a slot's next tokens into the batch, at most ``budget`` of them; return how many. What goes wrong there ends this
        sequence and no other."""
        sequence, n = slot.sequence, self._batch.n
        assert sequence is not None
        try:
            if not sequence.begun and self._waits_for_a_prefix(slot):
                return 0
            return self._put_tokens(parts, slot, sequence, budget, guess=guess)
        except Exception as error:
            self._batch.n = n
            self._n_failed += 1
            self._leave(slot)
            sequence.fail(error)
            return 0

    def _put_tokens(self, parts: list[_Part], slot: Slot, sequence: Sequence, budget: int, *, guess: bool) -> int:
        batch = self._batch
        tokens, start = sequence.tokens, len(slot.cached)
        end = min(len(tokens), start + min(budget, batch.capacity - batch.n))
        if not self._slots.cuttable and start < sequence.n_prompt - 1 < end:
            end = sequence.n_prompt - 1  # stop where a checkpoint is of most use
        if slot.singly > start:
            end, guess = min(end, start + 1), False
        if end <= start:
            return 0
        last = end == len(tokens)
        if last and self._device_sampling:
            self._context.sample_with(slot.index, sequence.device_chain)
        if last and end - start == 1:
            row = batch.add(tokens[start], start, slot.index)
        else:
            row = batch.extend(tokens[start:end], start, slot.index, output_last=last)
        draft: list[int] = []
        exact = True
        if guess and last:
            exact = self._exact_rows > 1
            most = self._exact_rows - (end - start) if exact else MAX_DRAFT
            draft = sequence.guess(self._guessers, min(most, MAX_DRAFT, batch.capacity - batch.n, self._n_ctx - end))
            for i, token in enumerate(draft):
                batch.add(token, end + i, slot.index)
        parts.append(_Part(slot, sequence, end - start, row if last else -1, draft, exact))
        return end - start

    def _waits_for_a_prefix(self, slot: Slot) -> bool:
        """Stand on what older sequences have evaluated of a common prefix; say whether one of them is still at it."""
        sequence = slot.sequence
        assert sequence is not None
        if sequence.begun or not self._slots.sharing:
            return False
        for other in self._slots.all:
            older = other.sequence
            if older is None or older.number >= sequence.number:
                continue
            common = prefix.keep_length(sequence.tokens, older.tokens)
            if common < len(slot.cached) + _WORTH_WAITING:
                continue
            done = prefix.common_prefix(sequence.tokens, other.exact)
            at_it = older.request.priority <= sequence.request.priority and older.channel.may_run()
            if done < common and at_it:
                return True
            if self._slots.share(other, slot, min(done, common)):
                sequence.found_cached(len(slot.cached))
        return False

    # --- what came out ------------------------------------------------------------------------------------------------------

    def _advance(self, part: _Part) -> None:
        slot, sequence = part.slot, part.sequence
        start = len(slot.cached)
        slot.cached.extend(sequence.tokens[start : start + part.n])
        slot.starts.append(start)
        sequence.begun = True
        try:
            if start < sequence.n_prompt:
                sequence.prefilled(min(len(slot.cached), sequence.n_prompt))
                if not self._slots.cuttable and len(slot.cached) == sequence.n_prompt - 1:
                    self._slots.checkpoint(slot)
            if part.row >= 0:
                if part.draft and not part.exact and slot.rounded is None:
                    slot.rounded = start
                if self._again_singly(slot, part.row):
                    if part.draft:
                        sequence.guessed(len(part.draft), 0)
                    return
                if not sequence.reason:
                    sequence.draw(self._context, part.row)
                if part.draft:
                    self._check_draft(part)
                if not sequence.reason:
                    self._shift(slot)
                if sequence.reason:
                    self._end(slot)
        except Exception as error:
            if part.draft:
                self._slots.cut_back(slot, start + part.n)
            self._tainted |= isinstance(error, NotANumberError)
            self._leave(slot)
            sequence.fail(error)

    def _check_draft(self, part: _Part) -> None:
        """Draw on as long as the draws are what was guessed, then forget the rest of the guess."""
        slot, sequence, draft = part.slot, part.sequence, part.draft
        base = len(slot.cached)
        slot.cached.extend(draft)
        right = 0
        while True:
            right = prefix.common_prefix(draft, sequence.tokens[base:])
            if sequence.reason or right < len(sequence.tokens) - base:
                break
            if self._again_singly(slot, part.row + right):
                sequence.guessed(len(draft), right)
                return
            sequence.draw(self._context, part.row + right)
        sequence.guessed(len(draft), right)
        if right < len(draft):
            self._slots.cut_back(slot, base + right)
        if right * 2 < len(draft):
            self._again_singly(slot)  # what was gained by it is less than what its rounding may cost later

    def _again_singly(self, slot: Slot, row: int = -1) -> bool:
        """Have the last tokens evaluated once more, one by one, if their batches rounded otherwise and they are few: for the
        choice at a row, if it is a near tie, or in any case."""
        sequence, rounded = slot.sequence, slot.rounded
        assert sequence is not None
        if rounded is None or len(slot.cached) - rounded > _LONGEST_REPAIR or sequence.reason:
            return False
        if row >= 0 and not sequence.near_tie(self._context, row, _NEAR):
            return False
        self._slots.cut_back(slot, rounded)
        slot.rounded, slot.singly = None, len(sequence.tokens)
        return True

    def _shift(self, slot: Slot) -> None:
        """Where the context is full, drop the oldest turns that may be dropped; :class:`Sequence` ends what is too long yet."""
        sequence = slot.sequence
        if sequence is not None and sequence.overfull:
            start, end = sequence.drop()
            self._slots.close_up(slot, start, end)
            if sequence.overfull:
                sequence.reason = "length"

    def _end(self, slot: Slot, reason: str = "") -> None:
        sequence = slot.sequence
        self._leave(slot)
        if sequence is not None:
            _finish(sequence, reason)

    def _leave(self, slot: Slot) -> None:
        """Let a sequence go that has ended, however it did: there is room for another one."""
        self._slots.vacate(slot)
        self._crowded = False

    def _recover(self, parts: list[_Part], code: int) -> None:
        """After a batch that was not done: forget what it left behind; then retry, make room, or fail."""
        self._context.abort.clear()
        for part in parts:
            self._slots.cut_back(part.slot, len(part.slot.cached))
        if code == _ABORTED:
            return  # whoever was cancelled is dropped at the next step, the others go on
        if code == _NO_ROOM:
            self._make_room(parts)
            return
        said = llama.recent_errors()
        what = f"llama.cpp failed to evaluate (code {code}){': ' + said if said else ''}."
        for part in parts:
            self._leave(part.slot)
            self._slots.forget(part.slot)
            part.sequence.fail(EngineError(what, "Ask again; if it repeats, load the model again."))

    def _make_room(self, parts: list[_Part]) -> None:
        """The memory is full: drop an idle slot's cache, else suspend the least important sequence, else end the only one."""
        idle = [slot for slot in self._slots.free() if slot.cached]
        running = [slot for slot in self._slots.all if slot.sequence is not None]
        if idle:
            self._slots.forget(min(idle, key=lambda slot: slot.last_used))
        elif len(running) > 1:
            least = max(running, key=lambda slot: _rank(slot.sequence))
            self._suspend(least)
            self._slots.forget(least)
            self._crowded = True
        else:
            self._end(parts[0].slot, "length")


def _rank(sequence: Sequence | None) -> tuple[int, int]:
    """What goes first: small priority numbers, then those that came first."""
    assert sequence is not None
    return sequence.request.priority, sequence.number


def _finish(sequence: Sequence, reason: str) -> None:
    try:
        sequence.finish(reason)
    except Exception as error:
        sequence.fail(error)
