"""llama-server as a peer: run beside us with as many slots, asked over HTTP on this machine.

Its slots share one cache, as ours do; its context has room for the common prefix in each slot, because it does not share a
prefix between them. Its own caching is left as it comes. Answers are not streamed, so that its HTTP costs as little as can be.
"""

from __future__ import annotations

import json
import socket
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from llm_magics.engine.native.cpus import default_threads

from .common import GPU_LAYERS

Post = Callable[[str, dict[str, Any]], dict[str, Any]]


@contextmanager
def llama_server(binary: str, path: str, n_slots: int, per_slot: int = 1280) -> Iterator[Post]:
    """Start it, and give a function that posts JSON to a path of it; ``per_slot`` is its room in tokens for each slot."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    options = {
        "-m": path,
        "--port": port,
        "-c": n_slots * per_slot,
        "-np": n_slots,
        "-b": 512,
        "-ub": 512,
        "-t": default_threads(),
        "-ngl": GPU_LAYERS if GPU_LAYERS >= 0 else 999,
        "-fa": "on",
    }
    command = [binary, "-kvu", *(str(word) for option in options.items() for word in option)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def post(where: str, body: dict[str, Any] | None) -> dict[str, Any]:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"http://127.0.0.1:{port}{where}", data, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request) as answer:
            return dict(json.load(answer))

    try:
        for _ in range(300):
            if process.poll() is not None:
                raise RuntimeError(f"{binary} ended with code {process.returncode}")
            try:
                post("/health", None)
                break
            except OSError:
                time.sleep(0.2)
        yield post
    finally:
        process.terminate()
        process.wait()
