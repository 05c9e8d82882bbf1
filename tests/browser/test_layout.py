"""How things lie on the page: tables, prose in a chat cell, magics' lines, and what stays in sight while an answer grows."""

from __future__ import annotations

import pytest

from .conftest import Open
from .driver import Notebook

pytestmark = pytest.mark.browser

SLACK_PX = 48  # so far below the edge an answer's end is still followed

LONG = "\n\n".join(f"Paragraph {n}: " + "words and more words " * 12 for n in range(60))
PROGRAM = "\n".join(f"line_{n} = {n}  # of a long program" for n in range(120))
CODE = f"Here:\n\n```python\n{PROGRAM}\n```\n\n" + "That is all there is to say. " * 120
SETUP = f"""%load_ext llm_magics
from llm_magics import ScriptedModel
short = ScriptedModel([lambda request: "Yes."] * 9)
long = ScriptedModel([{LONG!r}], tokens_per_second=150)
code = ScriptedModel([{CODE!r}], tokens_per_second=150)"""
SENTENCE = "This is one long sentence that somebody types into a chat cell without ever pressing Enter, " * 4


def style(notebook: Notebook, number: int, selector: str, name: str) -> set[str]:
    found = notebook.cell(number).locator(selector)
    return set(found.evaluate_all("(nodes, name) => nodes.map(node => getComputedStyle(node)[name])", name))


def test_tables_prose_and_magics_lines(open_notebook: Open) -> None:
    ask = f"%%chat -m short\n{SENTENCE}"
    preview = "%%chat -m short --preview\ndef f():\n    return 1"
    table = "| planet | km |\\n|---|--:|\\n| Venus | 12,104 |"
    tabled = "%%chat -m tabled\nWhich planet is large?"
    cells = [SETUP, ask, preview, "%thread", "%models", "%load_model qwen2.5-coder-0.5b --dry-run"]
    notebook = open_notebook([*cells, f'tabled = ScriptedModel(["{table}"])', tabled])
    for number in range(5):
        notebook.run(number)
    for number in (2, 3, 4):
        assert style(notebook, number, ".llm-magics td, .llm-magics th", "textAlign") == {"left"}
    notebook.run(6)
    notebook.run(7)
    assert style(notebook, 7, ".llm-Transcript :is(th, td):first-child", "textAlign") == {"start"}
    assert style(notebook, 7, ".llm-Transcript :is(th, td):last-child", "textAlign") == {"right"}
    assert style(notebook, 2, ".llm-magics td pre", "whiteSpace") == {"pre-wrap"}
    assert "\n    return 1" in notebook.output(2).locator("td pre").last.inner_text()
    editor = notebook.cell(1).locator(".cm-scroller")
    editor.locator(".cm-lineWrapping").wait_for()
    assert editor.evaluate("node => node.scrollWidth <= node.clientWidth")
    assert notebook.cell(0).locator(".cm-lineWrapping").count() == 0
    line = notebook.cell(5).locator(".llm-MagicLine")
    line.wait_for()
    colours = line.evaluate("n => [n, ...n.querySelectorAll('*')].map(node => getComputedStyle(node).color)")
    assert len(set(colours)) == 1
    notebook.type(1, "import this_is_code")
    notebook.wait("!document.querySelectorAll('.jp-Notebook .jp-Cell')[1].querySelector('.cm-lineWrapping')")


def in_sight(notebook: Notebook, number: int, selector: str) -> bool:
    """Whether an element's box lies inside what the notebook shows."""
    return notebook.cell(number).locator(selector).evaluate(
        "node => { const a = node.getBoundingClientRect();"
        " const b = node.closest('.jp-WindowedPanel-outer').getBoundingClientRect();"
        " return a.height > 0 && a.top >= b.top - 1 && a.bottom <= b.bottom + 1 }"
    )


def below_the_edge(notebook: Notebook, number: int) -> float:
    """How far the end of an answer lies below what the notebook shows, in pixels; negative if it lies above."""
    return notebook.cell(number).locator(".llm-Transcript").evaluate(
        "node => node.getBoundingClientRect().bottom"
        " - node.closest('.jp-WindowedPanel-outer').getBoundingClientRect().bottom"
    )


def test_stop_and_the_end_of_a_growing_answer_stay_in_sight_unless_the_reader_scrolls(open_notebook: Open) -> None:
    notebook = open_notebook([SETUP, "%%chat -m long\nTell."])
    page = notebook.page
    notebook.run(0)
    notebook.run(1, wait=False)
    for paragraph in ("Paragraph 12", "Paragraph 20"):
        notebook.wait_for_text(1, paragraph)
        assert in_sight(notebook, 1, ".llm-Status button")
        assert below_the_edge(notebook, 1) <= SLACK_PX
    scroller = page.locator(".jp-WindowedPanel-outer")
    assert scroller.evaluate("node => node.scrollTop") > 0
    scroller.hover()
    page.mouse.wheel(0, -700)
    page.wait_for_timeout(300)
    left = scroller.evaluate("node => node.scrollTop")
    notebook.wait_for_text(1, "Paragraph 30")
    assert scroller.evaluate("node => node.scrollTop") == left
    assert below_the_edge(notebook, 1) > SLACK_PX
    assert in_sight(notebook, 1, ".llm-Status button")
    notebook.cell(1).get_by_role("button", name="Stop this answer").click()
    notebook.ran()
    notebook.wait_for_text(1, "interrupted")


def test_an_answer_that_begins_below_the_edge_comes_into_sight_unless_the_reader_scrolls(open_notebook: Open) -> None:
    tall = "\n".join(f"Line {n} of a long question." for n in range(90))
    notebook = open_notebook([SETUP, f"%%chat -m long\n{tall}"])
    page = notebook.page
    notebook.run(0)
    notebook.cell(1).locator(".cm-line").first.click()
    page.keyboard.press("Control+Enter")
    notebook.wait_for_text(1, "Paragraph 5")
    assert below_the_edge(notebook, 1) <= SLACK_PX
    assert in_sight(notebook, 1, ".llm-Status button")
    scroller = page.locator(".jp-WindowedPanel-outer")
    scroller.hover()
    page.mouse.wheel(0, -900)
    page.wait_for_timeout(300)
    left = scroller.evaluate("node => node.scrollTop")
    notebook.wait_for_text(1, "Paragraph 15")
    assert scroller.evaluate("node => node.scrollTop") == left
    notebook.interrupt()
    notebook.wait_for_text(1, "interrupted")


def test_long_code_follows_and_is_coloured_when_its_fence_closes(open_notebook: Open) -> None:
    notebook = open_notebook([SETUP, "%%chat -m code\nWrite."])
    notebook.run(0)
    notebook.run(1, wait=False)
    notebook.wait_for_text(1, "line_100 = 100")
    pre = notebook.output(1).locator(".llm-Code pre")
    assert pre.evaluate("n => n.scrollHeight > n.clientHeight && n.scrollHeight - n.scrollTop - n.clientHeight < 60")
    notebook.wait("document.querySelector('.llm-Transcript[data-state=running] .llm-Code code span')")
    notebook.ran()
