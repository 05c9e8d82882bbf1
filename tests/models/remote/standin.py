"""A stand-in for a foreign server: plain sockets that answer as scripted, faults included.

Each ``POST .../chat/completions`` takes the next Reply of the script; the last one repeats. Everything received is kept.
"""

from __future__ import annotations

import contextlib
import json
import socket
import socketserver
import ssl
import struct
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

RESET = "reset"
"""Break the connection off with a TCP reset."""
HOLD = "hold"
"""Send nothing more until the client hangs up."""
Piece: TypeAlias = "bytes | float | str"


@dataclass(frozen=True, slots=True)
class Reply:
    """What to answer: a status and headers, then pieces: bytes, a pause in seconds, RESET or HOLD. ``status`` 0 sends no head.

    The body ends with the connection, as HTTP/1.0 does; ``chunked`` frames it, without its last frame if it is ``cut``.
    """

    pieces: Sequence[Piece] = ()
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=lambda: {"Content-Type": "text/event-stream"})
    chunked: bool = False
    cut: bool = False


@dataclass(frozen=True, slots=True)
class Seen:
    """A request as it came."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: Any


def chunk(delta: Mapping[str, Any] | None = None, finish: str | None = None, **more: Any) -> dict[str, Any]:
    choices = [] if delta is None else [{"index": 0, "delta": dict(delta), "finish_reason": finish}]
    return {"id": "c-1", "object": "chat.completion.chunk", "model": "served", "choices": choices, **more}


def call(name: str, arguments: str, index: int = 0, id: str = "") -> dict[str, Any]:
    """A delta with a whole call."""
    given = {"id": id} if id else {}
    return {"tool_calls": [{"index": index, **given, "type": "function", "function": {"name": name, "arguments": arguments}}]}


def sse(*chunks: Any, done: bool = True) -> bytes:
    lines = [f"data: {json.dumps(one)}\n\n" for one in chunks]
    return "".join([*lines, "data: [DONE]\n\n" if done else ""]).encode()


def says(*texts: str, finish: str = "stop", usage: tuple[int, int] | None = (9, 3)) -> bytes:
    """A whole stream of text."""
    counts = {"prompt_tokens": usage[0], "completion_tokens": usage[1], "total_tokens": sum(usage)} if usage else None
    first = chunk({"role": "assistant", "content": ""})
    return sse(first, *(chunk({"content": text}) for text in texts), chunk({}, finish), chunk(usage=counts))


def calls(*made: dict[str, Any], finish: str = "tool_calls") -> bytes:
    """A whole stream of calls."""
    return sse(chunk({"role": "assistant", "content": None}), *map(chunk, made), chunk({}, finish))


class StandIn:
    """``with StandIn([Reply(...)]) as server:`` listens on a port of this machine.

    Args:
        script: replies, or whole streams as bytes.
        listing: what ``GET .../models`` answers; a Reply, or the value of ``data``.
        tls: serve TLS with this context.
    """

    def __init__(self, script: Iterable[Reply | bytes] = (), *, listing: Any = None, tls: ssl.SSLContext | None = None) -> None:
        self.script = [one if isinstance(one, Reply) else Reply([one]) for one in script]
        data = [{"id": "served", "object": "model", "owned_by": "somebody"}] if listing is None else listing
        self.listing = data if isinstance(data, Reply) else _json_reply({"object": "list", "data": data})
        self.others: dict[str, Reply] = {}
        self.seen: list[Seen] = []
        self.hung_up = threading.Event()
        self._next = 0
        self._lock = threading.Lock()
        self._server = _Server(("127.0.0.1", 0), _Connection)
        self._server.owner = self
        if tls is not None:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True)

    @property
    def port(self) -> int:
        return int(self._server.server_address[1])

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    @property
    def asked(self) -> list[Seen]:
        """The requests for a completion."""
        return [one for one in self.seen if one.method == "POST"]

    def __enter__(self) -> StandIn:
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def reply_to(self, seen: Seen) -> Reply:
        with self._lock:
            self.seen.append(seen)
            if seen.method == "GET":
                return self.others.get(seen.path, self.listing if seen.path.endswith("/models") else Reply(status=404))
            self._next += 1
            return self.script[min(self._next, len(self.script)) - 1]


def _json_reply(value: Any, status: int = 200, **headers: str) -> Reply:
    named = {"Content-Type": "application/json", **{name.replace("_", "-"): text for name, text in headers.items()}}
    return Reply([json.dumps(value).encode()], status, named)


json_reply = _json_reply


class _Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 64
    owner: StandIn

    def handle_error(self, *_: object) -> None:
        """Clients that hang up are what is tested."""


class _Connection(socketserver.StreamRequestHandler):
    server: _Server

    def handle(self) -> None:
        line = self.rfile.readline().decode()
        if not line.strip():
            return
        method, path, _ = line.split(" ", 2)
        headers: dict[str, str] = {}
        while text := self.rfile.readline().decode().strip():
            name, _, value = text.partition(":")
            headers[name.lower()] = value.strip()
        raw = self.rfile.read(int(headers.get("content-length", 0)))
        reply = self.server.owner.reply_to(Seen(method, path, headers, json.loads(raw) if raw else None))
        with contextlib.suppress(OSError):
            self._answer(reply)

    def _answer(self, reply: Reply) -> None:
        if reply.status:
            head = {"Connection": "close", **reply.headers, **({"Transfer-Encoding": "chunked"} if reply.chunked else {})}
            lines = [f"HTTP/1.1 {reply.status} Told", *(f"{name}: {value}" for name, value in head.items()), "", ""]
            self.wfile.write("\r\n".join(lines).encode())
        for piece in reply.pieces:
            if isinstance(piece, bytes):
                self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece) if reply.chunked and piece else piece)
            elif piece == RESET:
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                self.connection.close()
                return
            elif self._gone(None if piece == HOLD else float(piece)):
                return
        if reply.chunked and not reply.cut:
            self.wfile.write(b"0\r\n\r\n")

    def _gone(self, seconds: float | None) -> bool:
        """Wait; returns whether the client has hung up meanwhile."""
        self.connection.settimeout(seconds)
        try:
            gone = self.connection.recv(1) == b""
        except TimeoutError:
            return False
        except OSError:
            gone = True
        if gone:
            self.server.owner.hung_up.set()
        return gone
