"""Holding interrupts and deadlines back while what a tool's run has put aside (streams, displays) is put back.

A KeyboardInterrupt or a ToolTimeout may strike between any two bytecodes. Inside a tool that is what they are for; between the
two lines that give the kernel its own stdout back it would leave the kernel mute. ``with Held() as held:`` notes an interrupt
and raises it at the end; ``with held.open():`` inside it is the stretch where both strike at once. Only the main thread gets
signals; in other threads all this does nothing.
"""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Any

_marks: list[Held] = []  # those that hold right now; one append or pop is the whole change of state


def holding() -> bool:
    """Whether a signal must wait."""
    return bool(_marks)


class Held:
    """Holds SIGINT and deadlines back inside the block, but for its ``open()`` stretches."""

    _handler: Any = None  # what SIGINT did before the outermost Held
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
        """Let interrupts and deadlines strike inside this block."""
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
