"""Errors on the page: explained and fixed by a model, or mended by the one line that their cell lacks."""

from __future__ import annotations

from typing import Any

import pytest

from .conftest import Open
from .driver import PANEL, Notebook

pytestmark = pytest.mark.browser

BROKEN = "prices = [3, 4, 5]\ntotal = 0\nfor price in prices:\n    total = total + prise\nprint('total', total)"
FIXED = BROKEN.replace("prise", "price")
SETUP = f"""%load_ext llm_magics
from llm_magics import ScriptedModel
said = []
def answer(request):
    said.append(request.messages[-1].text)
    if "Explain" in said[-1]:
        return "A name is misspelt."
    return '''The name was misspelt.\\n\\n```python\\n{FIXED}\\n```\\nIt works now.'''
model = ScriptedModel([answer] * 9)
%load_model model"""


def bar(notebook: Notebook, number: int) -> Any:
    return notebook.cell(number).locator(".llm-CellBars")


def press(notebook: Notebook, number: int, name: str) -> None:
    bar(notebook, number).get_by_role("button", name=name).click()


@pytest.mark.parametrize("app", ["lab", "notebook"])
def test_an_error_is_explained_in_a_cell_below(open_notebook: Open, app: str) -> None:
    notebook = open_notebook([SETUP, BROKEN, "said"], app=app)
    notebook.run(0)
    assert bar(notebook, 1).get_by_role("button").count() == 0
    notebook.run(1)
    press(notebook, 1, "Explain this error")
    notebook.wait_for_text(2, "A name is misspelt.")
    assert notebook.source(2) == "%%chat --context prev\nExplain this error"
    notebook.idle()
    notebook.run(3)
    assert "NameError" in notebook.text(3)
    assert "total + prise" in notebook.text(3)
    press(notebook, 1, "Explain this error")  # again: in the same cell
    notebook.idle()
    assert notebook.page.evaluate(f"{PANEL}.content.widgets.length") == 4
    press(notebook, 1, "Fix this cell")
    notebook.wait_for_text(3, "It works now.")
    assert notebook.source(2).endswith("Explain this error")  # which was asked before, and stands before


def test_a_fix_is_a_difference_that_the_person_accepts(open_notebook: Open) -> None:
    notebook = open_notebook([SETUP, BROKEN])
    page = notebook.page
    notebook.run(0)
    notebook.run(1)
    press(notebook, 1, "Fix this cell")
    change = notebook.cell(2).get_by_role("group", name="Change to the cell")
    change.get_by_text("1 line added, 1 line removed").wait_for()
    assert notebook.source(1) == BROKEN
    assert change.locator("[data-kind=removed]").inner_text().split()[-1] == "prise"
    assert change.locator("[data-kind=added] mark").inner_text() == "price"
    notebook.save()
    notebook.open()
    change.get_by_role("button", name="Accept").focus()
    page.keyboard.press("Enter")
    change.get_by_text("You accepted this change.").wait_for()
    assert notebook.source(1) == FIXED
    assert page.evaluate(f"{PANEL}.content.activeCellIndex") == 1
    page.keyboard.press("Shift+Enter")
    notebook.wait_for_text(1, "total 12")
    assert bar(notebook, 1).get_by_role("button").count() == 0
    notebook.cell(1).locator(".cm-content").click()
    page.keyboard.press("Control+z")
    notebook.wait(f"{PANEL}.content.widgets[1].model.sharedModel.getSource() === a", BROKEN)
    change.get_by_text("The cell was changed since.").wait_for()
    notebook.save()
    notebook.open()
    change.get_by_role("button", name="Compare this answer with the cell again").click()
    notebook.type(1, BROKEN.replace("'total'", "'sum'"))
    change.get_by_text("2 lines added, 2 lines removed").wait_for()
    change.get_by_role("button", name="Reject").click()
    change.get_by_text("You rejected this change.").wait_for()
    assert "'sum'" in notebook.source(1)
    assert "prise" in notebook.source(1)


def test_magics_that_the_kernel_does_not_know_are_loaded_and_so_is_a_model(open_notebook: Open) -> None:
    notebook = open_notebook([BROKEN, "%%chat\nHello.", SETUP, "said"])
    notebook.run(0)
    notebook.run(1)
    press(notebook, 1, "Runs %load_ext llm_magics above")
    notebook.wait_for_text(2, "runs %load_model")
    assert notebook.source(1) == "%load_ext llm_magics"
    assert notebook.source(2) == "%%chat\nHello."
    assert notebook.output(2).get_by_role("group", name="What mends this error").get_by_role("button").count() == 1
    notebook.idle()
    assert bar(notebook, 2).get_by_role("button").count() == 0
    notebook.run(3)
    press(notebook, 0, "Explain this error")  # which happened before the magics were there
    notebook.wait_for_text(1, "A name is misspelt.")
    notebook.idle()
    notebook.run(5)
    assert "NameError" in notebook.text(5)
    assert "total + prise" in notebook.text(5)
