"""Text that remembers where it comes from, so that nobody outside can forge a control token.

A prompt consists of the template's own text and of text from outside: the user, tool results, tool descriptions. Only the
template may write control tokens. :class:`OriginText` is a ``str`` with *runs*, ``(start, end, origin)``, which survive when a
template joins, cuts and strips. If an operation cannot say which characters survive, its whole result counts as outside text.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from operator import index
from typing import Any, SupportsIndex, TypeAlias

Run: TypeAlias = tuple[int, int, str]  # start, end and origin of outside text, e.g. (12, 17, "user")


class OriginText(str):
    """A string with runs of outside text, sorted and disjoint. Characters in no run are the template's own."""

    __slots__ = ("_runs",)
    _runs: tuple[Run, ...]

    def __new__(cls, text: str = "", runs: Iterable[Run] = ()) -> OriginText:
        made = super().__new__(cls, text)
        made._runs = tuple(runs)
        return made

    def __str__(self) -> str:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return OriginText, (str.__str__(self), self._runs)

    def __add__(self, other: str) -> str:
        return concat((self, other)) if isinstance(other, str) else NotImplemented

    def __radd__(self, other: str) -> str:
        return concat((other, self)) if isinstance(other, str) else NotImplemented

    def __mul__(self, times: SupportsIndex) -> str:
        return concat([self] * index(times))

    __rmul__ = __mul__

    def __getitem__(self, key: SupportsIndex | slice) -> str:
        if isinstance(key, slice):
            start, stop, step = key.indices(len(self))
            if step != 1:
                return mark(str.__getitem__(self, key), self.origin)
            return self._cut(start, max(start, stop))
        at = index(key)  # raises TypeError for a name, as jinja2 expects
        if not -len(self) <= at < len(self):
            raise IndexError("string index out of range")
        at %= len(self)
        return self._cut(at, at + 1)

    def __iter__(self) -> Iterator[str]:
        return (self._cut(i, i + 1) for i in range(len(self)))

    @property
    def origin(self) -> str:
        """The first run's origin, which stands for the whole if the parts cannot be told apart."""
        return self._runs[0][2] if self._runs else ""

    def _cut(self, start: int, end: int) -> str:
        text = str.__getitem__(self, slice(start, end))
        end = start + len(text)
        runs = [(max(a, start) - start, min(b, end) - start, o) for a, b, o in self._runs if a < end and b > start]
        return OriginText(text, runs) if runs else text

    def _pieces(self, plain: list[str]) -> list[str]:
        """The pieces of a split with their runs; each piece is found again in order."""
        found, at = [], 0
        for piece in plain:
            at = str.find(self, piece, at)
            found.append(self._cut(at, at + len(piece)))
            at += len(piece)
        return found

    def strip(self, chars: str | None = None, /) -> str:
        return self.lstrip(chars).rstrip(chars)

    def lstrip(self, chars: str | None = None, /) -> str:
        return self._cut(len(self) - len(str.lstrip(self, chars)), len(self))

    def rstrip(self, chars: str | None = None, /) -> str:
        return self._cut(0, len(str.rstrip(self, chars)))

    def removeprefix(self, prefix: str, /) -> str:
        return self._cut(len(prefix), len(self)) if prefix and self.startswith(prefix) else self

    def removesuffix(self, suffix: str, /) -> str:
        return self._cut(0, len(self) - len(suffix)) if suffix and self.endswith(suffix) else self

    def split(self, sep: str | None = None, maxsplit: SupportsIndex = -1) -> list[str]:
        return self._pieces(str.split(self, sep, maxsplit))

    def rsplit(self, sep: str | None = None, maxsplit: SupportsIndex = -1) -> list[str]:
        return self._pieces(str.rsplit(self, sep, maxsplit))

    def splitlines(self, keepends: bool = False) -> list[str]:
        return self._pieces(str.splitlines(self, keepends))

    def partition(self, sep: str, /) -> tuple[str, str, str]:
        a, b, c = self._pieces(list(str.partition(self, sep)))
        return a, b, c

    def rpartition(self, sep: str, /) -> tuple[str, str, str]:
        a, b, c = self._pieces(list(str.rpartition(self, sep)))
        return a, b, c

    def replace(self, old: str, new: str, count: SupportsIndex = -1, /) -> str:
        return replace(self, old, new, count)

    def lower(self) -> str:
        return self._same_length(str.lower(self))

    def upper(self) -> str:
        return self._same_length(str.upper(self))

    def _same_length(self, text: str) -> str:
        return OriginText(text, self._runs) if len(text) == len(self) else mark(text, self.origin)


def mark(text: str, origin: str) -> str:
    """``text`` with one run: all of it comes from ``origin``."""
    return OriginText(text, [(0, len(text), origin)]) if text and origin else text


def marked(value: Any, origin: str) -> Any:
    """A copy of a JSON value whose strings, including keys, come from ``origin``."""
    if isinstance(value, str):
        return mark(value, origin)
    if isinstance(value, dict):
        return {mark(k, origin): marked(v, origin) for k, v in value.items()}
    return [marked(v, origin) for v in value] if isinstance(value, list) else value


def runs_of(text: str) -> tuple[Run, ...]:
    """The runs of ``text``; none for a plain string."""
    return text._runs if isinstance(text, OriginText) else ()


def concat(pieces: Iterable[str]) -> str:
    """Join pieces with their runs; touching runs of one origin become one."""
    kept = list(pieces)
    runs: list[Run] = []
    at = 0
    for piece in kept:
        for start, end, origin in runs_of(piece):
            start, end = at + start, at + end
            if runs and runs[-1][1] == start and runs[-1][2] == origin:
                start = runs.pop()[0]
            runs.append((start, end, origin))
        at += len(piece)
    text = "".join(kept)
    return OriginText(text, runs) if runs else text


def join(separator: str, pieces: Iterable[str]) -> str:
    """``separator.join(pieces)`` that keeps the runs."""
    return concat([text for piece in pieces for text in (separator, piece)][1:])


def replace(text: str, old: str, new: str, count: SupportsIndex = -1) -> str:
    """``text.replace(old, new, count)`` that keeps the runs."""
    if not old:
        return mark(str.replace(text, old, new, count), origin_of((text, new)))
    return join(new, text.split(old, count))


def substitute(formatted: Callable[[Any], str], values: Any) -> str:
    """Run a formatting operation on ``values`` and give its result the runs of the strings in ``values``.

    Place-holders go in for the strings and are replaced in the result. If one does not come out whole (because of a width or a
    precision), the operation runs on the plain values, and the whole result counts as outside text.
    """
    held: dict[str, OriginText] = {}
    done = formatted(_hold(values, held))
    pieces: list[str] = []
    while places := [(done.find(key), key) for key in held if key in done]:
        at, key = min(places)
        pieces += [done[:at], held[key]]
        done = done[at + len(key) :]
    result = concat([*pieces, done])
    plain = formatted(values)
    return result if result == plain else mark(plain, next((t.origin for t in held.values()), ""))


def _hold(value: Any, held: dict[str, OriginText]) -> Any:
    if isinstance(value, OriginText):
        key = f"\ue000{len(held)}\ue001"
        held[key] = value
        return key
    if isinstance(value, tuple | list):
        return type(value)(_hold(v, held) for v in value)
    if isinstance(value, dict):
        return {k: _hold(v, held) for k, v in value.items()}
    return value


def origin_of(values: Iterable[Any]) -> str:
    """The origin of an outside string among ``values`` or inside their lists and dicts; "" if there is none."""
    stack = list(values)
    seen = 0
    while stack and seen < 10_000:
        value = stack.pop()
        seen += 1
        if isinstance(value, OriginText):
            return value.origin
        if isinstance(value, dict):
            stack += [*value.values(), *value]
        elif isinstance(value, list | tuple):
            stack.extend(value)
    return ""
