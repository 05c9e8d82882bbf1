"""``%%chat --n`` and ``%%compare`` in a real kernel: who is asked what, what is shown and saved, what a conversation keeps."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
import pytest

from llm_magics.errors import OptionError
from llm_magics.kernel.options.specs import CHAT, COMPARE
from llm_magics.views.columns import MIME_TYPE
from tests.kernel.notebook import Cell, Notebook, notebook

MODELS = """
import itertools, threading
from llm_magics import ScriptedModel, tool
from llm_magics.errors import ModelError
def answer(request):
    users = [m.text for m in request.messages if m.role == "user"]
    if users[-1] == "fail" and request.sampling.temperature == 1.0:
        return ModelError("no luck.")
    return f"{len(users)} {users[-1]} by seed {request.sampling.seed} at {request.sampling.temperature}"
one = ScriptedModel(itertools.repeat(answer), name="one", parallel=8)
two = ScriptedModel(itertools.repeat(lambda r: "Another **answer**."), name="two")
%load_model two
%load_model one
"""


@pytest.fixture(scope="module")
def shared() -> Iterator[Notebook]:
    with notebook(MODELS) as opened:
        yield opened


@pytest.fixture
def book(shared: Notebook) -> Notebook:
    """The module's kernel with empty conversations."""
    reset = "held = get_ipython()._llm_magics_runtime\nheld.threads.clear()\nheld.current_thread = 'main'\none.requests.clear()"
    shared.must(reset, None)
    return shared


def columns(cell: Cell) -> dict[str, Any]:
    """What the saved notebook has of the cell's columns."""
    (saved,) = [bundle[MIME_TYPE] for bundle in cell.bundles if MIME_TYPE in bundle]
    return dict(saved)


def texts(cell: Cell) -> list[str]:
    return [column["transcript"]["segments"][0]["text"] for column in columns(cell)["columns"]]


def headings(cell: Cell) -> list[str]:
    return [column["heading"] for column in columns(cell)["columns"]]


# --- the line -----------------------------------------------------------------------------------------------------------------


def test_what_is_given_more_than_once_varies() -> None:
    made = COMPARE.parse("replies -m a -m b --temp 0 --temp 1 --max-tokens 9").columns()
    assert [own for own, _ in made] == [
        {"model": model, "temperature": temperature} for model in ("a", "b") for temperature in (0.0, 1.0)
    ]
    assert {(o.variable, o.max_tokens) for _, o in made} == {("replies", 9)}
    assert [(o.model, o.temperature) for _, o in made] == [("a", 0.0), ("a", 1.0), ("b", 0.0), ("b", 1.0)]


def test_compare_knows_chat_s_options_but_those_of_a_conversation() -> None:
    assert set(CHAT.by_name) - set(COMPARE.by_name) == {
        "--samples", "--context", "-c", "--no-history", "--preview"
    }  # fmt: skip
    with pytest.raises(OptionError, match="no option --preview"):
        COMPARE.parse("--preview")
    assert "may be given again" in COMPARE.help()
    assert CHAT.parse("--n 5").samples == 5
    with pytest.raises(OptionError, match="from 1 to 32"):
        CHAT.parse("--n 0")


def test_tab_completes_compare_as_it_does_chat(book: Notebook) -> None:
    assert book.complete("%%compare --temp") == ["--temp", "--temperature"]
    assert {"one", "two"} <= set(book.complete("%%compare -m "))


# --- several samples ----------------------------------------------------------------------------------------------------------


def test_samples_stand_side_by_side_and_the_first_joins_the_conversation(book: Notebook) -> None:
    ran = book.must("%%chat replies --n 3 --seed 7\nhi")
    assert texts(ran)[0] == "1 hi by seed 7 at None"
    assert len(set(texts(ran))) == 3
    assert headings(ran)[0] == "1 · seed 7"
    assert columns(ran)["chosen"] == 0
    assert "The conversation continues with answer 1 of 3" in ran.bundles[-1]["text/plain"]
    assert book.value("[r.text for r in replies]") == repr(texts(ran))
    book.must("%%chat\nand then?")
    assert book.value("[m.text for m in one.requests[-1].messages]") == repr(["hi", texts(ran)[0], "and then?"])


def test_the_first_sample_is_what_the_same_seed_gives_alone(book: Notebook) -> None:
    many = book.must("%%chat --n 2 --seed 7 --no-history\nhi")
    assert book.must("%%chat --seed 7 --no-history\nhi").transcript.text == texts(many)[0]
    assert texts(book.must("%%chat --n 2 --seed 7 --no-history\nhi")) == texts(many)


def test_another_sample_can_be_picked_and_its_cell_shows_it(book: Notebook) -> None:
    book.must("%%chat\nfirst")
    ran = book.must("%%chat --n 3 --seed 7\nhi", "samples")
    updates: list[dict[str, Any]] = []
    book.must("%thread pick 3", on_message=lambda kind, said: updates.append(said) if kind == "update_display_data" else None)
    assert [u["data"][MIME_TYPE]["chosen"] for u in updates] == [2]
    book.must("%%chat\nmore")
    assert book.value("[m.text for m in one.requests[-1].messages][2:]") == repr(["hi", texts(ran)[2], "more"])


def test_of_the_newest_turn_another_answer_can_be_picked_again_and_again(book: Notebook) -> None:
    ran = book.must("%%chat --n 3 --seed 7\nhi")
    for number in (2, 3, 1):
        picked = book.must(f"%thread pick {number}", on_message=lambda kind, said: None)
        assert f"continues with answer {number}" in picked.bundles[0]["text/plain"]
        assert book.value("held.threads['main'].session.history[-1].text") == repr(texts(ran)[number - 1])


@pytest.mark.parametrize(("line", "said"), [("pick 4", "1 to 2"), ("pick x", "number"), ("pick", "number")])
def test_a_pick_of_nothing_says_what_there_is(book: Notebook, line: str, said: str) -> None:
    book.must("%%chat --n 2\nhi")
    assert said in book.run(f"%thread {line}").reply["evalue"]
    book.must("%%chat\nhi")
    assert "has one answer" in book.run("%thread pick 1").reply["evalue"]


def test_running_the_cell_again_replaces_the_turn(book: Notebook) -> None:
    book.must("%%chat --n 2 --seed 1\nhi", "a")
    assert texts(book.must("%%chat --n 2 --seed 2\nhi", "a"))[1].startswith("1 hi by seed")
    assert book.must("%%chat\nmore", "b").transcript.text.startswith("2 more")


def test_samples_of_a_turn_with_tools_run_one_after_another_in_the_cell_s_thread(book: Notebook) -> None:
    book.must(
        """
from llm_magics import ToolCall
threads = []
@tool
def where() -> str:
    "Say where it runs."
    threads.append(threading.current_thread() is threading.main_thread())
    return "here"
caller = ScriptedModel(itertools.repeat(
    lambda r: "done" if r.messages[-1].role == "tool" else ToolCall("where", "{}")), parallel=4)
""",
        None,
    )
    ran = book.must("%%chat -m caller -t where --n 2\ngo")
    assert book.value("threads") == "[True, True]"
    assert [c["transcript"]["segments"][0]["type"] for c in columns(ran)["columns"]] == ["tool", "tool"]
    book.must("%tools forget where")


# --- comparisons --------------------------------------------------------------------------------------------------------------


def test_models_are_asked_the_same_with_the_same_seed(book: Notebook) -> None:
    ran = book.must("%%compare replies -m one -m two\nhi")
    assert headings(ran) == ["one", "two"]
    seed = re.search(r"seed (\d+)", ran.bundles[-1]["text/plain"])
    assert seed is not None
    assert texts(ran) == [f"1 hi by seed {seed[1]} at None", "Another **answer**."]
    assert book.value("one.requests[-1].messages == two.requests[-1].messages") == "True"
    assert book.value("two.requests[-1].sampling.seed") == seed[1]
    assert book.value("len(replies)") == "2"


def test_settings_are_compared_and_a_given_seed_is_kept(book: Notebook) -> None:
    ran = book.must("%%compare --temp 0 --temp 1 --seed 5\nhi")
    assert texts(ran) == ["1 hi by seed 5 at 0.0", "1 hi by seed 5 at 1.0"]
    assert headings(ran) == ["temp 0", "temp 1"]
    assert texts(book.must("%%compare --seed 1 --seed 2\nhi")) == ["1 hi by seed 1 at None", "1 hi by seed 2 at None"]


def test_a_comparison_leaves_conversations_as_they_are(book: Notebook) -> None:
    book.must("%%chat\nfirst")
    assert texts(book.must("%%compare --temp 0 --temp 1\nhi"))[0].startswith("1 hi")
    assert texts(book.must("%%compare --temp 0 --temp 1 --thread main\nhi"))[0].startswith("2 hi")
    assert book.must("%%chat\nsecond").transcript.text.startswith("2 second")


def test_a_column_that_fails_says_so_and_the_others_go_on(book: Notebook) -> None:
    ran = book.must("%%compare --temp 0 --temp 1\nfail")
    assert [column["error"] for column in columns(ran)["columns"]] == ["", "no luck."]
    assert "no luck." in ran.bundles[-1]["text/plain"]
    assert "no luck." in book.run("%%compare --temp 1 --temp 1 --seed 1 --seed 2\nfail").reply["evalue"]


@pytest.mark.parametrize(
    ("line", "said"),
    [("", "nothing to compare"), ("-m one", "nothing to compare"), ("-m one -m ones", "Did you mean one"),
     (" ".join(f"--seed {n}" for n in range(17)), "at most 16")],
)  # fmt: skip
def test_what_cannot_be_compared_is_said_before_anything_is_asked(book: Notebook, line: str, said: str) -> None:
    assert said in book.run(f"%%compare {line}\nhi").reply["evalue"]
    assert book.value("one.requests") == "[]"


# --- what is shown ------------------------------------------------------------------------------------------------------------


def test_the_saved_cell_has_every_form_with_speeds_and_marked_words(book: Notebook) -> None:
    ran = book.must("%%compare -m one -m two --temp 0 --temp 1\nhi")
    bundle = ran.bundles[-1]
    assert set(bundle) == {"text/html", "text/markdown", "text/plain", MIME_TYPE}
    for form in ("text/html", "text/markdown", "text/plain"):
        assert len(re.findall(r"[\d.]+ tokens/s", bundle[form])) == 4
    assert '<u class="lm-differs">' in bundle["text/html"]
    assert "% of the words are the same" in bundle["text/html"]
    assert "{+" in bundle["text/plain"]
    assert bundle["text/markdown"].count("#### ") == 4


def test_columns_are_drawn_while_they_grow(book: Notebook) -> None:
    book.must("slow = ScriptedModel(itertools.repeat('word ' * 40), tokens_per_second=60, parallel=2)", None)
    seen: list[str] = []
    book.must(
        "%%chat -m slow --n 2 --no-history\nhi",
        on_message=lambda kind, said: seen.append(said["data"]["text/html"]) if "text/html" in said.get("data", {}) else None,
    )
    assert len(seen) > 2
    assert any(0 < html.count("word") < 80 for html in seen)


def test_nothing_of_long_answers_written_at_once_is_lost(book: Notebook) -> None:
    book.must("long = ' '.join(map(str, range(2000)))\nfast = ScriptedModel(itertools.repeat(long), parallel=8)", None)
    ran = book.must("%%chat replies -m fast --n 8 --no-history\nhi", "a")
    assert book.value("[r.text == long for r in replies]") == repr([True] * 8)
    assert len(set(texts(ran))) == 1


def test_an_interrupt_keeps_what_came_in_every_column(book: Notebook) -> None:
    book.must("slow = ScriptedModel(itertools.repeat('word ' * 4000), tokens_per_second=40, parallel=2)", None)
    struck: list[bool] = []

    def strike(kind: str, said: dict[str, Any]) -> None:
        if not struck and said.get("data", {}).get("text/html", "").count("word ") > 4:
            struck.append(True)
            book.interrupt()

    ran = book.run("%%chat replies -m slow --n 2\nhi", on_message=strike)
    assert ran.reply["ename"] == "KeyboardInterrupt"
    saved = columns(ran)["columns"]
    assert [c["transcript"]["state"] for c in saved] == ["interrupted", "interrupted"]
    assert all("word" in c["transcript"]["segments"][0]["text"] for c in saved)
    assert book.value("[r.finish_reason for r in replies]") == "['interrupted', 'interrupted']"
    assert book.must("%%chat -m one\nmore").transcript.text.startswith("2 more")


def test_a_restored_conversation_goes_on_with_the_chosen_answer(book: Notebook, tmp_path: Path) -> None:
    first = book.must("%%chat --n 3 --seed 7\nhi", "a")
    output = nbformat.v4.new_output("display_data", data=first.bundles[-1])
    output["data"][MIME_TYPE]["chosen"] = 1
    saved = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("%%chat --n 3", outputs=[output])])
    path = tmp_path / "saved.ipynb"
    nbformat.write(saved, path)
    book.must("held.threads.clear()", None)
    book.must(f"%thread restore {path}")
    book.must("%%chat\nmore")
    assert book.value("one.requests[-1].messages[1].text") == repr(texts(first)[1])
    book.must(f"%llm strip {path}")
    left = json.loads(path.read_text())["cells"][0]["outputs"][0]["data"][MIME_TYPE]["columns"]
    assert [set(c["transcript"]) & {"steps", "settings"} for c in left] == [set()] * 3


@pytest.mark.model
def test_a_real_model_s_samples_share_the_prompt_and_differ_by_seed(smollm: Path) -> None:
    with notebook("%load_model smollm2-135m --ctx 2048") as book:
        ran = book.must("%%chat replies --n 3 --seed 3 --temp 1.2 --max-tokens 12\nWrite a line about the sea.", "a")
        assert len(set(texts(ran))) == 3
        usage = [c["transcript"]["usage"] for c in columns(ran)["columns"]]
        assert [u["completion_tokens"] for u in usage] == [12] * 3
        assert sum(u["evaluated_tokens"] for u in usage) < usage[0]["prompt_tokens"] + 6
