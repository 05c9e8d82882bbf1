"""How much work a template may do: steps, characters, seconds. Counted inside the process, without signals or threads.

Seconds are the processor time of the thread that renders: on a busy machine a good template waits, and waiting is no work. The
clock on the wall is only a backstop, with room for much waiting.

A template runs in whatever thread renders it, often a kernel's main thread, where nothing can interrupt it safely. So it pays
as it goes: every loop step, call and operation costs steps, every string and list that it makes costs its length, and what a
single operation would make is worked out *before* it is made. Sizes of nested lists are counted with sharing undone, because
printing or comparing them undoes it too (ten lists of ten references each are a billion elements).
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Iterator, Sized
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from llm_magics.errors import TemplateError

_PATIENCE = 20  # seconds on the wall for each second of work


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of one render. ``characters`` counts everything made on the way, ``output`` the prompt alone.

    ``seconds`` are of processor time; on the wall a render may take twenty times as long.
    """

    seconds: float = 10.0
    steps: int = 400_000
    characters: int = 20_000_000
    output: int = 8_000_000
    width: int = 1_000


RENDERING = Limits()
"""Bounds of rendering a conversation."""

PROBING = Limits(seconds=3.0, steps=100_000, characters=3_000_000, output=300_000)
"""Bounds of the small renders by which a template is analysed."""


class LimitError(TemplateError):
    """The template passed a limit: it is hostile, or broken, and is not worth another try."""


class Budget:
    """What is left of the limits in one render. Raises LimitError where a limit is passed.

    Make it in the thread that renders, whose ``work`` is measured.
    """

    def __init__(
        self,
        limits: Limits,
        n_messages: int = 0,
        n_characters: int = 0,
        *,
        work: Callable[[], float] = time.thread_time,
        wall: Callable[[], float] = time.monotonic,
    ) -> None:
        self._limits = limits
        self._work, self._wall = work, wall
        # templates look at all messages for each message, and copy each text a few times
        self._steps = limits.steps + 2_000 * n_messages + 8 * n_messages**2
        self._characters = limits.characters + (50 + 2 * n_messages) * n_characters
        self._output = limits.output + 4 * n_characters
        seconds = limits.seconds + n_messages / 20
        self._work_ends = work() + seconds
        self._wall_ends = wall() + seconds * _PATIENCE

    def step(self, n: int = 1) -> None:
        """Pay for ``n`` steps."""
        self._steps -= n
        if self._steps < 0:
            raise _too_much(f"took more than {self._limits.steps:,} steps")
        if self._steps & 63 == 0:
            self._check_time()

    def _check_time(self) -> None:
        """Refuse a render that worked too long, or that took very long for whatever reason."""
        if self._work() > self._work_ends:
            raise _too_much(f"ran longer than {self._limits.seconds:g} seconds of processor time")
        if self._wall() > self._wall_ends:
            raise _too_much(f"took longer than {self._limits.seconds * _PATIENCE:g} seconds; the machine may be very busy")

    def make(self, n: int) -> None:
        """Pay for making ``n`` characters or elements; call it before they are made."""
        self._characters -= n
        if self._characters < 0 or n > self._output * 4:
            raise _too_much("made too much text")

    def check_output(self, n: int) -> None:
        """Refuse a prompt of more than the output limit."""
        if n > self._output:
            raise _too_much(f"wrote more than {self._output:,} characters")

    def steps(self, values: Iterable[Any]) -> Iterator[Any]:
        """Pass values on, one step each."""
        for value in values:
            self.step()
            yield value

    def value(self, value: Any) -> Any:
        """Pay for a value that an operation gave, by its length; generators pay as they go."""
        if isinstance(value, str | bytes):
            self.make(len(value))
        elif isinstance(value, list | tuple | dict | set):
            self.make(self.size(value))
        elif isinstance(value, Iterator):
            return self.steps(value)
        return value

    def size(self, value: Any) -> int:
        """The size of a value written out: characters and elements, sharing undone."""
        if isinstance(value, str | bytes):
            return len(value)
        if isinstance(value, int):
            return 1 + value.bit_length() // 3
        if isinstance(value, list | tuple | dict | set):
            return self._walk(value, ())
        return len(value) if isinstance(value, Sized) else 1

    def _walk(self, value: Any, above: tuple[int, ...]) -> int:
        if id(value) in above or len(above) > 100:
            raise _too_much("nests its values too deeply")
        inner = [*value.keys(), *value.values()] if isinstance(value, dict) else value
        self.step(len(inner) // 8 + 1)
        above = (*above, id(value))
        total = 1
        for item in inner:
            total += self._walk(item, above) if isinstance(item, list | tuple | dict | set) else self.size(item)
            if total > self._output * 4:
                raise _too_much("made too large a value")
        return total

    def check_width(self, values: Iterable[Any]) -> None:
        """Refuse widths and counts of padding that no prompt needs."""
        for value in values:
            if isinstance(value, int) and abs(value) > self._limits.width:
                raise _too_much(f"asked for a width of {value:.3g}" if abs(value) < 10**15 else "asked for a huge width")

    def check_format(self, template: str, values: Any) -> None:
        """Refuse a format string whose widths or repetitions would blow up."""
        if "*" in template:
            raise _too_much("asked for a width that is only known while formatting")
        self.check_width(int(w[:18]) for w in re.findall(r"\d{4,}", template))
        holes = template.count("%") + template.count("{")
        self.make(len(template) + holes * (self._limits.width + self.size(values)))


_current: ContextVar[Budget] = ContextVar("llm_magics_template_budget")


def current() -> Budget:
    """The budget of the render that is running; a generous one of its own where none is."""
    try:
        return _current.get()
    except LookupError:
        return Budget(Limits())


@contextmanager
def spending(budget: Budget) -> Iterator[Budget]:
    """Let everything inside pay from ``budget``."""
    token = _current.set(budget)
    try:
        yield budget
    finally:
        _current.reset(token)


def _too_much(what: str) -> LimitError:
    return LimitError(f"The chat template {what}.", "Use a template that you trust, e.g. with --template FILE.")
