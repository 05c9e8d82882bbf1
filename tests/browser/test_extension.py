"""What the extension adds: answers that survive a reload, decisions and stops while the kernel is busy, code to be used."""

from __future__ import annotations

import os
import random
import signal
from typing import Any

import pytest

from llm_magics.transcript import MIME_TYPE

from .conftest import Open
from .driver import PANEL, Notebook
from .test_chat import CHAT, SETUP, WORDS, shown, transcript

pytestmark = pytest.mark.browser

TOOLS = """%load_ext llm_magics
from llm_magics import ScriptedModel, ToolCall, tool
@tool(approve="ask")
def weather(city: str) -> str:
    "Tell the weather."
    print("looking out of the window")
    return f"It rains in {city}."
model = ScriptedModel([ToolCall("weather", '{"city": "Oslo"}'), "Take an umbrella.\\n\\n```python\\nprint(6 * 7)\\n```"] * 2)"""
ASK = "%%chat -m model -t weather\nHow is the weather?"
SLOW = SETUP.replace("tokens_per_second=60", "tokens_per_second=15")
RELOADS = int(os.environ.get("LLM_MAGICS_RELOADS", "2"))


def press(notebook: Notebook, number: int, name: str) -> None:
    notebook.output(number).get_by_role("button", name=name).click()


@pytest.mark.parametrize(
    ("app", "decision", "state"),
    [("lab", "Approve this call", "done"), ("lab", "Deny this call", "refused"), ("notebook", "Approve this call", "done")],
    ids=["approved", "denied", "approved in Notebook 7"],
)
def test_a_call_waits_for_the_person_while_the_cell_is_busy(
    open_notebook: Open, app: str, decision: str, state: str
) -> None:
    notebook = open_notebook([TOOLS, ASK], app=app)
    notebook.run(0)
    notebook.run(1, wait=False)
    notebook.output(1).locator(".llm-Approval").get_by_text("Oslo").wait_for()
    assert "It rains" not in notebook.text(1)
    press(notebook, 1, decision)
    notebook.wait_for_text(1, "Take an umbrella.")
    notebook.ran()
    (tool,) = transcript(notebook.save(), 1).tools
    assert tool.state == state
    assert (tool.result == "It rains in Oslo.") == (state == "done")


def test_without_the_extension_buttons_ask_the_same(open_bare: Open) -> None:
    notebook = open_bare([TOOLS, ASK])
    notebook.run(0)
    notebook.run(1, wait=False)
    press(notebook, 1, "Approve")
    notebook.wait_for_text(1, "Take an umbrella.")


def test_stop_ends_the_answer_and_nothing_else(open_notebook: Open) -> None:
    notebook = open_notebook([SETUP, CHAT])
    notebook.run(0)
    notebook.run(1, wait=False)
    notebook.wait_for_text(1, WORDS[5])
    press(notebook, 1, "Stop this answer")
    notebook.idle()
    assert transcript(notebook.save(), 1).state == "interrupted"


def test_code_goes_below_as_a_cell_that_runs(open_notebook: Open) -> None:
    notebook = open_notebook([TOOLS, "%%chat -m model -t weather --approve auto\nHow is the weather?"])
    notebook.run(0)
    notebook.run(1)
    press(notebook, 1, "Insert this code as a new cell below")
    assert notebook.source(2) == "print(6 * 7)"
    notebook.run(2)
    assert notebook.text(2).strip() == "42"


@pytest.mark.parametrize(
    ("app", "saved"),
    [("lab", False), ("lab", True), ("notebook", True)],
    ids=["never saved", "saved in the middle", "in Notebook 7"],
)
def test_a_page_reloaded_in_the_middle_of_an_answer_loses_nothing(open_notebook: Open, app: str, saved: bool) -> None:
    """``LLM_MAGICS_RELOADS=20`` reloads each page at 20 random moments."""
    notebook = open_notebook([SLOW, CHAT], app=app)
    notebook.page.on("dialog", lambda dialog: dialog.accept())
    notebook.run(0)
    notebook.save()
    pauses = random.Random(1)
    for _ in range(RELOADS):
        notebook.run(1, wait=False)
        notebook.wait_for_text(1, WORDS[0])
        notebook.page.wait_for_timeout(pauses.uniform(0, 2000))
        if saved:
            notebook.save()
        assert WORDS[-1] not in notebook.text(1)
        notebook.open(kernel=False)
        notebook.wait_for_text(1, WORDS[-1])
        assert shown(notebook, 1) == WORDS
        notebook.idle()
        notebook.output(1).get_by_text("tokens/s").wait_for()
        turn = transcript(notebook.save(), 1)
        assert (turn.state, turn.text.split(), len(turn.steps)) == ("stop", WORDS, 1)


def test_a_second_tab_follows_the_same_answer(open_notebook: Open) -> None:
    notebook = open_notebook([SETUP, CHAT])
    notebook.run(0)
    notebook.save()
    second = notebook.again()
    notebook.run(1, wait=False)
    second.wait_for_text(1, WORDS[5])
    assert WORDS[-1] not in second.text(1)
    for either in (notebook, second):
        either.wait_for_text(1, WORDS[-1])
        assert shown(either, 1) == WORDS


def test_a_connection_made_anew_in_the_middle_of_an_answer_loses_nothing(open_notebook: Open) -> None:
    notebook = open_notebook([SLOW, CHAT])
    notebook.run(0)
    notebook.run(1, wait=False)
    notebook.wait_for_text(1, WORDS[3])
    notebook.page.evaluate(f"async () => {{ await {PANEL}.sessionContext.session.kernel.reconnect() }}")
    assert WORDS[-1] not in notebook.text(1)
    notebook.wait_for_text(1, WORDS[-1])
    assert shown(notebook, 1) == WORDS


def test_a_kernel_that_dies_leaves_what_there_was(open_notebook: Open) -> None:
    notebook = open_notebook([SETUP, CHAT, "import os; os.getpid()"])
    notebook.run(0)
    notebook.run(2)
    notebook.run(1, wait=False)
    notebook.wait_for_text(1, WORDS[5])
    os.kill(int(notebook.text(2).split()[-1]), signal.SIGKILL)
    notebook.wait_for_text(1, "unfinished when it was saved")
    assert shown(notebook, 1)[:5] == WORDS[:5]
    assert transcript(notebook.save(), 1).text.split()[:5] == WORDS[:5]


def test_every_save_of_a_running_turn_is_valid_and_holds_the_turn_so_far(open_notebook: Open) -> None:
    notebook = open_notebook([SLOW.replace("second=15", "second=10"), CHAT])
    notebook.run(0)
    notebook.run(1, wait=False)
    notebook.wait_for_text(1, WORDS[0])
    kept: list[int] = []
    while not notebook.page.evaluate("window.__ran"):
        notebook.page.evaluate("async () => { await window.jupyterapp.commands.execute('docmanager:save') }")
        turn = transcript(notebook.saved(), 1)  # validated by nbformat
        words = turn.text.split()
        assert " ".join(WORDS).startswith(" ".join(words))
        assert turn.state == ("running" if len(words) < len(WORDS) else turn.state)
        if turn.state == "running":  # the model's own words are in no form that a page would take for HTML
            assert "text/markdown" not in notebook.saved().cells[1].outputs[0]["data"]
        kept.append(len(words))
    assert kept == sorted(kept)
    assert len(set(kept)) > 3  # saved at different moments of it


def test_the_saved_output_alone_rebuilds_the_turn(open_notebook: Open) -> None:
    history = "get_ipython()._llm_magics_runtime.thread('main').session.history"
    notebook = open_notebook([TOOLS, ASK.replace("weather", "weather --approve auto", 1), f"repr({history})"])
    for number in range(3):
        notebook.run(number)
    saved = notebook.save()
    assert saved.cells[2].outputs[0]["data"]["text/plain"] == repr(repr(transcript(saved, 1).messages()))


def test_a_transcript_of_a_newer_version_shows_its_static_form(open_notebook: Open) -> None:
    newer = {MIME_TYPE: {"version": 99, "segments": [{"type": "hologram"}]}, "text/html": "<p>the <b>static</b> form</p>"}
    notebook = open_notebook([f"display({newer!r}, raw=True)"])
    notebook.run(0)
    notebook.wait_for_text(0, "saved by another version of llm_magics")
    notebook.output(0).locator("b", has_text="static").wait_for()
    notebook.save()
    notebook.open()  # as a reader meets it, trusted or not
    notebook.output(0).locator("b", has_text="static").wait_for()
    assert "Error" not in notebook.text(0)


def test_a_whole_turn_with_the_keyboard_alone(open_notebook: Open) -> None:
    notebook = open_notebook([TOOLS, ""])
    keys = notebook.page.keyboard
    notebook.page.evaluate(f"{PANEL}.content.activeCellIndex = 0; {PANEL}.content.activate()")  # as Lab does for a new notebook
    keys.press("Escape")
    keys.press("Shift+Enter")
    notebook.idle()
    keys.press("Enter")
    keys.type(ASK.split("\n")[0])
    keys.press("Enter")
    keys.type(ASK.split("\n")[1])
    keys.press("Shift+Enter")
    notebook.output(1).locator(".llm-Approval").wait_for()
    keys.press("Escape")  # out of the new cell below, which Shift+Enter in a last cell begins
    for _ in range(40):
        if notebook.page.evaluate("document.activeElement.getAttribute('aria-label')") == "Approve this call":
            break
        keys.press("Shift+Tab")
    else:
        pytest.fail("Shift+Tab does not lead to the question.")
    keys.press("Enter")
    notebook.wait_for_text(1, "Take an umbrella.")
    assert notebook.page.evaluate("document.activeElement.closest('.llm-Tool') !== null"), "the focus was lost"
    keys.press("Control+S")
    notebook.wait(f"!{PANEL}.context.model.dirty")
    (tool,) = transcript(notebook.saved(), 1).tools
    assert tool.state == "done"


def test_keys_alone_fold_and_unfold(open_notebook: Open) -> None:
    notebook = open_notebook([TOOLS, "%%chat -m model -t weather --approve auto\nHow is the weather?"])
    notebook.run(0)
    notebook.run(1)
    row = notebook.output(1).locator("summary").first
    row.focus()
    body = notebook.output(1).get_by_text("looking out of the window").first
    was = body.is_visible()
    notebook.page.keyboard.press("Enter")
    assert body.is_visible() != was
    notebook.page.keyboard.press("Tab")
    assert notebook.page.evaluate("document.activeElement.closest('.llm-Transcript') !== null")


@pytest.mark.parametrize(
    ("app", "theme"),
    [("lab", "JupyterLab Light"), ("lab", "JupyterLab Dark"), ("notebook", "JupyterLab Dark")],
    ids=["light", "dark", "dark in Notebook 7"],
)
def test_axe_finds_nothing_serious(open_notebook: Open, axe: str, app: str, theme: str) -> None:
    notebook = open_notebook([TOOLS, "%%chat -m model -t weather --approve auto\nHow is the weather?", ASK], app=app)
    notebook.run(0)
    notebook.theme(theme)
    notebook.run(1)
    notebook.run(2, wait=False)
    notebook.output(2).locator(".llm-Approval").wait_for()
    notebook.page.evaluate("document.querySelectorAll('.llm-Transcript details').forEach(d => { d.open = true })")
    notebook.page.evaluate(axe)
    results: Any = notebook.page.evaluate("async () => await axe.run('.llm-Transcript')")
    serious = [v for v in results["violations"] if v["impact"] in ("serious", "critical")]
    assert results["passes"]
    assert [(v["id"], [n["html"][:200] for n in v["nodes"]]) for v in serious] == []
    press(notebook, 2, "Deny this call")
    notebook.ran()
