"""How much work a template may do: steps, characters, seconds. Counted inside the process, without signals or threads.

Seconds are the processor time of the rendering thread: a good template that waits on a busy machine does no work. The wall
clock is only a backstop, with ample room for waiting.

A template runs in whatever thread renders it, often a kernel's main thread, where nothing can interrupt it safely. So it pays
as it goes: loop steps, calls and operations cost steps; strings and lists cost their length, computed *before* they are made.
Nested lists count as if they shared nothing, because printing or comparing expands them (ten levels of ten references each are
ten billion elements).
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
    """Bounds of one render."""

    seconds: float = 10.0  # of processor time; the wall clock may show twenty times as many
    steps: int = 400_000
    characters: int = 20_000_000  # in all text made on the way
    output: int = 8_000_000  # characters of the prompt
    width: int = 1_000  # characters of padding


RENDERING = Limits()  # of a conversation
PROBING = Limits(seconds=3.0, steps=100_000, characters=3_000_000, output=300_000)  # of a small render that analyses a template


class LimitError(TemplateError):
    """The template passed a limit: it is hostile or broken, and is not tried again."""


class Budget:
    """What is left of the limits in one render. Create it in the rendering thread. Raises LimitError if a limit is passed."""

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
        if self._steps & 63:
            return
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

    def size(self, value: Any, above: tuple[int, ...] = ()) -> int:
        """The size of a value written out in characters and elements, as if nothing in it were shared."""
        if isinstance(value, str | bytes):
            return len(value)
        if isinstance(value, int):
            return 1 + value.bit_length() // 3
        if not isinstance(value, list | tuple | dict | set):
            return len(value) if isinstance(value, Sized) else 1
        if id(value) in above or len(above) > 100:
            raise _too_much("nests its values too deeply")
        inner = [*value.keys(), *value.values()] if isinstance(value, dict) else value
        self.step(len(inner) // 8 + 1)
        above = (*above, id(value))
        total = 1
        for item in inner:
            total += self.size(item, above)
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
    """The budget of the running render, or a new one with the default limits."""
    return _current.get(None) or Budget(Limits())


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
