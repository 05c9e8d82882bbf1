"""Several answers at once in one cell: ``%%chat --n`` asks one model again and again, ``%%compare`` models or settings.

Each answer is a turn of a session of its own. Turns of one model run side by side, each in a thread; different models answer
one after another, because they would take the processor from each other and no speed would mean anything. Tools, and
approvals of them, belong to the cell's own thread, so turns with tools run one after another too. Views are drawn, and
interrupts taken, by the cell's thread alone.
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

_Came: TypeAlias = Generator["Answer", None, None]  # an answer each time that it has grown
_PATIENCE = 30.0  # seconds that a stopped answer has to end: one batch of a long prompt on a slow machine


@dataclass(slots=True)
class Answer:
    """One column on its way: who is asked with which settings, and what came so far."""

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
        """The turn that the session made of it; the same one also when the conversation goes on with another answer's."""
        if self._kept is None:
            self._kept = next((turn for turn in self.session.turns if turn.id == self.turn), None)
        return self._kept

    @property
    def reply(self) -> Reply | None:
        from llm_magics.session.session import Reply

        return None if self.kept is None else Reply.of(self.kept)

    @property
    def column(self) -> Column:
        """What to draw while it runs. The turn itself is its own thread's until it is over: ``shown`` is its trace so far."""
        return Column(self.heading, self.shown, self._said)

    @property
    def final(self) -> Column:
        """What to draw at the end: the session's own record, which has what came between an event and its drawing."""
        trace = (self.shown if self.kept is None else self.kept.trace).finish("interrupted" if self.error is None else "error")
        return Column(self.heading, replace(trace, turn=self.turn, settings=self.record), self._said)

    @property
    def _said(self) -> str:
        return "" if self.error is None else str(self.error) or type(self.error).__name__

    @property
    def in_thread(self) -> bool:
        """Whether it may run in a thread of its own."""
        return not self.overrides.get("tools", self.session.settings.tools)

    def events(self, text: str) -> Generator[Event, None, None]:
        """Ask."""
        return self.session.turn(text, turn=self.turn, replaces=self.replaces, **self.overrides)


class Samples:
    """Several answers to the newest turn of a conversation: which one it goes on with, and how that is shown."""

    def __init__(self, session: Session, answers: Sequence[Answer], view: ColumnsView | None) -> None:
        self.session = session
        self.answers = answers
        self.view = view

    def note(self, chosen: int) -> str:
        """Say which answer is the conversation's; ``chosen`` counts from 0."""
        said = f"Answer {chosen + 1} of {len(self.answers)} goes on in the conversation"
        return f"{said}; %thread pick N takes another one." if chosen == 0 else f"{said}."

    @property
    def replies(self) -> list[Reply]:
        """What came of each, the conversation's own first."""
        return replies_of(self.answers)

    def run(self, text: str) -> list[Reply]:
        """Have them written; the conversation goes on with the first."""
        return run(self.answers, text, self.view, self.note(0), 0)

    @property
    def turns(self) -> list[Turn]:
        """The turns that were begun, one per answer."""
        return [turn for answer in self.answers if (turn := answer.kept) is not None]

    def pick(self, number: int) -> None:
        """Let the conversation go on with another answer, counted from 1."""
        if not 1 <= number <= len(self.turns):
            raise OptionError(f"There is no answer {number}.", f"There are 1 to {len(self.turns)}.")
        self.session.adopt(self.turns[number - 1])
        if self.view is not None:
            self.view.close([answer.final for answer in self.answers], self.note(number - 1), number - 1)


def run(answers: Sequence[Answer], text: str, view: ColumnsView | None, note: str, chosen: int | None = None) -> list[Reply]:
    """Have every answer written and drawn; gives the replies. Whatever ends it, the last drawing is complete.

    An answer that fails says so in its column. Raises its error where all fail, and KeyboardInterrupt.
    """
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
    """What came of those that were begun."""
    return [reply for answer in answers if (reply := answer.reply) is not None]


def columns_view(runtime: Runtime, options: ChatOptions, cell: str) -> ColumnsView:
    """The view for whatever front end this is."""
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
                    assert turn is not None  # it is there from its first event on
                    answer.shown = turn.trace
                    yield answer
        except LLMMagicsError as error:
            answer.error = error


def _side_by_side(answers: Sequence[Answer], text: str) -> _Came:
    """Run the answers in threads and give each as it grows. Closing it ends them all."""
    came: SimpleQueue[Answer | None] = SimpleQueue()
    stop = threading.Event()
    threads = [
        threading.Thread(target=_work, args=(answer, text, came.put, stop), daemon=True, name="llm-magics-column")
        for answer in answers
    ]
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
    except Exception as error:  # not one of ours: the column says so, and the others go on
        answer.error = error
    finally:
        put(None)
