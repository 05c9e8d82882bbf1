"""The same engine in a child process, whose crash leaves this process alive.

The child serves an ordinary engine over a pipe. To the child go ``("call", id, method, args, kwargs)``, ``("credit", id)``,
``("cancel", id)`` and ``("end",)``. From the child come ``("progress", fraction)``, then ``("ready", info)`` or ``("failed",
error)``, then ``(id, item)``: an answer, an event or an exception. A generation's events stop while its consumer is more than
``_WINDOW`` events behind.
"""

from __future__ import annotations

import itertools
import multiprocessing
import pickle
import signal
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import suppress
from multiprocessing.connection import Connection
from queue import SimpleQueue
from typing import Any

from llm_magics.engine.values import Engine, EngineConfig, EngineEvent, EngineInfo, Finished, GenerateRequest
from llm_magics.errors import EngineError, LLMMagicsError

_WINDOW = 512  # events in flight per generation
_CREDIT = 64  # events that one "credit" message allows
_SECONDS_TO_CLOSE = 10


def open_pipe_engine(config: EngineConfig, progress: Callable[[float], bool | None] | None = None) -> PipeEngine:
    """Load a model in a child process. Arguments and errors as for ``open_engine``; EngineError if the child dies."""
    return PipeEngine(config, progress)


class PipeEngine:
    """An engine in a child process; see :class:`~llm_magics.engine.values.Engine`."""

    def __init__(self, config: EngineConfig, progress: Callable[[float], bool | None] | None = None) -> None:
        spawn = multiprocessing.get_context("spawn")
        self._pipe, there = spawn.Pipe()
        self._process = spawn.Process(target=serve, args=(there, config), name="llm-magics-engine", daemon=True)
        self._process.start()
        there.close()
        self._link = _Link(self._pipe)
        self._finalizer = weakref.finalize(self, _shut_down, self._process, self._link)
        self._info = self._wait_until_ready(progress)
        self._link.start()

    def _wait_until_ready(self, progress: Callable[[float], bool | None] | None) -> EngineInfo:
        try:
            while True:
                kind, value = self._pipe.recv()
                if kind == "ready":
                    return value
                if kind == "failed":
                    raise value
                if progress is not None and progress(value) is False:
                    raise EngineError("Loading was cancelled.", "Load the model again when you want it.")
        except (EOFError, OSError):
            raise _died() from None
        finally:
            if kind != "ready":
                self._process.kill()

    @property
    def info(self) -> EngineInfo:
        return self._info

    def tokenize(self, text: str, *, special: bool) -> tuple[int, ...]:
        return self._link.call("tokenize", text, special=special)

    def piece(self, token: int) -> bytes:
        return self._link.call("piece", token)

    def submit(self, request: GenerateRequest) -> PipeGeneration:
        """Queue a request, as a local engine does. EngineError for a guide that cannot be pickled."""
        generation = PipeGeneration(self._link)
        generation.begin(request)
        return generation

    def close(self) -> None:
        """End all requests, then the child. Harmless when called twice."""
        self._finalizer()

    def __enter__(self) -> PipeEngine:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class PipeGeneration:
    """One running request; see :class:`~llm_magics.engine.values.Generation`. Dropping it cancels the request."""

    def __init__(self, link: _Link) -> None:
        self._link = link
        self._id, self._box = link.open_box()
        self._taken = 0
        self._over = False

    def begin(self, request: GenerateRequest) -> None:
        """Send the request and wait until the child has accepted or refused it."""
        try:
            self._link.send_call(self._id, "submit", request)
            _value(self._box.get())
        except BaseException:
            self.close()
            raise

    def __iter__(self) -> Iterator[EngineEvent]:
        return self

    def __next__(self) -> EngineEvent:
        if self._over:
            raise StopIteration
        item = self._box.get()
        self._taken += 1
        if self._taken % _CREDIT == 0:
            self._link.send("credit", self._id)
        if isinstance(item, Exception | Finished):
            self._over = True
            self._link.close_box(self._id)
        return _value(item)

    def cancel(self) -> None:
        """Ask for the end: iteration continues to a Finished with reason "interrupted". Any thread may call this."""
        self._link.send("cancel", self._id)

    def close(self) -> None:
        """Stop within one token; nothing more is yielded."""
        if not self._over:
            self._over = True
            self._link.close_box(self._id)
            self.cancel()

    def __del__(self) -> None:
        if not getattr(self, "_over", True):
            self.close()


class _Link:
    """This end of the pipe. One thread writes and one reads, so that an interrupt never cuts a message in two."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe
        self._ids = itertools.count()
        self._boxes: dict[int, SimpleQueue[Any]] = {}
        self._out: SimpleQueue[bytes | None] = SimpleQueue()
        self._over: EngineError | None = None
        self.started = False

    def start(self) -> None:
        self.started = True
        for run in (self._write, self._read):
            threading.Thread(target=run, name="llm-magics-pipe", daemon=True).start()

    def open_box(self) -> tuple[int, SimpleQueue[Any]]:
        """Make an id, and the box for the child's answers to it."""
        if self._over is not None:
            raise self._over
        number, box = next(self._ids), SimpleQueue[Any]()
        self._boxes[number] = box
        if self._over is not None:  # the reader may have ended meanwhile
            box.put(self._over)
        return number, box

    def close_box(self, number: int) -> None:
        self._boxes.pop(number, None)

    def call(self, method: str, *args: object, **kwargs: object) -> Any:
        """Call a method of the child's engine and wait for its answer."""
        number, box = self.open_box()
        try:
            self.send_call(number, method, *args, **kwargs)
            return _value(box.get())
        finally:
            self.close_box(number)

    def send_call(self, number: int, method: str, *args: object, **kwargs: object) -> None:
        try:
            self.send("call", number, method, args, kwargs)
        except (pickle.PicklingError, AttributeError, TypeError) as error:
            raise EngineError(f"The engine's process cannot get this request: {error}.", "Use guides that pickle.") from error

    def send(self, *message: object) -> None:
        self._out.put(pickle.dumps(message))

    def end(self, error: EngineError) -> None:
        """Tell the child to end. From here on every call raises ``error``, those that wait now too."""
        self._over = self._over or error
        for box in list(self._boxes.values()):
            box.put(self._over)
        self.send("end")
        self._out.put(None)

    def _write(self) -> None:
        while (message := self._out.get()) is not None:
            try:
                self._pipe.send_bytes(message)
            except OSError:
                return  # the reader sees the same end and tells every box

    def _read(self) -> None:
        try:
            while True:
                number, item = self._pipe.recv()
                box = self._boxes.get(number)
                if box is not None:
                    box.put(item)
        except (EOFError, OSError):
            self.end(_died())


def _shut_down(process: Any, link: _Link) -> None:
    link.end(EngineError("This model was closed.", "Load it again."))
    process.join(_SECONDS_TO_CLOSE if link.started else 0)
    if process.exitcode is None:
        process.kill()
        process.join()


def _value(item: Any) -> Any:
    if isinstance(item, Exception):
        raise item
    return item


def _died() -> EngineError:
    return EngineError("The engine's process ended unexpectedly.", "Load the model again; your variables are unharmed.")


# --- the child's side -------------------------------------------------------------------------------------------------------


def serve(pipe: Connection, config: EngineConfig) -> None:
    """Serve one engine over a pipe until the other end goes away. Runs in the child."""
    from llm_magics.engine.hosts import open_engine

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group, but the parent decides what to cancel
    try:
        engine = open_engine(config, lambda fraction: pipe.send(("progress", fraction)))
    except Exception as error:
        pipe.send(("failed", _sendable(error)))
        return
    pipe.send(("ready", engine.info))
    try:
        _Server(pipe, engine).run()
    finally:
        engine.close()


class _Server:
    """Answers calls in the child's main thread; one thread per generation forwards its events."""

    def __init__(self, pipe: Connection, engine: Engine) -> None:
        self._pipe = pipe
        self._engine = engine
        self._sending = threading.Lock()
        self._running: dict[int, tuple[Any, threading.Semaphore]] = {}

    def run(self) -> None:
        while True:
            try:
                kind, *rest = self._pipe.recv()
            except (EOFError, OSError):
                return
            if kind == "end":
                return
            if kind == "call":
                self._answer(*rest)
            elif (found := self._running.get(rest[0])) is not None:
                generation, credit = found
                if kind == "credit":
                    credit.release(_CREDIT)
                else:
                    generation.cancel()
                    credit.release(_WINDOW)  # the forwarder may wait for a consumer that is gone

    def _answer(self, number: int, method: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        try:
            value = getattr(self._engine, method)(*args, **kwargs)
        except Exception as error:
            self._send(number, _sendable(error))
            return
        if method != "submit":
            self._send(number, value)
            return
        self._send(number, None)
        self._running[number] = (value, threading.Semaphore(_WINDOW))
        threading.Thread(target=self._forward, args=(number,), daemon=True).start()

    def _forward(self, number: int) -> None:
        generation, credit = self._running[number]
        try:
            for event in generation:
                credit.acquire()
                self._send(number, event)
        except Exception as error:
            self._send(number, _sendable(error))
        finally:
            del self._running[number]

    def _send(self, number: int, item: object) -> None:
        with self._sending:
            self._pipe.send((number, item))


def _sendable(error: Exception) -> Exception:
    """The exception if it is one of ours and pickles, else an EngineError with its text."""
    with suppress(Exception):
        pickle.loads(pickle.dumps(error))
        if isinstance(error, LLMMagicsError):
            return error
    return EngineError(f"{type(error).__name__}: {error}.")
