"""What a running tool prints, kept apart per call, also when several run in threads.

While any tool runs, ``sys.stdout`` and ``sys.stderr`` are routers that send each write to the sink of the context it comes from
(a ContextVar, so a thread has its own), and to the real stream where there is none. A sink keeps the first part and counts the
rest, so that 50 MB cost no memory.
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

# The kernel adds a context manager here that also catches ``display(...)``; this room knows no IPython.
surroundings: list[Callable[[Sink], contextlib.AbstractContextManager[Any]]] = []


class Sink:
    """Takes what one call writes. ``text`` is all that was kept; ``take()`` what is new since the last take."""

    def __init__(self) -> None:
        self.outputs: list[dict[str, Any]] = []
        self._parts: list[str] = []
        self._kept = 0
        self._total = 0
        self._taken = 0
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
    """The sink that this context writes to."""
    return _sink.get()


class _Router:
    """Stands for a stream: writes go to the sink of the writer's context, else to the stream itself."""

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
    """One stretch in which the routers are needed; it dies with the frame that needed them, whatever ended it."""


_lock = threading.Lock()
_uses: weakref.WeakSet[_Use] = weakref.WeakSet()
_real: tuple[Any, Any] = (None, None)


@contextlib.contextmanager
def routed() -> Iterator[None]:
    """Put the routers in place for as long as anybody needs them.

    A thread that is told to stop may die anywhere in here. Then the routers stay until the next use ends: they only pass on.
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
                    if isinstance(getattr(sys, name), _Router):  # a tool that put its own stream there keeps it
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
