"""A call that waits, with what looks like a secret in it: the person sees it as it is, the file holds its masked form."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from .conftest import Open
from .driver import Notebook
from .test_chat import transcript
from .test_extension import press

pytestmark = pytest.mark.browser

SECRET = "correct-horse-battery"
# The secret is written backwards, so that it is in the notebook's file only if an output holds it.
SETUP = f"""%load_ext llm_magics
import json
from itertools import cycle
from llm_magics import ScriptedModel, ToolCall, tool
secret = {SECRET[::-1]!r}[::-1]
seen = []
@tool(approve="ask")
def login(user: str, password: str) -> str:
    "Log in."
    seen.append((user, password))
    return "Hello."
model = ScriptedModel(cycle([ToolCall("login", json.dumps({{"user": "me", "password": secret}})), "You are logged in."]))"""
NO_WIDGETS = "import sys\nsys.modules['ipywidgets'] = None"
CHAT = "%%chat -m model -t login --no-history\nLog in."
CHECK = "print(seen == [('me', secret)], len(seen))"
AS_IT_IS = f'login(user="me", password="{SECRET}")'


def file_of(notebook: Notebook) -> str:
    """Save as the autosave does, and give the file's text."""
    notebook.page.evaluate("async () => { await window.jupyterapp.commands.execute('docmanager:save') }")
    notebook.saved()
    return notebook.path.read_text(encoding="utf-8")


def begin(notebook: Notebook, *before: int) -> None:
    for number in (0, *before):
        notebook.run(number)
    notebook.run(1, wait=False)
    notebook.output(1).get_by_text(AS_IT_IS).first.wait_for()


def check(notebook: Notebook, ran: bool) -> None:
    """Look at what ran, and at what is kept."""
    notebook.wait_for_text(1, "You are logged in.")
    notebook.idle()
    assert SECRET not in notebook.text(1)
    text = file_of(notebook)
    assert SECRET not in text
    assert "•••" in text
    (call,) = transcript(notebook.saved(), 1).tools
    assert call.state == ("done" if ran else "refused")
    assert call.ask is not None
    assert call.ask.digest == ""
    notebook.run(2)
    assert notebook.text(2).strip() == ("True 1" if ran else "False 0")


@pytest.mark.parametrize("decision", ["Approve this call", "Deny this call"])
def test_a_page_shows_the_call_as_it_is_and_saves_it_masked(open_notebook: Open, decision: str) -> None:
    notebook = open_notebook([SETUP, CHAT, CHECK])
    begin(notebook)
    assert SECRET not in file_of(notebook)  # while the question is open
    assert transcript(notebook.saved(), 1).tools[0].state == "asking"
    press(notebook, 1, decision)
    check(notebook, ran=decision.startswith("Approve"))


def test_a_page_that_is_reloaded_while_the_question_is_open_is_asked_again(open_notebook: Open) -> None:
    notebook = open_notebook([SETUP, CHAT, CHECK])
    notebook.page.on("dialog", lambda dialog: dialog.accept())
    begin(notebook)
    assert SECRET not in file_of(notebook)
    notebook.open(kernel=False)
    notebook.output(1).get_by_text(AS_IT_IS).first.wait_for()
    assert SECRET not in file_of(notebook)
    press(notebook, 1, "Approve this call")
    check(notebook, ran=True)


def test_a_second_tab_is_asked_too_and_the_first_answer_counts(open_notebook: Open) -> None:
    notebook = open_notebook([SETUP, CHAT, CHECK])
    notebook.run(0)
    notebook.save()
    second = notebook.again()
    begin(notebook)
    second.output(1).get_by_text(AS_IT_IS).first.wait_for()
    press(second, 1, "Deny this call")
    check(notebook, ran=False)
    second.page.close()


@pytest.fixture
def widget_state_is_saved(bare_lab: tuple[str, Path]) -> Iterator[None]:
    """The setting of jupyter-widgets with which the state of all widgets goes into the file."""
    settings = bare_lab[1] / "settings" / "@jupyter-widgets" / "jupyterlab-manager" / "plugin.jupyterlab-settings"
    settings.parent.mkdir(parents=True, exist_ok=True)
    settings.write_text(json.dumps({"saveState": True}), encoding="utf-8")
    yield
    settings.unlink()


@pytest.mark.usefixtures("widget_state_is_saved")
def test_without_the_extension_a_widget_shows_the_call_as_it_is(open_bare: Open) -> None:
    slider = "import ipywidgets\nslider = ipywidgets.IntSlider(3, description='mine')\nslider"
    notebook = open_bare([SETUP, CHAT, CHECK, slider])
    begin(notebook, 3)
    text = file_of(notebook)
    assert SECRET not in json.dumps([cell["outputs"] for cell in json.loads(text)["cells"]])
    press(notebook, 1, "Approve")
    check(notebook, ran=True)
    state: Any = notebook.saved().metadata["widgets"]["application/vnd.jupyter.widget-state+json"]["state"]
    assert any(one["state"].get("description") == "mine" for one in state.values()), "the user's own widget is gone"
    notebook.output(3).get_by_text("mine").wait_for()


def test_without_extension_and_widgets_a_prompt_shows_the_call_as_it_is(open_bare: Open) -> None:
    notebook = open_bare([SETUP, CHAT, CHECK, NO_WIDGETS])
    begin(notebook, 3)
    assert SECRET not in file_of(notebook)
    line = notebook.output(1).locator(".jp-Stdin-input")
    line.fill("y")
    line.press("Enter")
    check(notebook, ran=True)
