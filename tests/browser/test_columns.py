"""Answers side by side: stopped, timed and copied like a single one; and answers that left the conversation."""

from __future__ import annotations

import pytest

from .conftest import Open
from .test_layout import in_sight

pytestmark = pytest.mark.browser

SETUP = """%load_ext llm_magics
from itertools import repeat
from llm_magics import ScriptedModel
slow = ScriptedModel(repeat("word\\n\\n" * 4000), tokens_per_second=60, parallel=2)
model = ScriptedModel(repeat("Use this:\\n\\n```python\\nvalue = 6 * 7\\n```\\n"))"""

CONTRAST = """node => {
  const parts = colour => colour.match(/[\\d.]+/g).map(Number)
  let below = [255, 255, 255]
  const layers = []
  for (let at = node; at; at = at.parentElement) layers.unshift(parts(getComputedStyle(at).backgroundColor))
  for (const [r, g, b, a = 1] of layers) below = [r, g, b].map((c, at) => a * c + (1 - a) * below[at])
  const light = rgb => rgb.slice(0, 3).map(c => c / 255).map(c => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
    .reduce((sum, c, at) => sum + c * [0.2126, 0.7152, 0.0722][at], 0)
  const [low, high] = [light(below), light(parts(getComputedStyle(node).color))].sort((a, b) => a - b)
  return (high + 0.05) / (low + 0.05)
}"""  # of a text and what lies behind it, as WCAG defines it


def test_answers_side_by_side_are_stopped_and_their_code_becomes_a_cell(open_notebook: Open) -> None:
    notebook = open_notebook([SETUP, "%%chat -m slow --samples 2\nGo.", "%%compare -m model --temp 0 --temp 1\nSix by seven?"])
    notebook.run(0)
    notebook.run(1, wait=False)
    stop = notebook.output(1).get_by_role("button", name="Stop these answers")
    notebook.wait_for_text(1, "word")
    notebook.output(1).locator(".llm-Status-elapsed", has_text="s").wait_for()
    for words in (100, 160):  # a screen holds fewer
        notebook.wait("document.querySelectorAll('.jp-Notebook .jp-Cell')[1].innerText.split('word').length > a", words)
        assert in_sight(notebook, 1, ".llm-Status button")
    stop.click()
    notebook.ran()
    stop.wait_for(state="hidden")
    assert notebook.text(1).count("interrupted") == 2
    assert "Answering" not in notebook.text(1)
    notebook.run(2)
    notebook.output(2).get_by_role("button", name="Copy this code").nth(1).wait_for()
    notebook.output(2).get_by_role("button", name="Insert this code as a new cell below").first.click()
    assert notebook.source(3) == "value = 6 * 7"


@pytest.mark.parametrize("theme", ["JupyterLab Light", "JupyterLab Dark"])
def test_marked_words_can_be_read_in_both_themes(open_notebook: Open, theme: str) -> None:
    alike = "The air scatters {} light more than red light, which is why it looks so."
    models = f"blue = ScriptedModel([{alike.format('blue')!r}])\nviolet = ScriptedModel([{alike.format('violet')!r}])"
    notebook = open_notebook([f"{SETUP}\n{models}", "%%compare -m blue -m violet\nWhy?", "%models"])
    notebook.theme(theme)
    for number in range(3):
        notebook.run(number)
    marked = notebook.output(1).locator(".lm-differs")
    assert marked.all_inner_texts() == ["blue", "violet"]
    assert min(marked.evaluate_all(f"nodes => nodes.map({CONTRAST})")) >= 4.5
    lines = "cell => { const r = document.createRange(); r.selectNodeContents(cell); return r.getClientRects().length }"
    assert notebook.output(2).get_by_text("491 MB").first.evaluate(lines) == 1


def test_cells_whose_answers_left_the_conversation_say_so_also_after_a_reload(open_notebook: Open) -> None:
    left = "no longer part of the conversation"
    cells = [f"%%chat -m model\n{what}" for what in ("One.", "Two.", "Three.")]
    notebook = open_notebook([SETUP, *cells])
    for number in range(3):
        notebook.run(number)
    notebook.save()
    notebook.open()  # JupyterLab itself knows nothing now of the displays made before
    notebook.run(3)
    notebook.run(1)
    for number in (2, 3):
        notebook.wait_for_text(number, left)
        assert notebook.text(number).count("Use this:") == 1
    assert left not in notebook.text(1)
    saved = notebook.save()
    assert [left in str(cell.outputs) for cell in saved.cells] == [False, False, True, True]
    notebook.open()
    notebook.wait_for_text(2, left)
    notebook.run(2)
    notebook.output(2).get_by_text(left).wait_for(state="detached")
