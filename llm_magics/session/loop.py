"""The tool loop: model step, tool calls, results, model step, until the model answers or a limit is reached.

The loop yields events and keeps nothing: what it needs of the turn so far it reads back from the
:class:`~llm_magics.session.history.Turn` that records those events. An interrupt or an error is told as an event first and then
raised again, never swallowed.
"""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Generator, Iterator, Mapping
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
            reason = yield from self._steps(clock, runner)
        except KeyboardInterrupt:
            yield self._end("interrupted", clock)
            raise
        except GeneratorExit:  # nobody hears of it any more, but the turn keeps what it cost
            self.turn.record(self._end("interrupted", clock))
            raise
        except Exception:
            yield self._end("error", clock)
            raise
        yield self._end(reason, clock)

    def _steps(self, clock: Clock, runner: Runner) -> Generator[Event, None, FinishReason]:
        course, limits = _Course(), self.settings.limits
        for number in range(limits.steps):
            end = yield from self._step(number, clock, course)
            if end is None:
                return "length"
            if end.finish_reason == "error":
                yield Notice(next(iter(end.notes), "The answer ended with an error."), "error")
            calls = end.message.tool_calls
            if course.fell_silent(end.message):
                continue
            if not calls:
                return (yield from _answered(end))
            if end.finish_reason not in ("tool_calls", "stop"):
                why = "the answer was cut off" if end.finish_reason == "length" else "the answer did not end properly"
                yield from _not_run(calls, why)
                return end.finish_reason
            if course.final:
                yield from _not_run(calls, "the model was to answer from the results it has")
                return "tool_calls"
            urge = course.urge(end)
            ran = yield from _watched(runner.run(calls, end.doubted, urge), calls, _STOPPED if end.stopped else "")
            if end.stopped:
                yield Notice(f"The answer was stopped {end.stopped}.", "warning")
            failure = course.take(calls, ran, urge)
            if failure:
                yield Notice(failure, "error")
                return "error"
            hit = self._limit_hit(clock)
            if hit:
                yield Notice(hit, "warning")
                return "length"
        yield Notice(f"Stopped after {limits.steps} steps, the limit of a turn; max_steps allows more.", "warning")
        return "tool_calls"

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
                    event = self.recorder.completed(event, asking.request, number)
                    self._meter = None
                yield event
                if isinstance(event, ModelEnd):
                    end = event
                elif clock.over:
                    yield Notice(f"Stopped after {clock.limit:g} seconds, the limit of a turn.", "warning")
                    return None
        if end is not None and end.usage.left_out_turns > self._told:
            self._told = end.usage.left_out_turns
            yield Notice(_left_out(end.usage), "warning")
        if end is None:
            raise ModelError(f"The stream of {self.model.name} broke off without an end.", "Ask again.")
        return end

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
        """What the model is asked in the step of that number."""
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

    def _limit_hit(self, clock: Clock) -> str:
        if clock.over:
            return f"Stopped after {clock.limit:g} seconds, the limit of a turn."
        total = self.settings.limits.tokens
        if total is not None and self._generated >= total:
            return f"Stopped after {self._generated:,} generated tokens, the limit of a turn."
        return ""

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
    failed: dict[tuple[str, str], ToolEnd] = field(default_factory=dict)
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

    def take(self, calls: tuple[ToolCall, ...], ran: Mapping[int, ToolEnd], urge: str) -> str:
        """Note what came of a step's calls. Says why the turn must end if one failed a second time, else nothing."""
        failed = {key_of(calls[index]): one for index, one in ran.items() if one.result.is_error}
        moved = any(one.state != "refused" or one.result.is_error for one in ran.values())
        self.stalled = 0 if moved else 2 if urge == ANSWER else 1
        again = next((key for key in failed if key in self.failed), None)
        self.failed = failed
        return f"{again[0]} failed twice with the same arguments: {failed[again].result.content}" if again else ""


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


def _answered(end: ModelEnd) -> Generator[Event, None, FinishReason]:
    """The turn's end where the model has answered in words."""
    if end.stopped:
        yield Notice(f"The answer was stopped {end.stopped}.", "warning")
    if end.finish_reason == "length":
        yield Notice(_why_cut_off(end.usage), "warning")
    return "stop" if end.finish_reason == "tool_calls" else end.finish_reason


def _why_cut_off(usage: Usage) -> str:
    if usage.context_size and usage.context_used >= usage.context_size:
        more = "load the model with a larger context (--ctx), or with --context-shift to drop the oldest turns"
        return f"The answer was cut off where the context of {usage.context_size:,} tokens ends; {more}."
    return "The answer was cut off at its limit of tokens; a larger max_tokens (in a cell --max-tokens) allows more."


def _left_out(usage: Usage) -> str:
    turns = f"{usage.left_out_turns} oldest turns were" if usage.left_out_turns > 1 else "oldest turn was"
    return f"The {turns} left out: the context of {usage.context_size:,} tokens is full."


def _not_run(calls: tuple[ToolCall, ...], why: str) -> Iterator[Event]:
    """Answer calls that nobody runs: the turn ends here."""
    for index, call in enumerate(calls):
        yield ToolEnd(index, ToolResult(call.id, call.name, f"Not run: {why}."), "refused")
    yield Notice(f"Its tool calls were not run: {why}.", "warning")


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
