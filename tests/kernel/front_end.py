"""A page with the extension, as far as the kernel can tell: it answers questions while cells run, on a thread of its own."""

from __future__ import annotations

import threading
from typing import Any

from .notebook import Notebook


class Page:
    """The page that runs this notebook's cells: its messages have the session of the notebook's client."""

    def __init__(self, notebook: Notebook, **settings: Any) -> None:
        self.settings = settings
        self.session = notebook.client.session.clone()
        self.session.session = notebook.client.session.session
        self._iopub, self._control = notebook.manager.connect_iopub(), notebook.manager.connect_control()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    def tell(self, **settings: Any) -> None:
        """Say what the user set, as a page does when it changes."""
        self.settings = settings
        self.send(kind="settings", turn="*", settings=settings)

    def send(self, **content: Any) -> None:
        self.session.send(self._control, "llm_magics", content)

    def close(self) -> None:
        """Be gone, without a word."""
        self._over.set()
        self._thread.join(30)
        self._iopub.close()
        self._control.close()

    def _listen(self) -> None:
        while not self._over.is_set():
            if not self._iopub.poll(100):
                continue
            _, message = self.session.recv(self._iopub)
            data = message["content"].get("data", {})
            asked = message["msg_type"] == "comm_msg" and data.get("kind") == "ask" and data["what"] == "rules"
            if asked and data["session"] == self.session.session:
                self.tell(**self.settings)
