"""Interrupts that wait until what was made has an owner.

Ctrl-C may strike between any two steps of Python, so also between llama.cpp's return with gigabytes of weights and the
assignment that would let anybody free them. Inside :func:`held` it is only noted. Whoever works there asks at safe moments
whether one came, and stops; at the end the interrupt takes place as it would have.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


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
