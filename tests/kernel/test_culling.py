"""A server that ends idle kernels: it leaves a kernel alone that runs a cell, and takes one beside which a GPU is busy."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from jupyter_client.session import Session
from tornado.websocket import WebSocketClientConnection, websocket_connect

from tests.loops import play

pytestmark = pytest.mark.kernel

IDLE = 4  # seconds after which the server ends a kernel that no page is connected to
GUARD = 120.0  # seconds after which something counts as hung; nothing is asserted about times


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a jupyter_server that culls."""
    root = tmp_path_factory.mktemp("culling")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "jupyter_server", "--no-browser", "--allow-root", f"--port={port}"]
    command += [f"--ServerApp.root_dir={root}", "--IdentityProvider.token=", "--ServerApp.disable_check_xsrf=True"]
    command += [f"--MappingKernelManager.cull_idle_timeout={IDLE}", "--MappingKernelManager.cull_interval=1"]
    with (root / "server.log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
        try:
            base = f"http://127.0.0.1:{port}"
            deadline = time.monotonic() + GUARD
            while time.monotonic() < deadline and process.poll() is None:
                with contextlib.suppress(urllib.error.URLError, ConnectionError):
                    asked(f"{base}/api/status")
                    break
                time.sleep(0.2)
            else:
                raise AssertionError((root / "server.log").read_text()[-3000:])
            yield base
        finally:
            process.terminate()
            process.wait(timeout=30)


def asked(url: str, method: str = "GET") -> Any:
    request = urllib.request.Request(url, method=method, data=b"{}" if method == "POST" else None)
    with urllib.request.urlopen(request, timeout=30) as reply:
        return json.loads(reply.read())


@dataclass
class Kernel:
    """A kernel behind the server, talked to over the websocket that a page would use."""

    url: str
    page: WebSocketClientConnection
    session: Session

    async def send(self, channel: str, kind: str, content: dict[str, Any]) -> str:
        message = self.session.msg(kind, content)
        message["header"]["date"] = message["header"]["date"].isoformat()
        await self.page.write_message(json.dumps({**message, "channel": channel, "buffers": []}))
        return str(message["header"]["msg_id"])

    async def execute(self, code: str) -> str:
        return await self.send("shell", "execute_request", {"code": code, "silent": False, "store_history": True})

    async def status(self, state: str, *parents: str) -> None:
        """Wait until each of these messages was answered by this status."""
        left = set(parents)
        async with asyncio.timeout(GUARD):
            while left:
                heard = json.loads(await self.page.read_message() or "null")
                parent = heard["parent_header"].get("msg_id")
                assert not (parent in left and heard["msg_type"] == "error"), heard["content"]
                if heard["msg_type"] == "status" and heard["content"]["execution_state"] == state:
                    left.discard(parent)

    async def run(self, code: str) -> None:
        await self.status("idle", await self.execute(code))

    def state(self) -> str:
        """What the server thinks of the kernel; "gone" for one that it has ended."""
        kernels = {kernel["id"]: kernel for kernel in asked(self.url.rpartition("/")[0])}
        return str(kernels.get(self.url.rpartition("/")[2], {"execution_state": "gone"})["execution_state"])

    async def becomes(self, *states: str) -> str:
        async with asyncio.timeout(GUARD):
            while (state := self.state()) not in states:
                await asyncio.sleep(0.1)
        return state


@contextlib.asynccontextmanager
async def started(base: str) -> AsyncIterator[Kernel]:
    """A new kernel with a page connected to it; on a busy machine the server may end one before it has begun."""
    for _ in range(10):
        model = asked(f"{base}/api/kernels", "POST")
        url, session = f"{base}/api/kernels/{model['id']}", Session(key=b"")
        with contextlib.suppress(Exception):
            page = await websocket_connect(f"{url.replace('http', 'ws', 1)}/channels?session_id={session.session}")
            break
    else:
        raise AssertionError("no kernel could be started")
    kernel = Kernel(url, page, session)
    try:
        yield kernel
    finally:
        page.close()
        if kernel.state() != "gone":
            with contextlib.suppress(urllib.error.HTTPError):
                urllib.request.urlopen(urllib.request.Request(url, method="DELETE"), timeout=30)


def test_a_kernel_that_hears_a_page_in_mid_cell_stays_busy_and_is_not_ended(server: str, tmp_path: Path) -> None:
    done = tmp_path / "done"

    async def scenario() -> None:
        async with started(server) as kernel:
            await kernel.run("%load_ext llm_magics")
            cell = await kernel.execute(f"import time; print('on'); time.sleep({3 * IDLE}); open({str(done)!r}, 'w').close()")
            await kernel.status("busy", cell)
            for _ in range(3):
                await kernel.status("idle", await kernel.send("control", "llm_magics", {"kind": "hello", "turn": "*"}))
            kernel.page.close()
            assert await kernel.becomes("busy", "gone") == "busy"
            assert await kernel.becomes("idle", "gone") == "idle"
            assert done.exists()
            await kernel.becomes("gone")  # with nothing to do and nobody connected it is culled like any other

    play(scenario())


def test_a_message_right_at_the_end_of_a_cell_leaves_no_kernel_busy(server: str) -> None:
    async def scenario() -> None:
        async with started(server) as kernel:
            await kernel.run("%load_ext llm_magics")
            for _ in range(40):
                cell = await kernel.execute("pass")
                for _ in range(3):
                    last = await kernel.send("control", "llm_magics", {"kind": "hello", "turn": "*"})
                await kernel.status("idle", cell, last)
                await kernel.becomes("idle")

    play(scenario())


BESIDE_A_GPU = """%load_ext llm_magics
import itertools
from types import SimpleNamespace
from llm_magics import ScriptedModel
from llm_magics.engine.fit import memory
from llm_magics.kernel import gauge
gauge.SECONDS, gauge.LISTENS = 0.2, 2.0
busy = itertools.cycle(range(100))
memory.nvidia_gpus = lambda: (memory.Gpu("NVIDIA Test", "0", 100 * 10**9, 141 * 10**9, busy=next(busy)),)
model = ScriptedModel([])
model.engine = SimpleNamespace(info=SimpleNamespace(buffers=[("CUDA0", "model", 2 * 10**9)], description="told to be on a GPU"))
get_ipython()._llm_magics_runtime.add("model", model)
"""


def test_an_idle_kernel_beside_a_busy_gpu_is_ended_in_time(server: str) -> None:
    async def scenario() -> None:
        async with started(server) as kernel:
            await kernel.execute(f"get_ipython().get_parent()['metadata']['cellId'] = 'c'\n{BESIDE_A_GPU}")
            async with asyncio.timeout(GUARD):
                told = 0
                while told < 3:  # figures come although no cell runs
                    heard = json.loads(await kernel.page.read_message() or "null")
                    told += heard["msg_type"] == "comm_msg" and heard["content"]["data"]["kind"] == "models"
            kernel.page.close()
            await kernel.becomes("gone")

    play(scenario())
