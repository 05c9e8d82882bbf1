"""Plans the next batch, and chooses a prompt's slot: pure decisions from the state of the slots.

Sequences that generate come first (a sampled token, forced tokens), then chunks of prompts, important and older ones first.
While a sequence generates, prompts get a share of the batch that keeps the step short. A prompt that shares its beginning with
a prompt in evaluation waits and then takes over that prefix, so that a system prompt is computed once for all. Sequences that
are less important than a prompt pause while it is read.

As long as the sequences stay the same, each step has the shape of the one before: the same number of tokens, in the same
order. llama.cpp then keeps its graph, and on an NVIDIA GPU the recorded CUDA graph.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from enum import Enum
from typing import Generic, NamedTuple, Protocol, TypeAlias, TypeVar

from llm_magics.engine.prefix import common_prefix, keep_length

_SHORT_STEP = 0.25  # seconds that a step may take while a sequence generates
_SHORTER_STEP = 0.1  # the same if that sequence is more important than the prompts
_LEAST_CHUNK = 32  # tokens of prompts that a step takes in any case
_LEAST_OUTRANKED_CHUNK = 8
_WORTH_WAITING = 32  # shared tokens for which a prompt waits until another sequence has evaluated them


class Phase(Enum):
    """How far a request is. A sequence that gives up its slot is SUSPENDED (WAITING, if none of its tokens was evaluated); one
    that lost its cache is READING again."""

    WAITING = "waits for its first slot"
    SEATED = "has a slot, and may still take over a prefix from another one"
    READING = "its prompt is being evaluated"
    GENERATING = "its tokens are drawn"
    SUSPENDED = "gave up its slot, and waits for another one"
    DONE = "its consumer has the last event"


class SequenceView(Protocol):
    """The part of a sequence that plans depend on. ``rank`` is (priority, order of arrival): smaller numbers go first."""

    tokens: list[int]
    n_prompt: int
    phase: Phase
    rank: tuple[int, int]


class SlotView(Protocol):
    """The part of a slot that plans depend on; see :class:`~llm_magics.engine.run.slots.Slot`."""

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
    """Bounds of a batch: ``capacity`` in tokens; ``seconds_per_token`` of long batches (0 while unknown); whether any end of a
    sequence can be forgotten; whether slots may share prefixes; whether guesses are made."""

    capacity: int
    seconds_per_token: float = 0.0
    cuttable: bool = True
    sharing: bool = True
    guessing: bool = False


class Part(NamedTuple, Generic[S]):
    """One slot's share of a batch: ``n`` tokens of its sequence, from ``start`` on.

    ``last``: they end with the last known token, so the next token is drawn; ``guess``: a guess may follow. With a ``source``,
    the slot first takes over the tokens before ``start`` from that slot.
    """

    slot: S
    start: int
    n: int
    last: bool
    guess: bool = False
    source: S | None = None


BatchPlan: TypeAlias = list[Part[S]]
_GENERATING = Phase.GENERATING  # looking up the member takes longer than the comparison


def compose(occupied: Sequence[S], limits: Limits, paused: Collection[int] = ()) -> BatchPlan[S]:
    """Plan the next batch from the slots that have a sequence, in their order.

    ``paused`` are the indices of the slots whose consumers do not keep up; others may still share their prefixes.
    """
    generating: list[S] = []
    reading: list[S] = []
    for slot in occupied:
        assert slot.sequence is not None
        if not paused or slot.index not in paused:
            (generating if slot.sequence.phase is _GENERATING else reading).append(slot)
    parts: BatchPlan[S] = []
    room, urgent = limits.capacity, 0
    if reading:  # less important sequences pause until the prompt has its first token
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


def _put(parts: BatchPlan[S], slot: S, start: int, room: int, limits: Limits, guess: bool, source: S | None = None) -> int:
    """Plan a slot's next tokens, at most ``room`` of them, from ``start`` on; return how many."""
    sequence = slot.sequence
    assert sequence is not None
    known = len(sequence.tokens)
    end = min(known, start + room)
    if not limits.cuttable and start < sequence.n_prompt - 1 < end:
        end = sequence.n_prompt - 1  # the most useful place for a checkpoint
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
    """Plan a chunk of a prompt behind the longest prefix that older sequences have evaluated; wait while one still evaluates a
    longer one. ``starts`` are the lengths of the prefixes that slots take over in this step."""
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
    """How many tokens of prompts keep a step short; at least a few."""
    seconds, least = (_SHORTER_STEP, _LEAST_OUTRANKED_CHUNK) if outranked else (_SHORT_STEP, _LEAST_CHUNK)
    return max(least, int(seconds / limits.seconds_per_token)) if limits.seconds_per_token else least


def choose_slot(prompt: list[int], conversation: str, slots: Sequence[S]) -> S:
    """Return the slot, out of the free ones, that should take a prompt.

    First the conversation's own slot; then the unowned slot with the longest shared prefix, if that is more than half of its
    tokens; else an empty slot; else the one unused for longest. (Slots share prefixes, so none is lost in a slot that is kept.)
    """
    own = [slot for slot in slots if conversation and slot.conversation == conversation]
    if own:
        return max(own, key=lambda slot: slot.last_used)
    shared = [(common_prefix(prompt, slot.cached), slot) for slot in slots if not slot.conversation]
    length, best = max(shared, key=lambda pair: pair[0], default=(0, None))
    if best is not None and length * 2 > len(best.cached):
        return best
    return min(slots, key=lambda slot: (bool(slot.cached), slot.last_used))
