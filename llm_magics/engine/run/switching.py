"""Getting the interpreter lock back quickly while a model generates.

After each evaluation the engine's thread needs the lock for some 20 microseconds. If another thread computes in pure Python,
CPython lets it keep the lock for a whole switch interval, by default 5 ms, which nearly halves the speed of a small model.
While any engine is busy the interval is therefore a fraction of that; the other thread loses next to nothing.
"""

from __future__ import annotations

import sys
import threading

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
