"""The same engine in a child process, whose crash leaves this process alive. The next request after a crash starts a new child.

The child (:mod:`.child`) serves a LocalEngine over pipes. It is started as a module of its own, so it never imports the user's
``__main__``. A generation's events stop while its consumer is too far behind, as in this process.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import replace
from typing import Any

from llm_magics.engine.values import EngineConfig, EngineEvent, EngineInfo, Finished, GenerateRequest
from llm_magics.errors import EngineDiedError, EngineError, ModelFileError

from .frames import value_of
from .process import EngineProcess, closed, taken

_CREDIT = 64  # events after which the child hears that they were taken
_LOST = "the engine's process had ended, so the model was loaded again"


class _Place:
    """Holds the newest process, loaded or not, for the engine and its finalizer. ``lock`` is held while one loads again."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.process: EngineProcess | None = None
        self.closed = False

    def close(self) -> None:
        self.closed = True
        if self.process is not None:
            self.process.end()


class PipeEngine:
    """An engine in a child process; see :class:`~llm_magics.engine.values.Engine`. Arguments and errors are those of
    ``open_engine``. ``progress`` is also called when a model is loaded again. EngineDiedError if the child dies."""

    def __init__(self, config: EngineConfig, progress: Callable[[float], bool | None] | None = None) -> None:
        paths = [os.path.abspath(path) if path else "" for path in (config.path, config.draft)]  # a notebook may change folders
        self._config = replace(config, path=paths[0], draft=paths[1])
        self._progress = progress
        self._owner = os.getpid()
        self._pieces: dict[int, bytes] = {}
        self._loss = ""  # what the next answer is to tell
        self._place = _Place()
        self._finalizer = weakref.finalize(self, self._place.close)  # also at the interpreter's exit
        self._loaded, self._info = self._load()

    def _load(self) -> tuple[EngineProcess, EngineInfo]:
        process = self._place.process = EngineProcess(self._config)
        info = process.wait_ready(self._progress)
        if self._place.closed:
            process.end()
            raise closed()
        return process, replace(info, path=self._config.path)

    @property
    def _process(self) -> EngineProcess:
        """The process; a new one if the last one died."""
        if os.getpid() != self._owner:
            raise EngineError("This model was loaded before the process forked.", "Load it in the new process.")
        if self._loaded.alive:
            return self._loaded
        with self._place.lock:
            if self._place.closed:
                raise closed()
            if not self._loaded.alive:
                self._load_again()
            return self._loaded

    def _load_again(self) -> None:
        before = self._info
        process, info = self._load()
        if (info.n_vocab, info.size, info.metadata) != (before.n_vocab, before.size, before.metadata):
            process.end()
            raise ModelFileError(f"{os.path.basename(info.path)} is another model now than it was.", "Load it again.")
        self._loss, self._info, self._loaded = _LOST, info, process

    @property
    def info(self) -> EngineInfo:
        return self._info

    def tokenize(self, text: str, *, special: bool) -> tuple[int, ...]:
        return self._done(lambda process: process.call("tokenize", text, special=special))

    def pieces(self, tokens: Iterable[int]) -> list[bytes]:
        wanted = list(tokens)
        unknown = list({token for token in wanted if token not in self._pieces})
        if unknown:
            found = self._done(lambda process: process.call("pieces", unknown))
            self._pieces |= zip(unknown, found, strict=True)
        return [self._pieces[token] for token in wanted]

    def submit(self, request: GenerateRequest) -> PipeGeneration:
        """Queue a request, as a local engine does. EngineError for a guide that cannot be pickled."""

        def begun(process: EngineProcess) -> PipeGeneration:
            loss, self._loss = self._loss, ""
            generation = PipeGeneration(process, loss)
            generation.begin(request)
            return generation

        return self._done(begun)

    def _done(self, do: Callable[[EngineProcess], Any]) -> Any:
        """Do something, once more in a new process if this one dies before it has answered: nobody has seen anything yet."""
        process = self._process
        with suppress(EngineDiedError):
            return do(process)
        return do(self._process)

    def close(self) -> None:
        """End all requests as "interrupted", then the child. Harmless when called twice."""
        self._finalizer()

    def __enter__(self) -> PipeEngine:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class PipeGeneration:
    """One running request; see :class:`~llm_magics.engine.values.Generation`. Dropping it cancels the request."""

    def __init__(self, process: EngineProcess, loss: str = "") -> None:
        self._over = True
        self._process, self._loss = process, loss
        self._number, self._box = process.open_box()
        self._taken = 0
        self._over = False

    def begin(self, request: GenerateRequest) -> None:
        """Send the request and wait until the child has accepted or refused it."""
        try:
            self._process.send_call(self._number, "submit", request)
            value_of(taken(self._box))
        except BaseException:
            self.close()
            raise

    def __iter__(self) -> Iterator[EngineEvent]:
        return self

    def __next__(self) -> EngineEvent:
        if self._over:
            raise StopIteration
        item = taken(self._box)
        self._taken += 1
        if self._taken % _CREDIT == 0:
            self._process.send("took", self._number, self._taken)
        if isinstance(item, Exception | Finished):
            self._over = True
            self._process.close_box(self._number)
        if isinstance(item, Finished) and self._loss:
            item = replace(item, losses=(*item.losses, self._loss))
        return value_of(item)

    def cancel(self) -> None:
        """Ask for the end: iteration continues to a Finished with reason "interrupted". Any thread may call this."""
        self._process.send("cancel", self._number)

    def close(self) -> None:
        """Stop within one token; nothing more is yielded."""
        if not self._over:
            self._over = True
            self._process.close_box(self._number)
            self.cancel()

    def __del__(self) -> None:
        if not getattr(self, "_over", True):
            self.close()
