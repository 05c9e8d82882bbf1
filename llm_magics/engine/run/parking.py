"""Keeps the state of a sequence while others have its slot: in host memory, then on disk, each within a budget.

The state parked longest goes from memory to disk, and is dropped from disk; its tokens are then evaluated again. A state is as
private as its conversation, so it goes to disk only with a budget for that, and to files without a name: no other process can
open them, and they vanish when the process ends, however it ends.

One thread writes to disk. A state that waits for the disk counts as on disk, and is still returned from memory. Such states may
take as much memory as the budget, or 256 MiB; more are dropped.
"""

from __future__ import annotations

import os
import tempfile
import threading
from collections import OrderedDict
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from queue import Queue
from typing import IO

from llm_magics.errors import OptionError

_ON_THE_WAY = 256 << 20  # bytes that may always wait for the disk
_CHUNK = 16 << 20


@dataclass(slots=True, eq=False)
class _Parked:
    """A conversation's state; ``starts`` are where batches began in ``tokens``. ``state`` is None once it is in ``file``;
    ``leaving`` while it waits for the disk; ``gone`` once it was taken or dropped."""

    name: str
    tokens: list[int]
    starts: Sequence[int]
    size: int
    state: bytes | None
    file: IO[bytes] | None = None
    leaving: bool = False
    gone: bool = False

    @property
    def stays_in_memory(self) -> bool:
        return self.file is None and not self.leaving


class Parking:
    """States by name, the longest parked first. Budgets in bytes; ``directory`` is made if there is a budget on disk."""

    def __init__(self, memory: int, disk: int = 0, directory: str = "") -> None:
        self._memory = memory
        self._disk = disk
        self._directory = directory
        self._parked: OrderedDict[str, _Parked] = OrderedDict()
        self._lock = threading.Lock()  # never held during input or output
        self._queue: Queue[_Parked | None] = Queue()
        self._writer: threading.Thread | None = None
        if disk:
            try:
                os.makedirs(directory, mode=0o700, exist_ok=True)
            except OSError as error:
                what = f"States cannot be parked in {directory}: {error}."
                raise OptionError(what, "Set LLM_MAGICS_CACHE to another directory.") from error

    def has_room_for(self, size: int) -> bool:
        return size <= max(self._memory, self._disk)

    def put(self, name: str, tokens: list[int], state: bytes, starts: Sequence[int] = ()) -> None:
        """Keep a state, its tokens and where their batches began, in place of an earlier one of that name."""
        self.drop(name)
        with self._lock:
            self._parked[name] = _Parked(name, tokens, starts, len(state), state)
            self._make_room()

    def tokens(self, name: str) -> list[int] | None:
        return parked.tokens if (parked := self._parked.get(name)) else None

    def starts(self, name: str) -> Sequence[int]:
        return parked.starts if (parked := self._parked.get(name)) else ()

    def take(self, name: str) -> bytes | None:
        """Remove a state and return it; None if it is not there or cannot be read back."""
        with self._lock:
            parked = self._parked.pop(name, None)
            if parked is None:
                return None
            parked.gone = True
        if parked.file is None:
            return parked.state
        with parked.file as file:
            try:
                file.seek(0)
                state = file.read()
            except OSError:
                return None
        return state if len(state) == parked.size else None

    def drop(self, name: str) -> None:
        with self._lock:
            self._drop(name)

    def settle(self) -> None:
        """Wait until no state waits for the disk."""
        self._queue.join()

    def close(self) -> None:
        for name in list(self._parked):
            self.drop(name)
        if self._writer is not None:
            self._queue.put(None)
            self._writer.join()
            self._writer = None

    @property
    def in_memory(self) -> int:
        return sum(parked.size for parked in self._parked.values() if parked.stays_in_memory)

    @property
    def on_disk(self) -> int:
        """Bytes on disk, or waiting for the disk."""
        return sum(parked.size for parked in self._parked.values() if not parked.stays_in_memory)

    # --- with the lock held -------------------------------------------------------------------------------------------------

    def _drop(self, name: str) -> None:
        parked = self._parked.pop(name, None)
        if parked is not None:
            parked.gone = True
            if parked.file is not None:
                parked.file.close()

    def _make_room(self) -> None:
        while self.in_memory > self._memory:
            oldest = next(parked for parked in self._parked.values() if parked.stays_in_memory)
            if self._may_leave(oldest.size):
                oldest.leaving = True
                self._queue.put(oldest)
                self._start_writer()
            else:
                self._drop(oldest.name)
        while self.on_disk > self._disk:
            self._drop(next(name for name, parked in self._parked.items() if not parked.stays_in_memory))

    def _may_leave(self, size: int) -> bool:
        on_the_way = sum(parked.size for parked in self._parked.values() if parked.leaving)
        return size <= self._disk and (not on_the_way or on_the_way + size <= max(self._memory, _ON_THE_WAY))

    def _start_writer(self) -> None:
        if self._writer is None:
            self._writer = threading.Thread(target=self._write_all, name="llm-magics-parking", daemon=True)
            self._writer.start()

    # --- the writer's thread ------------------------------------------------------------------------------------------------

    def _write_all(self) -> None:
        while (parked := self._queue.get()) is not None:
            file = self._written(parked)
            with self._lock:
                parked.leaving = False
                if file is not None and not parked.gone:
                    parked.state, parked.file = None, file
                elif file is not None:
                    file.close()
                elif not parked.gone:
                    self._drop(parked.name)
            self._queue.task_done()
        self._queue.task_done()

    def _written(self, parked: _Parked) -> IO[bytes] | None:
        """A file with the state (with a part of it, if it is gone); None if the disk cannot take it."""
        assert parked.state is not None
        with ExitStack() as on_failure, suppress(OSError):  # most likely, the disk is full
            file = on_failure.enter_context(tempfile.TemporaryFile(dir=self._directory, buffering=0))
            view = memoryview(parked.state)
            while view and not parked.gone:
                view = view[file.write(view[:_CHUNK]) :]
            on_failure.pop_all()
            return file
        return None
