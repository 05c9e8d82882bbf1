"""The tool loop: model step, tool calls, results, model step, until the model answers or a limit is reached.

The loop yields events and keeps nothing: what it needs of the turn so far it reads back from the
:class:`~llm_magics.history.Turn` that records those events. An interrupt or an error is told as an event first and then raised
again, never swallowed.
"""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Generator, Iterator
from dataclasses import dataclass, replace

from .errors import ModelError
from .events import (
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
from .history import Turn
from .messages import FinishReason, Message, ToolCall, ToolResult, system
from .models.base import Model, Request
from .settings import TurnSettings
from .tools.answered import key_of
from .tools.deadline import Clock
from .tools.execute import ANSWER, GO_ON, Runner
from .tools.policy import Asker, Gate
from .transcript import INTERRUPTED_RESULT, ToolSegment

_CHARS_PER_TOKEN = 3  # a careful guess for English and code, only to keep one result from filling the context
_MIN_RESULT_CHARS = 500


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
    _told: int = 0  # of turns left out

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
        yield TurnStart(self.turn.id, self.thread, self.model.name, text)
        try:
            reason = yield from self._steps(clock, runner)
        except KeyboardInterrupt:
            yield self._end("interrupted", clock)
            raise
        except Exception:
            yield self._end("error", clock)
            raise
        yield self._end(reason, clock)

    def _steps(self, clock: Clock, runner: Runner) -> Generator[Event, None, FinishReason]:
        limits = self.settings.limits
        failed_before: dict[tuple[str, str], ToolEnd] = {}
        stalled = 0  # steps in a row whose calls all went without a run, because they repeat or were not meant
        for number in range(limits.steps):
            end = yield from self._step(number, clock, in_words=stalled > 1)
            if end is None:
                return "length"
            if stalled == 1 and not (end.message.tool_calls or end.message.text.strip()):
                stalled = 2  # reminded of a result, the model said nothing: it is asked once more, and for words
                continue
            if not end.message.tool_calls:
                if end.finish_reason == "length":
                    yield Notice(_why_cut_off(end.usage), "warning")
                return "stop" if end.finish_reason == "tool_calls" else end.finish_reason
            if end.finish_reason not in ("tool_calls", "stop"):
                why = "the answer was cut off" if end.finish_reason == "length" else "the answer did not end properly"
                yield from _not_run(end.message.tool_calls, why)
                return end.finish_reason
            if stalled > 1:
                yield from _not_run(end.message.tool_calls, "the model was to answer from the results it has")
                return "tool_calls"
            urge = ANSWER if stalled or end.doubted else GO_ON
            ran = yield from _watched(runner.run(end.message.tool_calls, end.doubted, urge), end.message.tool_calls)
            failed = {key_of(end.message.tool_calls[i]): one for i, one in ran.items() if one.result.is_error}
            moved = any(one.state != "refused" or one.result.is_error for one in ran.values())
            stalled = 0 if moved else 2 if urge == ANSWER else 1
            again = next((key for key in failed if key in failed_before), None)
            if again is not None:
                yield Notice(f"{again[0]} failed twice with the same arguments: {failed[again].result.content}", "error")
                return "error"
            failed_before = failed
            hit = self._limit_hit(clock)
            if hit:
                yield Notice(hit, "warning")
                return "length"
        yield Notice(f"Stopped after {limits.steps} steps, the limit of a turn; max_steps allows more.", "warning")
        return "tool_calls"

    def _step(self, number: int, clock: Clock, in_words: bool) -> Generator[Event, None, ModelEnd | None]:
        """Stream one answer of the model, ``in_words`` without tools; None where the turn's time ran out under it."""
        request = self.request(number)
        if in_words:
            messages = tuple(_for_words(request.messages, self.turn.trace.tools))
            request = replace(request, messages=messages, tool_choice="none")
        stream = _with_ids(self.model.stream(request))
        end: ModelEnd | None = None
        with contextlib.closing(stream):
            for event in stream:
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
            stop=settings.stop,
            logprobs=settings.logprobs,
            thinking=settings.thinking,
            template_kwargs=settings.template_kwargs,
            conversation=self.thread,
            priority=settings.priority,
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
        return TurnEnd(reason, trace.usage, clock.seconds, max(len(trace.steps), 1))


def _watched(
    events: Generator[ToolEvent, None, None], calls: tuple[ToolCall, ...]
) -> Generator[ToolEvent, None, dict[int, ToolEnd]]:
    """Pass tool events on and give the ends of the calls. An interrupt ends the calls it hit, visibly."""
    open_calls = dict(enumerate(calls))
    ends: dict[int, ToolEnd] = {}
    with contextlib.closing(events):
        try:
            for event in events:
                yield event
                if isinstance(event, ToolEnd):
                    del open_calls[event.index]
                    ends[event.index] = event
        except KeyboardInterrupt:
            for index, call in open_calls.items():
                yield ToolEnd(index, ToolResult(call.id, call.name, INTERRUPTED_RESULT, True), "interrupted")
            raise
    return ends


def _why_cut_off(usage: Usage) -> str:
    if usage.context_size and usage.context_used >= usage.context_size:
        more = "load the model with a larger context (ctx), or let the oldest turns go (context_shift)"
        return f"The answer was cut off where the context of {usage.context_size:,} tokens ends; {more}."
    return "The answer was cut off at its limit of tokens; max_tokens allows more."


def _left_out(usage: Usage) -> str:
    turns = f"{usage.left_out_turns} oldest turns were" if usage.left_out_turns > 1 else "oldest turn was"
    return f"The {turns} left out: the context of {usage.context_size:,} tokens is full."


def _for_words(messages: tuple[Message, ...], tools: tuple[ToolSegment, ...]) -> Iterator[Message]:
    """Leave out the calls that did not run, but for the last, and let that one ask for words.

    A small model goes on with what it sees itself do.
    """
    unrun = [tool.id for tool in tools if tool.state == "refused" and not tool.is_error]
    left_out = set(unrun[:-1])
    for message in messages:
        if message.tool_call_id in unrun:
            message = replace(message, content=message.text.replace(GO_ON, ANSWER))
        calls = tuple(call for call in message.tool_calls if call.id not in left_out)
        silent = message.role == "assistant" and not (calls or message.text.strip() or message.reasoning)
        if message.tool_call_id in left_out or silent:
            continue
        yield message if calls == message.tool_calls else replace(message, tool_calls=calls, token_ids=())


def _not_run(calls: tuple[ToolCall, ...], why: str) -> Iterator[Event]:
    """Answer calls that nobody runs: the turn ends here."""
    for index, call in enumerate(calls):
        yield ToolEnd(index, ToolResult(call.id, call.name, f"Not run: {why}.", True), "refused")
    yield Notice(f"Its tool calls were not run: {why}.", "warning")


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
