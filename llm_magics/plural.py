"""Numbers with their nouns."""

from __future__ import annotations


def counted(n: int, noun: str, nouns: str = "") -> str:
    """A number with its noun, e.g. ``1 turn``, ``1,024 tokens``; ``nouns`` is the plural if it is more than an "s"."""
    return f"{n:,} {noun if n == 1 else nouns or noun + 's'}"
