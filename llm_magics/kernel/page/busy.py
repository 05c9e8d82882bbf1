"""Keeps the kernel's status at "busy" while a cell runs and a page sends messages.

ipykernel answers each control message with the statuses ``busy`` and ``idle`` on IOPub, even while the main thread runs a cell.
jupyter_server, which ends idle kernels, would believe the running kernel idle. So the kernel repeats ``busy`` for its request.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass
class _Running:
    """The request that a thread runs; ``depth`` counts nested cells."""

    request: Mapping[str, Any]
    depth: int = 1


class Busy:
    """Repeats ``busy`` after control messages. "Busy" must never follow the "idle" that ends a cell: the check and the sending
    hold a lock that ``post_execute`` takes too, which comes before that "idle" on the same thread."""

    def __init__(self, kernel: Any) -> None:
        self._kernel = kernel
        self._lock = threading.Lock()
        self._running: dict[int, _Running] = {}  # by thread: subshells run requests beside the main thread
        self._answered = False
        request = self._request()
        if request.get("header", {}).get("msg_type") == "execute_request":
            self._running[threading.get_ident()] = _Running(request)  # the cell that made this object, e.g. with %load_ext
        kernel.shell.events.register("pre_execute", self._began)
        kernel.shell.events.register("post_execute", self._ended)

    def answered(self) -> None:
        """Call on the control thread for each message, before ipykernel says "idle"."""
        self._answered = True
        asyncio.get_running_loop().call_soon(self._repeat)

    def _repeat(self) -> None:
        with self._lock:
            for running in self._running.values():
                self._say(running.request)

    def _began(self) -> None:
        with self._lock:
            running = self._running.get(threading.get_ident())
            request = self._request()
            if running is not None and running.request == request:
                running.depth += 1
                return
            self._running[threading.get_ident()] = _Running(request)
            if self._answered:  # perhaps between this request's "busy" and now
                self._answered = False
                self._say(request)

    def _ended(self) -> None:
        with self._lock:
            running = self._running.get(threading.get_ident())
            if running is not None:
                running.depth -= 1
                if running.depth == 0:
                    del self._running[threading.get_ident()]

    def _request(self) -> dict[str, Any]:
        """The header of the request that this thread handles."""
        parent = self._kernel.get_parent("shell") or {}
        return {"header": dict(parent.get("header") or {})}

    def _say(self, request: Mapping[str, Any]) -> None:
        kernel = self._kernel
        topic = f"kernel.{kernel.ident}.status".encode()
        kernel.session.send(kernel.iopub_socket, "status", {"execution_state": "busy"}, parent=request, ident=topic)
