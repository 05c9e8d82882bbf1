"""What a cell leaves in the saved notebook, in a real kernel: nothing of other cells, unless it records; and how it grows."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
import pytest

from llm_magics.transcript import MIME_TYPE
from llm_magics.views.columns import MIME_TYPE as COLUMNS_TYPE
from tests.kernel.magics.test_chat import ECHO

from .notebook import Cell, Notebook, notebook

pytestmark = pytest.mark.kernel

RECORDS = Path(__file__).parents[1] / "records"
TOOLS = ECHO + """
@tool
def shouted(word: str) -> str:
    "Say a word loudly."
    return word.upper()
"""


@pytest.fixture(scope="module")
def shared() -> Iterator[Notebook]:
    with notebook(TOOLS) as opened:
        yield opened


@pytest.fixture
def book(shared: Notebook) -> Notebook:
    """The module's kernel with empty conversations."""
    shared.must("held = get_ipython()._llm_magics_runtime\nheld.threads.clear()\nheld.current_thread = 'main'", None)
    return shared


def saved(cell: Cell) -> dict[str, Any]:
    (data,) = [bundle[MIME_TYPE] for bundle in cell.bundles if MIME_TYPE in bundle]
    return dict(data)


def schemas(cell: Cell) -> list[str]:
    """The names of the tools whose descriptions this cell holds."""
    several = [bundle[COLUMNS_TYPE]["columns"] for bundle in cell.bundles if COLUMNS_TYPE in bundle]
    turns = [column["transcript"] for column in several[0]] if several else [saved(cell)]
    held = [schema for turn in turns for step in turn["steps"] for schema in step["recording"]["schemas"].values()]
    return [schema["function"]["name"] for schema in held]


def outputs(path: Path, *cells: Cell) -> Path:
    document = nbformat.v4.new_notebook()
    for at, ran in enumerate(cells):
        shown = [nbformat.v4.new_output("display_data", data=bundle) for bundle in ran.bundles]
        document.cells.append(nbformat.v4.new_code_cell("%%chat\n…", id=f"c{at}", outputs=shown))
    nbformat.write(document, path)
    return path


# --- nothing of other cells ---------------------------------------------------------------------------------------------------


def test_a_cell_keeps_nothing_that_another_cell_said(book: Notebook) -> None:
    book.must("%%chat -s 'An instruction of the system.' -t none\nA question of old.")
    later = json.dumps(book.must("%%chat -t none\nsomething else").bundles)
    assert "something else" in later
    assert "of old" not in later.replace("2: something else", "")
    assert "instruction" not in later
    assert str(Path.home()) not in later


def test_a_message_that_shows_another_cell_is_kept_as_it_was_sent(book: Notebook) -> None:
    """``-c`` puts the other cell into this cell's own message, and the conversation goes on from that."""
    book.must("shown_before = 'a value of the cell before'")
    turn = saved(book.must("%%chat -c prev -t none\nWhat is this?"))
    assert "a value of the cell before" in turn["prompt"]
    assert "a value of the cell before" not in json.dumps(turn["steps"])


def test_the_system_prompt_stands_in_the_first_cell_that_has_it_and_is_restored(book: Notebook, tmp_path: Path) -> None:
    cells = [book.must(f"%%chat {more} -t none\n{text}", text) for text, more in (("a", "-s 'Be kind.'"), ("b", ""), ("c", ""))]
    assert [saved(cell)["settings"].get("system") for cell in cells] == ["Be kind.", None, None]
    cells[2] = book.must("%%chat -s 'Be short.' -t none\nc", "c")
    again = book.must("%%chat -t none\nd", "d")
    assert "system" not in saved(again)["settings"]
    path = outputs(tmp_path / "talk.ipynb", *cells, again)
    book.must(f"held.threads.clear()\n%thread restore {path}")
    assert book.value("held.threads['main'].session.settings.system") == "'Be short.'"
    first = book.must("%%chat -t none\nother a", "a")  # the cell that brought "Be kind." has it no more: the newer one stays
    assert saved(first)["settings"]["system"] == "Be short."


def test_a_system_prompt_with_a_secret_leaves_no_hash_to_guess_it_by(book: Notebook) -> None:
    for more in ("-s 'The password=hunter2hunter2 opens it.'", ""):
        turn = saved(book.must(f"%%chat {more} -t none\nhello"))
        assert "hunter2" not in json.dumps(turn)
        assert "system" not in turn["steps"][0]["record"]["request"]


# --- record -------------------------------------------------------------------------------------------------------------------


def test_a_cell_that_records_says_so_in_its_last_line_and_in_its_record(book: Notebook) -> None:
    plain, recorded = book.must("%%chat\nhello"), book.must("%%chat --record\nhello")
    assert (saved(plain)["recorded"], saved(recorded)["recorded"]) == (False, True)
    for kind in ("text/plain", "text/html", "text/markdown"):
        assert "recorded" not in plain.bundles[0][kind]
        assert "· recorded" in recorded.bundles[0][kind][-60:]
    assert saved(recorded)["settings"]["options"] == {"record": True}
    assert "recording" not in saved(plain)["steps"][0]
    assert "hello" in saved(recorded)["steps"][0]["recording"]["prompt"]


def test_a_tool_s_description_stands_once_in_the_notebook_whichever_thread_records(book: Notebook) -> None:
    assert schemas(book.must("%%chat --record -t shouted\none", "a")) == ["shouted"]
    assert schemas(book.must("%%chat --record -t shouted\ntwo", "b")) == []
    assert schemas(book.must("%%chat --record -t shouted --thread side\nthree", "c")) == []
    assert schemas(book.must("%%chat --record -t shouted --thread main\nanew", "a")) == ["shouted"]


@pytest.mark.parametrize("line", ["%%chat --no-history", "%%compare --temp 0 --temp 1", "%%chat --n 2 --thread side"])
def test_the_cell_that_holds_a_description_holds_it_after_it_was_run_again(book: Notebook, line: str) -> None:
    for _ in range(2):
        assert schemas(book.must(f"{line} --record -t shouted\none", "a")) == ["shouted"]
    assert schemas(book.must("%%chat --record -t shouted\ntwo", "b")) == []


def test_what_a_quiet_cell_records_is_not_in_the_notebook(book: Notebook) -> None:
    book.must("%%chat r --record --quiet -t shouted\none", "a")
    assert book.value("len(r.trace.steps[0].recording['schemas'])") == "1"
    assert schemas(book.must("%%chat --record -t shouted\ntwo", "b")) == ["shouted"]


def test_compared_answers_are_recorded_each(book: Notebook) -> None:
    ran = book.must("%%compare --record --seed 1 --seed 2\nhello")
    (columns,) = [bundle[COLUMNS_TYPE]["columns"] for bundle in ran.bundles]
    assert [column["transcript"]["recorded"] for column in columns] == [True, True]
    assert ran.bundles[0]["text/plain"].count("· recorded") == 2


def test_where_the_rules_record_every_turn_is_recorded() -> None:
    with notebook("get_ipython().config.LLMMagics.record = True\n%reload_ext llm_magics", ECHO) as strict:
        held = "get_ipython()._llm_magics_runtime"
        strict.must(f"from llm_magics.kernel.rules import configured\n{held}.configured = configured(get_ipython())", None)
        assert saved(strict.must("%%chat\nhello"))["recorded"]
        assert "every turn" in strict.must("%llm").bundles[0]["text/plain"]


# --- growth -------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("record", ["", " --record"])
def test_a_saved_notebook_grows_by_the_same_bytes_with_every_turn(book: Notebook, record: str) -> None:
    sizes = []
    for at in range(24):
        ran = book.must(f"%%chat{record} -t shouted\nQuestion number {at:03}?", f"cell-{at:03}")
        sizes.append(sum(len(json.dumps(bundle)) for bundle in ran.bundles))
    assert max(sizes[12:]) - min(sizes[1:12]) < 300  # numbers of more digits
    assert max(sizes[1:]) < 8_000


@pytest.mark.model
@pytest.mark.parametrize("record", ["", " --record"])
def test_a_real_model_s_notebook_grows_linearly(record: str) -> None:
    with notebook("%load_model smollm2-135m --ctx 2048") as real:
        sizes = []
        for at in range(12):
            ran = real.must(f"%%chat --temp 0 --max-tokens 12 -t none{record}\nQuestion number {at:03}?", f"cell-{at:03}")
            sizes.append(sum(len(json.dumps(bundle)) for bundle in ran.bundles))
        assert max(sizes[6:]) - min(sizes[1:6]) < 1_000  # answers of another length


# --- notebooks of version 1 ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "n"), [("v1-plain", 3), ("v1-tools", 3), ("v1-threads", 4)])
def test_a_notebook_of_version_1_is_restored_continued_and_explained(book: Notebook, name: str, n: int) -> None:
    restored = book.must(f"%thread restore {RECORDS / f'{name}.ipynb'}").bundles[0]["text/plain"]
    assert f"{n} turns of thread 'main'" in restored
    book.must("%thread use main")
    assert "The model wrote" in book.must("%tools why").printed
    assert book.must("%%chat -t none\nand on").transcript.text == f"{n + 1}: and on"
    assert book.value("held.threads['main'].session.settings.system") in (
        "'Answer in one short sentence.'", "'You know trees.'", "'Be kind.'"
    )  # fmt: skip
