"""Find markers in text that arrives in pieces, holding back only what could still become one.

A trie over the markers is walked from every character that could begin one. Text before such a character is certain. A walk
that reaches the end of the text inside the trie is undecided: from its first character on the text is held back, which is at
most the longest marker. Of markers that begin at the same place the longest wins, so a walk past a whole marker goes on while
a longer one is possible.
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
    """``start`` to ``end`` is a marker with this ``value``; with ``value`` None, all from ``start`` on is undecided."""

    start: int
    end: int
    value: T | None


class Scanner(Generic[T]):
    """Looks for a fixed set of markers. Immutable, so that parsers can share it."""

    def __init__(self, markers: Mapping[str, T]) -> None:
        self._root: _Node[T] = _Node()
        for text, value in markers.items():
            if text:
                self._add(text, value)
        firsts = "".join(re.escape(c) for c in self._root.children)
        self._first = re.compile(f"[{firsts}]") if firsts else None

    def _add(self, text: str, value: T) -> None:
        node = self._root
        for char in text:
            node = node.children.setdefault(char, _Node())
        if node.value is None:
            node.value = value

    def find(self, text: str, start: int, *, final: bool) -> Found[T] | None:
        """The first marker, or undecided tail, at or after ``start``; None where all is certain.

        ``final`` says that nothing more will come, so that nothing is undecided.
        """
        while self._first is not None and (match := self._first.search(text, start)):
            found = self.at(text, match.start(), final=final)
            if found is not None:
                return found
            start = match.start() + 1
        return None

    def at(self, text: str, start: int, *, final: bool) -> Found[T] | None:
        """The marker that begins exactly at ``start``, if any; undecided where the text ends inside one."""
        node, end = self._root, start
        best: Found[T] | None = None
        while end < len(text):
            following = node.children.get(text[end])
            if following is None:
                return best
            node, end = following, end + 1
            if node.value is not None:
                best = Found(start, end, node.value)
        if node.children and not final:
            return Found(start, end, None)
        return best
