"""The engine and the Python interpreter: delays interrupts while a model is loaded, and shortens the switch interval.

Ctrl-C may interrupt between any two steps of Python, also between llama.cpp's return with gigabytes of weights and the
assignment by which they can be freed. Inside :func:`held` it is only noted; the code there checks at safe moments, and the
interrupt is raised at the end.

After each evaluation the engine's thread needs the interpreter lock for some 20 microseconds. CPython lets another busy Python
thread keep the lock for a switch interval, by default 5 ms, which nearly halves the speed of a small model. So it is a
fraction of that while any engine is busy; the other thread loses almost nothing.
"""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

BUSY_INTERVAL = 0.0002

_lock = threading.Lock()
_busy = 0
_usual = 0.0


def hurry() -> None:
    """Count one more busy engine; the first one shortens the interval."""
    global _busy, _usual
    with _lock:
        _busy += 1
        if _busy == 1:
            _usual = sys.getswitchinterval()
            sys.setswitchinterval(min(BUSY_INTERVAL, _usual))


def relax() -> None:
    """Count one busy engine less; the last one restores the interval, unless other code changed it meanwhile."""
    global _busy
    with _lock:
        _busy -= 1
        if _busy == 0 and abs(sys.getswitchinterval() - min(BUSY_INTERVAL, _usual)) < 1e-6:
            sys.setswitchinterval(_usual)


class Held:
    """Whether an interrupt has come; then ``check`` raises KeyboardInterrupt. Call it where every object has an owner."""

    def __init__(self) -> None:
        self.struck = False

    def check(self) -> None:
        if self.struck:
            raise KeyboardInterrupt

    def _note(self, _signal: int, _frame: FrameType | None) -> None:
        self.struck = True


@contextmanager
def held() -> Iterator[Held]:
    """Hold interrupts back. Only the main thread gets any; elsewhere this does nothing."""
    state = Held()
    before = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(before):
        yield state  # interrupts are ignored, or the handler is not a Python function, which could not be restored
        return
    signal.signal(signal.SIGINT, state._note)
    try:
        yield state
    finally:
        signal.signal(signal.SIGINT, before)
        if state.struck:
            signal.raise_signal(signal.SIGINT)  # to the restored handler
