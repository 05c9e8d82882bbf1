"""Cells in the page: as tools made by a form, as conversations in the editor; and the model card in the status bar."""

from __future__ import annotations

import ast

import pytest

from .conftest import Open
from .driver import PANEL, Notebook
from .test_chat import SETUP

pytestmark = pytest.mark.browser

TOOL_CALL = """%load_ext llm_magics
from llm_magics import ScriptedModel, ToolCall
model = ScriptedModel([ToolCall("twice", '{"city": "Oslo"}'), "Said.", ToolCall("twice", '{"city": "Rome"}'), "Said."])"""


def edit(notebook: Notebook, number: int) -> None:
    """Open the form of a cell."""
    notebook.cell(number).click()
    notebook.cell(number).get_by_role("button", name="Let a model call this cell as a tool").click()


def test_the_form_of_a_cell_that_is_a_tool_by_its_own_line_edits_that_line(open_notebook: Open) -> None:
    notebook = open_notebook(["%%tool twice(city: str) -> str --timeout 5\n# Say it twice.\nprint(city, city)"])
    page = notebook.page
    edit(notebook, 0)
    assert page.get_by_label("Name").input_value() == "twice"
    assert page.get_by_label("What it does").input_value() == "Say it twice."
    assert page.get_by_label("Parameters").input_value() == "city: str"
    page.get_by_label("Parameters").fill("city: str, n: int = 2")
    page.get_by_label("When a model calls it").select_option("auto")
    page.get_by_role("button", name="Save", exact=True).click()
    source = "%%tool twice(city: str, n: int = 2) -> str --timeout 5 --approve auto\n# Say it twice.\nprint(city, city)"
    notebook.wait(f"{PANEL}.content.widgets[0].model.sharedModel.getSource() === a", source)
    assert "llm_magics" not in notebook.save().cells[0].metadata


def test_a_form_makes_a_cell_a_tool_and_its_own_output_stays_as_it_was(open_notebook: Open) -> None:
    notebook = open_notebook([TOOL_CALL, "print(city, city)", "%%chat -m model --approve auto\nSay it twice.", "%tools"])
    page = notebook.page
    notebook.run(0)
    notebook.run(1)  # it ran before it is a tool
    notebook.wait_for_text(1, "NameError")
    edit(notebook, 1)
    save = page.get_by_role("button", name="Save", exact=True)
    page.get_by_label("Name").fill("no name")
    page.get_by_text("no name is not a valid name").wait_for()
    page.get_by_label("What it does").fill("Say it twice.")
    page.get_by_label("Parameters").fill("city str")
    page.get_by_text("These are not parameters of Python.").wait_for()
    assert save.is_disabled()
    page.get_by_label("Name").fill("twice")
    assert save.is_disabled()
    page.get_by_label("Parameters").fill("city: str")
    save.click()
    page.locator("[data-llm-tool='tool twice']").wait_for()
    assert notebook.save().cells[1].metadata["llm_magics"]["tool"]["parameters"] == "city: str"
    before = notebook.outputs(1)
    notebook.run(2)
    notebook.output(2).locator("pre", has_text="Oslo Oslo").first.wait_for(state="attached")
    assert notebook.outputs(1) == before
    notebook.save()
    notebook.open()
    page.locator("[data-llm-tool='tool twice']").wait_for()
    notebook.run(2)
    notebook.output(2).locator("pre", has_text="Rome Rome").first.wait_for(state="attached")
    assert notebook.outputs(1) == before == notebook.save().cells[1].outputs
    edit(notebook, 1)
    page.get_by_label("Name").fill("thrice")
    page.get_by_label("When a model calls it").select_option("auto")
    page.get_by_role("button", name="Save", exact=True).click()
    page.locator("[data-llm-tool='tool thrice']").wait_for()
    notebook.run(3)
    assert "thrice" in notebook.text(3)
    assert "twice" not in notebook.text(3)
    assert "auto" in notebook.text(3)


def test_a_cell_tool_is_run_with_arguments_of_one_s_own(open_notebook: Open) -> None:
    notebook = open_notebook(["%load_ext llm_magics", "%%tool twice(city: str)\n# Say it twice.\nprint(city, city)"])
    page = notebook.page
    notebook.run(0)
    notebook.run(1)
    notebook.cell(1).click()
    page.evaluate("() => { window.jupyterapp.commands.execute('llm-magics:run-tool') }")
    page.get_by_label("Arguments as JSON").fill('{"city": "Oslo"}')
    page.get_by_role("button", name="Run", exact=True).click()
    notebook.wait("document.querySelectorAll('.jp-Notebook .jp-Cell').length === 3")
    notebook.output(2).get_by_role("button", name="Approve").click()
    notebook.wait_for_text(2, "Oslo Oslo")
    notebook.wait_for_text(2, "the model reads")


def test_the_kernel_is_told_of_cells_that_never_ran(open_notebook: Open) -> None:
    ask = (
        "%load_ext llm_magics\nfrom llm_magics.kernel.page.live import link_of, notebook_cells\n"
        "[(c['id'], c['source'], c['tags']) for c in notebook_cells(link_of(get_ipython().kernel), timeout=30)]"
    )
    notebook = open_notebook(["1 + 1  # never run", ask])
    notebook.page.evaluate(f"{PANEL}.content.widgets[0].model.setMetadata('tags', ['data'])")
    notebook.run(1)
    told = notebook.outputs(1)[-1]["data"]["text/plain"]
    assert ast.literal_eval(told)[0] == ("cell0", "1 + 1  # never run", ["data"])


def test_tab_completes_a_magic_s_line(open_notebook: Open) -> None:
    notebook = open_notebook(["%load_ext llm_magics", ""])
    notebook.run(0)
    lines = {"%%chat --appro": "--approve", "%%chat --approve=": "auto", "%load_model qwen2.5-coder-0": "qwen2.5-coder-0.5b"}
    for typed, offered in lines.items():
        notebook.type(1, typed)
        notebook.page.keyboard.press("Tab")
        notebook.wait(
            f"{PANEL}.content.widgets[1].model.sharedModel.getSource().includes(a)"
            " || [...document.querySelectorAll('.jp-Completer-item')].some(item => item.textContent.includes(a))",
            offered,
        )
        notebook.page.keyboard.press("Escape")


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
    card.get_by_text("tok/s").wait_for()
    card.click()
    panel = notebook.page.get_by_role("region", name="Loaded models")
    panel.get_by_text("answers %%chat").wait_for()
    notebook.page.keyboard.press("Escape")
    panel.wait_for(state="detached")
    assert card.evaluate("card => document.activeElement === card && card.ariaExpanded") == "false"
    notebook.page.keyboard.press("Enter")
    panel.wait_for()
    notebook.save()
    notebook.open()
    card.get_by_text("tok/s").wait_for()  # a page that has just come is told at once
    notebook.run(2)
    card.wait_for(state="hidden")
    notebook.run(0)
    card.get_by_text("model").wait_for()
    notebook.page.evaluate(f"async () => {{ await {PANEL}.sessionContext.session.kernel.restart() }}")
    card.wait_for(state="hidden")


ON_A_GPU = """
import itertools
from types import SimpleNamespace
from llm_magics.engine.fit import memory
from llm_magics.kernel import gauge
gauge.SECONDS = 0.3
busy = itertools.count(1)
memory.nvidia_gpus = lambda: (memory.Gpu("NVIDIA Test", "0", 100 * 10**9, 141 * 10**9, busy=min(next(busy), 77)),)
model.engine = SimpleNamespace(info=SimpleNamespace(buffers=[("CUDA0", "model", 2 * 10**9)], description="told to be on a GPU"))
"""


def test_the_status_bar_tells_how_a_gpu_fares_while_no_cell_runs(open_notebook: Open) -> None:
    notebook = open_notebook([SETUP + "\n%load_model model\n" + ON_A_GPU])
    card = notebook.page.locator(".llm-Card")
    notebook.run(0)
    card.get_by_text("GPU 2.0 GB").wait_for()
    card.click()
    panel = notebook.page.get_by_role("region", name="Loaded models")
    panel.get_by_text("41.0 GB of 141.0 GB").wait_for()
    panel.get_by_text("77 % busy").wait_for(timeout=60_000)  # the open panel goes on with it
    card.get_by_text("77 % busy").wait_for()
