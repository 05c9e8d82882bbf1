"""Drive JupyterLab and Notebook 7 in headless Chromium: start a server, open a notebook, run cells, look at what is shown."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import nbformat

CHROMIUM = ("/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome")
CHROMIUM_OPTIONS = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-background-networking"]
PANEL = "window.jupyterapp.shell.currentWidget"
LONG = 60_000  # ms; a page on a busy machine


def chromium_path() -> str | None:
    """Where Chromium is, if it is installed."""
    return next((path for path in CHROMIUM if os.path.exists(path)), None)


@contextlib.contextmanager
def jupyter_server(root: Path, *, extension: bool = True, beside: Path | None = None) -> Iterator[str]:
    """Serve ``root`` on loopback and give the address; ``extension`` False starts it with our extension disabled.

    ``beside`` is a folder of further packages, as ``pip install --target`` makes it, which this server alone has.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    config = root / "config"
    (config / "labconfig").mkdir(parents=True)
    if not extension:
        (config / "labconfig" / "page_config.json").write_text(json.dumps({"disabledExtensions": {"llm-magics": True}}))
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", f"--port={port}"]
    command += [f"--ServerApp.root_dir={root}", "--IdentityProvider.token=", "--ServerApp.disable_check_xsrf=True"]
    command += ["--LabApp.expose_app_in_browser=True", "--JupyterNotebookApp.expose_app_in_browser=True"]
    news = root / "settings" / "@jupyterlab" / "apputils-extension" / "notification.jupyterlab-settings"
    news.parent.mkdir(parents=True)
    news.write_text(json.dumps({"fetchNews": "false", "checkForUpdates": False}))
    environment = {**os.environ, "JUPYTER_CONFIG_DIR": str(config), "JUPYTERLAB_SETTINGS_DIR": str(root / "settings")}
    environment["JUPYTERLAB_WORKSPACES_DIR"] = str(root / "workspaces")
    if beside is not None:
        environment |= {"PYTHONPATH": str(beside), "JUPYTER_PATH": str(beside / "share" / "jupyter")}
        environment["JUPYTER_CONFIG_PATH"] = str(beside / "etc" / "jupyter")
    with (root / "server.log").open("w") as log:
        server = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=environment, cwd=root)
        try:
            base = f"http://127.0.0.1:{port}"
            _wait_for(f"{base}/api/status", server, root / "server.log")
            yield base
        finally:
            server.terminate()
            server.wait(timeout=120)


def _wait_for(url: str, server: subprocess.Popen[bytes], log: Path) -> None:
    for _ in range(180):
        if server.poll() is not None:
            break
        with contextlib.suppress(urllib.error.URLError, ConnectionError, TimeoutError), urllib.request.urlopen(url, timeout=5):
            return
        time.sleep(0.5)
    raise AssertionError(f"JupyterLab did not start:\n{log.read_text()[-3000:]}")


def write_notebook(path: Path, sources: Sequence[str]) -> None:
    """Write a notebook of code cells with the ids cell0, cell1, ..."""
    notebook = nbformat.v4.new_notebook()
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    for number, source in enumerate(sources):
        notebook.cells.append(nbformat.v4.new_code_cell(source, id=f"cell{number}"))
    nbformat.write(notebook, path)


class Notebook:
    """One notebook on a page. ``frames`` holds what came over the websocket, where it was opened with ``record``."""

    def __init__(self, page: Any, base: str, root: Path, name: str, app: str = "lab") -> None:
        self.page, self.base, self.root, self.name, self.app = page, base, root, name, app
        self.frames: list[str | bytes] = []

    @property
    def path(self) -> Path:
        return self.root / self.name

    def again(self) -> Notebook:
        """Open the same notebook on a second page, as another tab would."""
        second = Notebook(self.page.context.browser.new_page(), self.base, self.root, self.name, self.app)
        second.open()
        return second

    def record(self) -> None:
        """Note every message that the page receives from now on, also on sockets opened later."""
        self.page.on("websocket", lambda ws: ws.on("framereceived", lambda frame: self.frames.append(frame)))

    def open(self, kernel: bool = True) -> None:
        """Open, or open again, the notebook; ``kernel`` says whether to wait until its kernel is idle."""
        address = f"{self.base}/lab/tree/{self.name}?reset" if self.app == "lab" else f"{self.base}/notebooks/{self.name}"
        self.page.goto(address)
        self.wait(f"window.jupyterapp && {PANEL} && {PANEL}.content && ({PANEL}.content.widgets || []).length > 0")
        self.wait(f"{PANEL}.context.isReady")
        if kernel:
            self.idle()

    def wait(self, condition: str, argument: Any = None) -> None:
        """Wait until a JavaScript expression (of ``a``, the argument) is true."""
        self.page.wait_for_function(f"a => {{ return {condition} }}", arg=argument, timeout=LONG)

    def run(self, number: int, wait: bool = True) -> None:
        """Run one cell by the command that Shift+Enter gives."""
        self.page.evaluate(
            f"i => {{ const w = {PANEL}; w.content.activeCellIndex = i; w.content.deselectAll(); window.__ran = false;"
            "  window.jupyterapp.commands.execute('notebook:run-cell').then(() => { window.__ran = true }) }",
            number,
        )
        if wait:
            self.ran()

    def ran(self) -> None:
        """Wait until the cell that was run last is done."""
        self.wait("window.__ran")

    def outputs(self, number: int) -> list[dict[str, Any]]:
        return self.page.evaluate(f"i => {PANEL}.content.widgets[i].model.sharedModel.getOutputs()", number)

    def source(self, number: int) -> str:
        return self.page.evaluate(f"i => {PANEL}.content.widgets[i].model.sharedModel.getSource()", number)

    def cell(self, number: int) -> Any:
        """A locator of the cell."""
        return self.page.locator(".jp-Notebook .jp-Cell").nth(number)

    def output(self, number: int) -> Any:
        """A locator of the cell's output area."""
        return self.cell(number).locator(".jp-Cell-outputArea")

    def show(self, locator: Any) -> None:
        """Scroll to an element at once: Playwright waits until it rests, and JupyterLab may draw its cell again meanwhile."""
        locator.evaluate("element => element.scrollIntoView({block: 'nearest'})")

    def text(self, number: int) -> str:
        output = self.output(number)
        return output.inner_text() if output.count() else ""

    def wait_for_text(self, number: int, text: str) -> None:
        self.output(number).get_by_text(text).first.wait_for(timeout=LONG)

    def save(self) -> dict[str, Any]:
        """Save, validate and read the file."""
        self.page.evaluate(f"async () => {{ await {PANEL}.context.save() }}")
        return self.saved()

    def saved(self) -> dict[str, Any]:
        """Read the file as it is, and have nbformat validate it."""
        notebook = nbformat.read(self.path, as_version=4)
        nbformat.validate(notebook)
        return notebook

    def type(self, number: int, text: str) -> None:
        """Type into a cell as a person does, in place of what is there."""
        self.page.evaluate(f"i => {{ {PANEL}.content.activeCellIndex = i }}", number)
        self.cell(number).locator(".cm-content").click()
        self.page.keyboard.press("Control+A")
        for at, line in enumerate(text.split("\n")):
            if at:
                self.page.keyboard.press("Enter")
            self.page.keyboard.type(line)

    def interrupt(self) -> None:
        self.page.evaluate(f"async () => {{ await {PANEL}.sessionContext.session.kernel.interrupt() }}")

    def idle(self) -> None:
        """Wait until the kernel has nothing to do."""
        self.wait(f"(({PANEL}.sessionContext.session || {{}}).kernel || {{}}).status === 'idle'")

    def theme(self, name: str) -> None:
        """Switch the theme, e.g. "JupyterLab Dark"."""
        self.page.evaluate("async t => { await window.jupyterapp.commands.execute('apputils:change-theme', {theme: t}) }", name)
        self.wait("document.body.dataset.jpThemeName === a", name)

    def shut_down(self) -> None:
        """End the kernel, so that it does not outlive its test."""
        with contextlib.suppress(Exception):
            self.page.evaluate(f"async () => {{ const w = {PANEL}; await w.sessionContext.shutdown() }}")
