"""A conversation with a model that may use tools: history, threads, and turns one can iterate over.

``session.turn(text)`` is a synchronous pull generator: the caller sets the pace, and closing the generator (or an interrupt)
ends the turn. The history is derived from the turn's events (:mod:`.history`), so it is always valid.
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
    """The outcome of one turn. ``trace`` holds the whole turn and can be saved as JSON.

    ``text`` and ``reasoning`` belong to the last answer; ``tool_calls`` are all calls of the turn in order. ``messages`` are
    the turn's part of the history, the user's message first; empty if the model said nothing.
    """

    messages: tuple[Message, ...]
    trace: Transcript
    response_schema: Any = None

    @classmethod
    def of(cls, turn: Turn) -> Reply:
        return cls(turn.messages, turn.trace, turn.settings.response_schema if turn.settings else None)

    def __repr__(self) -> str:
        text = " ".join(self.text.split())
        head = text if len(text) <= _HEAD else f"{text[: _HEAD - 1]}…"
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
        """The answer, read by ``response_schema``; None without a schema. Raises SchemaError for an invalid answer."""
        return None if self.response_schema is None else value_of(self.text, self.response_schema)

    @property
    def _last(self) -> Message:
        answers = (message for message in reversed(self.messages) if message.role == "assistant")
        return next(answers, Message("assistant"))

    def __str__(self) -> str:
        return self.text


class Session:
    """One thread of conversation with a model.

    Args:
        model: any Model; the caller closes it.
        tools: the tools or plain functions that the model may call.
        system: the system prompt.
        seed: the sampler's seed; None draws a new seed for each step.
        thread: the thread's name; models keep one cache per thread.
        sampling: how to draw tokens.
        max_steps: most answers of the model in one turn; short for ``limits=Limits(steps=...)``.
        limits: how far one turn may go.
        approve: "auto" runs calls that would ask, "ask" asks for every call, "deny" runs none; None follows each tool's policy.
        asker: asks a person to approve a call. Without an asker, calls that need approval are refused.
        settings: defaults for every turn: other fields of :class:`~llm_magics.session.settings.TurnSettings`, and ``max_calls``
            (most calls in one answer). ``record=True`` saves what a replay needs (:mod:`llm_magics.session.record`).

    ``schemas`` records which turn holds which tool's description; the sessions of one notebook share it.
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
        self._failed: Turn | None = None  # the latest turn, if it failed before the model said anything
        self._running: GeneratorType[Event, None, None] | None = None
        self._runs_in = 0

    def __repr__(self) -> str:
        return f"<session {self.thread!r} with {self.model.name}, {counted(len(self._turns), 'turn')}>"

    # --- asking ---------------------------------------------------------------------------------------------------------

    def turn(
        self, text: str, *, turn: str | None = None, replaces: str | None = None, **overrides: Any
    ) -> Generator[Event, None, None]:
        """Ask, and yield the turn's events as they happen. Iterate under ``contextlib.closing``.

        If a tool of this session asks, the turn runs in a new thread, kept in ``session.nested``.

        Args:
            text: the user's message.
            turn: a name for the turn, e.g. its cell's id. It replaces a turn of the same name, and later turns are dropped.
            replaces: the name of the turn to replace, if it is not ``turn``.
            overrides: fields of TurnSettings for this turn alone, and ``seed``, ``max_steps`` and ``max_calls``.

        Raises:
            OptionError: at once, for an override that cannot be understood or met.
            LLMMagicsError: while iterating, after a TurnEnd, if the model fails; KeyboardInterrupt passes through likewise.
                If the model had said nothing by then, the turn does not join the conversation; ``reply`` still returns it.
        """
        settings = self.settings.override(**overrides)
        settings.json_schema  # noqa: B018 (an invalid schema is the caller's mistake: raise before anything runs)
        if self._inside_own_tool():
            return self._nest().turn(text, turn=turn, **overrides)
        self._finish_open_turn()
        running = self._run(text, Turn(turn or uuid.uuid4().hex[:12], settings=settings), replaces, settings)
        self._running = cast("GeneratorType[Event, None, None]", running)
        return running

    def ask(self, text: str, **overrides: Any) -> Reply:
        """Ask, wait for the end of the turn, and return the Reply. Arguments and errors as in :meth:`turn`."""
        if self._inside_own_tool():
            return self._nest().ask(text, **overrides)
        with contextlib.closing(self.turn(text, **overrides)) as events:
            for _ in events:
                pass
        return self.reply or Reply((), Transcript())

    @property
    def reply(self) -> Reply | None:
        """The outcome of the latest turn, even if it failed or still runs; None before the first turn."""
        latest = self._failed or (self._turns[-1] if self._turns else None)
        return Reply.of(latest) if latest else None

    def find(self, turn: str) -> Turn | None:
        """The turn with this name among all turns, nested ones and the latest failed one included; None if there is none."""
        known = (*self._turns, self._failed) if self._failed else self._turns
        found = next((one for one in known if one.id == turn), None)
        return found or next((one for child in self.nested if (one := child.find(turn))), None)

    def reply_to(self, turn: str) -> Reply | None:
        """The outcome of the turn that :meth:`find` finds."""
        found = self.find(turn)
        return Reply.of(found) if found else None

    def request(self, text: str, *, replaces: str | None = None, **overrides: Any) -> Request:
        """The first request that this turn would send; nothing is sent, and the conversation does not change."""
        before, settings = messages_of(self.parted(replaces)[0]), self.settings.override(**overrides)
        return TurnLoop(self.model, settings, before, Turn("", Transcript(prompt=text)), self.thread, self.asker).request(0)

    def _run(self, text: str, turn: Turn, replaces: str | None, settings: TurnSettings) -> Generator[Event, None, None]:
        dropped = self.rewind(replaces or turn.id)
        before, traces = self.history, (one.trace for one in self._turns)
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
        """Whether the caller is a tool of this session's running turn, in the turn's thread or in another one."""
        running = self._running
        if running is None or not running.gi_running:
            return False
        return self._runs_in == threading.get_ident() or self in inside.get()

    def _finish_open_turn(self) -> None:
        """End a turn whose generator was abandoned. Raises LLMMagicsError if the turn runs in another thread."""
        running, self._running = self._running, None
        if running is not None:
            try:
                running.close()
            except ValueError as error:  # "generator already executing"
                self._running = running
                raise LLMMagicsError("This session still answers in another thread.", "Use session.fork() there.") from error

    def _nest(self) -> Session:
        depth = sum(isinstance(owner, Session) for owner in inside.get())
        if depth >= _MAX_NESTED:
            raise LLMMagicsError(f"Turns are nested {depth} deep: a tool keeps asking the model.", "Answer without the model.")
        self.nested.append(self.fork(f"{self.thread}/{len(self.nested) + 1}", turns=()))
        return self.nested[-1]

    # --- history --------------------------------------------------------------------------------------------------------

    @property
    def history(self) -> tuple[Message, ...]:
        """The conversation so far, without the system prompt. Always valid: every call has exactly one result."""
        return messages_of(self._turns)

    @property
    def turns(self) -> tuple[Turn, ...]:
        """The turns so far, the running one included."""
        return self._turns

    def parted(self, turn: str | None) -> tuple[tuple[Turn, ...], tuple[Turn, ...]]:
        """The turns before the one with this name, and the turns from it on. If no turn has the name, the second is empty."""
        at = next((at for at, one in enumerate(self._turns) if one.id == turn), len(self._turns))
        return self._turns[:at], self._turns[at:]

    def rewind(self, turn: str) -> tuple[Turn, ...]:
        """Drop the turn with this name and all later ones; returns the dropped turns."""
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
        """Continue from saved turns, e.g. those of a notebook's outputs."""
        self._finish_open_turn()
        self._turns, self._failed = tuple(Turn(trace.turn, trace.finish("interrupted")) for trace in traces), None
        for turn in self._turns:
            self.schemas.claim(turn.id, schemas_in(turn.trace))

    def adopt(self, turn: Turn) -> None:
        """Replace the newest turn with a fork's turn of the same name; raises OptionError if the names differ."""
        if not self._turns or self._turns[-1].id != turn.id:
            raise OptionError(f"The conversation {self.thread!r} has moved on.", "Run that cell again.")
        self._turns = (*self._turns[:-1], turn)

    def fork(self, thread: str | None = None, *, turns: Iterable[Turn] | None = None, model: Model | None = None) -> Session:
        """Copy the session into a new thread: the model (or ``model``), the settings, the turns so far (or ``turns``)."""
        copy = Session(model or self.model, thread=thread or f"{self.thread}-fork-{uuid.uuid4().hex[:4]}", asker=self.asker)
        copy.settings, copy.schemas = self.settings, self.schemas
        copy._turns = tuple(one for one in self._turns if one.over) if turns is None else tuple(turns)
        return copy

    def configure(self, **settings: Any) -> None:
        """Change the defaults of later turns; raises OptionError like :meth:`turn`."""
        if "thread" in settings:
            raise OptionError("A session's thread cannot be renamed.", "Use session.fork(NAME).")
        self.settings = self.settings.override(**settings)


def _stale(dropped: tuple[Turn, ...]) -> list[Event]:
    """The notice that turns after a replaced one were removed."""
    later = len(dropped) - 1
    if later < 1:
        return []
    which = "a later turn was removed. Run its cell" if later == 1 else f"{later} later turns were removed. Run their cells"
    return [Notice(f"This cell was run again, so {which} again.", "warning")]


def _after_first(events: Iterator[Event], extra: Iterable[Event]) -> Iterator[Event]:
    """Insert ``extra`` after the first event, so that a turn still begins with its TurnStart."""
    yield next(events)
    yield from extra
    yield from events
