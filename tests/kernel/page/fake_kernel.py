"""What the link to the page uses of a kernel: it notes what is sent, and receives what a page says."""

from __future__ import annotations

from typing import Any


class FakeSession:
    def __init__(self) -> None:
        self.sent: list[dict[str, Any]] = []

    def send(self, socket: Any, msg_type: str, content: dict[str, Any], ident: bytes) -> None:
        assert (socket, msg_type, content["comm_id"]) == ("iopub", "comm_msg", "llm_magics")
        self.sent.append(content["data"])


class FakeKernel:
    iopub_socket = "iopub"

    def __init__(self) -> None:
        self.session = FakeSession()
        self.control_handlers: dict[str, Any] = {}

    def receive(self, session: str = "page", **content: Any) -> None:
        self.control_handlers["llm_magics"](None, None, {"header": {"session": session}, "content": content})

    def kinds(self) -> list[str]:
        return [data["kind"] for data in self.session.sent]
