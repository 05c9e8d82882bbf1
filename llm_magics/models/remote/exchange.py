"""One request: a thread sends it and queues what comes, so that its reader never blocks.

A read in httpx returns with bytes or a time-out only. It runs in a thread, behind a bounded queue. The reader waits in short
spells, so it can take interrupts (also on Windows), count time-outs of its own, and close the socket, which wakes the thread.
Each request has its own connection: the server may have closed a kept one, and that looks like a failed request. Redirects are
not followed.
"""

from __future__ import annotations

import contextlib
import os
import queue
import socket
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any, TypeAlias

from .key import Key

if TYPE_CHECKING:
    import ssl

    import httpx

    from .address import Address
    from .settings import Waits

_PIECES = 64  # of at most 64 KiB, that wait for a slow reader, before the server has to wait
_WRITE = 60.0  # seconds to send a request


@dataclass(frozen=True, slots=True)
class Head:
    """The answer has begun."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)

    def __getitem__(self, name: str) -> str:
        return self.headers.get(name, "")


@dataclass(frozen=True, slots=True)
class End:
    """The answer is complete, as far as HTTP can tell."""


@dataclass(frozen=True, slots=True)
class Failure:
    """The connection failed. ``kind`` is "connect" before the request could be sent, else "broken"."""

    kind: str
    text: str


Came: TypeAlias = Head | bytes | End | Failure


class _Closed(Exception):
    pass


def open_client(address: Address, waits: Waits) -> httpx.Client:
    """A client for one server. TLS is verified; requests to this machine use no proxy."""
    import httpx

    return httpx.Client(
        timeout=httpx.Timeout(None, connect=waits.connect, write=_WRITE),  # the reader counts the other time-outs
        limits=httpx.Limits(max_keepalive_connections=0),
        follow_redirects=False,
        verify=_context(os.environ.get("SSL_CERT_FILE", ""), os.environ.get("SSL_CERT_DIR", "")),
        trust_env=not address.loopback,
    )


@lru_cache(maxsize=4)
def _context(file: str, folder: str) -> ssl.SSLContext:
    """Trust the authorities of this file or folder, else certifi's; reading them takes a while."""
    import httpx

    return httpx.create_ssl_context()  # it reads the same two variables


class Exchange:
    """One request in progress. ``take`` gives what has come; ``close`` ends it at any time."""

    def __init__(self, client: httpx.Client, method: str, url: str, key: Key, body: bytes = b"") -> None:
        self.began = time.monotonic()  # once it is connected: since then
        self._request = (client, method, url, key, body)
        self._came: queue.Queue[Came] = queue.Queue(_PIECES)
        self._closed = threading.Event()
        self._socket: socket.socket | None = None
        self._thread = threading.Thread(target=self._run, name="llm-magics-request", daemon=True)
        self._thread.start()

    def take(self, seconds: float) -> Came | None:
        """The next thing that came; None if nothing does within so many seconds."""
        with contextlib.suppress(queue.Empty):
            return self._came.get(timeout=seconds) if seconds > 0 else self._came.get_nowait()
        return None

    @property
    def connected(self) -> bool:
        return self._socket is not None

    def close(self) -> None:
        """Break the connection off. The thread ends by itself."""
        self._closed.set()
        if (own := self._socket) is not None:
            with contextlib.suppress(OSError):
                socket.socket.shutdown(own, socket.SHUT_RDWR)  # a TLS socket's own would disturb its reader

    def _run(self) -> None:
        self._put(self._last())

    def _last(self) -> Came:
        """Send the request and pass its answer on; returns how it ended."""
        import httpx

        client, method, url, key, body = self._request
        headers = {"accept": "text/event-stream, application/json", "accept-encoding": "identity"}
        headers |= {"content-type": "application/json"} if body else {}
        try:
            headers |= key.headers()
            with client.stream(method, url, content=body or None, headers=headers, extensions={"trace": self._trace}) as got:
                self._put(Head(got.status_code, {name.lower(): key.masked(value) for name, value in got.headers.items()}))
                for piece in got.iter_raw():  # with a size, it would wait for that many bytes
                    self._put(key.masked_bytes(piece))
            return End()
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.ProxyError, httpx.UnsupportedProtocol) as error:
            return Failure("connect", _said(error))
        except httpx.HTTPError as error:
            return Failure("broken", _said(error))
        except _Closed:
            return Failure("broken", "closed")
        except Exception as error:  # the reader would wait for ever
            return Failure("broken", _said(error))

    def _put(self, came: Came) -> None:
        while not self._closed.is_set():
            with contextlib.suppress(queue.Full):
                self._came.put(came, timeout=0.5)
                return
        if not isinstance(came, Failure | End):
            raise _Closed

    def _trace(self, event: str, info: Mapping[str, Any]) -> None:
        """Note the connection's socket as soon as there is one."""
        if event.endswith(("connect_tcp.complete", "start_tls.complete")):
            self._socket = info["return_value"].get_extra_info("socket")
            self.began = time.monotonic()
            if self._closed.is_set():
                raise _Closed


def _said(error: Exception) -> str:
    """The error in words, with the operating system's, which libraries wrap."""
    text = str(error) or str(error.__cause__ or "") or type(error).__name__
    return " ".join(text.split())[:300].rstrip(".")
