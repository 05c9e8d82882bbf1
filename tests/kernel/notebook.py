"""A notebook driven over jupyter_client: cells run in a real kernel, and every message that a cell caused is kept."""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from jupyter_client.blocking.client import BlockingKernelClient
from jupyter_client.manager import KernelManager, start_new_kernel

from llm_magics.transcript import MIME_TYPE, Transcript

TIMEOUT = 120.0  # seconds after which a cell counts as hung; nothing is asserted about times


@dataclass
class Cell:
    """What came of one run of a cell: ``messages`` as (type, content), ``shown`` the outputs a notebook would save."""

    messages: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    reply: dict[str, Any] = field(default_factory=dict)
    stray: list[str] = field(default_factory=list)

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [content for name, content in self.messages if name == kind]

    @property
    def shown(self) -> list[dict[str, Any]]:
        """The outputs as a front end keeps them: display updates put in place of what they update."""
        outputs: list[dict[str, Any]] = []
        places: dict[str, int] = {}
        for name, content in self.messages:
            display_id = content.get("transient", {}).get("display_id")
            if name == "update_display_data" and display_id in places:
                outputs[places[display_id]] = {**outputs[places[display_id]], "data": content["data"]}
            elif name in ("display_data", "execute_result", "stream", "error"):
                if display_id:
                    places[display_id] = len(outputs)
                outputs.append({"output_type": name, **content})
        return outputs

    @property
    def bundles(self) -> list[dict[str, Any]]:
        return [output["data"] for output in self.shown if "data" in output]

    @property
    def transcript(self) -> Transcript:
        """The cell's one transcript, read back from what was shown last."""
        (data,) = [bundle[MIME_TYPE] for bundle in self.bundles if MIME_TYPE in bundle]
        return Transcript.from_json(data)

    @property
    def printed(self) -> str:
        return "".join(content["text"] for content in self.of("stream"))

    @property
    def ok(self) -> bool:
        return self.reply.get("status") == "ok"


class Notebook:
    """A kernel and the cells run in it. Cells get a front end's ids unless ``cell`` is None, as nbclient sends none."""

    def __init__(self, manager: KernelManager, client: BlockingKernelClient, timeout: float = TIMEOUT) -> None:
        self.manager = manager
        self.client = client
        self.timeout = timeout
        self.n_cells = 0

    def run(
        self,
        code: str,
        cell: str | None = "",
        tags: tuple[str, ...] = (),
        on_message: Callable[[str, dict[str, Any]], None] | None = None,
        typed: Callable[[str], str] | None = None,
        on_link: Callable[[dict[str, Any]], None] | None = None,
        metadata: dict[str, Any] | None = None,
    ) -> Cell:
        """Run one cell and wait for its end.

        ``on_message`` sees each message as it comes, ``typed`` answers the input line, ``on_link`` hears what a page with the
        extension hears (:meth:`tell` is how it speaks); with one of the latter two somebody can be asked. ``metadata`` is more
        of the cell's own metadata, which JupyterLab sends along.
        """
        self.n_cells += 1
        cell = f"cell-{self.n_cells}" if cell == "" else cell
        sent = {} if cell is None else {**(metadata or {}), "cellId": cell, "tags": list(tags)}
        content = {"code": code, "silent": False, "store_history": True, "user_expressions": {}}
        content["allow_stdin"] = bool(typed or on_link)
        message = self.client.session.msg("execute_request", content, metadata=sent)
        self.client.shell_channel.send(message)
        with self._typing(typed):
            return self._outcome(message, on_message, on_link)

    def _outcome(
        self,
        message: dict[str, Any],
        on_message: Callable[[str, dict[str, Any]], None] | None,
        on_link: Callable[[dict[str, Any]], None] | None,
    ) -> Cell:
        """Collect what comes of an execute request, to its end."""
        ran = Cell()
        deadline = time.monotonic() + self.timeout
        while True:
            heard = self.client.get_iopub_msg(timeout=max(deadline - time.monotonic(), 0.1))
            kind, said = heard["msg_type"], heard["content"]
            if on_link is not None and kind == "comm_msg" and said.get("comm_id") == "llm_magics":
                on_link(said["data"])
            if heard["parent_header"].get("msg_id") != message["header"]["msg_id"]:
                ran.stray.append(kind)
                continue
            if kind == "status" and said["execution_state"] == "idle":
                break
            if kind not in ("status", "execute_input"):
                ran.messages.append((kind, said))
                if on_message is not None:
                    on_message(kind, said)
        ran.reply = self._reply(message["header"]["msg_id"])
        return ran

    def must(self, code: str, cell: str | None = "", **options: Any) -> Cell:
        """Run a cell that has to succeed."""
        ran = self.run(code, cell, **options)
        assert ran.ok, ran.reply
        return ran

    def value(self, expression: str) -> str:
        """The repr of an expression in the user's namespace."""
        return self.must(f"print(repr({expression}), end='')", None).printed

    def complete(self, line: str) -> list[str]:
        """What Tab offers at the end of the line."""
        asked = self.client.complete(line, len(line))
        return list(self._reply(asked)["matches"])

    def tell(self, **content: Any) -> None:
        """Send what a page with the extension sends, also while a cell runs."""
        self.client.control_channel.send(self.client.session.msg("llm_magics", content))

    def interrupt(self) -> None:
        self.manager.interrupt_kernel()

    @property
    def alive(self) -> bool:
        return bool(self.manager.is_alive())

    @contextmanager
    def _typing(self, typed: Callable[[str], str] | None) -> Iterator[None]:
        """Answer the input line from another thread for a while."""
        over = threading.Event()

        def answer() -> None:
            while typed is not None and not over.is_set():
                with contextlib.suppress(queue.Empty):
                    self.client.input(typed(self.client.get_stdin_msg(timeout=0.2)["content"]["prompt"]))

        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    def _reply(self, message_id: str) -> dict[str, Any]:
        while True:
            try:
                reply = self.client.get_shell_msg(timeout=self.timeout)
            except queue.Empty:
                raise AssertionError("the kernel did not answer") from None
            if reply["parent_header"].get("msg_id") == message_id:
                return dict(reply["content"])


@contextmanager
def notebook(*setup: str, timeout: float = TIMEOUT) -> Iterator[Notebook]:
    """A fresh kernel with the extension loaded and ``setup`` run; a cell that takes longer than ``timeout`` fails."""
    manager, client = start_new_kernel(kernel_name="python3")
    try:
        opened = Notebook(manager, client, timeout)
        for code in ("%load_ext llm_magics", *setup):
            opened.must(code, None)
        yield opened
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
