"""A model in a process of its own, in a notebook: what is shown of it, interrupts, and a child killed at any moment."""

from __future__ import annotations

import ast
import contextlib
import os
import random
import threading
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.kernel.notebook import Cell, Notebook, notebook

pytestmark = [pytest.mark.kernel, pytest.mark.model]

KILLS = int(os.environ.get("LLM_MAGICS_KILLS", "5"))  # `make whole` asks for 50
LOAD = "%load_model smollm2-135m --ctx 2048 --seed 1 --isolated"
FIXED = "%%chat --temp 0 --max-tokens 8 --no-history\nWrite the numbers 1, 2, 3, 4, 5, 6, 7, 8 again."  # no near ties
RUNTIME = "get_ipython()._llm_magics_runtime"


@pytest.fixture(scope="module")
def book(smollm: Path) -> Iterator[Notebook]:
    with notebook("import os", "kept = {'rows': list(range(1000))}") as opened:
        opened.must(LOAD)
        yield opened


def text(cell: Cell) -> str:
    return "\n".join(bundle.get("text/plain", "") for bundle in cell.bundles)


def children(book: Notebook) -> list[psutil.Process]:
    """The kernel's engines, from the first moment of a load on."""
    return engines(psutil.Process(int(book.value("os.getpid()"))))


def engines(kernel: psutil.Process) -> list[psutil.Process]:
    found = []
    for child in kernel.children():
        with contextlib.suppress(psutil.Error):
            if "llm_magics.engine.hosts.child" in child.cmdline() and child.status() != psutil.STATUS_ZOMBIE:
                found.append(child)
    return found


def kill(kernel: psutil.Process) -> None:
    for child in engines(kernel):
        with contextlib.suppress(psutil.Error):
            child.kill()


def history(book: Notebook, thread: str) -> list[tuple[str, str]]:
    found = f"({RUNTIME}.threads[{thread!r}].session.history if {thread!r} in {RUNTIME}.threads else ())"
    said: list[tuple[str, str]] = ast.literal_eval(book.value(f"[(m.role, m.text) for m in {found}]"))
    return said


def test_cards_and_tables_tell_that_a_model_has_its_own_process(book: Notebook) -> None:
    card = text(book.must(LOAD))
    (child,) = children(book)
    place = f"its own process (pid {child.pid})"
    assert place in card
    assert place in text(book.must("%models"))
    assert f"smollm2-135m in {place}" in text(book.must("%llm status"))
    doctor = text(book.must("%llm doctor"))
    assert f"smollm2-135m in {place}" in doctor
    assert "a model can have a process of its own" in doctor
    planned = book.must("%load_model smollm2-135m --ctx 1024 --isolated --dry-run")
    (told,) = [line for line in text(planned).splitlines() if "runs in" in line]
    assert told.split("runs in")[1].strip() == "its own process"
    book.must("%load_model smollm2-135m --ctx 512 --as here")
    assert "here in this kernel" in text(book.must("%llm status"))
    book.must("%unload_model here")


def test_a_child_killed_at_any_moment_costs_at_most_that_turn(book: Notebook) -> None:
    """``LLM_MAGICS_KILLS=50`` kills that many: while a model is loaded again, reads, writes, and between two cells."""
    kernel = psutil.Process(int(book.value("os.getpid()")))
    expected = book.must(FIXED).transcript.text
    dice = random.Random(11)
    died = 0
    for number in range(KILLS):
        if number % 3 == 2:
            kill(kernel)  # the cell then begins with a load
        timer = threading.Timer(dice.uniform(0, 2.5), kill, (kernel,))
        timer.start()
        items = " ".join(f"item {n}," for n in range(150))
        ran = book.run(f"%%chat --thread k{number} --temp 0 --max-tokens 200\n{number}: {items} Tell a long story of them.")
        timer.join()
        if not ran.ok:
            died += 1
            assert ran.reply["ename"] == "EngineDiedError", ran.reply
            assert "SIGKILL" in ran.reply["evalue"]
            assert "variables are unharmed" in ran.reply["evalue"]
            assert ran.transcript.state == "error"
        assert book.alive
        assert book.value("sum(kept['rows'])") == str(sum(range(1000)))
        said = history(book, f"k{number}")
        assert [role for role, _ in said] in ([], ["user", "assistant"])
        assert not said or said[1][1] == ran.transcript.text
        assert book.must(FIXED).transcript.text == expected
        assert [role for role, _ in history(book, f"k{number}")] == [role for role, _ in said]
    assert died


def test_what_was_loaded_again_is_told_in_the_cell_that_waited_for_it(book: Notebook) -> None:
    book.must(FIXED)
    kill(psutil.Process(int(book.value("os.getpid()"))))
    while children(book):
        pass
    ran = book.must(FIXED)
    assert "smollm2-135m was loaded again, because its process had died." in text(ran)
    assert "the model was loaded again" in " ".join(ran.transcript.usage.losses)
    assert "again" not in text(book.must(FIXED)).partition("numbers")[0]


def test_interrupts_leave_the_isolated_model_right(book: Notebook) -> None:
    expected = book.must(FIXED).transcript.text
    (child,) = children(book)
    items = " ".join(f"item {n}," for n in range(300))
    moments = random.Random(5)
    for number in range(4):
        begun = threading.Event()

        def strike(
            kind: str, content: dict[str, object], begun: threading.Event = begun, delay: float = moments.uniform(0.0, 2.0)
        ) -> None:
            if not begun.is_set():
                begun.set()
                threading.Timer(delay, book.interrupt).start()

        ran = book.run(f"%%chat --thread i{number} --temp 0\nItems {number}: {items} Repeat them all.", on_message=strike)
        assert ran.reply["ename"] == "KeyboardInterrupt"
        assert ran.transcript.state == "interrupted"
        assert [role for role, _ in history(book, f"i{number}")] == (["user", "assistant"] if ran.transcript.text else [])
        assert book.must(FIXED).transcript.text == expected
    assert children(book) == [child]


def test_unloading_ends_the_process(book: Notebook) -> None:
    book.must(FIXED)
    (child,) = children(book)
    book.must("%unload_model")
    assert not child.is_running()
    book.must(LOAD)
