"""Several answers in one cell: ``%%chat --samples`` asks one model several times, ``%%compare`` varies models or settings.

Each answer is a turn of its own session. Turns of one model run in parallel threads. Different models answer one after another,
because they would compete for the processor and distort each other's speed. Turns with tools run one after another too, because
tools and their approvals need the cell's thread, which alone draws views and takes interrupts.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field, replace
from itertools import groupby
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, TypeAlias

from llm_magics.errors import LLMMagicsError, OptionError
from llm_magics.events import Event
from llm_magics.kernel.interrupts import Interrupts
from llm_magics.transcript import Transcript
from llm_magics.views.columns import Column

if TYPE_CHECKING:
    from llm_magics.kernel.options.specs import ChatOptions
    from llm_magics.kernel.runtime import Runtime
    from llm_magics.session.history import Turn
    from llm_magics.session.session import Reply, Session
    from llm_magics.views.columns import ColumnsView

_Came: TypeAlias = Generator["Answer", None, None]  # an answer, each time that it has grown
_PATIENCE = 30.0  # seconds for a stopped answer to end: one batch of a long prompt on a slow machine


@dataclass(slots=True)
class Answer:
    """One running column: its session, its settings, and the answer so far."""

    heading: str
    session: Session
    turn: str
    overrides: Mapping[str, Any] = field(default_factory=dict)
    replaces: str | None = None
    record: Mapping[str, Any] = field(default_factory=dict)
    shown: Transcript = field(default_factory=Transcript)
    error: Exception | None = None
    _kept: Turn | None = None

    @property
    def kept(self) -> Turn | None:
        """The session's turn; it stays the same if the conversation continues with another answer."""
        if self._kept is None:
            self._kept = next((turn for turn in self.session.turns if turn.id == self.turn), None)
        return self._kept

    @property
    def reply(self) -> Reply | None:
        from llm_magics.session.session import Reply

        return None if self.kept is None else Reply.of(self.kept)

    @property
    def column(self) -> Column:
        """The column while it runs: ``shown`` is the trace so far, because the turn belongs to its own thread."""
        return Column(self.heading, self.shown, self._said)

    @property
    def final(self) -> Column:
        """The column at the end: the session's trace, which holds also what was not drawn yet."""
        trace = (self.shown if self.kept is None else self.kept.trace).finish("interrupted" if self.error is None else "error")
        return Column(self.heading, replace(trace, turn=self.turn, settings=self.record), self._said)

    @property
    def _said(self) -> str:
        return "" if self.error is None else str(self.error) or type(self.error).__name__

    @property
    def in_thread(self) -> bool:
        return not self.overrides.get("tools", self.session.settings.tools)

    def events(self, text: str) -> Generator[Event, None, None]:
        return self.session.turn(text, turn=self.turn, replaces=self.replaces, **self.overrides)


class Samples:
    """Several answers to the newest turn of a conversation, which continues with one of them."""

    def __init__(self, session: Session, answers: Sequence[Answer], view: ColumnsView | None) -> None:
        self.session, self.answers, self.view = session, answers, view

    def note(self, chosen: int) -> str:
        """Say which answer the conversation continues with; ``chosen`` counts from 0."""
        said = f"The conversation continues with answer {chosen + 1} of {len(self.answers)}"
        return f"{said}; %thread pick N chooses another." if chosen == 0 else f"{said}."

    @property
    def replies(self) -> list[Reply]:
        return replies_of(self.answers)

    def run(self, text: str) -> list[Reply]:
        """Run all answers; the conversation continues with the first."""
        return run(self.answers, text, self.view, self.note(0), 0)

    @property
    def turns(self) -> list[Turn]:
        return [turn for answer in self.answers if (turn := answer.kept) is not None]

    def pick(self, number: int) -> None:
        """Continue the conversation with another answer, counted from 1."""
        if not 1 <= number <= len(self.turns):
            raise OptionError(f"There is no answer {number}.", f"The answers are 1 to {len(self.turns)}.")
        self.session.adopt(self.turns[number - 1])
        if self.view is not None:
            self.view.close([answer.final for answer in self.answers], self.note(number - 1), number - 1)


def run(answers: Sequence[Answer], text: str, view: ColumnsView | None, note: str, chosen: int | None = None) -> list[Reply]:
    """Run and draw every answer; return the replies. Whatever ends the run, the last drawing is complete. A column shows the
    error of its answer; if all fail, the first error is raised."""
    with Interrupts() as interrupts, ExitStack() as at_end:
        if view is not None:
            at_end.callback(lambda: view.close([answer.final for answer in answers], note, chosen))
        for _, group in groupby(answers, key=lambda answer: id(answer.session.model)):
            together = list(group)
            with closing(_side_by_side(together, text) if _may_share(together) else _in_turn(together, text)) as events:
                while True:
                    with interrupts.allowed():
                        if next(events, None) is None:
                            break
                    if view is not None and view.due:
                        view.draw([one.column for one in answers], note)
                    interrupts.check()
        errors = [answer.error for answer in answers if answer.error is not None]
        if len(errors) == len(answers):
            raise errors[0]
    return replies_of(answers)


def replies_of(answers: Iterable[Answer]) -> list[Reply]:
    return [reply for answer in answers if (reply := answer.reply) is not None]


def columns_view(runtime: Runtime, options: ChatOptions, cell: str) -> ColumnsView:
    from llm_magics.kernel.page.widgets import ShellAsker
    from llm_magics.views.columns import ColumnsView

    updates = bool(cell) or "google.colab" in sys.modules
    view = ColumnsView(runtime.shell.display_pub.publish, reasoning=options.show_reasoning, updates=updates)
    if isinstance(runtime.asker, ShellAsker):
        runtime.asker.cleared = view.forget
    return view


def _may_share(answers: Sequence[Answer]) -> bool:
    slots = int(getattr(answers[0].session.model, "parallel", 1))
    return slots > 1 and len(answers) > 1 and all(answer.in_thread for answer in answers)


def _in_turn(answers: Iterable[Answer], text: str) -> _Came:
    for answer in answers:
        try:
            with closing(answer.events(text)) as events:
                turn: Turn | None = None
                for _ in events:
                    turn = turn or answer.session.find(answer.turn)
                    assert turn is not None  # it exists from its first event on
                    answer.shown = turn.trace
                    yield answer
        except LLMMagicsError as error:
            answer.error = error


def _side_by_side(answers: Sequence[Answer], text: str) -> _Came:
    """Run the answers in threads and yield each as it grows. Closing the generator ends all threads."""
    came: SimpleQueue[Answer | None] = SimpleQueue()
    stop = threading.Event()
    jobs = [(answer, text, came.put, stop) for answer in answers]
    threads = [threading.Thread(target=_work, args=job, daemon=True, name="llm-magics-column") for job in jobs]
    try:
        for thread in threads:
            thread.start()
        left = len(threads)
        while left:
            item = came.get()
            if item is None:
                left -= 1
            else:
                yield item
    finally:
        stop.set()
        for thread in threads:
            if thread.is_alive():
                thread.join(_PATIENCE)


def _work(answer: Answer, text: str, put: Callable[[Answer | None], None], stop: threading.Event) -> None:
    try:
        with closing(_in_turn([answer], text)) as events:
            for grown in events:
                put(grown)
                if stop.is_set():
                    return
    except Exception as error:  # an unexpected error is shown in its column; the others continue
        answer.error = error
    finally:
        put(None)
