"""Several pages on one notebook: each with its own copy of it, and with jupyter-collaboration all with the same one."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from llm_magics.transcript import MIME_TYPE

from .conftest import Open, _close, _opener
from .driver import PANEL, Notebook, jupyter_server
from .test_chat import CHAT, SETUP, WORDS, shown, transcript

pytestmark = pytest.mark.browser

SLOW = SETUP.replace("tokens_per_second=60", "tokens_per_second=12")
SETTLED_MS = 2_000  # what one page writes has reached the others by then, and a second output would be there
WRITE_TWICE = "(cell => { const all = cell.getOutputs(); cell.updateOutputs(all.length, all.length, all.slice(0, 1)); })"


@pytest.fixture(scope="session")
def shared_lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """A server whose pages share their documents."""
    packages = Path(sys.prefix) / "collaboration"
    if not packages.exists():
        pytest.fail("jupyter-collaboration is not installed beside the environment; run: make .venv/.collaboration")
    root = tmp_path_factory.mktemp("shared")
    with jupyter_server(root, beside=packages) as base:
        yield base, root


@pytest.fixture
def open_shared(browser: Any, shared_lab: tuple[str, Path]) -> Iterator[Open]:
    opened: list[Notebook] = []
    yield _opener(browser, shared_lab, opened, True)
    _close(opened)


def turns(notebook: Notebook, number: int) -> list[tuple[str, list[str]]]:
    """State and words of each turn in a cell's outputs."""
    found = [output["data"].get(MIME_TYPE, {}) for output in notebook.outputs(number)]
    return [
        (turn.get("state"), [word for s in turn.get("segments", ()) for word in s.get("text", "").split()]) for turn in found
    ]


def status(notebook: Notebook) -> str:
    return notebook.page.evaluate(f"{PANEL}.sessionContext.session.kernel.status")


@pytest.mark.parametrize("event", ["nobody leaves", "the other page reloads", "the executing page reloads", "it closes"])
def test_pages_that_share_a_notebook_lose_and_double_nothing(open_shared: Open, event: str) -> None:
    notebook = open_shared([SLOW, CHAT])
    assert notebook.page.evaluate(f"{PANEL}.context.model.collaborative") is True
    notebook.run(0)
    second = notebook.again()
    notebook.run(1, wait=False)
    for page in (notebook, second):
        page.wait_for_text(1, WORDS[3])
        assert status(page) == "busy"
    assert WORDS[-1] not in second.text(1)
    left = [notebook, second]
    if event == "the other page reloads":
        second.open(kernel=False)
    elif event == "the executing page reloads":
        notebook.open(kernel=False)
    elif event == "it closes":
        notebook.page.close(run_before_unload=True)
        left = [second]
    for page in left:
        page.wait_for_text(1, WORDS[-1])
        page.wait(f"{PANEL}.content.widgets[1].model.sharedModel.getOutputs().some(o => o.data[a]?.steps)", MIME_TYPE)
        page.page.wait_for_timeout(SETTLED_MS)
    for page in left:
        assert turns(page, 1) == [("stop", WORDS)]
        assert shown(page, 1) == WORDS
    for page in left:  # as a page does that knows of no other
        page.page.evaluate(f"{WRITE_TWICE}({PANEL}.content.widgets[1].model.sharedModel)")
    for page in left:
        page.wait(f"{PANEL}.content.widgets[1].model.sharedModel.getOutputs().length === 1")
        page.page.wait_for_timeout(SETTLED_MS)
        assert turns(page, 1) == [("stop", WORDS)]
        assert shown(page, 1) == WORDS
    assert len(transcript(left[-1].save(), 1).steps) == 1
    second.shut_down()


def test_a_page_with_its_own_copy_keeps_what_the_page_that_closed_had_begun(open_notebook: Open) -> None:
    notebook = open_notebook([SLOW, CHAT])
    notebook.run(0)
    notebook.save()
    second = notebook.again()
    notebook.run(1, wait=False)
    second.wait_for_text(1, WORDS[3])
    assert status(second) == "busy"
    notebook.page.close()
    second.wait_for_text(1, WORDS[-1])
    second.page.wait_for_timeout(SETTLED_MS)
    assert turns(second, 1) == [("stop", WORDS)]
    turn = transcript(second.save(), 1)
    assert (turn.text.split(), len(turn.steps)) == (WORDS, 1)
    second.shut_down()
