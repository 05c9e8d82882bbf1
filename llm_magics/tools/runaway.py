"""When the calls of one answer run away: how many an answer may have, and how to tell a series from calls that are meant.

Small models sometimes write call after call in one answer and never end it: ``sqrt(144) + 3100``, ``sqrt(144) + 3125``, ...
At a limit the model is stopped: the complete calls run, and the model continues from their results. Two limits:

- a number of calls, smaller for calls recovered from near misses, which mostly small models write;
- a *series*: four calls in a row of one tool whose arguments differ in one number only, inside a string or not. Ten city names
  are not a series; twelve numbered files are one, and are read four by four.

Calls of separate answers, e.g. of a polled clock, are not counted together: ``Limits.steps`` bounds those.
"""

from __future__ import annotations

import re
from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass

from llm_magics.events import ModelEnd, ModelEvent, ToolCallEnd, ToolCallStart, assemble
from llm_magics.messages import ToolCall
from llm_magics.plural import counted

SERIES = 4
_NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?")  # e.g. 3100, -2.5, 1e9, and the 7 of "file7.txt"


@dataclass(frozen=True, slots=True)
class CallLimit:
    """Most calls in one answer: ``own`` in the template's own syntax, ``recovered`` from near misses."""

    own: int = 32
    recovered: int = 8

    def full(self, calls: Sequence[ToolCall]) -> str:
        """Why an answer with these calls may have no further one, whatever it is; empty if it may."""
        n_recovered = sum(bool(call.recovered) for call in calls)
        for n, most in ((n_recovered, self.recovered), (len(calls) - n_recovered, self.own)):
            if n >= most:
                return f"after {counted(most, 'call')}, the most of one answer; max_calls allows more"
        return ""

    def exceeded(self, calls: Sequence[ToolCall]) -> str:
        """Why no further call may begin after these; empty if one may."""
        if is_series(calls[-SERIES:]):
            return f"because {SERIES} calls in a row differ in one number only"
        return self.full(calls)


def is_series(calls: Sequence[ToolCall]) -> bool:
    """Whether these are enough calls for a series and differ in at most one number, e.g. ``f(x="1 + 5")``, ``f(x="1 + 6")``."""
    if len(calls) < SERIES or len({call.name for call in calls}) > 1:
        return False
    texts = [call.key[1] for call in calls]
    if len({tuple(_NUMBER.split(text)) for text in texts}) > 1:
        return False
    places = zip(*map(_NUMBER.findall, texts), strict=True)
    return sum(len(set(numbers)) > 1 for numbers in places) <= 1


def bounded(events: Iterable[ModelEvent], limit: CallLimit) -> Generator[ModelEvent, None, None]:
    """Pass one answer's events on, and end the answer before the call that is too many."""
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
