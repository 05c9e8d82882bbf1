"""The slots of a context: which tokens each one holds in the KV cache, and how a prompt reuses them.

There are four ways to reuse: cut the slot back to the common prefix; share the prefix of another slot (the cells are shared,
not copied); continue from a state saved in the slot (if the memory cannot be cut back: recurrent, hybrid, behind a sliding
window); take back the parked state of a conversation that lost its slot.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from dataclasses import dataclass, field

from llm_magics.engine import prefix
from llm_magics.engine.native.context import Context
from llm_magics.engine.native.model import Model

from .compose import choose_slot
from .parking import Parking
from .sequence import Sequence

_CHECKPOINTS = 8
_CHECKPOINT_BYTES = 512 * 2**20
_WORTH_PARKING = 64  # tokens that no other slot holds; fewer are as quickly evaluated again


@dataclass(slots=True)
class Slot:
    """One sequence of the context. ``cached`` is always exactly the list of tokens whose keys and values it holds.

    ``checkpoints`` are (length, state). Behind ``shifted`` tokens, keys and values depend on turns that have been dropped
    since, so they serve this conversation only. Behind ``rounded`` tokens, they come from batches of the running sequence that
    round differently from single tokens. None: there is no such part. Tokens before ``singly`` are evaluated one by one.
    ``starts`` are the lengths at which batches began, in order.
    """

    index: int
    cached: list[int] = field(default_factory=list)
    conversation: str = ""
    last_used: int = 0
    sequence: Sequence | None = None
    checkpoints: list[tuple[int, bytes]] = field(default_factory=list)
    shifted: int | None = None
    rounded: int | None = None
    singly: int = 0
    starts: list[int] = field(default_factory=list)

    def start_before(self, length: int) -> int:
        """How many of ``length`` tokens to keep so that the rest is evaluated in the same batches as before: all, if the slot
        holds no more, else those before the batch with the next token. E.g. after a prompt of 40 tokens in one batch and its
        answer, 39 gives 0, and 45 gives 45."""
        if length >= len(self.cached):
            return length
        after = bisect_right(self.starts, length)
        return self.starts[after - 1] if after else 0

    def shorten(self, length: int) -> None:
        """Note that only ``length`` tokens are left."""
        del self.cached[length:]
        del self.starts[bisect_left(self.starts, length) :]
        self.checkpoints = [saved for saved in self.checkpoints if saved[0] <= length]
        if self.shifted is not None and length <= self.shifted:
            self.shifted = None
        if self.rounded is not None and length <= self.rounded:
            self.rounded = None
        self.tell()

    def tell(self) -> None:
        """Tell the slot's sequence how many of its tokens are left."""
        if self.sequence is not None:
            self.sequence.holds(len(self.cached))

    @property
    def exact(self) -> list[int]:
        """The tokens whose keys and values serve any conversation."""
        return self.cached if self.shifted is None else self.cached[: self.shifted]


class Slots:
    """The slots of one context and the conversations parked beside it."""

    def __init__(self, model: Model, context: Context, n_slots: int, *, reuse: bool, parking: Parking) -> None:
        self.all = [Slot(i) for i in range(n_slots)]
        self.cuttable = model.cuttable
        self._recurrent = model.recurrent
        self.sharing = self.cuttable and reuse
        self._n_swa = model.n_swa
        self._context = context
        self._reuse = reuse
        self._parking = parking
        self._clock = 0

    def free(self) -> list[Slot]:
        return [slot for slot in self.all if slot.sequence is None]

    def running(self) -> list[tuple[Slot, Sequence]]:
        return [(slot, slot.sequence) for slot in self.all if slot.sequence is not None]

    def choose(self, sequence: Sequence) -> Slot:
        return choose_slot(sequence.tokens, sequence.request.conversation, self.free())

    def seat(self, slot: Slot, sequence: Sequence) -> int:
        """Give a slot to a sequence and keep its reusable prefix; return how many tokens of the prefix could not be kept."""
        tokens, conversation = sequence.tokens, sequence.request.conversation
        if slot.conversation and slot.conversation != conversation:
            self.park(slot, slot.conversation)
        own = bool(conversation) and slot.conversation == conversation
        wanted = prefix.keep_length(tokens, slot.cached if own else slot.exact) if self._reuse else 0
        lengths = [prefix.keep_length(tokens, other.exact) if self.sharing else 0 for other in self.all]
        if sequence.request.same_again:
            wanted = self._own_start(slot, sequence, wanted) if own else slot.start_before(wanted)
            lengths = [other.start_before(length) for other, length in zip(self.all, lengths, strict=True)]
        have = max(wanted, *lengths)
        if not any(self._take_back(slot, name, sequence, have) for name in (sequence.parking, conversation)):
            self.cut_back(slot, wanted)
            for other, length in zip(self.all, lengths, strict=True):
                self.share(other, slot, length)
        self.unpark(sequence.parking)
        slot.conversation = conversation
        slot.sequence = sequence
        slot.tell()
        return max(0, wanted - len(slot.cached))

    def _own_start(self, slot: Slot, sequence: Sequence, length: int) -> int:
        """How many tokens a conversation keeps of its own: up to a batch's start if the whole prompt is cached, because then it
        is asked again; else ``length``, as the first time."""
        return slot.start_before(length) if length == len(sequence.tokens) - 1 else length

    def vacate(self, slot: Slot) -> None:
        """Free a slot of its sequence; the cache stays."""
        self._clock += 1
        slot.last_used = self._clock
        slot.sequence = None
        slot.rounded, slot.singly = None, 0

    def cut_back(self, slot: Slot, length: int) -> None:
        """Keep at most ``length`` tokens; fewer if the memory cannot be cut there."""
        if length <= 0:
            self.forget(slot)
        elif self._cut(slot, length):
            slot.shorten(length)
        elif not self._restore_checkpoint(slot, length):
            self.forget(slot)

    def _cut(self, slot: Slot, length: int) -> bool:
        behind_window = self._n_swa and length < len(slot.cached)
        if behind_window and self._context.first_position(slot.index) > max(0, length - self._n_swa):
            return False  # the window before this position is gone
        return self._context.cut(slot.index, length)

    def _restore_checkpoint(self, slot: Slot, length: int) -> bool:
        usable = [saved for saved in slot.checkpoints if saved[0] <= length]
        for saved, state in sorted(usable, reverse=True):
            if self._context.restore(slot.index, state, partial=True) and self._context.cut(slot.index, saved):
                slot.shorten(saved)
                return True
        return False

    def forget(self, slot: Slot) -> None:
        """Forget all tokens of a slot, and its conversation unless its sequence still runs.

        llama.cpp clears a recurrent state before reuse by multiplying it by zero, which keeps a NaN; so its bytes are cleared
        too, as soon as no other slot holds tokens.
        """
        self._empty(slot)
        if self._recurrent and not any(other.cached for other in self.all):
            self._context.wipe()

    def wipe(self) -> None:
        """Forget everything, bytes included: a NaN spreads to other sequences, because attention multiplies masked values by
        zero. Running sequences are evaluated again; parked states stay, because they were saved before."""
        for slot in self.all:
            self._empty(slot)
        self._context.wipe()

    def _empty(self, slot: Slot) -> None:
        self._context.forget(slot.index)
        slot.cached.clear()
        slot.starts.clear()
        slot.checkpoints.clear()
        slot.shifted = slot.rounded = None
        slot.singly = 0
        slot.tell()
        if slot.sequence is None:
            slot.conversation = ""

    def close_up(self, slot: Slot, start: int, end: int) -> None:
        """Forget the tokens from ``start`` to ``end``, and keep those behind them if possible.

        Cells that another slot shares cannot be moved for one of the two. An idle slot drops them; a busy slot keeps them, and
        this slot's tokens from ``start`` on are evaluated again.
        """
        if end > len(slot.cached):
            self.cut_back(slot, min(start, len(slot.cached)))
            return
        sharing = [other for other in self.all if other is not slot and prefix.common_prefix(slot.cached, other.cached) > end]
        if any(other.sequence is not None for other in sharing):
            self.cut_back(slot, start)
            return
        for other in sharing:
            self.cut_back(other, end)
        self._context.close_up(slot.index, start, end)
        del slot.cached[start:end]
        moved = [one - (end - start) for one in slot.starts[bisect_left(slot.starts, end) :]]
        slot.starts[bisect_left(slot.starts, start) :] = moved
        slot.rounded, slot.singly = None, 0
        slot.shifted = start if slot.shifted is None else min(slot.shifted, start)
        slot.tell()

    def checkpoint(self, slot: Slot) -> None:
        """Save the state of a memory that cannot be cut back, to return to this length later."""
        slot.checkpoints.append((len(slot.cached), self._context.save(slot.index, partial=True)))
        while len(slot.checkpoints) > _CHECKPOINTS or sum(len(state) for _, state in slot.checkpoints) > _CHECKPOINT_BYTES:
            slot.checkpoints.pop(0)

    def share(self, source: Slot, target: Slot, length: int) -> bool:
        """Share the first ``length`` tokens of one slot, all of them exact, with another, if that has fewer."""
        if source is target or not self.sharing or not len(target.cached) < length <= len(source.cached):
            return False
        self.forget(target)
        self._context.copy(source.index, target.index, length)
        target.cached[:] = source.cached[:length]
        target.starts[:] = source.starts[: bisect_left(source.starts, length)]
        return True

    def park(self, slot: Slot, name: str) -> None:
        """Save a slot's whole state under a name, unless other slots hold most of it too, or it is shifted."""
        others = [prefix.common_prefix(slot.cached, other.cached) for other in self.all if other is not slot]
        little = len(slot.cached) - max(others, default=0) < _WORTH_PARKING
        if little or slot.shifted is not None or not self._reuse:
            return
        if self._parking.has_room_for(self._context.state_size(slot.index)):
            state = self._context.save(slot.index, partial=False)
            self._parking.put(name, slot.cached.copy(), state, slot.starts.copy())

    def unpark(self, name: str) -> None:
        self._parking.drop(name)

    def _take_back(self, slot: Slot, name: str, sequence: Sequence, have: int) -> bool:
        """Put a parked state into a slot if it is worth more than the ``have`` tokens that the slots hold."""
        parked = self._parking.tokens(name) if name else None
        if parked is None:
            return False
        length = prefix.keep_length(sequence.tokens, parked)
        if length < have + _WORTH_PARKING or (not self.cuttable and length < len(parked)):
            return False
        starts, state = self._parking.starts(name), self._parking.take(name)
        if state is None:
            return False
        self.forget(slot)
        if not self._context.restore(slot.index, state, partial=False):
            self.forget(slot)  # no room for the state; a prefill makes room
            return False
        slot.cached[:], slot.starts[:] = parked, starts
        if sequence.request.same_again:
            length = self._own_start(slot, sequence, length)
        self.cut_back(slot, length)
        return True
