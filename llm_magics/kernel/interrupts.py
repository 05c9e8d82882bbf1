"""Allows interrupts between two events of a turn and inside the model or a tool, but not inside bookkeeping or drawing.

While a turn runs, SIGINT raises KeyboardInterrupt only inside ``with interrupts.allowed():``. Elsewhere it is noted, and raised
by the next ``check()`` or at the end, so a cell's last drawing is complete. Python delivers signals only to the main thread.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any

_AGAIN = 1.0  # seconds after an interrupt in which a second one waits, so that the clean-up can finish


class Interrupts:
    """``with Interrupts() as interrupts:`` delays SIGINT, except inside :meth:`allowed`."""

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
        """Let an interrupt raise at once inside the block."""
        self._allowed = True
        try:
            self.check()
            yield
        finally:
            self._allowed = False

    def check(self) -> None:
        """Raise a delayed interrupt."""
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
