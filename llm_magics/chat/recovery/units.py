"""Count the calls of a near miss while the model writes it, one character at a time.

In any wrapper, a call is one balanced run of brackets, e.g. ``{"name": "f", "arguments": {}}`` or ``f(a=1)``, among fences,
tags, commas and the brackets of an array. So depth and quotes are enough to see where one ends and the next begins.
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
        self._quotes = ""  # the quotes of a string in this call: JSON has one, Python two

    @property
    def begun(self) -> bool:
        return self._depth > 0

    def take(self, char: str) -> None:
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
