"""Slots over one context: which sequences are evaluated together, and what their slots remember afterwards.

Each step fills one batch with what every running sequence has not evaluated yet (one sampled token, tokens a grammar forced,
or the next chunk of a prompt), lets llama.cpp evaluate it, and draws one token for each sequence whose last token was in it.
A slot's ``cached`` is exactly the list of tokens whose keys and values its sequence holds, whatever happened: that is what
makes a step abortable anywhere.

All of this runs in the engine's thread, except :meth:`Scheduler.interrupt`.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from ..errors import EngineError
from . import llama, prefix
from .context import Batch, Context
from .model import Model
from .sequence import Sequence

_DONE, _NO_ROOM, _ABORTED = 0, 1, 2
_LONG_BATCH = 32  # tokens; a batch longer than this is worth aborting for an interrupt
_CHECKPOINTS = 8
_CHECKPOINT_BYTES = 512 * 2**20


@dataclass(slots=True)
class Slot:
    """One sequence of the context. ``checkpoints`` are (length, state) of a memory that cannot be cut back."""

    index: int
    cached: list[int] = field(default_factory=list)
    conversation: str = ""
    last_used: int = 0
    sequence: Sequence | None = None
    checkpoints: list[tuple[int, bytes]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Part:
    """One slot's share of a batch; ``row`` is where its logits will be, -1 for none."""

    slot: Slot
    sequence: Sequence
    n: int
    row: int


class Scheduler:
    """Runs sequences over the slots of one context."""

    def __init__(self, model: Model, context: Context, *, n_slots: int, n_ctx: int, reuse: bool) -> None:
        self._context = context
        self._batch = Batch(context.n_batch)
        self._slots = [Slot(i) for i in range(n_slots)]
        self._waiting: list[Sequence] = []
        self._n_ctx = n_ctx
        self._reuse = reuse
        self._n_swa = model.n_swa
        self._cuttable = not model.recurrent and not model.n_swa
        self._clock = 0
        self._long_batch = False

    # --- from outside -------------------------------------------------------------------------------------------------------

    def add(self, sequence: Sequence) -> None:
        """Queue a sequence: smaller priority numbers first, then first come, first served."""
        at = len(self._waiting)
        while at and self._waiting[at - 1].request.priority > sequence.request.priority:
            at -= 1
        self._waiting.insert(at, sequence)

    def interrupt(self) -> None:
        """Cut a long evaluation short, so that a cancelled sequence is noticed. Any thread may call this; an abort that
        comes too early or too late only repeats a step."""
        if self._long_batch:
            self._context.abort.set()

    def runnable(self) -> bool:
        """Say whether :meth:`step` has something to do."""
        return bool(self._waiting) or any(
            slot.sequence is not None and (slot.sequence.channel.cancelled or slot.sequence.channel.may_run())
            for slot in self._slots
        )

    def end_all(self, error: Exception | None = None) -> None:
        """End every sequence: as interrupted, or with an error."""
        running = [slot.sequence for slot in self._slots if slot.sequence is not None]
        everyone, self._waiting = running + self._waiting, []
        for slot in self._slots:
            slot.sequence = None
        for sequence in everyone:
            if error is not None:
                sequence.fail(error)
            else:
                _finish(sequence, "interrupted")

    # --- one step -----------------------------------------------------------------------------------------------------------

    def step(self) -> None:
        """Evaluate one batch and draw the tokens that follow from it."""
        self._drop_cancelled()
        self._admit()
        parts = self._fill()
        if not parts:
            return
        self._long_batch = self._batch.n > _LONG_BATCH
        code = self._context.decode(self._batch)
        self._long_batch = False
        if code == _DONE:
            for part in parts:
                self._advance(part)
        else:
            self._recover(parts, code)

    def _drop_cancelled(self) -> None:
        for slot in self._slots:
            if slot.sequence is not None and slot.sequence.channel.cancelled:
                self._end(slot, "interrupted")
        if any(sequence.channel.cancelled for sequence in self._waiting):
            for sequence in [s for s in self._waiting if s.channel.cancelled]:
                self._waiting.remove(sequence)
                _finish(sequence, "interrupted")

    def _admit(self) -> None:
        while self._waiting:
            free = [slot for slot in self._slots if slot.sequence is None]
            if not free:
                return
            sequence = self._waiting.pop(0)
            views = [prefix.SlotView(s.index, s.cached, s.conversation, s.last_used) for s in free]
            slot = self._slots[prefix.choose_slot(sequence.request.prompt, sequence.request.conversation, views)]
            try:
                self._prepare(slot, sequence)
                sequence.start()
            except Exception as error:
                sequence.fail(error)
            else:
                slot.sequence = sequence
                slot.conversation = sequence.request.conversation
                sequence.prefilled(0)

    def _fill(self) -> list[_Part]:
        batch, parts = self._batch, []
        batch.clear()
        for slot in self._slots:
            sequence = slot.sequence
            if sequence is None or not sequence.channel.may_run():
                continue
            start = len(slot.cached)
            end = min(len(sequence.tokens), start + batch.capacity - batch.n)
            if not self._cuttable and start < sequence.n_prompt - 1 < end:
                end = sequence.n_prompt - 1  # stop where a checkpoint is of most use
            if end <= start:
                continue
            last = end == len(sequence.tokens)
            if last and end - start == 1:
                row = batch.add(sequence.tokens[start], start, slot.index)
            else:
                row = batch.extend(sequence.tokens[start:end], start, slot.index, output_last=last)
            parts.append(_Part(slot, sequence, end - start, row if last else -1))
        return parts

    def _advance(self, part: _Part) -> None:
        slot, sequence = part.slot, part.sequence
        start = len(slot.cached)
        slot.cached.extend(sequence.tokens[start : start + part.n])
        try:
            if start < sequence.n_prompt:
                sequence.prefilled(min(len(slot.cached), sequence.n_prompt) - sequence.n_cached)
                if not self._cuttable and len(slot.cached) == sequence.n_prompt - 1:
                    self._checkpoint(slot)
            if part.row >= 0:
                if not sequence.reason:
                    sequence.draw(self._context, part.row)
                if sequence.reason:
                    self._end(slot)
        except Exception as error:
            slot.sequence = None
            sequence.fail(error)

    def _end(self, slot: Slot, reason: str = "") -> None:
        sequence, slot.sequence = slot.sequence, None
        self._clock += 1
        slot.last_used = self._clock
        if sequence is not None:
            _finish(sequence, reason)

    def _recover(self, parts: list[_Part], code: int) -> None:
        """After a batch that was not done: forget what it left behind; then retry, make room, or fail."""
        self._context.abort.clear()
        for part in parts:
            self._cut_back(part.slot, len(part.slot.cached))
        if code == _ABORTED:
            return  # whoever was cancelled is dropped at the next step, the others go on
        if code == _NO_ROOM:
            self._make_room(parts)
            return
        said = llama.recent_errors()
        what = f"llama.cpp failed to evaluate (code {code}){': ' + said if said else ''}."
        for part in parts:
            part.slot.sequence = None
            self._forget(part.slot)
            part.sequence.fail(EngineError(what, "Ask again; if it repeats, load the model again."))

    def _make_room(self, parts: list[_Part]) -> None:
        """The memory is full: drop an idle slot's cache, else end the youngest of several sequences, else this one."""
        idle = [slot for slot in self._slots if slot.sequence is None and slot.cached]
        if idle:
            self._forget(min(idle, key=lambda slot: slot.last_used))
            return
        youngest = max((part.slot for part in parts), key=lambda slot: -len(slot.cached))
        if len(parts) > 1 and youngest.sequence is not None:
            self._waiting.insert(0, youngest.sequence)
            youngest.sequence = None
            self._forget(youngest)
        else:
            self._end(parts[0].slot, "length")

    # --- what a slot remembers ----------------------------------------------------------------------------------------------

    def _prepare(self, slot: Slot, sequence: Sequence) -> None:
        """Cut a slot's cache back to what a new sequence can stand on."""
        tokens = sequence.tokens
        wanted = prefix.keep_length(tokens, slot.cached) if self._reuse else 0
        self._cut_back(slot, wanted)
        sequence.n_cached = len(slot.cached)
        lost = wanted - sequence.n_cached
        if lost:
            sequence.losses.append(f"this model's memory cannot be cut back: {lost} tokens evaluated anew")

    def _cut_back(self, slot: Slot, length: int) -> None:
        """Keep at most ``length`` tokens; fewer where the memory cannot be cut there."""
        if length == 0:
            self._forget(slot)
            return
        if self._cut(slot, length):
            del slot.cached[length:]
            slot.checkpoints = [saved for saved in slot.checkpoints if saved[0] <= length]
            return
        for saved, state in sorted((saved for saved in slot.checkpoints if saved[0] <= length), reverse=True):
            if self._context.restore(slot.index, state, partial=True) and self._context.cut(slot.index, saved):
                del slot.cached[saved:]
                slot.checkpoints = [other for other in slot.checkpoints if other[0] <= saved]
                return
        self._forget(slot)

    def _cut(self, slot: Slot, length: int) -> bool:
        if not self._cuttable and length == len(slot.cached):
            return self._context.cut(slot.index, length)
        if self._n_swa and self._context.first_position(slot.index) > max(0, length - self._n_swa):
            return False  # the window in front of this position is gone
        return self._context.cut(slot.index, length)

    def _forget(self, slot: Slot) -> None:
        self._context.forget(slot.index)
        slot.cached.clear()
        slot.checkpoints.clear()
        slot.conversation = ""

    def _checkpoint(self, slot: Slot) -> None:
        slot.checkpoints.append((len(slot.cached), self._context.save(slot.index, partial=True)))
        while len(slot.checkpoints) > _CHECKPOINTS or sum(len(state) for _, state in slot.checkpoints) > _CHECKPOINT_BYTES:
            slot.checkpoints.pop(0)


def _finish(sequence: Sequence, reason: str) -> None:
    try:
        sequence.finish(reason)
    except Exception as error:
        sequence.fail(error)
