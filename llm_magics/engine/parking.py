"""Where the state of a sequence waits while others have its slot: in host memory, then on disk, each within a budget.

What was parked longest goes from memory to disk, and from disk away; it is then evaluated anew. A state is as private as the
conversation it was computed from, so nothing is written to disk unless a budget for it was given, and then to files without a
name (``O_TMPFILE``, or unlinked as soon as they are open; deleted on close by Windows): nobody else can open them, and they are
gone when the engine closes or the process dies, however it dies.
"""

from __future__ import annotations

import os
import tempfile
from collections import OrderedDict
from dataclasses import dataclass
from typing import IO

from ..errors import OptionError


@dataclass(slots=True)
class _Parked:
    """``state`` is None while it is in ``file``."""

    tokens: list[int]
    size: int
    state: bytes | None
    file: IO[bytes] | None = None


class Parking:
    """States by name, the longest parked first. Budgets in bytes; ``directory`` is made where something may go to disk."""

    def __init__(self, memory: int, disk: int = 0, directory: str = "") -> None:
        self._memory = memory
        self._disk = disk
        self._directory = directory
        self._parked: OrderedDict[str, _Parked] = OrderedDict()
        if disk:
            try:
                os.makedirs(directory, mode=0o700, exist_ok=True)
            except OSError as error:
                raise OptionError(f"Nothing can be parked in {directory}: {error}.", "Choose another directory.") from error

    def has_room_for(self, size: int) -> bool:
        """Whether a state of that size could be kept at all."""
        return size <= max(self._memory, self._disk)

    def put(self, name: str, tokens: list[int], state: bytes) -> None:
        """Keep a state and the tokens that it was computed from, under a name that may be taken again."""
        self.drop(name)
        self._parked[name] = _Parked(tokens, len(state), state)
        self._make_room()

    def tokens(self, name: str) -> list[int] | None:
        """The tokens of what is parked under a name; None where nothing is."""
        parked = self._parked.get(name)
        return parked.tokens if parked is not None else None

    def take(self, name: str) -> bytes | None:
        """Give a state back, and keep it no longer; None where it is not there, or cannot be read back."""
        parked = self._parked.pop(name, None)
        if parked is None or parked.file is None:
            return parked.state if parked is not None else None
        with parked.file as file:
            try:
                file.seek(0)
                state = file.read()
            except OSError:
                return None  # what cannot be read is evaluated again
        return state if len(state) == parked.size else None

    def drop(self, name: str) -> None:
        """Keep what was parked under a name no longer."""
        parked = self._parked.pop(name, None)
        if parked is not None and parked.file is not None:
            parked.file.close()

    def close(self) -> None:
        """Drop everything."""
        for name in list(self._parked):
            self.drop(name)

    @property
    def in_memory(self) -> int:
        """Bytes held in host memory."""
        return sum(parked.size for parked in self._parked.values() if parked.file is None)

    @property
    def on_disk(self) -> int:
        """Bytes held on disk."""
        return sum(parked.size for parked in self._parked.values() if parked.file is not None)

    def _make_room(self) -> None:
        while self.in_memory > self._memory:
            name, oldest = next((name, parked) for name, parked in self._parked.items() if parked.file is None)
            if oldest.size > self._disk or not self._write(oldest):
                self.drop(name)
        while self.on_disk > self._disk:
            self.drop(next(name for name, parked in self._parked.items() if parked.file is not None))

    def _write(self, parked: _Parked) -> bool:
        assert parked.state is not None
        try:
            file = tempfile.TemporaryFile(dir=self._directory, buffering=0)  # noqa: SIM115 (closed when it is taken or dropped)
        except OSError:
            return False
        try:
            view = memoryview(parked.state)
            while view:
                view = view[file.write(view) :]
        except OSError:  # the disk is full, most likely: what cannot be kept is evaluated again
            file.close()
            return False
        parked.state, parked.file = None, file
        return True
