"""Calls that did not run, on the page: one grey row with their number, live, saved, reloaded and without the extension."""

from __future__ import annotations

from typing import Any

import pytest

from .conftest import Open
from .driver import Notebook

pytestmark = pytest.mark.browser

REPEATING = """%load_ext llm_magics
from llm_magics import ScriptedModel, ToolCall, tool
@tool(approve="auto")
def weather(city: str) -> str:
    "Tell the weather."
    return f"It rains in {city}."
oslo = ToolCall("weather", '{"city": "Oslo"}')
model = ScriptedModel([oslo, oslo, [oslo, oslo, oslo], "Take an umbrella."])"""
ASK = "%%chat -m model -t weather\nHow is the weather?"
LINE = "4 repeated calls, not run"


def rows(notebook: Notebook) -> list[str]:
    """The summaries that can be seen, without their icons and times."""
    summaries = notebook.output(1).locator("summary:visible").all_inner_texts()
    return [text.split("·")[0].strip() for text in summaries]


@pytest.mark.parametrize("theme", ["JupyterLab Light", "JupyterLab Dark"])
def test_repetitions_are_one_row_that_unfolds_live_and_after_a_reload(open_notebook: Open, axe: str, theme: str) -> None:
    notebook = open_notebook([REPEATING, ASK])
    notebook.theme(theme)
    notebook.run(0)
    notebook.run(1)
    for _ in range(2):
        notebook.wait_for_text(1, "Take an umbrella.")
        assert [row for row in rows(notebook) if "repeated" in row] == [LINE]
        assert len(rows(notebook)) == 2
        notebook.output(1).get_by_text(LINE).click()
        assert len(rows(notebook)) == 6
        assert "refused" not in notebook.text(1)
        colours = notebook.page.evaluate(
            "() => [...document.querySelectorAll('.llm-NotRun > .llm-Tool, .llm-NotRun')]"
            ".map(row => getComputedStyle(row).borderLeftColor)"
        )
        assert len(set(colours)) == 1
        notebook.page.evaluate(axe)
        results: Any = notebook.page.evaluate("async () => await axe.run('.llm-Transcript')")
        assert [v["id"] for v in results["violations"] if v["impact"] in ("serious", "critical")] == []
        notebook.save()
        notebook.open()
    notebook.theme("JupyterLab Light")


def test_without_the_extension_they_are_one_row_too(open_bare: Open) -> None:
    notebook = open_bare([REPEATING, ASK])
    notebook.run(0)
    notebook.run(1)
    notebook.wait_for_text(1, "Take an umbrella.")
    assert [row for row in rows(notebook) if "repeated" in row] == [LINE]
    assert len(rows(notebook)) == 2
    notebook.output(1).get_by_text(LINE).click()
    assert len(rows(notebook)) == 6
