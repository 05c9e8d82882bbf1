"""How much of a prompt a cache holds. A cache is the list of tokens whose keys and values are kept: a prompt needs everything
behind the longest common prefix with it evaluated."""

from __future__ import annotations

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


def keep_length(prompt: list[int], cached: list[int]) -> int:
    """Return how many cached tokens a prompt can stand on. At least its last token is evaluated: only that gives logits."""
    return min(common_prefix(prompt, cached), len(prompt) - 1)
