"""Where an interrupt may strike: between two steps of a turn or inside the model or a tool, never inside our own bookkeeping.

While a turn runs, SIGINT raises KeyboardInterrupt only inside ``with interrupts.allowed():``; elsewhere it is noted and raised
by the next ``check()`` or at the end. So the last, complete drawing of a cell is written also when the interrupt comes during a
drawing. In other threads than the main one, where Python delivers no signals, nothing changes.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any

_AGAIN = 1.0  # seconds in which what cleans up after an interrupt is not struck again; code that swallows one is, later


class Interrupts:
    """``with Interrupts() as interrupts:`` holds back SIGINT but for the stretches that allow it."""

    def __init__(self) -> None:
        self._allowed = False
        self._noted = False
        self._before: Any = None
        self._struck_at = -_AGAIN
        self._here = threading.current_thread() is threading.main_thread()

    def __enter__(self) -> Interrupts:
        if self._here:
            self._before = signal.signal(signal.SIGINT, self._struck)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._here:
            signal.signal(signal.SIGINT, self._before if self._before is not None else signal.default_int_handler)
        if error is None:
            self.check()

    @contextmanager
    def allowed(self) -> Iterator[None]:
        """Let an interrupt raise here, at once."""
        self._allowed = True
        try:
            self.check()
            yield
        finally:
            self._allowed = False

    def check(self) -> None:
        """Raise an interrupt that came while it was held back."""
        if self._noted:
            self._noted = False
            raise KeyboardInterrupt

    def _struck(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if not self._allowed or now - self._struck_at < _AGAIN:
            self._noted = True
            return
        self._struck_at = now
        raise KeyboardInterrupt
