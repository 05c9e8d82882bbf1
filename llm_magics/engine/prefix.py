"""How much of a prompt a cache holds: the longest prefix common to the prompt and the tokens whose keys and values are kept."""

from __future__ import annotations

from typing import TypeVar

T = TypeVar("T", list[int], bytes)


def common_prefix(a: T, b: T) -> int:
    """Return how many leading tokens (or bytes) two sequences share."""
    n = min(len(a), len(b))
    if a[:n] == b[:n]:  # one comparison in C decides the usual case, a prompt that continues the cache
        return n
    low, high = 0, n  # a[:low] == b[:low] holds, a[:high] == b[:high] does not
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if a[low:middle] == b[low:middle] else (low, middle)
    return low


def keep_length(prompt: list[int], cached: list[int]) -> int:
    """Return how many cached tokens a prompt can reuse: not its last one, which must be evaluated to get logits."""
    return min(common_prefix(prompt, cached), len(prompt) - 1)
