"""What we draw, in both themes, under axe-core: names, states, contrast, keyboard. One notebook holds one of each."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from .conftest import Open
from .driver import Notebook
from .test_errors import BROKEN, FIXED, press

pytestmark = pytest.mark.browser

ANSWER = """# Rain

It **costs** $5 and $10, or `x`, see [this](https://example.org) and $x^2$.[^1]

- [x] done
- [ ] open

| a | b |
|--|--|
| 1 | 2 |

```python
class A(int):  # an answer
    x: int = 3 + len("s")
    def f(self): return None
```

[^1]: A note.
"""
SETUP = f"""%load_ext llm_magics
from llm_magics import ScriptedModel, ToolCall, tool
@tool(approve="auto")
def weather(city: str) -> str:
    "Tell the weather."
    print("looking")
    return f"It rains in {{city}}."
@tool(approve="auto")
def fails(city: str) -> str:
    "Fail."
    raise ValueError(city)
@tool(approve="ask")
def careful(city: str) -> str:
    "Ask first."
    return city
call = ToolCall("weather", '{{"city": "Oslo"}}')
model = ScriptedModel([[call, ToolCall("fails", '{{"city": "Oslo"}}')], call, {ANSWER!r}, '```python\\n' + {FIXED!r} + '\\n```',
    ToolCall("careful", '{{"city": "Oslo"}}'), "Asked."])
%load_model model"""
ALL = ".llm-Transcript, .llm-CellBars, .llm-Renderer, .llm-Card, .llm-CardPanel, .jp-Dialog"
SHOTS = os.environ.get("LLM_MAGICS_SHOTS")


def found(notebook: Notebook, axe: str) -> list[tuple[str, list[str]]]:
    """What axe finds in all that is ours on the page, as rules and elements."""
    notebook.page.evaluate(axe)
    results: Any = notebook.page.evaluate(
        "async s => await axe.run({include: s.split(', ').filter(one => document.querySelector(one)).map(one => [one])})", ALL
    )
    assert results["passes"]
    return [
        (one["id"], [node["html"][:160] + " | " + node["failureSummary"][:300] for node in one["nodes"]])
        for one in results["violations"]
    ]


# axe leaves coloured code out: the least contrast of a piece of it, or of a magic's line, to the ground of its block or cell
LEAST_CONTRAST = """() => {
  const channel = x => (x /= 255) <= 0.03928 ? x / 12.92 : ((x + 0.055) / 1.055) ** 2.4;
  const luminance = colour => colour.match(/[\\d.]+/g).slice(0, 3).map(Number).map(channel)
    .reduce((sum, x, at) => sum + x * [0.2126, 0.7152, 0.0722][at], 0);
  const contrast = (a, b) => (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
  return Math.min(...[...document.querySelectorAll('.llm-Code pre span, .llm-ChatMagic')].map(piece => contrast(
    luminance(getComputedStyle(piece).color),
    luminance(getComputedStyle(piece.closest('pre, .jp-InputArea-editor')).backgroundColor))));
}"""


def shoot(notebook: Notebook, name: str) -> None:
    """Keep a picture for somebody to look at, where ``LLM_MAGICS_SHOTS`` names a folder."""
    if SHOTS:
        notebook.page.screenshot(path=str(Path(SHOTS) / f"{name}.png"))


@pytest.mark.parametrize(
    ("app", "theme"),
    [("lab", "JupyterLab Light"), ("lab", "JupyterLab Dark"), ("notebook", "JupyterLab Dark")],
    ids=["light", "dark", "dark in Notebook 7"],
)
def test_axe_finds_nothing_in_what_is_ours(open_notebook: Open, axe: str, app: str, theme: str) -> None:
    cells = [
        SETUP,
        "%%chat\nHow is the weather?",
        BROKEN,
        "%%chat --context prev\nMay I?",
        "%%chat -m nobody\nHello.",
        "print(1)",
    ]
    notebook = open_notebook(cells, app=app)
    page = notebook.page
    name = f"{app}-{theme.split()[-1].lower()}"
    notebook.theme(theme)
    notebook.run(0)
    notebook.run(1)
    notebook.wait_for_text(1, "costs")
    folded = found(notebook, axe)
    notebook.wait("document.querySelectorAll('.llm-Code pre span').length > 5")
    assert page.evaluate(LEAST_CONTRAST) >= 4.5
    page.evaluate("document.querySelectorAll('.llm-Transcript details').forEach(d => { d.open = true })")
    unfolded = found(notebook, axe)
    shoot(notebook, f"{name}-answer")
    notebook.run(2)
    notebook.cell(2).get_by_role("button", name="Explain this error").wait_for()
    notebook.show(notebook.cell(2))
    shoot(notebook, f"{name}-error")
    press(notebook, 2, "Fix this cell")
    notebook.cell(3).get_by_role("button", name="Accept").wait_for()
    notebook.idle()
    change = found(notebook, axe)
    shoot(notebook, f"{name}-change")
    notebook.run(4, wait=False)
    notebook.output(4).locator(".llm-Approval").wait_for()
    notebook.show(notebook.output(4).locator(".llm-Approval"))
    question = found(notebook, axe)
    shoot(notebook, f"{name}-question")
    notebook.output(4).get_by_role("button", name="Deny this call").click()
    notebook.ran()
    notebook.run(5)
    notebook.cell(6).click()
    notebook.cell(6).get_by_role("button", name="Let a model call this cell as a tool").click()
    page.get_by_label("Name").fill("not a name")
    page.get_by_label("Parameters").fill("city str")
    form = found(notebook, axe)
    shoot(notebook, f"{name}-form")
    page.keyboard.press("Escape")
    card: list[tuple[str, list[str]]] = []
    if app == "lab":
        page.locator(".llm-Card").click()
        page.get_by_role("region", name="Loaded models").wait_for()
        card = found(notebook, axe)
        shoot(notebook, f"{name}-card")
        page.keyboard.press("Escape")
    assert {"folded": folded, "unfolded": unfolded, "change": change, "question": question, "form": form, "card": card} == {
        part: [] for part in ("folded", "unfolded", "change", "question", "form", "card")
    }


@pytest.mark.parametrize("theme", ["JupyterLab Light", "JupyterLab Dark"], ids=["light", "dark"])
def test_axe_finds_nothing_in_what_mends_an_error(open_notebook: Open, axe: str, theme: str) -> None:
    notebook = open_notebook(["%%chat\nHello."])
    name = f"lab-{theme.split()[-1].lower()}"
    notebook.theme(theme)
    notebook.run(0)
    notebook.cell(0).get_by_role("button", name="Runs %load_ext llm_magics above").wait_for()
    unknown = found(notebook, axe)
    shoot(notebook, f"{name}-unknown")
    press(notebook, 0, "Runs %load_ext llm_magics above")
    notebook.wait_for_text(1, "runs %load_model")
    no_model = found(notebook, axe)
    shoot(notebook, f"{name}-no-model")
    assert (unknown, no_model) == ([], [])
