"""Runs sequences over the slots of one context: continuous batching, step by step.

Each step admits sequences, fills one batch as :mod:`.compose` plans it, lets llama.cpp evaluate the batch, and draws one token
for each sequence whose last token was in it. A step succeeds, is aborted (for an interrupt or a more important sequence), finds
no room in the memory, or fails in llama.cpp. Logits may be NaN.

A more important prompt gets its first token as soon as on an idle engine: the running batch is cut short, a less important
sequence gives up its slot, and all less important sequences pause until that first token.

All of this runs in the engine's thread, except :meth:`Scheduler.interrupt`.
"""

from __future__ import annotations

import bisect
import time
from collections.abc import Callable
from typing import TypeAlias

from llm_magics.engine.guess.speculation import Speculation
from llm_magics.engine.native import llama
from llm_magics.engine.native.context import Batch, Context, Outcome
from llm_magics.engine.native.model import Model
from llm_magics.engine.native.sampling import NotANumberError
from llm_magics.errors import EngineError

from .compose import Limits, Part, Phase, compose
from .parking import Parking
from .sequence import Sequence
from .slots import Slot, Slots

_LONG_BATCH = 32  # tokens; a longer batch is worth aborting for an interrupt
_NOBODY: frozenset[int] = frozenset()
_GENERATING = Phase.GENERATING

_Filled: TypeAlias = tuple[Part[Slot], Sequence, int, list[int]]
"""A part of the plan in the batch: the part, its sequence, the row of its last token's logits (-1 for none), its guess."""


class Scheduler:
    """Runs sequences over the slots of one context. ``n_ctx`` bounds one sequence. ``tell`` is called before each evaluation,
    to send on what the sequences have said since the last one."""

    def __init__(
        self, model: Model, context: Context, *, n_slots: int, n_ctx: int, reuse: bool = True,
        speculation: Speculation | None = None, parking: Parking | None = None, device_sampling: bool = False,
        tell: Callable[[], None] = lambda: None,
    ) -> None:  # fmt: skip
        self._context = context
        self._batch = Batch(context.n_batch)
        self._slots = Slots(model, context, n_slots, reuse=reuse, parking=parking or Parking(0))
        self._waiting: list[Sequence] = []
        self._n_ctx = n_ctx
        self._speculation = speculation or Speculation()
        self._device_sampling = device_sampling
        self._tell = tell
        cuttable, sharing = self._slots.cuttable, self._slots.sharing
        self._limits = Limits(context.n_batch, cuttable=cuttable, sharing=sharing, guessing=self._speculation.on)
        self._numbered = 0
        self._crowded = False  # the memory was full: no sequence is admitted until another one has ended
        self._long_batch = False
        self._changed = False  # the slots changed while the batch was filled
        self._batch_priority: int | None = None  # of the running batch, if it can be cut short
        self._calls: list[int | None] = []  # the priorities of interrupt() since the last batch

    def add(self, sequence: Sequence) -> None:
        """Queue a sequence: smaller priority numbers first, then in the order of arrival."""
        self._numbered += 1
        sequence.rank = (sequence.request.priority, self._numbered)
        self._queue(sequence)

    def interrupt(self, priority: int | None = None) -> None:
        """Cut a long evaluation short, to notice a cancelled sequence; with a ``priority``, any evaluation of less important
        sequences. Any thread may call this once its command is queued. An early call prevents the evaluation; a late one only
        repeats a step."""
        self._calls.append(priority)  # first, because the engine reads the calls after it has set what it evaluates
        if self._cuts(priority):
            self._context.abort.set()

    def _cuts(self, priority: int | None) -> bool:
        running = self._batch_priority
        return self._long_batch if priority is None else running is not None and priority < running

    @property
    def n_waiting(self) -> int:
        return len(self._waiting)

    def end_all(self, error: Exception | None = None) -> None:
        running = [sequence for _, sequence in self._slots.running()]
        everyone, self._waiting = running + self._waiting, []
        for slot in self._slots.all:
            self._slots.vacate(slot)
        for sequence in everyone:
            if error is not None:
                sequence.fail(error)
            else:
                _finish(sequence, "interrupted")

    def step(self) -> bool:
        """Evaluate one batch and draw the next tokens; False if there is nothing to do until a request or a wake-up."""
        self._drop_cancelled()
        self._admit()
        parts = self._fill()
        if not parts:
            return self._changed  # another sequence may then take the slot
        code = self._evaluate(parts)
        if code == Outcome.DONE:
            self._go_on(parts)
            return True
        self._context.abort.clear()
        for part, *_ in parts:  # forget what the batch left in the memory
            self._slots.cut_back(part.slot, len(part.slot.cached))
        if code == Outcome.NO_ROOM:
            self._make_room(parts[0][0].slot)
        elif code != Outcome.ABORTED:  # the next step drops cancelled sequences and continues the others
            self._fail(parts, code)
        return True

    def _evaluate(self, parts: list[_Filled]) -> int:
        """Evaluate the batch, unless an interrupt arrived while it was filled."""
        self._tell()
        self._long_batch = long = self._batch.n > _LONG_BATCH
        if long or self._slots.cuttable:  # a memory that cannot be cut may lose more by an abort than a short step takes
            self._batch_priority = min([sequence.rank[0] for _, sequence, _, _ in parts])
        begin = time.perf_counter() if long else 0.0
        called = bool(self._calls) and any(map(self._cuts, self._calls))
        code = Outcome.ABORTED if called else self._context.decode(self._batch)
        self._long_batch, self._batch_priority = False, None
        self._calls.clear()
        if long and code == Outcome.DONE:
            seconds, before = (time.perf_counter() - begin) / self._batch.n, self._limits.seconds_per_token
            self._limits = self._limits._replace(seconds_per_token=0.7 * before + 0.3 * seconds if before else seconds)
        return code

    def _go_on(self, parts: list[_Filled]) -> None:
        tainted = False  # the memory holds NaN
        for part, sequence, row, draft in parts:
            try:
                self._advance(part, sequence, row, draft)
            except Exception as error:
                if draft:
                    self._slots.cut_back(part.slot, part.start + part.n)
                tainted |= isinstance(error, NotANumberError)
                self._leave(part.slot)
                sequence.fail(error)
        if tainted:
            self._slots.wipe()

    def _drop_cancelled(self) -> None:
        for slot in self._slots.all:
            if slot.sequence is not None and slot.sequence.channel.cancelled:
                self._end(slot, "interrupted")
        if self._waiting:
            for sequence in [s for s in self._waiting if s.channel.cancelled]:
                self._waiting.remove(sequence)
                self._slots.unpark(sequence.parking)
                _finish(sequence, "interrupted")

    def _queue(self, sequence: Sequence) -> None:
        bisect.insort(self._waiting, sequence, key=lambda one: one.rank)

    def _admit(self) -> None:
        while self._waiting:
            sequence = next((s for s in self._waiting if s.channel.may_run()), None)
            if sequence is None or not self._has_place_for(sequence.request.priority):
                return
            self._waiting.remove(sequence)
            slot: Slot | None = None
            try:
                slot = self._slots.choose(sequence)
                lost = self._slots.seat(slot, sequence)
                self._shift(slot)
                if sequence.phase is Phase.SEATED:
                    sequence.start(len(slot.cached), lost)
            except Exception as error:
                if slot is not None:
                    self._leave(slot)
                sequence.fail(error)

    def _has_place_for(self, priority: int) -> bool:
        """Whether a slot is free, or can be freed, for this priority. A sequence with a slow consumer gives up its slot first,
        else the least important and youngest one, if it is less important."""
        if not self._crowded and self._slots.free():
            return True
        running = self._slots.running()
        paused = [] if self._crowded else [pair for pair in running if not pair[1].channel.may_run()]
        slot, sequence = max(paused or running, key=lambda pair: pair[1].rank)
        if not paused and sequence.rank[0] <= priority:
            return False
        self._suspend(slot, sequence)
        if self._crowded:
            self._slots.forget(slot)
        return True

    def _suspend(self, slot: Slot, sequence: Sequence) -> None:
        """Put a sequence back into the queue, and park its state."""
        try:
            self._slots.park(slot, sequence.parking)
        except Exception as error:
            sequence.losses.append(f"its state could not be parked: {error}")
        self._slots.vacate(slot)
        sequence.suspend()
        self._queue(sequence)

    def _fill(self) -> list[_Filled]:
        """Fill the batch as planned. An error of one sequence ends that sequence only."""
        occupied: list[Slot] = []
        paused = _NOBODY
        for slot in self._slots.all:
            if slot.sequence is not None:
                occupied.append(slot)
                if not slot.sequence.channel.may_run():
                    paused |= {slot.index}
        self._batch.clear()
        self._changed = False
        filled: list[_Filled] = []
        for part in compose(occupied, self._limits, paused):
            sequence, n = part.slot.sequence, self._batch.n
            assert sequence is not None
            try:
                if part.source is None or self._stand_on(part.source, part, sequence):
                    filled.append(self._put(part, sequence))
            except Exception as error:
                self._batch.n = n
                self._changed = True
                self._leave(part.slot)
                sequence.fail(error)
        return filled

    def _stand_on(self, source: Slot, part: Part[Slot], sequence: Sequence) -> bool:
        """Take over a part's prefix from another slot; False if that slot has just lost it: plan again."""
        if not self._slots.share(source, part.slot, part.start):
            self._changed = True
            return False
        sequence.found_cached(part.start)
        return True

    def _put(self, part: Part[Slot], sequence: Sequence) -> _Filled:
        slot, start, n, last, guess, _ = part
        batch, tokens, index = self._batch, sequence.tokens, slot.index
        if last and self._device_sampling:
            self._context.sample_with(index, sequence.device_chain)
        if last and n == 1:
            row = batch.add(tokens[start], start, index)
        else:
            row = batch.extend(tokens[start : start + n], start, index, output_last=last)
        draft: list[int] = []
        if guess:
            end = start + n
            draft = self._speculation.guess(sequence, n, min(batch.capacity - batch.n, self._n_ctx - end))
            for i, token in enumerate(draft):
                batch.add(token, end + i, index)
        return part, sequence, row if last else -1, draft

    def _advance(self, part: Part[Slot], sequence: Sequence, row: int, draft: list[int]) -> None:
        slot, start, n, *_ = part
        cached = slot.cached
        cached.extend(sequence.tokens[start : start + n])
        slot.starts.append(start)
        if sequence.phase is not _GENERATING:
            sequence.read(len(cached))
            if not self._slots.cuttable and len(cached) == sequence.n_prompt - 1:
                self._slots.checkpoint(slot)
        if row < 0:
            return
        if self._speculation.on:
            stays = self._speculation.draw(self._context, slot, sequence, row, start, draft)
            if stays < len(cached):
                self._slots.cut_back(slot, stays)
        elif not sequence.reason:
            sequence.draw(self._context, row)
        if not sequence.reason:
            self._shift(slot)
        if sequence.reason:
            self._end(slot)

    def _shift(self, slot: Slot) -> None:
        """If the context is full, drop the oldest droppable turns; end a sequence that is still too long."""
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
        """Free the slot of a sequence that has ended."""
        self._slots.vacate(slot)
        self._crowded = False

    def _fail(self, parts: list[_Filled], code: int) -> None:
        """End every sequence of a batch at which llama.cpp failed."""
        said = llama.recent_errors()
        what = f"llama.cpp failed to evaluate (code {code}){': ' + said if said else ''}."
        for part, sequence, *_ in parts:
            self._leave(part.slot)
            self._slots.forget(part.slot)
            sequence.fail(EngineError(what, "Ask again; if it repeats, load the model again."))

    def _make_room(self, slot: Slot) -> None:
        """Free memory: drop an idle slot's cache, else suspend the least important sequence, else end the only one."""
        idle = [slot for slot in self._slots.free() if slot.cached]
        running = self._slots.running()
        if idle:
            self._slots.forget(min(idle, key=lambda slot: slot.last_used))
        elif len(running) > 1:
            least, sequence = max(running, key=lambda pair: pair[1].rank)
            self._suspend(least, sequence)
            self._slots.forget(least)
            self._crowded = True
        else:
            self._end(slot, "length")


def _finish(sequence: Sequence, reason: str) -> None:
    try:
        sequence.finish(reason)
    except Exception as error:
        sequence.fail(error)
