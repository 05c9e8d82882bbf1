"""Capturing what tools print, separately per call, even if several run in threads.

While a tool runs, ``sys.stdout`` and ``sys.stderr`` are routers: each write goes to the sink of its context (a ContextVar, so
each thread has its own), or to the real stream if there is none. A sink keeps the first part and only counts the rest, so that
50 MB of output cost no memory.
"""

from __future__ import annotations

import contextlib
import sys
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator
from contextvars import ContextVar
from typing import Any, TextIO

KEPT_CHARS = 200_000
_sink: ContextVar[Sink | None] = ContextVar("llm_magics_sink", default=None)

# The kernel adds a context manager that also captures ``display(...)``, because this package must not import IPython.
surroundings: list[Callable[[Sink], contextlib.AbstractContextManager[Any]]] = []


class Sink:
    """Receives what one call writes. ``text`` is all that was kept; ``take()`` returns what is new since the last take."""

    def __init__(self) -> None:
        self.outputs: list[dict[str, Any]] = []
        self._parts: list[str] = []
        self._kept = self._total = self._taken = 0
        self._said = False

    def write(self, text: str) -> int:
        room = KEPT_CHARS - self._kept
        if room > 0:
            self._parts.append(text[:room])
            self._kept += min(len(text), room)
        self._total += len(text)
        return len(text)

    @property
    def text(self) -> str:
        text = "".join(self._parts)
        left_out = self._total - self._kept
        return f"{text}\n[... {left_out:,} more characters were printed and left out ...]\n" if left_out else text

    def take(self) -> str:
        new = "".join(self._parts)[self._taken :]
        self._taken += len(new)
        if self._total > self._kept and not self._said:
            self._said = True
            new += "\n[... further output is left out ...]\n"
        return new


def current() -> Sink | None:
    """The sink of this context."""
    return _sink.get()


class _Router:
    """Replaces a stream: writes go to the sink of the writer's context, or to the stream itself if there is none."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream

    def write(self, text: str) -> int:
        sink = _sink.get()
        return self.stream.write(text) if sink is None else sink.write(text)

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        if _sink.get() is None:
            self.stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


class _Use:
    """One need for the routers. It is garbage-collected with the frame that holds it, however that ends."""


_lock = threading.Lock()
_uses: weakref.WeakSet[_Use] = weakref.WeakSet()
_real: tuple[Any, Any] = (None, None)


@contextlib.contextmanager
def routed() -> Iterator[None]:
    """Install the routers as long as any use needs them.

    A stopped thread may die anywhere in here. The routers then stay until the next use ends, and only pass writes on.
    """
    global _real
    use = _Use()
    with _lock:
        if not isinstance(sys.stdout, _Router):
            _real = (sys.stdout, sys.stderr)
            sys.stdout, sys.stderr = _Router(sys.stdout), _Router(sys.stderr)
        _uses.add(use)
    try:
        yield
    finally:
        with _lock:
            _uses.discard(use)
            if not _uses:
                for name, stream in zip(("stdout", "stderr"), _real, strict=True):
                    if isinstance(getattr(sys, name), _Router):  # a stream that a tool has set stays
                        setattr(sys, name, stream)


@contextlib.contextmanager
def into(sink: Sink) -> Iterator[None]:
    with routed(), contextlib.ExitStack() as stack:
        token = _sink.set(sink)
        try:
            for surrounding in surroundings:
                stack.enter_context(surrounding(sink))
            yield
        finally:
            stack.close()
            _sink.reset(token)
