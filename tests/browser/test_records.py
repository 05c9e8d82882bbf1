"""Saved cells in JupyterLab: notebooks of version 1 are drawn, a picture is found in the HTML, a recorded cell says so."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from llm_magics.transcript import MIME_TYPE

from .conftest import Open

pytestmark = pytest.mark.browser

RECORDS = Path(__file__).parents[1] / "records"
SHOTS = Path(__file__).parent / "shots"
DRAWS = """%load_ext llm_magics
import matplotlib.pyplot as plt
from llm_magics import ScriptedModel, ToolCall, tool
@tool(approve="auto")
def plot():
    "Draw."
    figure = plt.figure(figsize=(2, 1))
    figure.gca().plot([1, 3, 2])
    return figure
painter = ScriptedModel([ToolCall("plot", "{}"), "There it is."], name="painter")
%load_model painter"""


@pytest.mark.parametrize(("name", "words"), [("plain", "colour is red."), ("tools", "draw_trees"), ("threads", "restart")])
def test_a_notebook_of_version_1_is_drawn_by_the_extension(open_notebook: Open, name: str, words: str) -> None:
    book = open_notebook([])
    shutil.copy(RECORDS / f"v1-{name}.ipynb", book.path)
    book.open()
    book.page.locator(".llm-Transcript", has_text=words).first.wait_for()
    cells = json.loads(book.path.read_text(encoding="utf-8"))["cells"]
    saved = [output for cell in cells for output in cell.get("outputs", []) if MIME_TYPE in output["data"]]
    assert book.page.locator(".llm-Transcript").count() == len(saved)


@pytest.mark.parametrize("theme", ["JupyterLab Light", "JupyterLab Dark"])
def test_a_picture_is_drawn_from_the_html_beside_it_and_a_recorded_cell_says_so(open_notebook: Open, theme: str) -> None:
    book = open_notebook([DRAWS, "%%chat --record\nDraw."])
    book.theme(theme)
    book.run(0)
    book.run(1)
    (output,) = book.save()["cells"][1]["outputs"]
    (pointer,) = [out["image/png"] for segment in output["data"][MIME_TYPE]["segments"] for out in segment.get("outputs", [])]
    assert pointer == {"html": 0}
    for again in (False, True):
        if again:
            book.open(kernel=False)
        picture = book.output(1).locator("img.llm-Picture")
        picture.wait_for()
        assert picture.evaluate("image => image.decode().then(() => image.naturalWidth)") > 100
        assert "recorded" in book.output(1).locator(".llm-Status-text").inner_text()
    SHOTS.mkdir(exist_ok=True)
    book.output(1).screenshot(path=str(SHOTS / f"recorded-{theme.split()[1].lower()}.png"))
