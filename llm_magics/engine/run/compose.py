"""What goes into the next batch, and which slot a prompt takes: pure decisions from the state of the slots.

First come the sequences that generate (a sampled token, tokens that a grammar forced), then chunks of prompts, important and
older ones first. While somebody generates, prompts get a share of the batch that keeps a step short. A prompt that shares its
beginning with one that is being evaluated waits for it and then stands on it, so that a system prompt is computed once for all.
While a prompt is read, all that matters less stands back.

While nobody comes or goes, every step has the shape of the one before: as many tokens, of the same sequences in the same order.
llama.cpp then keeps its graph, and on an NVIDIA GPU the CUDA graph that was recorded of it.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from enum import Enum
from typing import Generic, NamedTuple, Protocol, TypeAlias, TypeVar

from llm_magics.engine.prefix import common_prefix, keep_length

_SHORT_STEP = 0.25  # seconds that a step may take while somebody generates
_SHORTER_STEP = 0.1  # the same where who generates matters more than the prompts
_LEAST_CHUNK = 32  # tokens of prompts that a step takes in any case
_LEAST_OUTRANKED_CHUNK = 8
_WORTH_WAITING = 32  # shared tokens for which a prompt waits until another sequence has evaluated them


class Phase(Enum):
    """How far a request is. It may go back: a sequence that gives up its slot is SUSPENDED (WAITING, if none of its tokens was
    evaluated), and one whose cache was lost is READING again. Why it will end may be known in any phase."""

    WAITING = "waits for its first slot"
    SEATED = "has a slot, and may still stand on what another one evaluates"
    READING = "its prompt is being evaluated"
    GENERATING = "its tokens are drawn"
    SUSPENDED = "gave up its slot, and waits for one again"
    DONE = "its consumer has the last word"


class SequenceView(Protocol):
    """What the plan depends on of a sequence. ``rank`` is (priority, order of arrival): smaller numbers go first."""

    tokens: list[int]
    n_prompt: int
    phase: Phase
    rank: tuple[int, int]


class SlotView(Protocol):
    """What the plan depends on of a slot; see :class:`~llm_magics.engine.run.slots.Slot`."""

    index: int
    cached: list[int]
    conversation: str
    last_used: int
    singly: int

    @property
    def exact(self) -> list[int]: ...
    @property
    def sequence(self) -> SequenceView | None: ...


S = TypeVar("S", bound=SlotView)


class Limits(NamedTuple):
    """What bounds a batch: ``capacity`` in tokens; ``seconds_per_token`` of long batches (0 while unknown); whether any end of
    a sequence can be forgotten, whether slots may stand on each other's tokens, whether guesses are made."""

    capacity: int
    seconds_per_token: float = 0.0
    cuttable: bool = True
    sharing: bool = True
    guessing: bool = False


class Part(NamedTuple, Generic[S]):
    """One slot's share of a batch: ``n`` tokens of its sequence, from ``start`` on.

    ``last``: they reach the last known token, so the next one is drawn behind them; ``guess``: a guess may follow them. With a
    ``source``, the slot first takes over from that one the tokens before ``start``.
    """

    slot: S
    start: int
    n: int
    last: bool
    guess: bool = False
    source: S | None = None


BatchPlan: TypeAlias = list[Part[S]]
"""The parts of one batch, in its order."""

_GENERATING = Phase.GENERATING  # looking a member up takes longer than comparing it


def compose(occupied: Sequence[S], limits: Limits, paused: Collection[int] = ()) -> BatchPlan[S]:
    """Say what goes into the next batch.

    Args:
        occupied: the slots that have a sequence, in their order.
        limits: what bounds the batch.
        paused: the indices of those whose consumers do not keep up. Others may stand on what these have evaluated.
    """
    generating: list[S] = []
    reading: list[S] = []
    for slot in occupied:
        assert slot.sequence is not None
        if not paused or slot.index not in paused:
            (generating if slot.sequence.phase is _GENERATING else reading).append(slot)
    parts: BatchPlan[S] = []
    room, urgent = limits.capacity, 0
    if reading:  # who matters less than a waiting prompt stands back until that has its first token
        urgent = min(_of(slot).rank for slot in reading)[0]
        generating = [slot for slot in generating if _of(slot).rank[0] <= urgent]
    guess = limits.guessing and len(generating) == 1 and not reading
    for slot in generating:
        room -= _put(parts, slot, len(slot.cached), room, limits, guess)
    if not reading:
        return parts
    if generating:
        room = min(room, _chunk(limits, outranked=min(_of(slot).rank for slot in generating)[0] < urgent))
    starts: dict[int, int] = {}
    for slot in sorted(reading, key=lambda slot: _of(slot).rank):
        if _of(slot).rank[0] == urgent:
            room -= _put_prompt(parts, slot, room, limits, occupied, paused, starts)
    return parts


def _of(slot: SlotView) -> SequenceView:
    assert slot.sequence is not None
    return slot.sequence


def _put(
    parts: BatchPlan[S], slot: S, start: int, room: int, limits: Limits, guess: bool, source: S | None = None
) -> int:
    """Plan a slot's next tokens, at most ``room`` of them, from ``start`` on; return how many."""
    sequence = slot.sequence
    assert sequence is not None
    end = known = len(sequence.tokens)
    if end > start + room:
        end = start + room
    if not limits.cuttable and start < sequence.n_prompt - 1 < end:
        end = sequence.n_prompt - 1  # stop where a checkpoint is of most use
    if slot.singly > start:
        end, guess = min(end, start + 1), False
    if end <= start:
        return 0
    parts.append(Part(slot, start, end - start, end == known, guess and end == known, source))
    return end - start


def _put_prompt(
    parts: BatchPlan[S], slot: S, room: int, limits: Limits,
    occupied: Sequence[S], paused: Collection[int], starts: dict[int, int],
) -> int:
    """Plan a chunk of a prompt, on the longest prefix that older sequences have evaluated; none while one is still at it.
    ``starts`` are those of the slots that stand on another one from this step on."""
    sequence, start = _of(slot), len(slot.cached)
    source: S | None = None
    others = occupied if limits.sharing and sequence.phase is Phase.SEATED else ()
    for other in others:
        older = _of(other)
        if older.rank[1] >= sequence.rank[1]:
            continue
        common = keep_length(sequence.tokens, older.tokens)
        if common < start + _WORTH_WAITING:
            continue
        done = min(common, max(common_prefix(sequence.tokens, other.exact), starts.get(other.index, 0)))
        if done < common and older.rank[0] <= sequence.rank[0] and other.index not in paused:
            return 0
        if done > start:
            start, source = done, other
    if source is not None:
        starts[slot.index] = start
    return _put(parts, slot, start, room, limits, False, source)


def _chunk(limits: Limits, *, outranked: bool) -> int:
    """How many tokens of prompts keep a step of the engine short, but at least a few."""
    seconds, least = (_SHORTER_STEP, _LEAST_OUTRANKED_CHUNK) if outranked else (_SHORT_STEP, _LEAST_CHUNK)
    return max(least, int(seconds / limits.seconds_per_token)) if limits.seconds_per_token else least


def choose_slot(prompt: list[int], conversation: str, slots: Sequence[S]) -> S:
    """Return the slot that should take a prompt, out of those that are free.

    First the conversation's own slot; then the one that shares the longest prefix, if it is no other conversation's and that
    is worth more than half of what it would overwrite; else an empty one; else the one unused for longest. (A prefix in a slot
    that is left alone is not lost: slots share.)
    """
    own = [slot for slot in slots if conversation and slot.conversation == conversation]
    if own:
        return max(own, key=lambda slot: slot.last_used)
    shared = [(common_prefix(prompt, slot.cached), slot) for slot in slots if not slot.conversation]
    length, best = max(shared, key=lambda pair: pair[0], default=(0, None))
    if best is not None and length * 2 > len(best.cached):
        return best
    return min(slots, key=lambda slot: (bool(slot.cached), slot.last_used))
