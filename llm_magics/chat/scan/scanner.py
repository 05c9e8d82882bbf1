"""Find markers in text that arrives in pieces, and hold back only text that could still become a marker.

A walk through a trie of the markers starts at every character that can begin one. If the text ends while the walk is inside the
trie, the walk is undecided: its text, at most as long as the longest marker, is held back. Of markers that begin at the same
place the longest wins, so a walk continues past a whole marker while a longer one is possible.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass(slots=True)
class _Node(Generic[T]):
    children: dict[str, _Node[T]] = field(default_factory=dict)
    value: T | None = None


@dataclass(frozen=True, slots=True)
class Found(Generic[T]):
    """A marker from ``start`` to ``end``, and its ``value``; with ``value`` None, the text from ``start`` on is undecided."""

    start: int
    end: int
    value: T | None


class Scanner(Generic[T]):
    """Looks for a fixed set of markers. Immutable, so that parsers can share it."""

    def __init__(self, markers: Mapping[str, T]) -> None:
        self._root: _Node[T] = _Node()
        for text, value in markers.items():
            node = self._root
            for char in text:
                node = node.children.setdefault(char, _Node())
            if text and node.value is None:
                node.value = value
        firsts = "".join(re.escape(c) for c in self._root.children)
        self._first = re.compile(f"[{firsts}]") if firsts else None

    def find(self, text: str, start: int, *, final: bool) -> Found[T] | None:
        """The first marker or undecided tail at or after ``start``, if any. ``final``: no text will follow."""
        while self._first is not None and (match := self._first.search(text, start)):
            found = self.at(text, match.start(), final=final)
            if found is not None:
                return found
            start = match.start() + 1
        return None

    def at(self, text: str, start: int, *, final: bool) -> Found[T] | None:
        """The marker that begins exactly at ``start``, if any; undecided if the text ends inside one."""
        node, end = self._root, start
        best: Found[T] | None = None
        while end < len(text):
            following = node.children.get(text[end])
            if following is None:
                return best
            node, end = following, end + 1
            if node.value is not None:
                best = Found(start, end, node.value)
        return Found(start, end, None) if node.children and not final else best
