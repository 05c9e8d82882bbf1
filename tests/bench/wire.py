"""What a streamed answer costs: bytes to the page, the kernel's time for drawing, the page's time for drawing.

    python -m tests.bench.wire [TOKENS_PER_SECOND ...]

A scripted model writes a 2,000-token answer at each speed, on a page with the extension and on one without. Bytes are those of
the kernel's websocket from the start of the cell to its end, counted in the browser. The kernel's time is the CPU time of its
main thread inside the view. The page's time is that of each drawing of a transcript of about 32,000 characters, by the page's
own clock, for an answer of many blocks and for one that is a single list; beside it stands all script that the page ran
meanwhile (messages read, deltas applied, code coloured), for each drawing.
"""

from __future__ import annotations

import json
import re
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

from tests.browser.driver import CHROMIUM_OPTIONS, PANEL, Notebook, chromium_path, jupyter_server, write_notebook

from .common import Result, machine, report

SPEEDS = (20, 100, 200, 400)
PARAGRAPH = (
    "The quick brown fox jumps over the lazy dog, **again** and again, until `it` grows tired of it all and sleeps.\n\n"
    "- one thing that is said here\n- and another that is said there\n\n"
    "```python\nfor number in range(3):\n    print(number)\n```\n\n"
)
LIST = "".join(f"- item {number}, which says **something** of `it`\n" for number in range(720))[:32_000]  # one block to its end
SETUP = """%load_ext llm_magics
import time
from llm_magics import ScriptedModel
from llm_magics.kernel.page.notebook import NotebookView
drawing = [0.0]
handle, close = NotebookView.handle, NotebookView.close
def timed(function):
    def run(*arguments):
        began = time.thread_time()
        try:
            return function(*arguments)
        finally:
            drawing[0] += time.thread_time() - began
    return run
NotebookView.handle, NotebookView.close = timed(handle), timed(close)
"""


def answer(n_characters: int) -> str:
    return (PARAGRAPH * (n_characters // len(PARAGRAPH) + 1))[:n_characters]


def turn_cell(text: str, speed: int) -> str:
    """A cell that has one answer written, and prints how long it took and what the kernel spent on drawing."""
    return (
        f"model = ScriptedModel([{text!r}], tokens_per_second={speed})\ndrawing[0], began = 0.0, time.monotonic()\n"
        'get_ipython().run_cell_magic("chat", "-m model", "go")\nprint("TOOK", time.monotonic() - began, drawing[0])'
    )


class Run:
    """One answer, written while the page's websocket is watched."""

    def __init__(self, browser: Any, base: str, root: Path, text: str, speed: int) -> None:
        page = browser.new_page(viewport={"width": 1100, "height": 900})
        write_notebook(root / "wire.ipynb", [SETUP, turn_cell(text, speed)])
        notebook = Notebook(page, base, root, "wire.ipynb")
        notebook.record()
        notebook.open()
        notebook.run(0)
        notebook.frames.clear()
        page.set_default_timeout(600_000)
        chrome = page.context.new_cdp_session(page)
        chrome.send("Performance.enable")
        notebook.run(1, wait=False)
        before = script_seconds(chrome)
        page.wait_for_function("window.__ran", polling=1000, timeout=600_000)
        self.script_ms = 1000 * (script_seconds(chrome) - before)
        page.wait_for_timeout(500)
        streams = [o["text"] for o in notebook.outputs(1) if o["output_type"] == "stream"]
        took, drawing = re.search(r"TOOK ([\d.]+) ([\d.e-]+)", "".join("".join(t) for t in streams)).groups()  # type: ignore[union-attr]
        self.seconds, self.drawing = float(took), float(drawing)
        self.frames = [f if isinstance(f, bytes) else f.encode() for f in notebook.frames]
        measures = "performance.getEntriesByName('llm_magics:draw').map(e => e.duration)"
        self.draws: list[float] = page.evaluate(measures)
        assert text.split()[-1] in notebook.page.evaluate(f"{PANEL}.content.widgets[1].node.innerText")
        notebook.shut_down()
        page.close()

    @property
    def n_bytes(self) -> int:
        return sum(map(len, self.frames))

    @property
    def overheads(self) -> list[int]:
        """Bytes of each delta beyond the text it brings."""
        found = []
        for frame in self.frames:
            if b'"kind": "delta"' in frame:
                delta = json.loads(frame[frame.rindex(b'{"comm_id"') :])["data"]
                found.append(len(frame) - sum(len(op[3].encode()) for op in delta["ops"] if op[0] == "+"))
        return found


def script_seconds(chrome: Any) -> float:
    """Seconds of script since the page began, by Chromium's own count."""
    metrics = {metric["name"]: metric["value"] for metric in chrome.send("Performance.getMetrics")["metrics"]}
    return float(metrics["ScriptDuration"])


def percentile(values: list[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


def measure_speed(browser: Any, lab: tuple[str, Path], bare: tuple[str, Path], speed: int) -> None:
    text = answer(8000)
    with_it, without = Run(browser, *lab, text, speed), Run(browser, *bare, text, speed)
    n_text = len(text.encode())
    name = f"wire_{speed}"
    report(Result(f"{name}_bytes_per_byte", with_it.n_bytes / n_text, "bytes/byte", runs=1, machine=machine()))
    if speed == 200:  # the speed that the target is set for
        report(Result("wire_bytes_per_text_byte", with_it.n_bytes / n_text, "bytes/byte", runs=1, machine=machine()))
    report(Result(f"{name}_update_overhead_max", float(max(with_it.overheads)), "bytes", machine=machine()))
    report(Result(f"{name}_bare_rate", without.n_bytes / without.seconds / 1000, "KB/s", machine=machine()))
    for label, run in (("", with_it), ("_bare", without)):
        report(Result(f"{name}{label}_drawing_share", 100 * run.drawing / run.seconds, "%", machine=machine()))


def measure_page(browser: Any, lab: tuple[str, Path]) -> None:
    """Draw an answer of 32,000 characters while it streams; the last quarter of the drawings counts."""
    run = Run(browser, *lab, answer(32_000), 400)
    late = run.draws[len(run.draws) * 3 // 4 :]
    listed = Run(browser, *lab, LIST, 400)
    late_listed = listed.draws[len(listed.draws) * 3 // 4 :]
    name = "page_draw_p95_32000_one_list"
    report(Result(name, percentile(late_listed, 0.95), "ms", runs=len(late_listed), machine=machine()))
    report(Result("page_draw_p95_32000", percentile(late, 0.95), "ms", runs=len(late), machine=machine()))
    report(Result("page_draw_median_32000", statistics.median(late), "ms", runs=len(late), machine=machine()))
    report(Result("page_script_per_draw", run.script_ms / len(run.draws), "ms", runs=len(run.draws), machine=machine()))


def main() -> None:
    from playwright.sync_api import sync_playwright

    speeds = [int(word) for word in sys.argv[1:]] or list(SPEEDS)
    with tempfile.TemporaryDirectory() as a, tempfile.TemporaryDirectory() as b, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium_path(), args=CHROMIUM_OPTIONS)
        with jupyter_server(Path(a)) as base, jupyter_server(Path(b), extension=False) as bare:
            for speed in speeds:
                measure_speed(browser, (base, Path(a)), (bare, Path(b)), speed)
            measure_page(browser, (base, Path(a)))
        browser.close()


if __name__ == "__main__":
    main()
