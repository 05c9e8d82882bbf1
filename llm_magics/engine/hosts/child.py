"""The engine's own process: ``python -m llm_magics.engine.hosts.child``. It serves one engine over its standard pipes.

The parent first sends ``(config, sys.path)``, then ``(kind, number, data)``: "call" with a pickled ``(method, args, kwargs)``,
"took" with the number of events that a consumer has taken, "cancel", "end". Answers are lists of ``(number, item)``: a value,
an event or an exception. Number 0 is the load: fractions, then the engine's info. One frame holds all that was said since the
last evaluation.

The main thread reads the pipe from the start, because its end, also in the middle of a load, is how the parent's death is
noticed. The engine's thread writes its events itself: a thread between them would cost a change of threads for each token.
"""

from __future__ import annotations

import os
import pickle
import signal
import sys
import threading
from collections import deque
from typing import IO, Any

from llm_magics.engine.native.child import end_with_parent
from llm_magics.engine.run.sequence import Channel
from llm_magics.engine.values import EngineConfig, EngineEvent, Finished
from llm_magics.errors import EngineError

from .frames import read_frame, sendable, write_frame
from .local import LocalEngine

LOAD = 0  # the number of the load


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # only the parent decides what an interrupt cancels
    end_with_parent()  # a forked sibling may hold the pipe open
    receive, send = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)  # a library's print must not look like an answer
    _Server(receive, send).run()


class _PipeChannel(Channel):
    """Puts events on the way to the parent. ``taken`` of them have reached their consumer."""

    def __init__(self, server: _Server, number: int) -> None:
        super().__init__()
        self._server, self._number = server, number
        self._sent = self.taken = 0

    def put(self, item: EngineEvent | Exception) -> None:
        self._sent += 1
        if isinstance(item, Finished | Exception):
            self._server.channels.pop(self._number, None)
        self._server.say(self._number, item)

    def waiting(self) -> int:
        return self._sent - self.taken


class _Server:
    def __init__(self, receive: IO[bytes], send: IO[bytes]) -> None:
        self._receive, self._send = receive, send
        self._sending = threading.Lock()
        self._said: deque[tuple[int, Any]] = deque()
        self._engine: LocalEngine
        self.channels: dict[int, _PipeChannel] = {}

    def run(self) -> None:
        try:
            config, path = pickle.loads(read_frame(self._receive))
            sys.path += [place for place in path if place not in sys.path]  # where the parent finds the guides' classes
            threading.Thread(target=self._load, args=(config,), daemon=True).start()
            while self._obey(*pickle.loads(read_frame(self._receive))):
                pass
            self._engine.close()
        except EOFError:
            pass
        os._exit(0)  # at once, even in the middle of a load

    def _load(self, config: EngineConfig) -> None:
        from llm_magics.engine.native import llama

        llama.echo = 2
        try:
            self._engine = LocalEngine(config, _Progress(self), self.tell)
            self.say(LOAD, self._engine.info)
        except Exception as error:
            self.say(LOAD, sendable(error))
        self.tell()

    def _obey(self, kind: str, number: int, data: Any) -> bool:
        channel = self.channels.get(number)
        if kind == "call":
            self._call(number, data)
        elif kind == "took" and channel is not None:
            channel.taken = data
            self._engine.core.caught_up(channel)
        elif kind == "cancel" and channel is not None:
            self._engine.core.cancel(channel)
        return kind != "end"

    def _call(self, number: int, data: bytes) -> None:
        sequence = None
        try:
            method, args, kwargs = _understood(data)
            answer: Any = None
            if method == "submit":
                channel = _PipeChannel(self, number)
                sequence = self._engine.admit(args[0], channel)
                self.channels[number] = channel
            else:
                answer = getattr(self._engine, method)(*args, **kwargs)
        except Exception as error:
            answer = sendable(error)
        self.say(number, answer)
        self.tell()
        if sequence is not None:
            self._engine.core.take(sequence)

    def say(self, number: int, item: object) -> None:
        self._said.append((number, item))

    def tell(self) -> None:
        """Send what was said. Any thread may call this."""
        if not self._said:
            return
        with self._sending:
            batch = []
            while self._said:
                batch.append(self._said.popleft())
            try:
                data = pickle.dumps(batch)
            except Exception:
                data = pickle.dumps([(number, self._checked(number, item)) for number, item in batch])
            try:
                write_frame(self._send, data)
            except OSError:
                pass  # the parent has gone: the main thread ends this process

    def _checked(self, number: int, item: object) -> object:
        """The item; if it does not pickle, the error that ends its generation."""
        try:
            pickle.dumps(item)
        except Exception as error:
            if (channel := self.channels.pop(number, None)) is not None:
                channel.cancelled = True
            return EngineError(f"The engine's process cannot send an event: {error}.", "Use guides whose events pickle.")
        return item


class _Progress:
    """Tells the parent every hundredth of a load."""

    def __init__(self, server: _Server) -> None:
        self._server, self._told = server, -1.0

    def __call__(self, fraction: float) -> None:
        if fraction >= self._told + 0.01 or fraction >= 1:
            self._told = fraction
            self._server.say(LOAD, fraction)
            self._server.tell()


def _understood(data: bytes) -> Any:
    try:
        return pickle.loads(data)
    except Exception as error:
        advice = "Use guides of a module that another process can import."
        raise EngineError(f"The engine's process cannot read this request: {error}.", advice) from error


if __name__ == "__main__":
    main()
