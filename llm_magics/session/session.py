"""A conversation with a model that may use tools: history, threads, and turns one can iterate over.

``session.turn(text)`` is a synchronous pull generator: whoever iterates decides the pace, and closing it (or an interrupt) ends
the turn. The history is derived from the events that flowed (see :mod:`llm_magics.session.history`), so it is valid at any
moment.
"""

from __future__ import annotations

import contextlib
import threading
import uuid
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass
from types import GeneratorType
from typing import Any, cast

from llm_magics.errors import LLMMagicsError, OptionError
from llm_magics.events import Event, Notice, Usage
from llm_magics.messages import FinishReason, Message, ToolCall
from llm_magics.models.base import Model, Request, Sampling
from llm_magics.plural import counted
from llm_magics.tools.define.tool import Tool
from llm_magics.tools.policy import Approve, Asker, Limits, nobody
from llm_magics.tools.run.execute import inside
from llm_magics.transcript import Transcript

from .history import Turn, messages_of
from .loop import TurnLoop
from .record import Recorder, SchemaBook, schemas_in
from .settings import TurnSettings, value_of

_HEAD = 60  # characters of an answer in its repr
_MAX_NESTED = 4


@dataclass(frozen=True, slots=True, repr=False)
class Reply:
    """What came of one turn. ``trace`` is all of it as a value: it goes to JSON and back.

    ``text`` and ``reasoning`` are those of the last answer, ``tool_calls`` all calls of the turn in order, ``messages`` what
    the history keeps of it, the user's message first (empty where the model said nothing).
    """

    messages: tuple[Message, ...]
    trace: Transcript
    response_schema: Any = None

    @classmethod
    def of(cls, turn: Turn) -> Reply:
        return cls(turn.messages, turn.trace, turn.settings.response_schema if turn.settings else None)

    def __repr__(self) -> str:
        head = " ".join(self.text.split())
        head = head if len(head) <= _HEAD else f"{head[: _HEAD - 1]}…"
        counts = [(self.usage.completion_tokens, "token"), (len(self.tool_calls), "tool call")]
        said = [counted(n, noun) for n, noun in counts if n]
        said += [] if self.finish_reason == "stop" else [self.finish_reason]
        return f"<Reply {', '.join([repr(head), *said])}>"

    @property
    def text(self) -> str:
        return self._last.text

    @property
    def reasoning(self) -> str:
        return self._last.reasoning

    @property
    def tool_calls(self) -> tuple[ToolCall, ...]:
        return tuple(call for message in self.messages for call in message.tool_calls)

    @property
    def usage(self) -> Usage:
        return self.trace.usage

    @property
    def finish_reason(self) -> FinishReason:
        return "interrupted" if self.trace.state == "running" else self.trace.state

    @property
    def value(self) -> Any:
        """The answer as what ``response_schema`` asked for; raises SchemaError where it is not valid. None without a schema."""
        return None if self.response_schema is None else value_of(self.text, self.response_schema)

    @property
    def _last(self) -> Message:
        answers = [message for message in self.messages if message.role == "assistant"]
        return answers[-1] if answers else Message("assistant")

    def __str__(self) -> str:
        return self.text


class Session:
    """One thread of conversation with a model.

    Args:
        model: anything that is a Model; it stays the caller's to close.
        tools: what the model may call: tools, or plain functions.
        system: the system prompt.
        seed: for the sampler; None draws one for each step.
        thread: the thread's name; models keep their cache by it.
        sampling: how to draw tokens.
        max_steps: most answers of the model in one turn; short for ``limits=Limits(steps=...)``.
        limits: how far one turn may go.
        approve: "auto" runs what would ask, "ask" asks for every call, "deny" runs none; None leaves it to each tool.
        asker: puts approvals before a person. Without one nobody can be asked, and what needs a yes is refused.
        settings: any other field of :class:`~llm_magics.session.settings.TurnSettings`, as the default of every turn, and
            ``max_calls`` (most calls in one answer). ``record=True`` keeps in the saved ``reply.trace`` what a replay needs
            (:mod:`llm_magics.session.record`).

    ``schemas`` knows which recorded turn holds which tool's description; sessions of one notebook share one.
    """

    def __init__(
        self,
        model: Model,
        tools: Iterable[Tool | Callable[..., Any]] = (),
        system: str = "",
        seed: int | None = None,
        thread: str = "main",
        *,
        sampling: Sampling | None = None,
        max_steps: int | None = None,
        limits: Limits | None = None,
        approve: Approve | None = None,
        asker: Asker = nobody,
        **settings: Any,
    ) -> None:
        self.model = model
        self.thread = thread
        self.asker = asker
        self.settings = TurnSettings().override(
            tools=tools, system=system, sampling=sampling, limits=limits, approve=approve, seed=seed, max_steps=max_steps,
            **settings
        )
        self.schemas = SchemaBook()
        self.nested: list[Session] = []
        self._turns: tuple[Turn, ...] = ()
        self._failed: Turn | None = None  # the latest turn, if it failed before anything was said
        self._running: GeneratorType[Event, None, None] | None = None
        self._runs_in = 0

    def __repr__(self) -> str:
        return f"<session {self.thread!r} with {self.model.name}, {counted(len(self._turns), 'turn')}>"

    # --- asking ---------------------------------------------------------------------------------------------------------

    def turn(
        self, text: str, *, turn: str | None = None, replaces: str | None = None, **overrides: Any
    ) -> Generator[Event, None, None]:
        """Ask, and yield what happens as it happens. Iterate under ``contextlib.closing``.

        A turn that is asked while a tool of this session runs gets a thread of its own, in ``session.nested``.

        Args:
            text: the user's message.
            turn: a name for the turn, e.g. its cell's. A turn of that name is replaced, and those behind it are dropped.
            replaces: the name of the turn to replace, where it is another one.
            overrides: fields of TurnSettings for this turn alone, and ``seed``, ``max_steps`` and ``max_calls``.

        Raises:
            OptionError: at once, for an override that cannot be understood or met.
            LLMMagicsError: while iterating, when the model fails. KeyboardInterrupt passes through. Both after a TurnEnd.
                A turn that failed before the model had said anything does not join the conversation; ``reply`` tells of it.
        """
        settings = self.settings.override(**overrides)
        settings.json_schema  # noqa: B018 (a schema that is none is the caller's mistake: say it before anything runs)
        if self._inside_own_tool():
            return self._nest().turn(text, turn=turn, **overrides)
        self._finish_open_turn()
        running = self._run(text, Turn(turn or uuid.uuid4().hex[:12], settings=settings), replaces, settings)
        self._running = cast("GeneratorType[Event, None, None]", running)
        return running

    def ask(self, text: str, **overrides: Any) -> Reply:
        """Ask, wait for the end of the turn, and give the Reply. Arguments and errors as in :meth:`turn`."""
        if self._inside_own_tool():
            return self._nest().ask(text, **overrides)
        with contextlib.closing(self.turn(text, **overrides)) as events:
            for _ in events:
                pass
        return self.reply or Reply((), Transcript())

    @property
    def reply(self) -> Reply | None:
        """What came of the latest turn, also of one that failed or still runs; None before the first."""
        latest = self._failed or (self._turns[-1] if self._turns else None)
        return Reply.of(latest) if latest else None

    def find(self, turn: str) -> Turn | None:
        """The turn of that name, also a nested one, or the latest one that failed; None if there is none."""
        known = (*self._turns, self._failed) if self._failed else self._turns
        found = next((one for one in known if one.id == turn), None)
        return found or next((one for child in self.nested if (one := child.find(turn))), None)

    def reply_to(self, turn: str) -> Reply | None:
        """What came of the turn that :meth:`find` finds."""
        found = self.find(turn)
        return Reply.of(found) if found else None

    def request(self, text: str, *, replaces: str | None = None, **overrides: Any) -> Request:
        """The first request that such a turn would send; nothing is sent, and the conversation stays as it is."""
        before, settings = messages_of(self.parted(replaces)[0]), self.settings.override(**overrides)
        return TurnLoop(self.model, settings, before, Turn("", Transcript(prompt=text)), self.thread, self.asker).request(0)

    def _run(
        self, text: str, turn: Turn, replaces: str | None, settings: TurnSettings
    ) -> Generator[Event, None, None]:
        dropped = self.rewind(replaces or turn.id)
        before = self.history
        traces = (one.trace for one in self._turns)
        recorder = Recorder.of(turn.id, traces, len(before), self.schemas if settings.record else None)
        loop = TurnLoop(self.model, settings, before, turn, self.thread, self.asker, self, recorder)
        self._turns, self._failed = (*self._turns, turn), None
        self._runs_in = threading.get_ident()
        try:
            with contextlib.closing(loop.run(text)) as events:
                for event in _after_first(events, _stale(dropped)):
                    turn.record(event)
                    yield event
        except Exception:
            if not turn.messages:
                self._turns, self._failed = tuple(one for one in self._turns if one is not turn), turn
            raise
        finally:
            turn.cut()

    def _inside_own_tool(self) -> bool:
        """Whether the caller is a tool that this session's running turn has called, in its thread or in one of its own."""
        running = self._running
        if running is None or not running.gi_running:
            return False
        return self._runs_in == threading.get_ident() or self in inside.get()

    def _finish_open_turn(self) -> None:
        """End a turn whose generator was left lying about; one that runs in another thread is somebody else's."""
        running, self._running = self._running, None
        if running is not None:
            try:
                running.close()
            except ValueError as error:  # "generator already executing"
                self._running = running
                raise LLMMagicsError("This session is answering in another thread.", "Use session.fork() there.") from error

    def _nest(self) -> Session:
        depth = sum(isinstance(owner, Session) for owner in inside.get())
        if depth >= _MAX_NESTED:
            raise LLMMagicsError(f"Turns are nested {depth} deep: a tool keeps asking.", "Let a tool answer by itself.")
        child = self.fork(f"{self.thread}/{len(self.nested) + 1}", turns=())
        self.nested.append(child)
        return child

    # --- history --------------------------------------------------------------------------------------------------------

    @property
    def history(self) -> tuple[Message, ...]:
        """The conversation so far, without the system prompt. Valid at any moment: every call has exactly one result."""
        return messages_of(self._turns)

    @property
    def turns(self) -> tuple[Turn, ...]:
        """The turns so far, the running one included."""
        return self._turns

    def parted(self, turn: str | None) -> tuple[tuple[Turn, ...], tuple[Turn, ...]]:
        """The turns before the one of that name, and those from it on; all are before it if there is none."""
        at = next((at for at, one in enumerate(self._turns) if one.id == turn), len(self._turns))
        return self._turns[:at], self._turns[at:]

    def rewind(self, turn: str) -> tuple[Turn, ...]:
        """Drop the turn of that name and all behind it; gives what was dropped, nothing if there is none."""
        self._turns, dropped = self.parted(turn)
        self.schemas.release(one.id for one in dropped)
        return dropped

    def reset(self) -> None:
        """Forget the conversation; model, tools and settings stay."""
        self._finish_open_turn()
        self.schemas.release(one.id for one in self._turns)
        self._turns, self._failed = (), None
        self.nested.clear()

    def restore(self, traces: Iterable[Transcript]) -> None:
        """Go on from saved turns, e.g. those of a notebook's outputs."""
        self._finish_open_turn()
        self._turns, self._failed = tuple(Turn(trace.turn, trace.finish("interrupted")) for trace in traces), None
        for turn in self._turns:
            self.schemas.claim(turn.id, schemas_in(turn.trace))

    def adopt(self, turn: Turn) -> None:
        """Put a fork's turn in the place of the newest turn, which has the same name; raises OptionError where it has not."""
        if not self._turns or self._turns[-1].id != turn.id:
            raise OptionError(f"The conversation {self.thread!r} has moved on.", "Run that cell again.")
        self._turns = (*self._turns[:-1], turn)

    def fork(self, thread: str | None = None, *, turns: Iterable[Turn] | None = None, model: Model | None = None) -> Session:
        """Copy the session into a new thread: its model (or ``model``), its settings, its turns so far (or ``turns``)."""
        copy = Session(model or self.model, thread=thread or f"{self.thread}-fork-{uuid.uuid4().hex[:4]}", asker=self.asker)
        copy.settings, copy.schemas = self.settings, self.schemas
        copy._turns = tuple(one for one in self._turns if one.over) if turns is None else tuple(turns)
        return copy

    def configure(self, **settings: Any) -> None:
        """Change defaults of the turns to come; raises OptionError like :meth:`turn`."""
        if "thread" in settings:
            raise OptionError("A session's thread cannot be renamed.", "Use session.fork(NAME).")
        self.settings = self.settings.override(**settings)


def _stale(dropped: tuple[Turn, ...]) -> list[Event]:
    """Say that turns behind a replaced one are gone."""
    later = len(dropped) - 1
    if later < 1:
        return []
    which = "A later turn" if later == 1 else f"{later} later turns"
    return [Notice(f"{which} answered the old version and left the conversation: run their cells again.", "warning")]


def _after_first(events: Iterator[Event], extra: Iterable[Event]) -> Iterator[Event]:
    """Put ``extra`` behind the first event, so that a turn still begins with its TurnStart."""
    yield next(events)
    yield from extra
    yield from events
