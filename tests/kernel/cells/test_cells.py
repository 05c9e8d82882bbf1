"""Cells as tools in a real kernel: what a run gives the model and the reader, and that it leaves no trace in the namespace."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from llm_magics.kernel.cells.names import Ledger, names_of
from llm_magics.kernel.options.tools import read_header
from tests.kernel.notebook import Cell, Notebook, notebook

pytestmark = pytest.mark.kernel

SETUP = """
from llm_magics import Message, ScriptedModel, ToolCall
import json, re
def answer(request):
    last = request.messages[-1]
    found = re.fullmatch(r"call (\\w+) (.*)", last.text) if last.role == "user" else None
    return ToolCall(found[1], found[2]) if found else "done"
import itertools
model = ScriptedModel(itertools.repeat(answer), name="obedient")
%load_model model
base = 10
"""


@pytest.fixture(scope="module")
def book() -> Iterator[Notebook]:
    with notebook(SETUP) as opened:
        yield opened


def call(book: Notebook, name: str, arguments: str = "{}", line: str = "") -> Cell:
    return book.run(f"%%chat {line}\ncall {name} {arguments}")


def test_parameters_are_variables_of_the_run_and_leave_no_trace(book: Notebook) -> None:
    book.must("n = 'mine'\n5 + 5")
    body = "# Scale a number\nprint('scaling', n)\nn * factor * base"
    book.must(f"%%tool scale(n: int, factor: float = 2.0) -> float --approve auto\n{body}")
    (run,) = call(book, "scale", '{"n": "3"}').transcript.tools
    assert (run.state, run.result, run.printed) == ("done", "scaling 3\n60.0", "scaling 3\n")
    assert book.value("n") == "'mine'"
    assert book.value("'factor' in globals()") == "False"
    assert book.value("60.0 in Out.values()") == "False"


def test_an_error_names_its_line_and_the_kernel_goes_on(book: Notebook) -> None:
    book.must("%%tool breaks() --approve auto\n# Fail\nx = 1\nx / 0")
    (run,) = call(book, "breaks").transcript.tools
    assert (run.state, "ZeroDivisionError" in (run.result or ""), "line 3" in (run.result or "")) == ("failed", True, True)
    assert book.alive


def test_a_cell_that_is_no_valid_python_is_no_tool(book: Notebook) -> None:
    ran = book.run("%%tool unfinished(n: int)\nn + 1\nn +")
    assert ran.reply["ename"] == "ToolError"
    assert "not valid Python: invalid syntax (line 2 of the cell)" in ran.reply["evalue"]
    assert "unfinished" not in book.must("%tools").printed


def test_magics_and_top_level_await_work(book: Notebook) -> None:
    body = "# Wait\nimport asyncio\nawait asyncio.sleep(0.01)\n!echo from the shell\n'awaited'"
    book.must(f"%%tool waits() --approve auto\n{body}")
    (run,) = call(book, "waits").transcript.tools
    assert run.state == "done"
    assert "awaited" in (run.result or "")


def test_exit_in_a_cell_tool_is_a_result(book: Notebook) -> None:
    book.must("%%tool leaves() --approve auto\n# Leave\nexit()")
    (run,) = call(book, "leaves").transcript.tools
    assert (run.state, book.alive) == ("failed", True)


def test_a_plot_is_a_picture_for_the_reader_and_words_for_the_model(book: Notebook) -> None:
    book.must("%matplotlib inline\nimport matplotlib.pyplot as plt")
    book.must("%%tool draw(title: str) --approve auto\n# Draw\nplt.plot([1, 2, 3])\nplt.title(title)\nNone")
    (run,) = call(book, "draw", '{"title": "Rising"}').transcript.tools
    assert any("image/png" in bundle for bundle in run.outputs)
    assert '"Rising": 1 line' in (run.result or "")


def test_scratch_runs_on_a_copy(book: Notebook) -> None:
    book.must("%%tool trial() --approve auto --scratch\n# Try\nbase = 99\nfresh = 1\nbase")
    (run,) = call(book, "trial").transcript.tools
    assert run.result == "99"
    assert (book.value("base"), book.value("'fresh' in globals()")) == ("10", "False")


def test_a_cell_asks_before_it_runs_and_nobody_there_is_a_no(book: Notebook) -> None:
    book.must("ran = []")
    book.must("%%tool careful(x: int)\n# Be careful\nran.append(x)")
    (run,) = call(book, "careful", '{"x": 1}').transcript.tools
    assert (run.state, book.value("ran")) == ("refused", "[]")
    assert run.ask is not None
    assert "ran.append(x)" in run.ask.shown
    (run,) = call(book, "careful", '{"x": 2}', "--approve auto").transcript.tools
    assert (run.state, book.value("ran")) == ("done", "[2]")


def test_a_first_line_comment_and_a_tag_make_cells_tools(book: Notebook) -> None:
    book.run("# %tool double(k: int = 4) --approve auto\n# Double it\nk * 2")
    assert call(book, "double", '{"k": 21}').transcript.tools[0].result == "42"
    book.run("size = 3", tags=("parameters",))
    book.run("# Area of a square\nsize ** 2", tags=("tool:area",))
    (run,) = call(book, "area", '{"size": 5}', "--approve auto").transcript.tools
    assert run.result == "25"


def test_a_parameters_cell_that_is_a_tool_is_shown_as_it_runs(book: Notebook) -> None:
    book.must("ran = []")
    book.run("# %tool square(side: int)\n# Square it\nside = 3\nran.append(side)", tags=("parameters",))
    (run,) = call(book, "square", '{"side": 5}').transcript.tools
    assert run.ask is not None
    assert "side = 3" not in run.ask.shown
    assert "ran.append(side)" in run.ask.shown
    call(book, "square", '{"side": 6}', "--approve auto")
    assert book.value("ran") == "[3, 6]"


def test_a_run_on_stale_state_is_warned_about(book: Notebook) -> None:
    for source in ("raw = 1", "made = raw + 1", "raw = 2"):
        book.must(source)
    book.must("%%tool look() --approve auto\n# Look\nmade")
    (run,) = call(book, "look").transcript.tools
    assert any("made was made before raw was last changed" in warning for warning in run.warnings)


def test_tools_lists_tests_and_explains(book: Notebook) -> None:
    book.must("%%tool small(x: int) --approve auto\n# Small\nx + 1")
    assert "small" in json.dumps(book.run("%tools").bundles)
    assert "the model reads:\n2" in book.run('%tools test small {"x": 1}').printed
    call(book, "small", '{"x": 1}')
    told = book.run("%tools why").printed
    assert "Offered:" in told
    assert "small" in told


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("f", ("f", None, "")),
        ("f()", ("f", "", "")),
        ("f(a: str = ')', b=1) -> dict[str, int] --approve auto", ("f", "a: str = ')', b=1", "dict[str, int]")),
        ("f(x: Literal['a-b', '--c']) --scratch", ("f", "x: Literal['a-b', '--c']", "")),
    ],
)
def test_headers_are_read_as_python_and_options(line: str, expected: tuple[str, str | None, str]) -> None:
    header = read_header(line)
    assert (header.name, header.parameters, header.returns) == expected


@pytest.mark.parametrize(
    ("source", "reads"),
    [
        ("y = x", {"x"}), ("x = 1\ny = x", set()), ("x += 1", {"x"}), ("[i for i in xs]", {"xs"}), ("print(len(a))", {"a"}),
        ("def f(a): return a + b", {"b"}), ("import m\nm.go()", set()), ("for i in r: i", {"r"}), ("lambda q: q + z", {"z"}),
        ("class C:\n    v = w", {"w"}), ("with o as p: p", {"o"}), ("f'{name}'", {"name"}),
    ],
)  # fmt: skip
def test_the_names_that_a_cell_reads_are_known(source: str, reads: set[str]) -> None:
    assert names_of(source).reads == reads


def test_staleness_is_found_through_several_cells() -> None:
    ledger = Ledger()
    for source in ("a = 1", "b = a", "c = b", "a = 2"):
        ledger.ran(names_of(source))
    assert len(ledger.stale(["c"])) == 1
    for source in ("b = a", "c = b"):
        ledger.ran(names_of(source))
    assert ledger.stale(["c"]) == []


# --- what a run leaves and what it gives --------------------------------------------------------------------------------------


def test_underscore_out_and_the_execution_count_stay_as_they_were(book: Notebook) -> None:
    look = "(_, __, sorted(Out), get_ipython().execution_count)"
    book.must("%%tool counts() --approve auto\n# Count\nprint(1)\n123456")
    book.must("6 * 7")
    before = book.must(f"print({look})").printed
    (run,) = call(book, "counts").transcript.tools
    assert run.result == "1\n123456"
    after = book.must(f"print({look})").printed
    assert before.startswith("(42, ")
    # Two cells ran in between, the chat and this one; the tool's own run counts for nothing.
    assert after == before.replace(f" {count_of(before)})", f" {count_of(before) + 2})")


def count_of(shown: str) -> int:
    return int(shown.strip().rstrip(")").rpartition(" ")[2])


def test_a_table_is_short_for_the_model_and_a_table_for_the_reader(book: Notebook) -> None:
    book.must("import pandas as pd")
    book.must("%%tool rows(n: int) --approve auto\n# Make rows\npd.DataFrame({'x': range(n), 'y': range(n)})")
    (run,) = call(book, "rows", '{"n": 500}').transcript.tools
    assert run.result is not None
    assert len(run.result) < 500
    assert "490 more rows" in run.result
    assert any("<table" in bundle.get("text/html", "") for bundle in run.outputs)


def test_a_picture_of_pillow_is_a_picture_for_the_reader_and_words_for_the_model(book: Notebook) -> None:
    body = "# Make a picture\nfrom PIL import Image\nImage.new('RGB', (w, 2), 'red')"
    book.must(f"%%tool paint(w: int) --approve auto\n{body}")
    (run,) = call(book, "paint", '{"w": 3}').transcript.tools
    assert any("image/png" in bundle for bundle in run.outputs)
    assert run.result is not None
    assert "3" in run.result
    assert "base64" not in run.result


def test_a_figure_that_is_the_value_is_shown_once(book: Notebook) -> None:
    book.must("%matplotlib inline\nfrom matplotlib.figure import Figure")
    body = "# Draw\nfig = Figure()\nfig.subplots().plot([1, 2], label='a')\nfig"
    book.must(f"%%tool figure() --approve auto\n{body}")
    (run,) = call(book, "figure").transcript.tools
    assert sum("image/png" in bundle for bundle in run.outputs) == 1
    assert "1 line" in (run.result or "")


def test_scratch_keeps_what_the_run_assigns_and_deletes_to_itself(book: Notebook) -> None:
    book.must("kept = [1]\nalso = 'here'")
    body = "# Try\nkept = kept + [2]\ndel also\nlen(kept)"
    book.must(f"%%tool attempt() --approve auto --scratch\n{body}")
    (run,) = call(book, "attempt").transcript.tools
    assert run.result == "2"
    assert (book.value("kept"), book.value("also")) == ("[1]", "'here'")


@pytest.mark.parametrize(("option", "states"), [("", ["done", "refused"]), ("--repeats", ["done", "done"])])
def test_a_cell_that_gives_something_new_each_time_says_so(book: Notebook, option: str, states: list[str]) -> None:
    book.must("drawn = iter(range(9))")
    book.must(f"%%tool draw_one() --approve auto {option}\n# Draw\nnext(drawn)")
    book.must("draws = ScriptedModel([ToolCall('draw_one', '{}'), ToolCall('draw_one', '{}'), 'done'])\n%load_model draws")
    try:
        shown = book.must("%%chat -t draw_one --thread draws\ndraw twice").transcript
    finally:
        book.must("%load_model model")
    assert [run.state for run in shown.tools] == states


def test_a_called_cell_s_own_outputs_stay_as_they_were(book: Notebook) -> None:
    """An answer has one place: nothing is sent to where the cell ran last."""
    book.must("%%tool target() --approve auto\n# Say\nprint('into the target')\n7")
    ran = call(book, "target")
    assert ran.transcript.tools[0].result == "into the target\n7"
    assert not {"stream", "display_data", "execute_result", "clear_output"} & set(ran.stray)
