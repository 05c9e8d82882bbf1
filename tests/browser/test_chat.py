"""``%%chat`` as a person meets it, with and without the extension: typed, watched, stopped, saved and read again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from llm_magics.transcript import MIME_TYPE, Transcript

from .conftest import Open
from .driver import Notebook

pytestmark = pytest.mark.browser

WORDS = [f"word{number}" for number in range(60)]
SETUP = f"""%load_ext llm_magics
from itertools import repeat
from llm_magics import ScriptedModel
model = ScriptedModel(repeat({" ".join(WORDS)!r}), tokens_per_second=60)"""
CHAT = "%%chat -m model\nCount."


@pytest.fixture(params=["with the extension", "without it"])
def open_either(request: pytest.FixtureRequest) -> Open:
    """Open a notebook on a page with the extension, and on one without."""
    return request.getfixturevalue("open_notebook" if request.param == "with the extension" else "open_bare")


def shown(notebook: Notebook, number: int) -> list[str]:
    return [word for word in notebook.text(number).split() if word in WORDS]


def transcript(saved: Any, number: int) -> Transcript:
    """The turn, from nothing but the saved output."""
    return Transcript.from_json(saved.cells[number].outputs[0]["data"][MIME_TYPE])


def test_a_typed_cell_streams_and_its_answer_outlives_page_and_kernel(open_either: Open) -> None:
    notebook = open_either([SETUP, ""])
    notebook.run(0)
    notebook.type(1, CHAT)
    notebook.page.keyboard.press("Shift+Enter")
    notebook.wait_for_text(1, WORDS[10])
    early = shown(notebook, 1)
    notebook.wait_for_text(1, WORDS[-1])
    assert len(early) < len(WORDS)
    assert shown(notebook, 1) == WORDS
    notebook.idle()
    assert transcript(notebook.save(), 1).text.split() == WORDS
    notebook.shut_down()
    notebook.open(kernel=False)
    notebook.wait_for_text(1, WORDS[-1])
    assert shown(notebook, 1) == WORDS


def test_an_interrupted_answer_keeps_what_there_was(open_either: Open) -> None:
    notebook = open_either([SETUP, CHAT, "model.requests[-1].messages[-2].text"])
    notebook.run(0)
    notebook.run(1, wait=False)
    notebook.wait_for_text(1, WORDS[10])
    notebook.interrupt()
    notebook.idle()
    turn = transcript(notebook.save(), 1)
    assert turn.state == "interrupted"
    assert turn.text.split()[:10] == WORDS[:10]
    assert WORDS[-1] not in turn.text
    notebook.run(1, wait=False)
    notebook.wait_for_text(1, WORDS[-1])


def test_notebook_7_shows_it_too(open_either: Open) -> None:
    notebook = open_either([SETUP, CHAT], app="notebook")
    notebook.run(0)
    notebook.run(1, wait=False)
    notebook.wait_for_text(1, WORDS[5])
    assert WORDS[-1] not in notebook.text(1)
    notebook.wait_for_text(1, WORDS[-1])
    assert shown(notebook, 1) == WORDS


@pytest.mark.model
def test_a_real_model_answers_in_the_page(open_notebook: Open, smollm: Path) -> None:
    setup = f"%load_ext llm_magics\n%load_model {str(smollm)!r} --ctx 2048 --seed 1"
    notebook = open_notebook([setup, "%%chat --temp 0 --max-tokens 24\nSay hello."])
    notebook.run(0)
    notebook.run(1)
    turn = transcript(notebook.save(), 1)
    assert turn.text.strip()
    assert turn.state in ("stop", "length")
    assert turn.text.split()[0] in notebook.text(1)
