"""What the page's form writes into a cell's metadata: the kernel makes that cell a tool, and follows each later change."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.kernel.notebook import Notebook, notebook

pytestmark = pytest.mark.kernel

Cells = list[dict[str, Any]]
SOURCE = "print(word, word)"


@pytest.fixture
def book() -> Iterator[Notebook]:
    with notebook() as opened:
        yield opened


def form(name: str, **more: str) -> dict[str, Any]:
    return {"name": name, "description": "Say it twice.", "parameters": "word: str", **more}


def cell(tool: dict[str, Any] | None, source: str = SOURCE) -> dict[str, Any]:
    return {"id": "said", "type": "code", "source": source, "tags": [], "tool": tool}


def page(book: Notebook, cells: Cells) -> Callable[[dict[str, Any]], None]:
    """A page whose notebook holds these cells."""

    def heard(message: dict[str, Any]) -> None:
        if message["kind"] == "ask" and message["what"] == "cells":
            book.tell(kind="reply", id=message["id"], data=cells)

    return heard


def tools(book: Notebook, cells: Cells) -> str:
    """What ``%tools`` lists on that page."""
    ran = book.must("%tools", "listing", on_link=page(book, cells))
    return re.sub(r" +\(", "(", "".join(bundle["text/plain"] for bundle in ran.bundles)) or ran.printed


def test_a_cell_that_was_run_before_becomes_a_tool_by_the_form(book: Notebook) -> None:
    book.must("word = 'a'", None)
    book.must(SOURCE, "said")
    assert "No tool is registered." in tools(book, [cell(None)])
    assert "twice(word: str)" in tools(book, [cell(form("twice"))])


def test_each_later_change_of_the_form_is_followed(book: Notebook) -> None:
    assert "twice(word: str)" in tools(book, [cell(form("twice"))])
    changed = tools(book, [cell(form("again", parameters="word: str, n: int = 2"))])
    assert "again(word: str, n: int = 2)" in changed
    assert "twice" not in changed
    assert "auto" in tools(book, [cell(form("again", approve="auto"))])
    assert "No tool is registered." in tools(book, [cell(None)])


def test_a_tool_by_the_form_is_one_as_soon_as_its_cell_runs_and_runs_as_it_stands_then(book: Notebook) -> None:
    told = {"llm_magics": {"tool": form("twice", approve="auto")}}
    book.must("word = 'a'", None)
    book.must(SOURCE, "said", metadata=told)
    assert "a a" not in book.must('%tools test twice {"word": "b"}', None).printed
    book.must("print(word, 'edited')", "said", metadata=told)
    assert "b edited" in book.must('%tools test twice {"word": "b"}', None).printed


def test_a_tool_that_the_user_took_away_stays_away_until_its_cell_says_something_else(book: Notebook) -> None:
    cells = [cell(form("twice"))]
    assert "twice" in tools(book, cells)
    book.must("%tools forget twice", None)
    assert "No tool is registered." in tools(book, cells)
    assert "thrice" in tools(book, [cell(form("thrice"))])


@pytest.mark.parametrize("wrong", [form("not a name"), form("f", parameters="word str"), form("f", approve="maybe")])
def test_what_is_wrong_with_a_form_is_said_and_names_the_cell(book: Notebook, wrong: dict[str, Any]) -> None:
    said = book.must("%tools", "listing", on_link=page(book, [cell(wrong)])).printed
    assert f"Another cell ({SOURCE}) cannot be a tool." in said
    assert book.alive


def test_a_tool_s_own_line_goes_before_the_form(book: Notebook) -> None:
    source = f"%%tool own(word: str)\n{SOURCE}"
    assert "No tool is registered." in tools(book, [cell(form("form"), source)])
    book.must(source, "said", metadata={"llm_magics": {"tool": form("form")}})
    assert "own(word: str)" in tools(book, [cell(form("form"), source)])
    assert "form(" not in tools(book, [cell(form("form"), source)])
