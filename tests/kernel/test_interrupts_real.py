"""A hundred interrupts of a real model, spread over a turn: while tokenising, in prefill, while decoding, while drawing."""

from __future__ import annotations

import ast
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from .notebook import Notebook, notebook

pytestmark = [pytest.mark.kernel, pytest.mark.model]

# The model strikes its own kernel with SIGINT when its phase has come to the count that was armed.
SETUP = """
import os, signal
from llm_magics import load_model
from llm_magics.events import PromptProgress, TextDelta
from llm_magics.models.meter import Metered
from llm_magics.kernel.page.notebook import NotebookView

armed, left = "", 0
def passed(phase):
    global left
    if phase == armed:
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGINT)
    return True
def arm(phase="", count=1):
    global armed, left
    armed, left = phase, count

class Struck:
    def __init__(self, model):
        self.model = model
        tokenize = model.engine.tokenize
        model.engine.tokenize = lambda text, special: passed("tokenise") and tokenize(text, special=special)
    def __getattr__(self, name):
        return getattr(self.model, name)
    def stream(self, request):
        real = self.model.stream(request)
        return Metered(lambda meter: self.struck(real), real.meter)
    def struck(self, real):
        for event in real:
            if isinstance(event, PromptProgress) and event.done < event.total:
                passed("prefill")
            elif isinstance(event, TextDelta):
                passed("decode")
            yield event

drawn = NotebookView._display
NotebookView._display = lambda view, data: passed("draw") and drawn(view, data)

def state():
    session = get_ipython()._llm_magics_runtime.threads["main"].session
    return [(m.role, m.text, m.finish_reason) for m in session.history]
"""
LOAD = "real = Struck(load_model({path!r}, ctx=2048, batch=32))"
LONG = "Tell a long story. " + " ".join(f"Let there be {n} ships in it." for n in range(20))
# An answer without near ties: logits differ a little with how a prompt was cut into batches.
PLAIN = "%%chat -m real --no-history --temp 0 --max-tokens 8\nWrite the numbers 1, 2, 3, 4, 5, 6, 7, 8 again."


@pytest.fixture(scope="module")
def book(smollm: Path) -> Iterator[Notebook]:
    with notebook(SETUP, LOAD.format(path=str(smollm))) as opened:
        yield opened


@pytest.mark.parametrize(("phase", "most"), [("tokenise", 1), ("prefill", 5), ("decode", 4), ("draw", 2)])
def test_a_real_turn_interrupted_anywhere_stays_valid_and_the_next_answer_is_right(
    book: Notebook, phase: str, most: int
) -> None:
    book.must("arm()", None)
    expected = book.must(PLAIN).transcript.text
    assert expected.startswith("1, 2, 3")
    dice = random.Random(phase)
    struck = 0
    for seed in range(100):
        if seed % 4 == 0:
            book.must("get_ipython()._llm_magics_runtime.threads.clear()", None)
        question = f"{seed}: {LONG}"  # the number comes first: nothing but the system text is cached
        book.must(f"arm({phase!r}, {dice.randint(1, most)})", None)
        ran = book.run(f"%%chat -m real --max-tokens 40 --seed {seed}\n{question}")
        book.must("arm()", None)
        if ran.ok:  # the answer was over before the moment came
            continue
        struck += 1
        assert ran.reply["ename"] == "KeyboardInterrupt"
        partial, state = ran.transcript.text, ran.transcript.state
        history = ast.literal_eval(book.value("state()"))
        assert [role for role, _, _ in history] == ["user", "assistant"] * (len(history) // 2)
        if partial:
            assert history[-2:] == [("user", question, None), ("assistant", partial, state)]
            assert ran.transcript.usage.completion_tokens > 0  # what came is counted, whoever was struck
            assert state == "interrupted" or phase == "draw"  # the last drawing comes after the answer's end
        else:
            assert ("user", question, None) not in history
        assert book.must(PLAIN).transcript.text == expected
        if struck == 25:
            return
    pytest.fail(f"only {struck} of 100 turns could be interrupted")
