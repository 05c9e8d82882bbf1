"""A hundred interrupts, in every phase of a turn: the cell stops, what came is kept, and the next answer is right."""

from __future__ import annotations

import ast
import random
import threading
from collections.abc import Iterator

import pytest

from .notebook import Cell, Notebook, notebook

pytestmark = pytest.mark.kernel

# A model that strikes its own kernel with SIGINT at a chosen event of its stream, and a display that does so when it is drawn.
SETUP = """
import itertools, os, signal
from llm_magics import ScriptedModel
from llm_magics.kernel.page.notebook import NotebookView

ANSWER = " ".join(f"word{n}" for n in range(60))
plain = ScriptedModel(itertools.repeat(lambda r: "+".join(m.text for m in r.messages if m.role == "user")), name="plain")
slow = ScriptedModel(itertools.repeat(ANSWER), tokens_per_second=400)

def strike():
    os.kill(os.getpid(), signal.SIGINT)

class Striking:
    name, context_size, at, before = "striking", 0, -1, False
    script = ScriptedModel(itertools.repeat(ANSWER))
    def stream(self, request):
        if self.before:
            strike()
        for number, event in enumerate(self.script.stream(request)):
            if number == self.at:
                strike()
            yield event
    def preview(self, request):
        return self.script.preview(request)
    def close(self):
        pass

striking = Striking()
drawn = NotebookView._display
strike_display = -1
count = 0
def display(view, data):
    global count
    if count == strike_display:
        strike()
    count += 1
    drawn(view, data)
NotebookView._display = display

def arm(at=-1, before=False, display=-1):
    global strike_display, count
    striking.at, striking.before, strike_display, count = at, before, display, 0

def state():
    session = get_ipython()._llm_magics_runtime.threads["main"].session
    return [(m.role, m.text, m.finish_reason) for m in session.history]
"""


@pytest.fixture(scope="module")
def book() -> Iterator[Notebook]:
    with notebook(SETUP) as opened:
        yield opened


def check(book: Notebook, ran: Cell, question: str, *, partial: bool = True) -> None:
    """The cell failed as interrupted, shows what came, the history is valid and the next answer knows all of it."""
    assert (ran.reply["status"], ran.reply["ename"]) == ("error", "KeyboardInterrupt")
    assert len(ran.of("error")) == 1
    transcript = ran.transcript
    assert transcript.state == ("interrupted" if partial else "stop")
    answer = " ".join(f"word{n}" for n in range(60))
    assert answer.startswith(transcript.text)
    history = ast.literal_eval(book.value("state()"))
    roles = [role for role, _, _ in history]
    assert roles == ["user", "assistant"] * (len(roles) // 2)
    if transcript.text:
        assert history[-2:] == [("user", question, None), ("assistant", transcript.text, transcript.state)]
    else:
        assert ("user", question, None) not in history
    users = [text for role, text, _ in history if role == "user"]
    book.must("arm()", None)
    assert book.must(f"%%chat -m plain\nafter {question}").transcript.text == "+".join([*users, f"after {question}"])


def test_an_interrupt_before_the_first_token_leaves_no_turn(book: Notebook) -> None:
    for number in range(20):
        book.must("%thread reset" if number else "get_ipython()._llm_magics_runtime.threads.clear()\narm()", None)
        book.must("arm(before=True)", None)
        check(book, book.run(f"%%chat -m striking\nearly {number}"), f"early {number}")


@pytest.mark.parametrize("start", [0, 30])
def test_an_interrupt_while_generating_keeps_what_came(book: Notebook, start: int) -> None:
    for at in range(start, start + 30):
        if at % 5 == 0:
            book.must("get_ipython()._llm_magics_runtime.threads.clear()", None)
        book.must(f"arm(at={at})", None)
        check(book, book.run(f"%%chat -m striking\nq{at}"), f"q{at}")


def test_an_interrupt_while_drawing_waits_until_it_is_drawn(book: Notebook) -> None:
    for number in range(5):
        book.must("get_ipython()._llm_magics_runtime.threads.clear()\narm(display=0)", None)
        check(book, book.run(f"%%chat -m striking\ndraw {number}"), f"draw {number}")


def test_an_interrupt_in_the_last_drawing_leaves_it_complete(book: Notebook) -> None:
    book.must("draw = NotebookView.draw\nNotebookView.draw = lambda view: None", None)
    for number in range(5):
        book.must("get_ipython()._llm_magics_runtime.threads.clear()\narm(display=0)", None)
        check(book, book.run(f"%%chat -m striking\nlast {number}"), f"last {number}", partial=False)
    book.must("NotebookView.draw = draw", None)


def test_interrupts_at_random_moments_from_outside(book: Notebook) -> None:
    moments = random.Random(7)
    for number in range(10):
        book.must("get_ipython()._llm_magics_runtime.threads.clear()\narm()", None)
        begun = threading.Event()

        def strike(kind: str, content: dict, begun: threading.Event = begun, delay: float = moments.uniform(0.0, 0.25)) -> None:
            if not begun.is_set():
                begun.set()
                threading.Timer(delay, book.interrupt).start()

        ran = book.run(f"%%chat -m slow\nr{number}", on_message=strike)
        check(book, ran, f"r{number}")


def test_run_all_stops_at_an_interrupted_cell_and_the_kernel_lives(book: Notebook) -> None:
    book.must("arm(at=5)", None)
    ran = book.run("%%chat -m striking\nhello")
    assert ran.reply["status"] == "error"
    assert "the answer so far is kept" in "".join(ran.of("error")[0]["traceback"])
    assert book.alive
    book.must("arm()", None)


def test_the_kernel_s_own_interrupt_works_again_after_a_turn(book: Notebook) -> None:
    ran = book.run("import os, signal, time\nos.kill(os.getpid(), signal.SIGINT)\ntime.sleep(30)")
    assert ran.reply["ename"] == "KeyboardInterrupt"
