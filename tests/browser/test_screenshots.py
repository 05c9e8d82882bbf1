"""The README's pictures, light and dark: a first chat with a real model, a tool trace with a plot, an approval, the model card.

They are written to ``tests/browser/shots``, or where ``LLM_MAGICS_SHOTS`` says: ``notebooks/images`` renews the README's.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from .conftest import Open
from .driver import Notebook

pytestmark = [pytest.mark.browser, pytest.mark.model]

SHOTS = Path(os.environ.get("LLM_MAGICS_SHOTS") or Path(__file__).parent / "shots")
THEMES = {"light": "JupyterLab Light", "dark": "JupyterLab Dark"}

CHAT = [
    "%load_ext llm_magics\n%load_model qwen2.5-coder-0.5b",
    "%%chat --temp 0\nWrite a Python function that reverses a list, and show how it is used.",
]
TRACE = [
    '%load_ext llm_magics\nimport matplotlib.pyplot as plt\nfrom llm_magics import ScriptedModel, ToolCall\n'
    'model = ScriptedModel([\n    ToolCall("plot_rain", \'{"city": "Bergen", "days": 7}\'),\n'
    '    "Bergen had its driest day **in the middle of the week**: 1 mm.",\n], tokens_per_second=40)',
    "%%tool plot_rain(city: str, days: int = 5)\n# Plot the rain of the last days in a city.\n"
    "rain = [12, 9, 4, 1, 6, 14, 11][:days]\n"
    "plt.figure(figsize=(5, 2))\nplt.bar(range(1, days + 1), rain)\n_ = plt.title(f'Rain in {city}, mm')",
    "%%chat -m model -t plot_rain --approve {policy}\nShow me how much it rained in Bergen this week.",
]


def shoot(notebook: Notebook, name: str) -> None:
    """Take one picture in each theme."""
    SHOTS.mkdir(parents=True, exist_ok=True)
    for suffix, theme in THEMES.items():
        notebook.theme(theme)
        notebook.page.mouse.move(0, 0)
        notebook.page.wait_for_timeout(500)
        picture = SHOTS / f"{name}{'' if suffix == 'light' else '-dark'}.png"
        notebook.page.screenshot(path=picture)
        assert picture.stat().st_size > 10_000
    notebook.theme(THEMES["light"])


def bare(notebook: Notebook, height: int) -> None:
    """Fold the file browser away, and make the page as large as its picture is in the README."""
    notebook.page.set_viewport_size({"width": 960, "height": height})
    notebook.page.evaluate("async () => { await window.jupyterapp.commands.execute('application:toggle-left-area') }")


def to_the_top(notebook: Notebook, number: int) -> None:
    """Scroll a cell to the top of the page."""
    notebook.cell(number).evaluate("cell => cell.scrollIntoView({ block: 'start' })")
    notebook.page.wait_for_timeout(500)


def test_a_first_chat_and_the_model_card(open_notebook: Open, qwen: Path) -> None:
    notebook = open_notebook(CHAT)
    bare(notebook, 940)
    for number in range(2):
        notebook.run(number)
    notebook.output(1).get_by_role("button", name="Copy this code").first.wait_for()
    to_the_top(notebook, 0)
    shoot(notebook, "first-chat")
    notebook.page.locator(".llm-Card").click()
    notebook.page.get_by_role("region", name="Loaded models").get_by_text("answers").wait_for()
    shoot(notebook, "model-card")


@pytest.mark.parametrize(("policy", "name"), [("auto", "tool-trace"), ("ask", "approval")])
def test_a_tool_call(open_notebook: Open, policy: str, name: str) -> None:
    notebook = open_notebook([cell.replace("{policy}", policy) for cell in TRACE])
    bare(notebook, 790)
    for number in range(2):
        notebook.run(number)
    notebook.run(2, wait=False)
    approve = notebook.output(2).get_by_role("button", name="Approve this call")
    if policy == "ask":
        approve.wait_for()
        to_the_top(notebook, 1)
        shoot(notebook, name)
        approve.click()
    notebook.wait_for_text(2, "driest")
    notebook.output(2).locator("img.llm-Picture").wait_for()
    if policy == "auto":
        to_the_top(notebook, 2)
        shoot(notebook, name)
