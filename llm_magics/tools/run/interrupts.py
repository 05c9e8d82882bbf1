"""Holding back interrupts and deadlines while a tool's run replaces and restores streams and displays.

A KeyboardInterrupt or a ToolTimeout may be raised between any two bytecodes. Inside a tool that is the purpose; between the two
lines that restore the kernel's stdout it would leave the kernel mute. ``with Held() as held:`` notes an interrupt and raises it
at the end; in a ``with held.open():`` block inside, both are raised at once. Only the main thread receives signals; in other
threads this file has no effect.
"""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Any

_marks: list[Held] = []  # what holds now; the state changes by a single append or pop


def holding() -> bool:
    """Whether signals are held back now."""
    return bool(_marks)


class Held:
    """Holds back SIGINT and deadlines inside the block, except in its ``open()`` blocks."""

    _handler: Any = None  # SIGINT's handler before the outermost Held
    _depth = 0
    _noted = False

    def __init__(self) -> None:
        self._here = threading.current_thread() is threading.main_thread()
        self._level = 0

    def __enter__(self) -> Held:
        if self._here:
            if Held._depth == 0:
                Held._handler = signal.signal(signal.SIGINT, _struck)
            Held._depth += 1
            self._level = len(_marks)
            _marks.append(self)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if not self._here:
            return
        Held._depth -= 1
        if Held._depth == 0:
            handler, Held._handler = Held._handler, None
            signal.signal(signal.SIGINT, signal.default_int_handler if handler is None else handler)
        del _marks[self._level :]
        if not _marks and error is None:
            _deliver()

    def open(self) -> _Open:
        """Allow interrupts and deadlines inside this block."""
        return _Open(self._here)


class _Open:
    def __init__(self, here: bool) -> None:
        self._here = here
        self._mark: Held | None = None

    def __enter__(self) -> None:
        if self._here:
            self._mark = _marks.pop()
            if not _marks:
                _deliver()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._here and self._mark is not None:
            _marks.append(self._mark)


def _deliver() -> None:
    if Held._noted:
        Held._noted = False
        raise KeyboardInterrupt


def _struck(number: int, frame: FrameType | None) -> None:
    if _marks:
        Held._noted = True
    elif callable(Held._handler):
        Held._handler(number, frame)
    elif Held._handler != signal.SIG_IGN:
        raise KeyboardInterrupt
