"""``%thread`` and ``%llm``: conversations shown, forked, exported, and read back from a saved notebook in a fresh kernel."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest

from llm_magics.kernel.runtime import LEFT
from llm_magics.transcript import MIME_TYPE, Transcript
from tests.kernel.notebook import Cell, Notebook, notebook

from .test_chat import ECHO

pytestmark = pytest.mark.kernel


@pytest.fixture(scope="module")
def shared() -> Iterator[Notebook]:
    with notebook(ECHO) as opened:
        yield opened


@pytest.fixture
def book(shared: Notebook) -> Notebook:
    shared.must("held = get_ipython()._llm_magics_runtime\nheld.threads.clear()\nheld.current_thread = 'main'", None)
    return shared


@pytest.fixture
def tools(book: Notebook) -> Iterator[Notebook]:
    """The notebook with two tools."""
    for name in ("look_up", "look_out"):
        book.must(f"%%tool {name}(what: str)\n# Look.\nwhat")
    yield book
    for name in ("look_up", "look_out"):
        book.must(f"%tools forget {name}")


def shown(cell: Cell) -> str:
    return "\n".join(bundle["text/plain"] for bundle in cell.bundles)


def saved(path: Path, cells: list[tuple[str, str, Cell]]) -> Path:
    """Save cells as a front end does: id, source, outputs."""
    document = nbformat.v4.new_notebook()
    for cell_id, source, ran in cells:
        outputs = [nbformat.v4.new_output("display_data", data=bundle) for bundle in ran.bundles]
        document.cells.append(nbformat.v4.new_code_cell(source, id=cell_id, outputs=outputs))
    nbformat.validate(document)
    nbformat.write(document, path)
    return path


def test_show_lists_the_turns(book: Notebook) -> None:
    book.must("%%chat\nfirst question")
    text = shown(book.must("%thread"))
    assert "first question" in text
    assert "1: first question" in text
    assert "'main', 1 turn" in text


def test_a_fork_goes_its_own_way(book: Notebook) -> None:
    book.must("%%chat\none")
    book.must("%thread fork side")
    assert book.must("%%chat\ntwo").transcript.text == "2: two"
    book.must("%thread use main")
    assert book.must("%%chat\nzwei").transcript.text == "2: zwei"
    listed = shown(book.must("%thread list"))
    assert "* main" in listed
    assert "side" in listed


def test_reset_begins_anew(book: Notebook) -> None:
    book.must("%%chat\none")
    book.must("%thread reset")
    assert book.must("%%chat\ntwo").transcript.text == "1: two"


@pytest.mark.parametrize(
    ("line", "said"),
    [("%thread use nowhere", "nowhere"), ("%thread dance", "dance"), ("%thread fork main", "already"),
     ("%thread restore /no/such.ipynb", "no notebook"), ("%thread use", "needs the name"), ("%llm fly", "fly"),
     ("%unload_model nothing", "nothing")],
)  # fmt: skip
def test_a_mistake_is_one_sentence(book: Notebook, line: str, said: str) -> None:
    book.must("%%chat\none")
    ran = book.run(line)
    assert ran.reply["status"] == "error"
    assert said in ran.reply["evalue"]


def test_export_writes_json_and_markdown(book: Notebook, tmp_path: Path) -> None:
    book.must("%%chat\none")
    book.must(f"%thread export {tmp_path / 'talk.json'}")
    book.must(f"%thread export {tmp_path / 'talk.md'}")
    (turn,) = json.loads((tmp_path / "talk.json").read_text())
    assert turn["prompt"] == "one"
    assert "**You:** one" in (tmp_path / "talk.md").read_text()


def test_a_conversation_is_restored_from_the_saved_outputs_alone(book: Notebook, tmp_path: Path) -> None:
    ran = [(name, f"%%chat\n{name}", book.must(f"%%chat -s 'Be kind.'\n{name}", name)) for name in ("a", "b", "c")]
    ran[1] = ("b", "%%chat\nnew b", book.must("%%chat\nnew b", "b"))  # c is stale from here on
    aside = book.must("%%chat --no-history\naside", "d")
    path = saved(tmp_path / "talk.ipynb", [*ran, ("d", "%%chat --no-history\naside", aside)])
    with notebook(ECHO) as fresh:
        assert "Restored 2 turns" in shown(fresh.must(f"%thread restore {path}"))
        assert fresh.must("%%chat\nnext", "e").transcript.text == "3: next"
        assert fresh.value("[m.text for m in echo.requests[-1].messages if m.role != 'assistant']") == (
            "['Be kind.', 'a', 'new b', 'next']"
        )
        assert fresh.must("%%chat\nother b", "b").transcript.text == "2: other b"


def test_a_notebook_without_a_conversation_says_so(book: Notebook, tmp_path: Path) -> None:
    path = saved(tmp_path / "empty.ipynb", [("a", "1 + 1", book.must("1 + 1"))])
    assert "no saved conversation" in book.run(f"%thread restore {path}").reply["evalue"]


def test_strip_takes_the_records_and_leaves_what_is_read(book: Notebook, tmp_path: Path) -> None:
    cell = book.must("%%chat -s 'A secret instruction.'\nhello", "a")
    path = saved(tmp_path / "talk.ipynb", [("a", "%%chat\nhello", cell)])
    assert "A secret instruction." in path.read_text()
    book.must(f"%llm strip {path}")
    text = path.read_text()
    assert "A secret instruction." not in text
    (output,) = nbformat.read(path, 4).cells[0].outputs
    assert output.data["text/markdown"].startswith("1: hello")
    assert "steps" not in output.data[MIME_TYPE]


def test_status_and_models_say_what_there_is(book: Notebook) -> None:
    assert "echo" in shown(book.must("%llm"))
    listed = shown(book.must("%models"))
    assert "* echo" in listed
    assert "smollm2-135m" in listed


def test_reloading_the_extension_keeps_models_and_conversations(book: Notebook) -> None:
    book.must("%%chat\none")
    book.must("%reload_ext llm_magics")
    assert book.must("%%chat\ntwo").transcript.text == "2: two"
    book.must("%unload_ext llm_magics")
    assert not book.run("%%chat\nhi").ok
    book.must("%load_ext llm_magics")
    assert book.must("%%chat\nthree").transcript.text == "3: three"


def test_the_cells_whose_turns_left_the_conversation_say_so(book: Notebook) -> None:
    book.must("%%chat\none", "first")
    later = [book.must("%%chat\ntwo", "second"), book.must("%%chat --samples 2\nthree", "third")]
    aside = book.must("%%chat --no-history\nfour", "aside")
    again = book.must("%%chat\none, again", "first")
    assert LEFT not in str(again.bundles)
    marked = {said["transient"]["display_id"]: said["data"] for said in again.of("update_display_data") if LEFT in str(said)}
    displays = [cell.of("display_data")[0]["transient"]["display_id"] for cell in (*later, aside)]
    assert list(marked) == displays[:2]
    two = marked[displays[0]]
    assert all(LEFT in two[form] for form in ("text/html", "text/plain"))
    kept = Transcript.from_json(two[MIME_TYPE])
    assert kept.segments[:-1] == later[0].transcript.segments
    assert (kept.turn, kept.settings, kept.steps) == tuple(
        getattr(later[0].transcript, name) for name in ("turn", "settings", "steps")
    )
    assert LEFT not in str(book.must("%%chat\none, once more", "first").of("update_display_data"))


def test_tab_completes_options_values_and_names(book: Notebook) -> None:
    book.must("%%chat --thread travel\nhi")
    assert {"--temp", "--temperature"} <= set(book.complete("%%chat --te"))
    assert set(book.complete("%%chat --show-reasoning ")) >= {"fold", "full", "hide"}
    assert "smollm2-135m" in book.complete("%load_model smol")
    assert "echo" in book.complete("%%chat -m ec")
    assert "travel" in book.complete("%%chat --thread tr")
    assert set(book.complete("%thread re")) >= {"reset", "restore"}
    assert "f16" in book.complete("%load_model x --kv f")
    assert "--temp" not in book.complete("x = --te")


def test_tab_offers_no_words_of_python_on_lines_that_have_none(book: Notebook) -> None:
    assert book.complete("%tools ") == ["forget", "list", "set", "test", "why"]
    assert book.complete("%models ") == ["all"]
    for line, word in (("%tools forget nosuch", "nosuch"), ("%models nosuch", "nosuch"), ("%thread use nosuch", "nosuch")):
        assert book.complete(line) == [word]  # the word itself: nothing to add
    assert any(name.endswith("test_threads.py") for name in book.complete(f"%thread export {__file__}"[:-5]))


def test_tab_completes_names_inside_braces(book: Notebook) -> None:
    book.must("readings = [1]\nclass Table: header = 1\ntable = Table()", None)
    for line in ("%%chat\nExplain {{readi", "%%chat\nExplain {{len(readi", "%%chat -s {{readi", "%%chat What is {{readi"):
        assert book.complete(line) == ["readings"], line
    assert book.complete("%%chat\nExplain {{table.he") == ["table.header"]


def test_unloading_brings_back_the_magics_that_had_the_names_before(book: Notebook) -> None:
    book.must("%unload_ext llm_magics")
    book.must("get_ipython().register_magic_function(lambda line: 'of another', 'line', 'models')", None)
    try:
        book.must("%load_ext llm_magics")
        assert "echo" in shown(book.must("%models"))
        book.must("%unload_ext llm_magics")
        assert "of another" in shown(book.must("%models"))
        assert not book.run("%tools").ok
    finally:
        book.must("del get_ipython().magics_manager.magics['line']['models']", None)
        book.must("%load_ext llm_magics")


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("%%chat --approve ", ["ask", "auto", "deny"]),
        ("%%chat --approve=a", ["--approve=ask", "--approve=auto"]),
        ("%load_model smollm2-1", ["smollm2-135m", "smollm2-135m-instruct"]),
        ("%tools ", ["forget", "list", "set", "test", "why"]),
        ("%tools t", ["test"]),
        ("%tools forget look", ["look_out", "look_up"]),
        ("%tools set words look_up,look_o", ["look_up,look_out"]),
        ("%%chat -t look_up,look_o", ["look_up,look_out"]),
        ("%%chat --tools=look_o", ["--tools=look_out"]),
        ("%%tool plot(a: str, b=')', c: int = 3) --appr", ["--approve"]),
        ("%%tool plot(a: str) -> dict[str, int] --approve ", ["ask", "auto", "deny"]),
        ("%%tool plot() -> dict --t", ["--timeout"]),
        ("%%tool plot --scr", ["--scratch"]),
    ],
)
def test_tab_offers_nothing_of_python_s_on_a_magic_s_line(tools: Notebook, line: str, offered: list[str]) -> None:
    assert tools.complete(line) == offered


@pytest.mark.parametrize("line", ["%tools set look", "%tools why look", "%%tool plot(a: str, --appr", "%%tool look"])
def test_tab_offers_no_tool_and_no_option_where_neither_can_stand(tools: Notebook, line: str) -> None:
    assert not {"look_up", "look_out", "--approve"} & set(tools.complete(line))
