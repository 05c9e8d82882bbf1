"""Cells in the page: as tools made by a form, as conversations in the editor; and the model card in the status bar."""

from __future__ import annotations

import pytest

from .conftest import Open
from .test_chat import SETUP

pytestmark = pytest.mark.browser

TOOL_CALL = """%load_ext llm_magics
from llm_magics import ScriptedModel, ToolCall
model = ScriptedModel([ToolCall("twice", '{"city": "Oslo"}'), "Said."] * 2)"""


def test_a_form_makes_a_cell_a_tool_and_its_output_lands_in_the_cell(open_notebook: Open) -> None:
    notebook = open_notebook([TOOL_CALL, "print(city, city)", "%%chat -m model --approve auto\nSay it twice."])
    page = notebook.page
    notebook.run(0)
    notebook.cell(1).click()
    notebook.cell(1).get_by_role("button", name="Let a model call this cell as a tool").click()
    page.get_by_label("Name").fill("twice")
    page.get_by_label("What it does").fill("Say it twice.")
    page.get_by_label("Parameters").fill("city: str")
    page.get_by_role("button", name="Save", exact=True).click()
    page.locator("[data-llm-tool='tool twice']").wait_for()
    assert notebook.save().cells[1].metadata["llm_magics"]["tool"]["parameters"] == "city: str"
    notebook.run(2)
    assert notebook.text(1).strip() == "Oslo Oslo"
    notebook.save()
    notebook.open()
    page.locator("[data-llm-tool='tool twice']").wait_for()
    notebook.run(2)
    assert notebook.text(1).strip() == "Oslo Oslo"


def test_a_chat_cell_is_markdown_and_a_code_cell_is_not(open_notebook: Open) -> None:
    notebook = open_notebook(["%%chat\n# Rain\nin {{city}}", "# %%chat\ncity"])
    notebook.cell(0).locator(".llm-ChatExpression", has_text="{{city}}").wait_for()
    assert notebook.cell(0).locator(".llm-ChatMagic").inner_text() == "%%chat"
    assert notebook.cell(1).locator(".llm-ChatMagic, .llm-ChatExpression").count() == 0
    notebook.type(0, "city = 1")
    notebook.cell(0).locator(".llm-ChatMagic").wait_for(state="detached")


def test_the_status_bar_tells_what_is_loaded_and_how_fast_it_is(open_notebook: Open) -> None:
    notebook = open_notebook([SETUP + "\n%load_model model", "%%chat\nCount.", "%unload_model model"])
    card = notebook.page.locator(".llm-Card")
    notebook.run(0)
    card.get_by_text("model").wait_for()
    notebook.run(1)
    card.get_by_text("tokens/s").wait_for()
    card.click()
    notebook.page.get_by_role("region", name="Loaded models").get_by_text("model (answers)").wait_for()
    notebook.page.keyboard.press("Escape")
    notebook.run(2)
    card.wait_for(state="hidden")
