"""Which slot a prompt goes to, and what of it must be evaluated. Pure: tokens in, a plan out.

A slot's cache is the list of tokens whose keys and values it holds. A prompt needs everything behind its longest common
prefix with that list evaluated, and at least its last token, because only an evaluated token has logits. Memories that cannot
be cut back (recurrent, hybrid, behind a sliding window) can only go on from where they are, or from a saved state.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T", list[int], bytes)


def common_prefix(a: T, b: T) -> int:
    """Return how many leading tokens (or bytes) two sequences share."""
    n = min(len(a), len(b))
    if a[:n] == b[:n]:  # one comparison in C decides the usual case, a prompt that goes on where the cache ends
        return n
    low, high = 0, n  # a[:low] == b[:low] holds, a[:high] == b[:high] does not
    while high - low > 1:
        middle = (low + high) // 2
        if a[low:middle] == b[low:middle]:
            low = middle
        else:
            high = middle
    return low


@dataclass(frozen=True, slots=True)
class SlotView:
    """What the choice of a slot depends on. ``last_used`` grows with time."""

    index: int
    cached: list[int]
    conversation: str
    last_used: int


def choose_slot(prompt: list[int], conversation: str, slots: Sequence[SlotView]) -> int:
    """Return the index of the slot that should take a prompt, out of those that are free.

    First the conversation's own slot; then the one that shares the longest prefix, if it is no other conversation's and that
    is worth more than half of what it would overwrite; else an empty one; else the one unused for longest. (A prefix in a slot
    that is left alone is not lost: slots share.)
    """
    if conversation:
        own = [slot for slot in slots if slot.conversation == conversation]
        if own:
            return max(own, key=lambda slot: slot.last_used).index
    shared = {slot.index: common_prefix(prompt, slot.cached) for slot in slots if not slot.conversation}
    best = max((slot for slot in slots if slot.index in shared), key=lambda slot: shared[slot.index], default=None)
    if best is not None and shared[best.index] * 2 > len(best.cached):
        return best.index
    return min(slots, key=lambda slot: (bool(slot.cached), slot.last_used)).index


def keep_length(prompt: list[int], cached: list[int]) -> int:
    """Return how many cached tokens a prompt can stand on: the common prefix, but at least one token is left to evaluate."""
    return min(common_prefix(prompt, cached), len(prompt) - 1)
