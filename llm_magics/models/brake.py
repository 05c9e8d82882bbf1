"""Stops an answer at its limit of calls; the answer is then what came before the limit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from llm_magics.chat.recovery.recovery import Recovery
from llm_magics.events import ModelEnd, ModelEvent, ToolCallEnd, ToolCallStart, assemble
from llm_magics.messages import ToolCall
from llm_magics.tools.runaway import CallLimit


class Brake:
    """Counts the calls of one answer. ``stopped`` says why the answer must end; empty as long as it may continue.

    Calls in the template's own syntax arrive as events. A near miss arrives as a whole when it is over, so its recovery counts
    the calls in it, and is told to end it.
    """

    def __init__(self, limit: CallLimit, recovery: Recovery | None) -> None:
        self.stopped = ""
        self._limit = limit
        self._recovery = recovery
        self._calls: list[ToolCall] = []
        self._given: list[ModelEvent] = []
        self._between_calls = False  # stopped after a call that arrived as an event: what follows is not part of the answer

    def take(self, events: Sequence[ModelEvent]) -> list[ModelEvent]:
        """The events up to the point where the answer must end."""
        for at, event in enumerate(events):
            if isinstance(event, ToolCallStart):
                self.stopped = self._limit.exceeded(self._calls)
            if self.stopped:
                self._between_calls = True
                return list(events[:at])
            self._given.append(event)
            if isinstance(event, ToolCallEnd):
                self._calls.append(event.call)
                self.stopped = self._limit.full(self._calls)
        self._between_calls = bool(self.stopped)
        if not self.stopped and self._recovery is not None and (written := self._recovery.written()):
            ends = self._limit.exceeded if self._recovery.another_begun else self._limit.full
            self.stopped = ends([*self._calls, *written])
            if self.stopped:
                self._recovery.stop()
        return list(events)

    def finish(self, events: Sequence[ModelEvent], end: ModelEnd) -> tuple[list[ModelEvent], ModelEnd]:
        """The answer's last events and its end, without whatever follows the limit."""
        if not self._between_calls:
            return list(events), replace(end, stopped=self.stopped)
        message = assemble(self._given, "tool_calls")
        return [], replace(end, message=message, finish_reason="tool_calls", stopped=self.stopped)
