"""Ending Python code that does not end by itself.

On the main thread of a POSIX system an interval timer's signal (SIGALRM) raises :class:`ToolTimeout` between two bytecodes,
even out of ``time.sleep`` and other waits. Elsewhere (other threads, Windows) a timer thread sets the exception in the running
thread with ``PyThreadState_SetAsyncExc``, which takes effect at its next bytecode. Nothing in the same process can end one long
call into C. ToolTimeout is not an ``Exception``, so ``except Exception`` in a tool does not swallow it, and the timer rings
again every second in case the code swallows even that.
"""

from __future__ import annotations

import contextlib
import ctypes
import signal
import threading
import time
from collections.abc import Iterator
from types import FrameType, TracebackType
from typing import Any

from .interrupts import holding

_AGAIN = 1.0


class ToolTimeout(BaseException):
    """A tool ran longer than it may."""


class Cancel:
    """Ends a tool in another thread: ToolTimeout is raised in its Deadline's block, now or when it enters the next block."""

    def __init__(self) -> None:
        self.wanted = False
        self.deadline: Deadline | None = None

    def ring(self) -> None:
        self.wanted = True
        if (deadline := self.deadline) is not None:
            deadline.ring()


class Deadline:
    """``with Deadline(seconds):`` raises ToolTimeout inside the block after that time, or when ``cancel`` rings."""

    def __init__(self, seconds: float | None, cancel: Cancel | None = None) -> None:
        self.seconds = seconds
        self.cancel = cancel
        self._armed = False
        self._way: _Alarm | _Async | None = None

    def __enter__(self) -> Deadline:
        if self.seconds is not None or self.cancel is not None:
            here = threading.current_thread() is threading.main_thread()
            self._armed = True
            self._way = _Alarm(self) if here and hasattr(signal, "setitimer") else _Async(self)
            self._way.start(None if self.seconds is None else max(self.seconds, 0.001))
        if self.cancel is not None:
            self.cancel.deadline = self
            if self.cancel.wanted:
                self.ring()
        return self

    def ring(self) -> None:
        """Raise ToolTimeout in the block from another thread; no effect after the block's end."""
        if isinstance(self._way, _Async):
            self._way.ring()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()

    def stop(self) -> None:
        """Ring no more. Callers do this again behind the block: the exception may come just when its exit begins."""
        try:
            self._armed = False
        finally:  # the alarm may ring before that line has run
            self._armed = False
            if self._way is not None:
                self._way.stop()
                self._way = None


class _Alarm:
    """The main thread's interval timer; a timer that was set before is restored."""

    def __init__(self, deadline: Deadline) -> None:
        self.deadline = deadline

    def start(self, seconds: float | None) -> None:
        self.started = time.monotonic()
        self.handler = signal.signal(signal.SIGALRM, self._ring)
        self.before = signal.setitimer(signal.ITIMER_REAL, seconds or 0, _AGAIN)

    def _ring(self, number: int, frame: FrameType | None) -> None:
        if self.deadline._armed and not holding():
            raise ToolTimeout

    def stop(self) -> None:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, self.handler if self.handler is not None else signal.SIG_DFL)
        delay, interval = self.before
        if delay:
            signal.setitimer(signal.ITIMER_REAL, max(delay - (time.monotonic() - self.started), 0.001), interval)


class _Async:
    """A timer thread that sets the exception in the thread that runs the tool."""

    def __init__(self, deadline: Deadline) -> None:
        self.deadline = deadline
        self.thread = threading.current_thread()
        self.over = threading.Event()
        self.lock = threading.Lock()

    def start(self, seconds: float | None) -> None:
        if seconds is not None:
            threading.Thread(target=self._watch, args=(seconds,), daemon=True, name="llm-magics-deadline").start()

    def ring(self) -> None:
        with self.lock:
            if not self.over.is_set() and self.thread.is_alive():
                raise_in(self.thread.ident or 0, ToolTimeout)

    def _watch(self, seconds: float) -> None:
        while not self.over.wait(seconds) and self.thread.is_alive():  # another thread may get the number of a dead one
            self.ring()
            seconds = _AGAIN

    def stop(self) -> None:
        with self.lock:
            self.over.set()
        raise_in(self.thread.ident or 0, None)  # an exception that is set but not yet raised must not hit later code


class Clock:
    """The seconds of one turn, paused while a person is asked; ``left`` is None without a limit."""

    def __init__(self, limit: float | None) -> None:
        self.limit = limit
        self._started = time.monotonic()
        self._paused = 0.0

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._started - self._paused

    @property
    def left(self) -> float | None:
        return None if self.limit is None else self.limit - self.seconds

    @property
    def over(self) -> bool:
        return self.left is not None and self.left <= 0

    @contextlib.contextmanager
    def pause(self) -> Iterator[None]:
        """Stop counting inside the block."""
        began = time.monotonic()
        try:
            yield
        finally:
            self._paused += time.monotonic() - began


def raise_in(thread: int, kind: type[BaseException] | None) -> None:
    """Raise ``kind`` in another thread at its next bytecode; None takes back a pending exception."""
    error: Any = None if kind is None else ctypes.py_object(kind)
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), error)
