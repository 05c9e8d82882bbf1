"""Counts the cost of an answer while it streams, because an answer that is broken off has no ModelEnd with its cost."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field

from llm_magics.events import ModelEvent, Usage


@dataclass(slots=True)
class Meter:
    """Tokens and seconds of one answer. Of the ``prompt`` tokens, ``cached`` need no evaluation."""

    context: int
    prompt: int = 0
    cached: int = 0
    evaluated: int = 0
    generated: int = 0
    _began: float = field(default_factory=time.perf_counter)
    _first: float = 0.0
    _last: float = 0.0

    def read(self, evaluated: int, cached: int) -> None:
        """Take the progress of the prompt."""
        self.evaluated, self.cached = evaluated, cached

    def wrote(self, n: int) -> None:
        """Take ``n`` new tokens of the answer; the whole prompt is then evaluated."""
        self._last = time.perf_counter()
        if not self.generated:
            self._first, self.evaluated = self._last, self.prompt - self.cached
        self.generated += n

    @property
    def usage(self) -> Usage:
        """The cost so far; seconds are measured by the reader, not the engine."""
        prompt, reading = self.cached + self.evaluated, self._first - self._began if self.generated else 0.0
        return Usage(
            prompt, self.cached, self.evaluated, self.generated,
            prompt_seconds=reading, completion_seconds=self._last - self._first, time_to_first_token=reading,
            context_used=min(prompt + self.generated, self.context), context_size=self.context,
        )  # fmt: skip


class Metered(Iterator[ModelEvent]):
    """The events of ``make(meter)``, with the meter."""

    def __init__(self, make: Callable[[Meter], Generator[ModelEvent, None, None]], meter: Meter) -> None:
        self.meter = meter
        self._events = make(meter)

    def __next__(self) -> ModelEvent:
        return next(self._events)

    def close(self) -> None:
        self._events.close()
