"""The parent's side of one engine's process: its pipe, its log, its end.

Three threads: one writes, one reads, so that an interrupt never cuts a message in two, and one keeps the last lines of the log.
The pipe is held by this process alone; when it ends, however it ends, the child reads the pipe's end and ends too.
"""

from __future__ import annotations

import itertools
import os
import pickle
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from copy import copy
from pathlib import PurePath
from queue import Empty, SimpleQueue
from typing import IO, Any, TypeAlias

from llm_magics.engine.native.child import last_line, parse_log, python_command, start_child, status_text
from llm_magics.engine.native.diagnosis import Line, fails_on_device, lacks_memory
from llm_magics.engine.values import EngineConfig, EngineInfo
from llm_magics.errors import EngineDiedError, EngineError

from .frames import read_frame, value_of, write_frame
from .interpreter import hurry, relax

Box: TypeAlias = "SimpleQueue[Any]"
_LOAD = 0  # the number of the load
_SECONDS_TO_END = 10
_LINES = 60  # of the child's log
_WAIT = 0.2 if sys.platform == "win32" else None  # seconds; on Windows, Ctrl-C does not interrupt a longer wait


class EngineProcess:
    """A child process that loads ``config`` at once. :meth:`wait_ready` comes first."""

    command = python_command("llm_magics.engine.hosts.child")

    def __init__(self, config: EngineConfig) -> None:
        self._config = config
        self._owner = os.getpid()
        self._numbers = itertools.count(_LOAD)
        self._boxes: dict[int, Box] = {}
        self._out: SimpleQueue[bytes | None] = SimpleQueue()
        self._log: deque[bytes] = deque(maxlen=_LINES)
        self._over: EngineError | None = None
        self._ready = False
        self._process = _start(self.command)
        _, self._load = self.open_box()
        self._out.put(pickle.dumps((config, sys.path)))
        pipes = (self._process.stderr, self._process.stdin, self._process.stdout)
        loops = (self._keep_log, self._write, self._read)
        threads = [
            threading.Thread(target=loop, args=(pipe,), name="llm-magics-pipe", daemon=True)
            for loop, pipe in zip(loops, pipes, strict=True)
        ]
        self._logger, _, self._reader = threads
        for thread in threads:  # the reader last: the child may have died already, and it waits for the log's end
            thread.start()

    @property
    def alive(self) -> bool:
        return self._over is None

    def wait_ready(self, progress: Callable[[float], bool | None] | None) -> EngineInfo:
        """Wait for the load. Raises the child's error, what ``progress`` raises, or EngineDiedError; the child then ends."""
        try:
            while not isinstance(item := value_of(taken(self._load)), EngineInfo):
                if progress is not None and progress(item) is False:
                    raise EngineError("Loading was cancelled.", "Load the model again when you want it.")
        except BaseException:
            self.end()
            raise
        finally:
            self.close_box(_LOAD)
        self._ready = True
        self._log.clear()  # a later death has other reasons
        return item

    def open_box(self) -> tuple[int, Box]:
        """Make a number, and the box for the child's answers to it. Raises the error by which this process ended. While a box
        is open, a busy thread of the user's keeps the interpreter from these threads no longer than from an engine here."""
        number, box = next(self._numbers), SimpleQueue[Any]()
        self._boxes[number] = box
        hurry()
        if self._over is not None:
            self.close_box(number)
            raise copy(self._over)
        return number, box

    def close_box(self, number: int) -> None:
        if self._boxes.pop(number, None) is not None:
            relax()

    def call(self, method: str, *args: object, **kwargs: object) -> Any:
        """Call a method of the child's engine and wait for its answer."""
        number, box = self.open_box()
        try:
            self.send_call(number, method, *args, **kwargs)
            return value_of(taken(box))
        finally:
            self.close_box(number)

    def send_call(self, number: int, method: str, *args: object, **kwargs: object) -> None:
        try:
            data = pickle.dumps((method, args, kwargs))
        except (pickle.PicklingError, AttributeError, TypeError) as error:
            raise EngineError(f"The engine's process cannot get this request: {error}.", "Use guides that pickle.") from error
        self.send("call", number, data)

    def send(self, kind: str, number: int = _LOAD, data: Any = None) -> None:
        self._out.put(pickle.dumps((kind, number, data)))

    def end(self) -> None:
        """End what runs as "interrupted", then the process; without a grace while it loads. Harmless when called twice, and in
        a forked process, where the parent owns the child."""
        if os.getpid() != self._owner:
            return
        self._over = self._over or closed()
        self.send("end")
        self._out.put(None)
        try:
            self._process.wait(_SECONDS_TO_END if self._ready else 0)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    # --- the threads --------------------------------------------------------------------------------------------------------

    def _write(self, pipe: IO[bytes]) -> None:
        with suppress(OSError), pipe:  # if the child has gone, the reader says so
            while (message := self._out.get()) is not None:
                write_frame(pipe, message)

    def _read(self, pipe: IO[bytes]) -> None:
        unread = ""
        with pipe:
            try:
                while True:
                    for number, item in pickle.loads(read_frame(pipe)):
                        box = self._boxes.get(number)
                        if box is not None:
                            box.put(item)
            except (EOFError, OSError):
                pass
            except Exception as error:
                unread = f"{type(error).__name__}: {error}"
        if self._over is None:
            self._over = self._died(unread)
        self._out.put(None)
        for box in list(self._boxes.values()):
            box.put(copy(self._over))  # an exception that several threads raise mixes up their tracebacks

    def _keep_log(self, pipe: IO[bytes]) -> None:
        with pipe:
            self._log.extend(pipe)

    def _died(self, unread: str) -> EngineDiedError:
        """What happened, in the child's own last words."""
        if unread:
            self._process.kill()
        try:
            status = self._process.wait(_SECONDS_TO_END)
        except subprocess.TimeoutExpired:  # it closed its pipe and lives on
            self._process.kill()
            status = self._process.wait()
        self._logger.join(1)
        lines = parse_log(b"".join(self._log).decode("utf-8", "replace"))
        return died(self._config, status, lines, loading=not self._ready, unread=unread)


def died(config: EngineConfig, status: int, lines: list[Line], *, loading: bool, unread: str = "") -> EngineDiedError:
    """The error for a process that ended by itself with this status and these last lines of its log."""
    name = PurePath(config.path).name
    how = f"sent what cannot be read ({unread})" if unread else f"died ({status_text(status)})"
    last = last_line(lines)
    what = f"The engine's process of {name} {how}{' while it loaded the model' if loading else ''}"
    what += f"; its last log line: {last}." if last else "."
    again = "Load the model again" if loading else "Ask again: that first loads the model in a new process"
    return EngineDiedError(what, f"Your variables are unharmed. {again}. {_advice(config, status, lines)}".strip())


def _advice(config: EngineConfig, status: int, lines: list[Line]) -> str:
    if status == -9 or lacks_memory(lines):  # SIGKILL: the system sends it when memory runs out
        return "If memory ran out, free some, or choose a smaller model or context."
    if fails_on_device(lines) or config.n_gpu_layers or config.draft_gpu_layers:
        return (
            "If it happens again: --gpu-layers 0 loads without a device. A GPU in exclusive mode allows one process; if this "
            "kernel already uses it, load with --in-kernel --gpu-layers N."
        )
    return ""


def try_process() -> str:
    """Start an engine's process and close its pipe; return "" if it ends as it should, else how it ended."""
    try:
        with _start(EngineProcess.command) as child:
            _, said = child.communicate(timeout=60)
    except EngineError as error:
        return error.what
    except subprocess.TimeoutExpired:
        child.kill()
        return "It does not end."
    last = last_line(parse_log(said.decode("utf-8", "replace")))
    return f"It died ({status_text(child.returncode)}){f': {last}' if last else ''}." if child.returncode else ""


def taken(box: Box) -> Any:
    """Wait for the next item; an interrupt ends the wait."""
    while True:
        with suppress(Empty):
            return box.get(timeout=_WAIT)


def closed() -> EngineError:
    return EngineError("This model was closed.", "Load it again.")


def _start(command: tuple[str, ...]) -> subprocess.Popen[bytes]:
    """Start the child out of reach of Ctrl-C, which a terminal and Jupyter send to the whole group of a kernel."""
    apart = getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0) | getattr(subprocess, "CREATE_NO_WINDOW", 0)  # 0 but on Windows
    try:
        return start_child(command, subprocess.PIPE, start_new_session=True, creationflags=apart)
    except OSError as error:
        what = f"The engine's process cannot be started: {error}."
        raise EngineError(what, "Load the model with --in-kernel, or repair this Python installation.") from error
