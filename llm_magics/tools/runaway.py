"""When the calls of one answer run away: how many there may be, and how a series is told from calls that are meant.

Small models sometimes write call after call in one answer and never end it: ``sqrt(144) + 3100``, ``sqrt(144) + 3125``, ...
So an answer has a limit, and where it is reached the model is stopped: the calls that are complete run, and the model goes on
from their results. Two rules, whichever comes first:

- a number of calls, smaller for calls that were recovered from near misses (it is small models that write those);
- a *series*: four calls in a row of one tool whose arguments differ in one number only, in a string or not. A fifth call is not
  waited for. Ten cities are no series, their names differ; twelve numbered files are one, and are read four by four.

Calls of separate answers, such as a clock that is polled, are never counted together: ``Limits.steps`` bounds those.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from llm_magics.events import ModelEnd, ModelEvent, ToolCallEnd, ToolCallStart, assemble
from llm_magics.messages import ToolCall

from .answered import key_of

SERIES = 4
_NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?")  # e.g. 3100, -2.5, 1e9, and the 7 of "file7.txt"


@dataclass(frozen=True, slots=True)
class CallLimit:
    """Most calls in one answer: ``own`` in the template's own syntax, ``recovered`` from near misses."""

    own: int = 32
    recovered: int = 8

    def full(self, calls: Sequence[ToolCall]) -> str:
        """Why an answer with these calls may have no more of them, whatever they are; empty if it may."""
        n_recovered = sum(bool(call.recovered) for call in calls)
        for n, most in ((n_recovered, self.recovered), (len(calls) - n_recovered, self.own)):
            if n >= most:
                return f"after {most} call{'s' if most > 1 else ''}, the most of one answer; max_calls allows more"
        return ""

    def exceeded(self, calls: Sequence[ToolCall]) -> str:
        """Why a further call must not begin behind these; empty if it may."""
        if is_series(calls[-SERIES:]):
            return f"because {SERIES} calls in a row differ in one number only"
        return self.full(calls)


def is_series(calls: Sequence[ToolCall]) -> bool:
    """Whether calls enough for a series differ in one number at most, e.g. ``f(x="1 + 5")``, ``f(x="1 + 6")``, ..."""
    if len(calls) < SERIES or len({call.name for call in calls}) > 1:
        return False
    texts = [key_of(call)[1] for call in calls]
    if len({tuple(_NUMBER.split(text)) for text in texts}) > 1:
        return False
    places = zip(*map(_NUMBER.findall, texts), strict=True)
    return sum(len(set(numbers)) > 1 for numbers in places) <= 1


def bounded(events: Iterable[ModelEvent], limit: CallLimit) -> Iterator[ModelEvent]:
    """Pass one answer's events on, and end the answer in front of the call that is too many."""
    seen: list[ModelEvent] = []
    calls: list[ToolCall] = []
    for event in events:
        if isinstance(event, ToolCallStart) and (why := limit.exceeded(calls)):
            yield ModelEnd(assemble(seen, "tool_calls"), "tool_calls", stopped=why)
            return
        if isinstance(event, ToolCallEnd):
            calls.append(event.call)
        seen.append(event)
        yield event
