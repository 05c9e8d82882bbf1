"""The settings editor shows what can be set, and what is set there reaches the page and the kernel."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from .conftest import Open
from .driver import PANEL
from .test_chat import SETUP
from .test_extension import ASK, TOOLS

TOLD = """import time
from llm_magics.kernel.page.live import link_of
session = get_ipython().get_parent()["header"]["session"]
while link_of(get_ipython().kernel).rules(session, "").settings.get("approve") != "ask":
    time.sleep(0.1)"""

pytestmark = pytest.mark.browser


@pytest.fixture
def settings(lab: tuple[str, Path]) -> Iterator[Path]:
    """The file of our settings, gone again after the test."""
    path = lab[1] / "settings" / "llm-magics" / "settings.jupyterlab-settings"
    yield path
    path.unlink(missing_ok=True)


def test_rules_set_in_the_editor_hold_in_the_kernel_that_runs_already(open_notebook: Open, settings: Path) -> None:
    notebook = open_notebook([TOOLS, ASK.replace("weather", "weather --approve auto", 1), TOLD])
    notebook.run(0)
    page = notebook.page
    page.evaluate("() => { window.__notebook = window.jupyterapp.shell.currentWidget.id }")
    page.evaluate("() => { window.jupyterapp.commands.execute('settingeditor:open', { query: 'llm_magics' }) }")
    editor = page.locator(".jp-SettingsPanel")
    editor.get_by_text("Least approval for tool calls").first.wait_for()
    descriptions = editor.locator("[id$=description]:visible, .jp-FormGroup-description:visible")
    said = [text for text in descriptions.all_inner_texts() if text.strip()]
    assert len(said) > 5
    assert len(set(said)) == len(said)  # the form of JupyterLab writes a list's description twice
    editor.locator("select[id$='rules_approve']").select_option(label="ask")
    page.evaluate("() => { window.jupyterapp.shell.activateById(window.__notebook) }")
    notebook.wait(f"{PANEL}.id === window.__notebook")
    notebook.run(2)
    notebook.run(1)
    assert "looser than the rules of this kernel" in notebook.text(1)
    assert json.loads(settings.read_text())["rules"]["approve"] == "ask"


def test_settings_of_the_user_are_there_from_the_first_cell(open_notebook: Open, settings: Path) -> None:
    settings.parent.mkdir(exist_ok=True)
    settings.write_text(json.dumps({"modelCard": False, "rules": {"allowed_models": ["lesson-*"]}}))
    notebook = open_notebook([SETUP + "\n%load_model model"])
    notebook.run(0)
    assert "do not allow the model" in notebook.text(0)
