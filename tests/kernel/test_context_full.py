"""A cell that does not fit into the model's context: the error names the ways out, and the conversation stays as it was."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest

from llm_magics.transcript import MIME_TYPE

from .notebook import Notebook, notebook

pytestmark = pytest.mark.kernel

SMALL = """
import itertools
from llm_magics import ScriptedModel, tool, ToolCall
def answer(request):
    return f"answer {sum(m.role == 'user' for m in request.messages)}"
small = ScriptedModel(itertools.repeat(answer), name="small", context_size=120)
%load_model small
long = "many words " * 200
"""


@pytest.fixture(scope="module")
def shared() -> Iterator[Notebook]:
    with notebook(SMALL) as opened:
        yield opened


@pytest.fixture
def book(shared: Notebook) -> Notebook:
    shared.must("held = get_ipython()._llm_magics_runtime\nheld.threads.clear()\nheld.current_thread = 'main'", None)
    return shared


def test_the_advice_names_what_can_be_typed_and_the_failed_turn_is_not_kept(book: Notebook) -> None:
    assert book.must("%%chat\nhello").transcript.text == "answer 1"
    ran = book.run("%%chat reply\n{{long}}")
    assert ran.reply["ename"] == "ContextFullError"
    for way in ("%thread reset", "--no-history", "--thread", "--context-shift", "--ctx"):
        assert way in ran.reply["evalue"]
    assert ran.transcript.state == "error"
    assert book.value("reply.finish_reason") == "'error'"
    assert book.value("len(held.threads['main'].session.turns)") == "1"
    assert book.must("%%chat\nhello again").transcript.text == "answer 2"


def test_a_first_cell_that_is_too_long_is_not_advised_to_reset(book: Notebook) -> None:
    said = book.run("%%chat\n{{long}}").reply["evalue"]
    assert "%thread reset" not in said
    assert "--ctx" in said


@pytest.mark.parametrize("way", ["%thread reset", "", "--no-history", "--thread other"])
def test_what_is_advised_helps(book: Notebook, way: str) -> None:
    book.must(f"%%chat\n{'words ' * 20}")
    book.must(f"%%chat\n{'words ' * 20}")
    cell = f"a question of {'words ' * 18}"
    assert book.run(f"%%chat\n{cell}").reply["status"] == "error"
    if way.startswith("%"):
        book.must(way)
    ran = book.run(f"%%chat {'' if way.startswith('%') else way}\n{cell}")
    assert (ran.reply["status"] == "ok") is bool(way)


def test_a_failed_turn_of_a_saved_notebook_is_no_part_of_the_conversation(book: Notebook, tmp_path: Path) -> None:
    cells = [("a", "one"), ("c", "two"), ("b", "{{long}}")]  # b stands last in the notebook
    ran = {cell: book.run(f"%%chat\n{text}", cell) for cell, text in (cells[0], cells[2], cells[1])}
    assert all(MIME_TYPE in one.bundles[-1] for one in ran.values())
    saved = nbformat.v4.new_notebook()
    for cell, text in cells:
        shown = nbformat.v4.new_output("display_data", data=ran[cell].bundles[-1])
        saved.cells.append(nbformat.v4.new_code_cell(f"%%chat\n{text}", id=cell, outputs=[shown]))
    path = tmp_path / "saved.ipynb"
    nbformat.write(saved, path)
    book.must("held.threads.clear()", None)
    book.must(f"%thread restore {path}")
    assert book.value("[turn.trace.prompt for turn in held.threads['main'].session.turns]") == "['one', 'two']"
