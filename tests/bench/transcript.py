"""What a turn costs as it grows: it must stay linear in the length of its text, and of its conversation.

    python -m tests.bench.transcript

Nothing is generated: a scripted model writes as fast as it is read. ``fold_growth`` is the exponent of the time that a session
takes for an answer of n characters, from 16,000 to 256,000; ``draw_growth`` that of the notebook's view with it, at its own
pace; ``turns_growth`` that of one more turn behind n others, from 50 to 800. 1 is linear, 2 is quadratic. Each is the slope of
a straight line through the logarithms.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable
from contextlib import closing
from statistics import linear_regression

from llm_magics import ScriptedModel, Session
from llm_magics.kernel.page.notebook import NotebookView
from llm_magics.tools.policy import Limits

from .common import Result, machine, report

ENDLESS = Limits(tokens=None)
PARAGRAPH = "The quick brown fox jumps over the lazy dog, **again** and again, until `it` grows tired of it all.\n\n"


def written(n_characters: int) -> str:
    return (PARAGRAPH * (n_characters // len(PARAGRAPH) + 1))[:n_characters]


def folded(n: int) -> float:
    """CPU seconds for one answer of ``n`` characters, read as a program reads it."""
    session = Session(ScriptedModel(written(n)), limits=ENDLESS)
    begin = time.thread_time()
    session.ask("go")
    return time.thread_time() - begin


def drawn(n: int) -> float:
    """CPU seconds for the same with the notebook's view, which publishes to nobody."""
    session = Session(ScriptedModel(written(n), tokens_per_second=20_000), limits=ENDLESS)
    view = NotebookView(lambda data, *, transient, update: None)
    begin = time.thread_time()
    with closing(session.turn("go")) as events:
        for event in events:
            view.handle(session.turns[-1].trace, event)
    view.close(session.turns[-1].trace)
    return time.thread_time() - begin


class Deaf(ScriptedModel):
    """A model that does not look at its prompt, so that what is left is the session's own work."""

    def _text(self, request: object) -> str:
        return ""


def one_more(n: int) -> float:
    """CPU seconds for ten short turns behind ``n`` others."""
    session = Session(Deaf(itertools.repeat("A short answer of a few words.")), limits=ENDLESS)
    for at in range(n):
        session.ask(f"Question {at}?")
    begin = time.thread_time()
    for _ in range(10):
        session.ask("And now?")
    return time.thread_time() - begin


def growth(measure: Callable[[int], float], sizes: tuple[int, ...]) -> float:
    """The exponent with which the time grows; the best of three runs each."""
    measure(sizes[0])
    seconds = [min(measure(n) for _ in range(3)) for n in sizes]
    return linear_regression([math.log(n) for n in sizes], [math.log(s) for s in seconds]).slope


def main() -> None:
    sizes = (16_000, 64_000, 256_000)
    for name, measure, ns in (("fold", folded, sizes), ("draw", drawn, sizes), ("turns", one_more, (50, 200, 800))):
        report(Result(f"{name}_growth", growth(measure, ns), "exponent", runs=3, machine=machine()))


if __name__ == "__main__":
    main()
