"""The ways out of a turn, each by its name. An interrupt and an exception end it too: see :meth:`TurnLoop.run`."""

from __future__ import annotations

from dataclasses import dataclass

from llm_magics.events import Event, ModelEnd, Notice, ToolEnd, Usage
from llm_magics.messages import FinishReason, ToolCall, ToolResult
from llm_magics.tools.run.deadline import Clock


@dataclass(frozen=True, slots=True)
class WayOut:
    """Why a turn ends, and the events that say so."""

    finish_reason: FinishReason
    told: tuple[Event, ...] = ()


def after(end: ModelEnd, final: bool) -> WayOut | None:
    """The way out after one answer of the model; None if its calls should run. ``final``: it was asked for words alone."""
    if not end.message.tool_calls:
        return answered(end)
    if end.finish_reason not in ("tool_calls", "stop"):
        return cut_off_in_calls(end)
    return calls_for_words(end) if final else None


def answered(end: ModelEnd) -> WayOut:
    """The model has answered in words, perhaps incompletely."""
    told = [stopped(end)] if end.stopped else []
    if end.finish_reason == "length":
        told.append(Notice(_why_cut_off(end.usage), "warning"))
    return WayOut("stop" if end.finish_reason == "tool_calls" else end.finish_reason, tuple(told))


def cut_off_in_calls(end: ModelEnd) -> WayOut:
    why = "the answer was cut off" if end.finish_reason == "length" else "the answer did not end properly"
    return WayOut(end.finish_reason, _not_run(end.message.tool_calls, why))


def calls_for_words(end: ModelEnd) -> WayOut:
    """The model was asked for words and has answered with calls again."""
    return WayOut("tool_calls", _not_run(end.message.tool_calls, "the model was to answer from the results it has"))


def failed_twice(call: ToolCall, error: str) -> WayOut:
    """The model has repeated a call that failed, and it failed again."""
    return WayOut("error", (Notice(f"{call.name} failed twice with the same arguments: {error}", "error"),))


def out_of_time(clock: Clock) -> WayOut:
    return WayOut("length", (Notice(f"Stopped after {clock.limit:g} seconds, the limit of a turn.", "warning"),))


def out_of_tokens(n_tokens: int) -> WayOut:
    return WayOut("length", (Notice(f"Stopped after {n_tokens:,} generated tokens, the limit of a turn.", "warning"),))


def out_of_steps(n_steps: int) -> WayOut:
    told = Notice(f"Stopped after {n_steps} steps, the limit of a turn; max_steps allows more.", "warning")
    return WayOut("tool_calls", (told,))


def stopped(end: ModelEnd) -> Event:
    """Say that an answer was stopped before the model ended it."""
    return Notice(f"The answer was stopped {end.stopped}.", "warning")


def _why_cut_off(usage: Usage) -> str:
    if usage.context_size and usage.context_used >= usage.context_size:
        more = "load the model with a larger context (--ctx), or with --context-shift to drop the oldest turns"
        return f"The answer was cut off at the end of the context of {usage.context_size:,} tokens; {more}."
    return "The answer was cut off at its token limit; a larger max_tokens (in a cell --max-tokens) allows more."


def _not_run(calls: tuple[ToolCall, ...], why: str) -> tuple[Event, ...]:
    """Give each call that does not run its result."""
    results = (ToolResult(call.id, call.name, f"Not run: {why}.") for call in calls)
    ends = (ToolEnd(index, result, "refused") for index, result in enumerate(results))
    return (*ends, Notice(f"The tool calls were not run: {why}.", "warning"))
