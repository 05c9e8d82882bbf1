"""What an engine asks of the interpreter: interrupts that wait until what was made has an owner, and the lock when it needs it.

Ctrl-C may strike between any two steps of Python, so also between llama.cpp's return with gigabytes of weights and the
assignment that would let anybody free them. Inside :func:`held` it is only noted. Whoever works there asks at safe moments
whether one came, and stops; at the end the interrupt takes place as it would have.

After each evaluation the engine's thread needs the interpreter lock for some 20 microseconds. If another thread computes in
Python, CPython lets it keep the lock for a switch interval, by default 5 ms, which nearly halves the speed of a small
model. While any engine is busy the interval is therefore a fraction of that; the other thread loses next to nothing.
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
    """Count one busy engine less; the last one puts back what was there before, unless somebody changed it meanwhile."""
    global _busy
    with _lock:
        _busy -= 1
        if _busy == 0 and abs(sys.getswitchinterval() - min(BUSY_INTERVAL, _usual)) < 1e-6:
            sys.setswitchinterval(_usual)


class Held:
    """Whether an interrupt has come. ``check`` raises KeyboardInterrupt if so: call it where nothing is without an owner."""

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
        yield state  # ignored ones are none, and what is no Python function cannot be put back
        return
    signal.signal(signal.SIGINT, state._note)
    try:
        yield state
    finally:
        signal.signal(signal.SIGINT, before)
        if state.struck:
            signal.raise_signal(signal.SIGINT)  # the handler that was there decides what an interrupt is
