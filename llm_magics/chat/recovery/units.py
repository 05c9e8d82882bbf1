"""Counts the calls of a near miss while it is being written, one character at a time.

A call in any wrapper is one balanced stretch of brackets, e.g. ``{"name": "f", "arguments": {}}`` or ``f(a=1)``; fences, tags,
commas and the brackets of an array stand around it. So depth and quotes suffice to see where one ends and the next begins.
"""

from __future__ import annotations


class Units:
    """Where the complete calls of a growing text begin and end. A call in keyword form begins with its ``(``."""

    def __init__(self) -> None:
        self.spans: list[tuple[int, int]] = []
        self._start = 0
        self._at = 0
        self._depth = 0
        self._quote = ""
        self._escaped = False
        self._quotes = ""  # what quotes a string in this call: JSON has one sign, Python two

    @property
    def begun(self) -> bool:
        """Whether a call has begun that is not complete yet."""
        return self._depth > 0

    def take(self, char: str) -> None:
        """Read the next character."""
        at, self._at = self._at, self._at + 1
        if self._quote:
            if self._escaped:
                self._escaped = False
            elif char == "\\":
                self._escaped = True
            elif char == self._quote:
                self._quote = ""
        elif char in "{(":
            if not self._depth:
                self._start, self._quotes = at, '"' if char == "{" else "\"'"
            self._depth += 1
        elif self._depth and char in self._quotes:
            self._quote = char
        elif self._depth and char in "})":
            self._depth -= 1
            if not self._depth:
                self.spans.append((self._start, at + 1))
