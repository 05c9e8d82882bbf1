"""Other cells as context: what ran, what it gave, what went wrong, cut to what a prompt can hold."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from llm_magics.errors import OptionError
from llm_magics.kernel.cells.context import Run, select, written
from tests.kernel.magics.test_chat import ECHO
from tests.kernel.notebook import Notebook, notebook

RUNS = [
    Run("a", "x = 1", ("data",)),
    Run("b", "1 / 0", error="ZeroDivisionError: division by zero"),
    Run("c", "%%chat\nhello"),
    Run("d", "print(x)"),
]
PAGE = [
    {"id": "d", "type": "code", "source": "print(x)", "tags": []},
    {"id": "m", "type": "markdown", "source": "# Title", "tags": ["intro"]},
    {"id": "n", "type": "code", "source": "never_run()", "tags": ["data"]},
    {"id": "c", "type": "code", "source": "%%chat\nhello", "tags": []},
    {"id": "a", "type": "code", "source": "x = 1", "tags": ["data"]},
]


@pytest.mark.parametrize(
    ("wanted", "cell", "ids"),
    [
        (["none"], "c", ""),
        (["prev"], "c", "d"),
        (["above"], "c", "abd"),
        (["all"], "c", "abd"),
        (["above"], "", "abd"),
        (["tag:data"], "c", "a"),
        (["prev", "tag:data"], "d", "ab"),
        (["prev"], "", "d"),
    ],
)
def test_cells_are_chosen_in_the_order_they_ran(wanted: list[str], cell: str, ids: str) -> None:
    assert [run.id for run in select(wanted, RUNS, None, cell)] == list(ids)


@pytest.mark.parametrize(
    ("wanted", "cell", "ids"),
    [
        (["prev"], "c", "n"),
        (["above"], "c", "dmn"),
        (["all"], "c", "dmna"),
        (["tag:data"], "c", "na"),
        (["tag:intro"], "c", "m"),
        (["prev"], "d", ""),
    ],
)
def test_the_page_says_the_order_and_knows_cells_never_run(wanted: list[str], cell: str, ids: str) -> None:
    assert [run.id for run in select(wanted, RUNS, PAGE, cell)] == list(ids)


@pytest.mark.parametrize(
    ("word", "said"), [("tag:dat", "Did you mean data"), ("sideways", "none, prev, above"), ("tag:", "tag:")]
)
def test_an_unknown_choice_is_named(word: str, said: str) -> None:
    with pytest.raises(OptionError, match=said):
        select([word], RUNS, None, "c")


def test_what_is_written_is_cut_and_says_so() -> None:
    big = Run("a", "x\n" * 10_000)
    text = written([big], 16_000)
    assert len(text) < 5_000
    assert "characters left out" in text
    many = [Run(str(n), f"cell_{n} = 'x'" * 100) for n in range(50)]
    text = written(many, 10_000)
    assert len(text) < 11_000
    assert "earlier ones left out" in text
    assert "cell_49" in text
    assert "cell_0 " not in text


def test_no_cells_are_no_context() -> None:
    assert written([]) == ""


def test_code_that_holds_a_fence_stays_inside_its_own() -> None:
    text = written([Run("a", "s = '''\n```\nend\n```\n'''")])
    assert "````python\n" in text


@pytest.fixture(scope="module")
def book() -> Iterator[Notebook]:
    with notebook(ECHO) as opened:
        opened.must("weights = [3, 4]\nprint('loaded', len(weights))\nweights", "a", tags=("data",))
        opened.run("def mean(values):\n    return sum(values) / len(values)\nmean([])", "b")
        yield opened


@pytest.mark.kernel
def test_the_last_error_can_be_explained(book: Notebook) -> None:
    sent = book.must("%%chat -c prev --no-history\nexplain the last error", "q").transcript.prompt
    assert "mean([])" in sent
    assert "ZeroDivisionError: division by zero" in sent
    assert "weights" not in sent
    assert "\x1b" not in sent
    assert "site-packages" not in sent
    assert sent.endswith("explain the last error")


@pytest.mark.kernel
def test_prints_and_results_are_context_too(book: Notebook) -> None:
    for which in ("tag:data", "above"):
        sent = book.must(f"%%chat -c {which} --no-history\nwhat is loaded?", "q").transcript.prompt
        assert "loaded 2" in sent
        assert "[3, 4]" in sent


@pytest.mark.kernel
def test_a_cell_run_again_is_there_once_with_its_latest_output(book: Notebook) -> None:
    book.must("print('first')", "twice")
    book.must("print('second')", "twice")
    sent = book.must("%%chat -c all --no-history\nhm", "q").transcript.prompt
    assert "second" in sent
    assert "print('first')" not in sent


@pytest.mark.kernel
def test_displays_are_context_by_their_text(book: Notebook) -> None:
    book.must("from IPython.display import display, HTML\ndisplay(HTML('<b>bold</b>'))", "shown")
    assert "IPython.core.display.HTML" in book.must("%%chat -c prev --no-history\nhm", "q").transcript.prompt


def test_what_a_cell_gave_before_this_kernel_could_see_it_comes_from_the_page() -> None:
    broken = {"id": "a", "type": "code", "source": "x", "output": "so far", "error": "NameError: x"}
    asking = {"id": "b", "type": "code", "source": "%%chat --context prev\nExplain this error"}
    (run,) = select(["prev"], [], [broken, asking], "b")
    assert (run.source, run.output, run.error) == ("x", "so far", "NameError: x")
    seen = Run("a", "x", error="NameError: y")
    assert select(["prev"], [seen], [broken, asking], "b") == [seen]
