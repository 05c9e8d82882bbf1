"""Reads a server's answer: chunks in, events out, with near misses in its text recovered.

The server has parsed the model's own syntax already. What it passes on as text may still be a call in a wrong wrapper, which
the same recovery reads as for a model in this kernel. There the model's probabilities say whether it meant the call; no
service sends them unasked, and recovery decides without: arguments valid, tool offered, not quoted from a result. Here it also
serves requests that require a call: in this kernel a grammar sees to those, but a server may answer them with a near miss.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from llm_magics.chat.encodings.syntax import ToolSyntax
from llm_magics.chat.recovery.course import Course
from llm_magics.chat.recovery.recovery import Recovery, quotable
from llm_magics.events import (
    ModelEnd,
    ModelEvent,
    ReasoningDelta,
    TextDelta,
    ToolCallDelta,
    ToolCallEnd,
    ToolCallStart,
    assemble,
)
from llm_magics.models.base import Request
from llm_magics.models.brake import Brake
from llm_magics.wire import ForeignDecoder

_BLANK = 12  # characters


@dataclass(slots=True)
class AnswerReader:
    """Reads one answer. ``stopped`` says why it must end, and is empty as long as it may go on."""

    recovery: Recovery | None = None
    brake: Brake | None = None
    foreign: ForeignDecoder = field(default_factory=ForeignDecoder)
    n_pieces: int = 0  # of text, reasoning or arguments; about one token each
    _given: list[ModelEvent] = field(default_factory=list)
    _numbers: dict[int, int] = field(default_factory=dict)  # the decoder's index of a call -> its index in the answer
    _n_calls: int = 0
    _n_blank: int = 0  # characters of white space at the end of the answer

    @classmethod
    def of(cls, request: Request, syntax: ToolSyntax) -> AnswerReader:
        """``syntax`` is the template's, if the server tells its template, else a usual one."""
        recovery = None
        if request.tools and request.tool_choice != "none" and request.response_schema is None:
            tools = [tool for tool in request.tools if request.tool_choice in ("auto", "required", tool.name)]
            recovery = Recovery(
                tools, syntax, said=quotable(request.messages), parallel=request.parallel_tool_calls,
                course=Course.of(request.messages, request.answered), withhold=request.asked_again,
            )  # fmt: skip
        reader = cls(recovery, Brake(request.call_limit, recovery) if request.call_limit is not None else None)
        if recovery is not None:
            recovery.number = reader._next
        return reader

    @property
    def finished(self) -> bool:
        """Whether the server has said that the answer is over."""
        return bool(self.foreign.finished)

    @property
    def stopped(self) -> str:
        return self.brake.stopped if self.brake is not None else ""

    @property
    def idle(self) -> bool:
        """Whether nothing of use will come: the model calls in vain, repeats itself, or writes white space behind its calls."""
        if self.recovery is None:
            return False
        blank = self._n_blank > _BLANK and bool(self.recovery.written())
        return bool(self.recovery.vain) or self.recovery.idle or blank

    def feed(self, chunk: object) -> list[ModelEvent]:
        """Read one chunk; raises WireError."""
        events = self._through(self.foreign.feed(chunk))
        self.n_pieces += any(isinstance(event, TextDelta | ReasoningDelta | ToolCallDelta) for event in events)
        return self._kept(self.brake.take(events) if self.brake is not None else events)

    def finish(self) -> tuple[list[ModelEvent], ModelEnd]:
        """The answer is over: its last events, and its end, whose usage is the server's, if it told."""
        *last, end = self.foreign.finish()
        assert isinstance(end, ModelEnd)
        events = self._through(last)
        if self.recovery is not None:
            if self.idle:
                self.recovery.stop()
            events += self.recovery.finish(end.finish_reason != "length")
            end = replace(end, notes=(*end.notes, *self.recovery.notes))
        message = assemble([*self._given, *events], end.finish_reason)
        if message.tool_calls and end.finish_reason == "stop":
            message = replace(message, finish_reason="tool_calls")
        vain = self.recovery.vain if self.recovery is not None and not message.tool_calls else ""
        end = replace(end, message=message, finish_reason=message.finish_reason or "stop", vain=vain)
        return self.brake.finish(events, end) if self.brake is not None else (events, end)

    def _next(self) -> tuple[int, str]:
        self._n_calls += 1
        return self._n_calls - 1, f"call{self._n_calls:05}"

    def _kept(self, events: Sequence[ModelEvent]) -> list[ModelEvent]:
        self._given += events
        return list(events)

    def _through(self, events: Sequence[ModelEvent]) -> list[ModelEvent]:
        """Pass text through the recovery, and number the server's calls among the recovered ones."""
        out: list[ModelEvent] = []
        for event in events:
            match event:
                case TextDelta(text) if self.recovery is not None:
                    self._n_blank = 0 if text.strip() else self._n_blank + len(text)
                    out += self.recovery.feed(text)
                case ToolCallStart(index=index):
                    out += self.recovery.interrupt() if self.recovery is not None else []
                    self._numbers[index] = self._next()[0]
                    out.append(replace(event, index=self._numbers[index]))
                case ToolCallDelta(index=index) | ToolCallEnd(index=index):
                    out.append(replace(event, index=self._numbers[index]))
                case ReasoningDelta() if self.recovery is not None:
                    out += [*self.recovery.interrupt(), event]
                case _:
                    out.append(event)
        return out
