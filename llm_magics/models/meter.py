"""What an answer has cost so far: an answer that is broken off has no end that could say it."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field

from llm_magics.events import ModelEvent, Usage


@dataclass(slots=True)
class Meter:
    """Counts tokens and seconds of one answer. ``prompt`` is the prompt's length, of which ``cached`` were not computed."""

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
        """Take ``n`` new tokens of the answer; the prompt has been read by then."""
        self._last = time.perf_counter()
        if not self.generated:
            self._first, self.evaluated = self._last, self.prompt - self.cached
        self.generated += n

    @property
    def usage(self) -> Usage:
        """The cost so far; seconds are the reader's, not the engine's."""
        return Usage(
            prompt_tokens=self.cached + self.evaluated,
            cached_tokens=self.cached,
            evaluated_tokens=self.evaluated,
            completion_tokens=self.generated,
            prompt_seconds=self._first - self._began if self.generated else 0.0,
            completion_seconds=self._last - self._first,
            time_to_first_token=self._first - self._began if self.generated else 0.0,
            context_used=min(self.cached + self.evaluated + self.generated, self.context),
            context_size=self.context,
        )


class Metered(Iterator[ModelEvent]):
    """The events of ``make(meter)``, with the meter. Closing it closes them."""

    def __init__(self, make: Callable[[Meter], Generator[ModelEvent, None, None]], meter: Meter) -> None:
        self.meter = meter
        self._events = make(meter)

    def __next__(self) -> ModelEvent:
        return next(self._events)

    def close(self) -> None:
        """End the answer."""
        self._events.close()
