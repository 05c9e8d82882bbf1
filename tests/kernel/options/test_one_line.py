"""A question on one line, what a lone word means, and the one action that an error offers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from llm_magics.errors import OptionError
from llm_magics.kernel.magics.registration import with_body
from llm_magics.kernel.options.specs import CHAT, LOAD_MODEL, SPECS, ChatOptions
from llm_magics.views.card import ACTION_TYPE as ACTION
from tests.kernel.notebook import Cell, Notebook, notebook

ECHO = '''
from llm_magics import ScriptedModel
echo = ScriptedModel([lambda request: f"You said: {request.messages[-1].text}"] * 20)
'''


@pytest.fixture(scope="module")
def book() -> Iterator[Notebook]:
    with notebook(ECHO) as opened:
        opened.must("%load_model echo", None)
        yield opened


@pytest.mark.parametrize(
    ("line", "options", "question"),
    [
        ("What is a notebook?", ChatOptions(), "What is a notebook?"),
        ("--temp 0 --seed=1 What's a \"cell\"?", ChatOptions(temperature=0.0, seed=1), "What's a \"cell\"?"),
        ("-m small -q hello -q there", ChatOptions(model="small", quiet=True), "hello -q there"),
        ("Hello", ChatOptions(), "Hello"),
        ("- 3 + 4?", ChatOptions(), "- 3 + 4?"),
        ("-3 + 4?", ChatOptions(), "-3 + 4?"),
        ("--max-tokens 5", ChatOptions(max_tokens=5), ""),
        ("What does --temp 0 do?", ChatOptions(), "What does --temp 0 do?"),
    ],
)
def test_a_line_is_options_and_then_a_question(line: str, options: ChatOptions, question: str) -> None:
    assert CHAT.parse_question(line) == (options, question)


@pytest.mark.parametrize(
    ("cell", "seen"),
    [
        ("%%chat Hi?", "%%chat Hi?\n|\n"),
        ("%%chat\n  \n", "%%chat\n|\n"),
        ("%%compare -m a -m b Hi", "%%compare -m a -m b Hi\n|\n"),
        ("%%chat?", "%%chat?"),
        ("%%chat reply\nHi", "%%chat reply\n|Hi"),
        ("%%chatter\n", "%%chatter\n"),
        ("%%tool --help\n", "%%tool --help\n|\n"),
        ("%%tool area", "%%tool area"),
        ("%%time\n", "%%time\n"),
    ],
)
def test_a_cell_of_one_line_gets_an_empty_body(cell: str, seen: str) -> None:
    assert "|".join(with_body(cell.splitlines(keepends=True))) == seen


def test_a_question_on_one_line_is_asked(book: Notebook) -> None:
    assert "You said: What's a notebook?" in plain(book.must("%%chat What's a notebook?"))
    assert "You said: Who?" in plain(book.must("%%chat --temp 0 Who?\n\n"))
    book.must("city = 'Oslo'", None)
    assert "You said: Is Oslo far?" in plain(book.must("%%chat Is {{city}} far?"))
    ran = book.run("%%chat --tempp 0 What is a notebook?")
    assert "Did you mean --temp" in ran.reply["evalue"]
    assert "has no question" in book.run("%%chat").reply["evalue"]


def test_a_lone_word_is_a_variable_only_with_a_body(book: Notebook) -> None:
    assert "You said: Hello" in plain(book.must("%%chat Hello"))
    assert not book.run("Hello", None).ok
    assert "You said: Hi" in plain(book.must("%%chat Hello\nHi"))
    assert "You said: Hi" in book.must("print(Hello.text)", None).printed
    ran = book.run("%%chat Tell me\nof Oslo")
    assert "Write the question on the magic's line or below it, not on both." in ran.reply["evalue"]


def plain(ran: Cell) -> str:
    return "\n".join(str(bundle["text/plain"]) for bundle in ran.bundles)


def offered(messages: list[tuple[str, dict[str, Any]]]) -> list[dict[str, Any]]:
    return [said["data"][ACTION] for kind, said in messages if kind == "display_data" and ACTION in said["data"]]


def test_what_mends_an_error_is_offered_below_it() -> None:
    with notebook() as fresh:
        ran = fresh.run("%%chat Hi?")
        assert "No model is loaded." in ran.reply["evalue"]
        code = "%load_model qwen2.5-coder-0.5b"
        assert offered(ran.messages) == [{"label": "Load qwen2.5-coder-0.5b", "code": code}]
        kinds = [kind for kind, _ in ran.messages]
        assert kinds.index("error") < kinds.index("display_data")
        shown = next(said["data"] for kind, said in ran.messages if kind == "display_data")
        assert f"run {code} and then this cell again" in shown["text/plain"]
        assert f"<code>{code}</code>" in shown["text/html"]
        assert offered(fresh.run("1 / 0").messages) == []
        assert offered(fresh.run("%%chat --odd Hi").messages) == []


def test_one_letter_means_one_thing_in_all_magics() -> None:
    meanings: dict[str, set[str]] = {}
    for spec in SPECS.values():
        for option in spec.options:
            for name in option.names:
                if len(name) == 2:
                    meanings.setdefault(name, set()).add(option.names[0])
    assert meanings
    assert all(len(main) == 1 for main in meanings.values()), meanings


def test_an_old_spelling_works_and_is_told_and_an_ambiguous_one_is_refused() -> None:
    told: list[str] = []
    assert CHAT.parse("--n 5", None, told.append).samples == 5
    assert LOAD_MODEL.parse("m -c 4096 -t 2", None, told.append) == LOAD_MODEL.parse("m --ctx 4096 --threads 2")
    names = [line.partition(" is now called ")[2] for line in told]
    assert names == [f"{name}; the old name still works." for name in ("--samples", "--ctx", "--threads")]
    for old in ("-c", "-t"):
        assert f", {old} " not in LOAD_MODEL.help()
        assert f", {old}," not in LOAD_MODEL.help()
    for spec in (CHAT, SPECS["compare"]):
        with pytest.raises(OptionError, match=r"Write --max-tokens N for a limit in tokens, or --samples N"):
            spec.parse("-n 5")


def test_an_old_spelling_is_told_once(book: Notebook) -> None:
    first = plain(book.must("%%chat --n 2 --seed 1\nhi"))
    again = plain(book.must("%%chat --n 2 --seed 1\nhi"))
    assert ("is now called --samples;" in first, "is now called --samples;" in again) == (True, False)
