"""The tool loop: model step, tool calls, results, model step, until the model answers or a limit is reached.

The loop yields events and keeps no copy of the turn: it reads the turn so far back from the
:class:`~llm_magics.session.history.Turn` that records the events. An interrupt or an error becomes a TurnEnd and is then raised
again.
"""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Collection, Generator, Mapping
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
from llm_magics.tools.answered import Answered
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

_CHARS_PER_TOKEN = 3  # a low estimate for English and code, used only to keep one result from filling the context
_MIN_RESULT_CHARS = 500
# appended, for the model, to the last result of an answer with too many calls
_STOPPED = "[Your answer was stopped here. Answer from these results, or make the calls that are still needed.]"


@dataclass(slots=True)
class TurnLoop:
    """One turn in progress. ``before`` is the conversation before it; ``turn`` records every event that ``run`` yields."""

    model: Model
    settings: TurnSettings
    before: tuple[Message, ...]
    turn: Turn
    thread: str
    asker: Asker
    owner: object = None
    recorder: Recorder = field(default_factory=Recorder)
    answered: Answered = field(default_factory=Answered)
    _told: int = 0  # how many left-out turns the reader has been told of
    _meter: Meter | None = None  # of the answer in progress, if its model has one

    def run(self, text: str) -> Generator[Event, None, None]:
        """Yield the turn's events. The caller must pass each event to ``turn.record`` before it asks for the next."""
        settings, clock = self.settings, Clock(self.settings.limits.seconds)
        tools, gate = {tool.name: tool for tool in settings.tools}, Gate(settings.approve)
        runner = Runner(
            tools, gate, self.asker, clock, self._result_chars(), self.owner, settings.tool_choice, self.answered
        )
        yield TurnStart(self.turn.id, self.thread, self.model.name, text, settings.record)
        try:
            way_out = yield from self._steps(clock, runner)
            yield from way_out.told
        except KeyboardInterrupt:
            yield self._end("interrupted", clock)
            raise
        except GeneratorExit:  # a closed generator cannot yield, but the turn must record its usage
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
            if course.must_be_asked_again(end):
                continue
            way_out = after(end, course.final) or (yield from self._run_calls(end, clock, runner, course))
            if way_out is not None:
                return way_out
        return out_of_steps(n_steps)

    def _step(self, number: int, clock: Clock, course: _Course) -> Generator[Event, None, ModelEnd | None]:
        """Stream one answer of the model; None if the turn's time ran out meanwhile."""
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
            raise ModelError(f"The stream of {self.model.name} broke off before its end.", "Ask again.")
        if end.usage.left_out_turns > self._told:
            self._told = end.usage.left_out_turns
            yield Notice(_left_out(end.usage), "warning")
        if end.finish_reason == "error":
            yield Notice(next(iter(end.notes), "The answer ended with an error."), "error")
        return end

    def _run_calls(self, end: ModelEnd, clock: Clock, runner: Runner, course: _Course) -> Generator[Event, None, WayOut | None]:
        """Run the calls of an answer; None if the turn goes on."""
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
        """Ask in the fullest way that fits the model's context. Raises ContextFullError if not even the question fits."""
        request, trace = self.recorder.asking(self.request(number)), self.turn.trace
        n_own = len(trace.messages()) - 1  # the turn's messages after its question
        *ways, shortest = ways_to_ask(self.model, request, n_own, trace.tools, in_words) if n_own else [Asking(request)]
        for asking in ways:
            with contextlib.suppress(ContextFullError):
                return asking, self._stream(asking.request)
        return shortest, self._stream(shortest.request)

    def _stream(self, request: Request) -> Generator[ModelEvent, None, None]:
        """The answer's events, ended if there are too many calls. The first event is drawn here, to raise refusals here."""
        asked = self.model.stream(request)
        self._meter = asked.meter if isinstance(asked, Metered) else None
        events = _with_ids(bounded(asked, self.settings.limits.of_calls))
        return _chained(next(events, None), events)

    def request(self, number: int) -> Request:
        settings = self.settings
        opening = (system(settings.system),) if settings.system else ()
        forced = settings.tool_choice not in ("auto", "none")
        return Request(
            messages=(*opening, *self.before, *self.turn.trace.messages()),
            tools=tuple(tool.spec for tool in settings.tools),
            # A call is forced once: the next step must be free to answer from its result.
            tool_choice="auto" if forced and number else settings.tool_choice,
            parallel_tool_calls=settings.parallel_tool_calls,
            response_schema=settings.json_schema,
            sampling=settings.sampling,
            max_tokens=self._max_tokens(),
            soft_limit=settings.max_tokens,  # not the turn's limit: that is a guard, not a wish for so long an answer
            stop=settings.stop,
            logprobs=settings.logprobs,
            thinking=settings.thinking,
            template_kwargs=settings.template_kwargs,
            conversation=self.thread,
            priority=settings.priority,
            call_limit=settings.limits.of_calls,
            answered=self.answered.current,
            asked_again=True,
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
        """Characters of one result that the model may read: the limit, but at most about a quarter of its context."""
        fits = self.model.context_size * _CHARS_PER_TOKEN // 4 if self.model.context_size else self.settings.limits.result_chars
        return min(self.settings.limits.result_chars, max(fits, _MIN_RESULT_CHARS))

    def _end(self, reason: FinishReason, clock: Clock) -> TurnEnd:
        trace = self.turn.trace
        usage = trace.usage if self._meter is None else trace.usage + self._meter.usage
        return TurnEnd(reason, usage, clock.seconds, max(len(trace.steps), 1))


@dataclass(slots=True)
class _Course:
    """What the steps so far mean for the next one.

    ``stalled`` counts the latest steps in a row none of whose calls ran, because they were repeated or not meant. ``failed``
    are the calls that failed in the last step. ``final`` says that the current step was asked for words.
    """

    stalled: int = 0
    failed: Collection[tuple[str, str]] = ()
    final: bool = False

    @property
    def in_words(self) -> bool:
        return self.stalled > 1

    def must_be_asked_again(self, end: ModelEnd) -> bool:
        """Whether the answer was a call in vain, or nothing after a reminder of a result: words are asked for then."""
        silent = self.stalled == 1 and not (end.message.tool_calls or end.message.text.strip())
        again = not self.final and (bool(end.vain) or silent)
        self.stalled = 2 if again else self.stalled
        return again

    def urge(self, end: ModelEnd) -> str:
        """The instruction in the results of calls that do not run."""
        return ANSWER if self.stalled or end.doubted else GO_ON

    def take(self, calls: tuple[ToolCall, ...], ran: Mapping[int, ToolEnd], urge: str) -> int | None:
        """Note the outcomes of a step's calls; returns the index of a call that also failed in the step before, or None."""
        failed = {calls[index].key: index for index, one in ran.items() if one.result.is_error}
        moved = any(one.state != "refused" or one.result.is_error for one in ran.values())
        self.stalled = 0 if moved else 2 if urge == ANSWER else 1
        before, self.failed = self.failed, failed.keys()
        return next((index for key, index in failed.items() if key in before), None)


def _watched(
    events: Generator[ToolEvent, None, None], calls: tuple[ToolCall, ...], remark: str
) -> Generator[ToolEvent, None, dict[int, ToolEnd]]:
    """Pass tool events on and return the calls' ends. ``remark`` is appended to the last result. On an interrupt, every open
    call ends as interrupted."""
    ends: dict[int, ToolEnd] = {}
    with contextlib.closing(events):
        try:
            for event in events:
                if isinstance(event, ToolEnd) and remark and event.index == len(calls) - 1:
                    event = replace(event, result=replace(event.result, content=f"{event.result.content}\n{remark}"))
                yield event
                if isinstance(event, ToolEnd):
                    ends[event.index] = event
        except KeyboardInterrupt:
            for index, call in enumerate(calls):
                if index not in ends:
                    yield ToolEnd(index, ToolResult(call.id, call.name, INTERRUPTED_RESULT, True), "interrupted")
            raise
    return ends


def _left_out(usage: Usage) -> str:
    turns = f"{usage.left_out_turns} oldest turns were" if usage.left_out_turns > 1 else "oldest turn was"
    return f"The {turns} left out: the context of {usage.context_size:,} tokens is full."


def _chained(first: ModelEvent | None, events: Generator[ModelEvent, None, None]) -> Generator[ModelEvent, None, None]:
    """Put the first event before the others; closing closes them."""
    with contextlib.closing(events):
        if first is not None:
            yield first
        yield from events


def _with_ids(events: Generator[ModelEvent, None, None]) -> Generator[ModelEvent, None, None]:
    """Give an id to calls without one, or whose id another call of the step has."""
    ids: dict[int, str] = {}

    def named(index: int, given: str) -> str:
        if index not in ids:
            ids[index] = given if given and given not in ids.values() else f"call_{uuid.uuid4().hex[:12]}"
        return ids[index]

    with contextlib.closing(events):
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
