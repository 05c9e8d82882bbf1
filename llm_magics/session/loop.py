"""The tool loop: model step, tool calls, results, model step, until the model answers or a limit is reached.

The loop yields events and keeps nothing: what it needs of the turn so far it reads back from the
:class:`~llm_magics.session.history.Turn` that records those events. An interrupt or an error is told as an event first and then
raised again, never swallowed.
"""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Collection, Generator, Iterator, Mapping
from dataclasses import dataclass, field, replace

from llm_magics.errors import ContextFullError, ModelError
from llm_magics.events import (
    Event,
    ModelEnd,
    ModelEvent,
    Notice,
    ToolCallEnd,
    ToolCallStart,
    ToolEnd,
    ToolEvent,
    TurnEnd,
    TurnStart,
    Usage,
)
from llm_magics.messages import FinishReason, Message, ToolCall, ToolResult, system
from llm_magics.models.base import Model, Request
from llm_magics.models.meter import Meter, Metered
from llm_magics.tools.answered import key_of
from llm_magics.tools.policy import Asker, Gate
from llm_magics.tools.run.deadline import Clock
from llm_magics.tools.run.execute import ANSWER, GO_ON, Runner
from llm_magics.tools.runaway import bounded
from llm_magics.transcript import INTERRUPTED_RESULT

from .asking import Asking, ways_to_ask
from .history import Turn
from .record import Recorder
from .settings import TurnSettings
from .waysout import WayOut, after, failed_twice, out_of_steps, out_of_time, out_of_tokens, stopped

_CHARS_PER_TOKEN = 3  # a careful guess for English and code, only to keep one result from filling the context
_MIN_RESULT_CHARS = 500
# what the model reads behind the last result of an answer that had too many calls
_STOPPED = "[Your answer was stopped here. Answer from these results, or make the calls that are still needed.]"


@dataclass(slots=True)
class TurnLoop:
    """One turn on its way. ``before`` is the conversation in front of it; ``turn`` records every event that ``run`` yields."""

    model: Model
    settings: TurnSettings
    before: tuple[Message, ...]
    turn: Turn
    thread: str
    asker: Asker
    owner: object = None
    recorder: Recorder = field(default_factory=Recorder)
    _told: int = 0  # of turns left out
    _meter: Meter | None = None  # of the answer under way, if its model counts

    def run(self, text: str) -> Generator[Event, None, None]:
        """Yield the turn's events. Whoever consumes them gives each to ``turn.record`` before asking for the next."""
        clock = Clock(self.settings.limits.seconds)
        runner = Runner(
            {tool.name: tool for tool in self.settings.tools},
            Gate(self.settings.approve),
            self.asker,
            clock,
            self._result_chars(),
            self.owner,
            self.settings.tool_choice,
        )
        yield TurnStart(self.turn.id, self.thread, self.model.name, text, self.settings.record)
        try:
            way_out = yield from self._steps(clock, runner)
            yield from way_out.told
        except KeyboardInterrupt:
            yield self._end("interrupted", clock)
            raise
        except GeneratorExit:  # nobody hears of it any more, but the turn keeps what it cost
            self.turn.record(self._end("interrupted", clock))
            raise
        except Exception:
            yield self._end("error", clock)
            raise
        yield self._end(way_out.finish_reason, clock)

    def _steps(self, clock: Clock, runner: Runner) -> Generator[Event, None, WayOut]:
        course, n_steps = _Course(), self.settings.limits.steps
        for number in range(n_steps):
            end = yield from self._step(number, clock, course)
            if end is None:
                return out_of_time(clock)
            if course.fell_silent(end.message):
                continue
            way_out = after(end, course.final) or (yield from self._run_calls(end, clock, runner, course))
            if way_out is not None:
                return way_out
        return out_of_steps(n_steps)

    def _step(self, number: int, clock: Clock, course: _Course) -> Generator[Event, None, ModelEnd | None]:
        """Stream one answer of the model; None if the turn's time ran out under it."""
        asking, stream = self._begin(number, course.in_words)
        course.final = asking.final
        end: ModelEnd | None = None
        with contextlib.closing(stream):
            if asking.remark:
                yield Notice(f"The context of {self.model.context_size:,} tokens is nearly full: {asking.remark}.", "warning")
            for event in stream:
                if isinstance(event, ModelEnd):
                    event = end = self.recorder.completed(event, asking.request, number)
                    self._meter = None
                yield event
                if end is None and clock.over:
                    return None
        if end is None:
            raise ModelError(f"The stream of {self.model.name} broke off without an end.", "Ask again.")
        if end.usage.left_out_turns > self._told:
            self._told = end.usage.left_out_turns
            yield Notice(_left_out(end.usage), "warning")
        if end.finish_reason == "error":
            yield Notice(next(iter(end.notes), "The answer ended with an error."), "error")
        return end

    def _run_calls(
        self, end: ModelEnd, clock: Clock, runner: Runner, course: _Course
    ) -> Generator[Event, None, WayOut | None]:
        """Run the calls of an answer; None if the model is to be asked again."""
        calls, urge = end.message.tool_calls, course.urge(end)
        ran = yield from _watched(runner.run(calls, end.doubted, urge), calls, _STOPPED if end.stopped else "")
        if end.stopped:
            yield stopped(end)
        again = course.take(calls, ran, urge)
        if again is not None:
            return failed_twice(calls[again], ran[again].result.content)
        if clock.over:
            return out_of_time(clock)
        total = self.settings.limits.tokens
        return out_of_tokens(self._generated) if total is not None and self._generated >= total else None

    def _begin(self, number: int, in_words: bool) -> tuple[Asking, Generator[ModelEvent, None, None]]:
        """Ask in the fullest way that has room in the model's context. Raises ContextFullError for a question without any."""
        request, trace = self.recorder.asking(self.request(number)), self.turn.trace
        n_own = len(trace.messages()) - 1  # what the turn has added to its question
        *ways, shortest = ways_to_ask(self.model, request, n_own, trace.tools, in_words) if n_own else [Asking(request)]
        for asking in ways:
            with contextlib.suppress(ContextFullError):
                return asking, self._stream(asking.request)
        return shortest, self._stream(shortest.request)

    def _stream(self, request: Request) -> Generator[ModelEvent, None, None]:
        """The answer's events, begun: a request that is refused is refused here. Too many calls end it."""
        asked = self.model.stream(request)
        self._meter = asked.meter if isinstance(asked, Metered) else None
        events = _with_ids(bounded(asked, self.settings.limits.of_calls))
        first = next(events, None)
        return _chained(first, events)

    def request(self, number: int) -> Request:
        settings = self.settings
        opening = (system(settings.system),) if settings.system else ()
        forced = settings.tool_choice not in ("auto", "none")
        return Request(
            messages=(*opening, *self.before, *self.turn.trace.messages()),
            tools=tuple(tool.spec for tool in settings.tools),
            # A forced call is forced once: the next step must be free to answer with what it gave.
            tool_choice="auto" if forced and number else settings.tool_choice,
            parallel_tool_calls=settings.parallel_tool_calls,
            response_schema=settings.json_schema,
            sampling=settings.sampling,
            max_tokens=self._max_tokens(),
            soft_limit=settings.max_tokens,  # the turn's limits are a guard; nobody asks for an answer that long by them
            stop=settings.stop,
            logprobs=settings.logprobs,
            thinking=settings.thinking,
            template_kwargs=settings.template_kwargs,
            conversation=self.thread,
            priority=settings.priority,
            call_limit=settings.limits.of_calls,
        )

    def _max_tokens(self) -> int | None:
        total, own = self.settings.limits.tokens, self.settings.max_tokens
        if total is None:
            return own
        left = max(total - self._generated, 1)
        return left if own is None else min(left, own)

    @property
    def _generated(self) -> int:
        return self.turn.trace.usage.completion_tokens

    def _result_chars(self) -> int:
        """How much of one result the model may read: the limit, and never more than about a quarter of its context."""
        fits = self.model.context_size * _CHARS_PER_TOKEN // 4 if self.model.context_size else self.settings.limits.result_chars
        return min(self.settings.limits.result_chars, max(fits, _MIN_RESULT_CHARS))

    def _end(self, reason: FinishReason, clock: Clock) -> TurnEnd:
        trace = self.turn.trace
        usage = trace.usage if self._meter is None else trace.usage + self._meter.usage
        return TurnEnd(reason, usage, clock.seconds, max(len(trace.steps), 1))


@dataclass(slots=True)
class _Course:
    """What the steps so far say of the next one.

    ``stalled`` counts steps in a row whose calls all went without a run, because they repeat or were not meant; ``failed``
    holds the calls that failed in the last step; ``final`` says that the step under way was asked for words.
    """

    stalled: int = 0
    failed: Collection[tuple[str, str]] = ()
    final: bool = False

    @property
    def in_words(self) -> bool:
        return self.stalled > 1

    def fell_silent(self, message: Message) -> bool:
        """Whether the model, reminded of a result, said nothing: it is then asked once more, and for words."""
        silent = self.stalled == 1 and not (message.tool_calls or message.text.strip())
        self.stalled += silent
        return silent

    def urge(self, end: ModelEnd) -> str:
        """What calls that do not run are answered with."""
        return ANSWER if self.stalled or end.doubted else GO_ON

    def take(self, calls: tuple[ToolCall, ...], ran: Mapping[int, ToolEnd], urge: str) -> int | None:
        """Note what came of a step's calls; gives the index of one that failed as it did in the step before."""
        failed = {key_of(calls[index]): index for index, one in ran.items() if one.result.is_error}
        moved = any(one.state != "refused" or one.result.is_error for one in ran.values())
        self.stalled = 0 if moved else 2 if urge == ANSWER else 1
        again = next((index for key, index in failed.items() if key in self.failed), None)
        self.failed = failed.keys()
        return again


def _watched(
    events: Generator[ToolEvent, None, None], calls: tuple[ToolCall, ...], remark: str
) -> Generator[ToolEvent, None, dict[int, ToolEnd]]:
    """Pass tool events on and give the ends of the calls, the last one's with a remark for the model. An interrupt ends the
    calls it hit, visibly."""
    open_calls = dict(enumerate(calls))
    ends: dict[int, ToolEnd] = {}
    with contextlib.closing(events):
        try:
            for event in events:
                if isinstance(event, ToolEnd):
                    if remark and event.index == len(calls) - 1:
                        event = replace(event, result=replace(event.result, content=f"{event.result.content}\n{remark}"))
                    yield event
                    del open_calls[event.index]
                    ends[event.index] = event
                else:
                    yield event
        except KeyboardInterrupt:
            for index, call in open_calls.items():
                yield ToolEnd(index, ToolResult(call.id, call.name, INTERRUPTED_RESULT, True), "interrupted")
            raise
    return ends


def _left_out(usage: Usage) -> str:
    turns = f"{usage.left_out_turns} oldest turns were" if usage.left_out_turns > 1 else "oldest turn was"
    return f"The {turns} left out: the context of {usage.context_size:,} tokens is full."


def _chained(first: ModelEvent | None, events: Generator[ModelEvent, None, None]) -> Generator[ModelEvent, None, None]:
    """Put the first event back in front; closing closes the events."""
    with contextlib.closing(events):
        if first is not None:
            yield first
        yield from events


def _with_ids(events: Iterator[ModelEvent]) -> Generator[ModelEvent, None, None]:
    """Give calls that came without an id, or with one that the step has already, an id of their own."""
    ids: dict[int, str] = {}

    def named(index: int, given: str) -> str:
        if index not in ids:
            ids[index] = given if given and given not in ids.values() else f"call_{uuid.uuid4().hex[:12]}"
        return ids[index]

    try:
        for event in events:
            match event:
                case ToolCallStart(index=index, id=given):
                    yield replace(event, id=named(index, given))
                case ToolCallEnd(index, call):
                    yield replace(event, call=replace(call, id=named(index, call.id)))
                case ModelEnd(message=message) if message.tool_calls:
                    calls = tuple(replace(c, id=named(i, c.id)) for i, c in enumerate(message.tool_calls))
                    yield replace(event, message=replace(message, tool_calls=calls))
                case _:
                    yield event
    finally:
        close = getattr(events, "close", None)
        if close is not None:
            close()
