"""The events of a model's answer, of a tool's run and of a whole turn; and a fold over them.

There are three families: a *ModelEvent* comes from one model step, a *ToolEvent* from the run of one call, a *TurnEvent* from
the turn around them. As a regular expression, a turn is::

    TurnStart ( PromptProgress* (TextDelta | ReasoningDelta | ToolCallStart ToolCallDelta* ToolCallEnd)* ModelEnd
                ( ToolAsk? ToolStart ToolProgress* ToolEnd | ToolAsk? ToolEnd )* )* TurnEnd          with Notice anywhere

:func:`assemble` folds a step's events into its Message (law 3: ``assemble(events) == ModelEnd.message``, up to ``token_ids``).
A session folds a whole turn into its trace (:mod:`.transcript`), which views draw. All events pickle.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from .messages import FinishReason, Message, ToolCall, ToolResult


@dataclass(frozen=True, slots=True)
class Usage:
    """Token counts and times of one step, or of a whole turn when summed.

    Of ``prompt_tokens``, ``cached_tokens`` were in the KV cache and ``evaluated_tokens`` were computed. ``losses`` says why
    less was cached than the conversation allows. Seconds are wall-clock, measured by the engine. Speculation guessed
    ``drafted_tokens``; ``accepted_tokens`` of them were right. ``left_out_turns`` counts the oldest turns that the model was
    not shown because the context was full.
    """

    prompt_tokens: int = 0
    cached_tokens: int = 0
    evaluated_tokens: int = 0
    completion_tokens: int = 0
    prompt_seconds: float = 0.0
    completion_seconds: float = 0.0
    time_to_first_token: float = 0.0
    context_used: int = 0
    context_size: int = 0
    losses: tuple[str, ...] = ()
    drafted_tokens: int = 0
    accepted_tokens: int = 0
    left_out_turns: int = 0

    @property
    def total_tokens(self) -> int:
        return self.prompt_tokens + self.completion_tokens

    @property
    def tokens_per_second(self) -> float:
        """Decode speed; 0.0 if nothing was generated."""
        return self.completion_tokens / self.completion_seconds if self.completion_seconds > 0 else 0.0

    def __add__(self, other: Usage) -> Usage:
        """Add a later step of the turn: counts and seconds add; context is the later one's, the first token the earlier's."""
        return Usage(
            self.prompt_tokens + other.prompt_tokens, self.cached_tokens + other.cached_tokens,
            self.evaluated_tokens + other.evaluated_tokens, self.completion_tokens + other.completion_tokens,
            self.prompt_seconds + other.prompt_seconds, self.completion_seconds + other.completion_seconds,
            self.time_to_first_token or other.time_to_first_token,
            other.context_used or self.context_used, other.context_size or self.context_size,
            self.losses + tuple(x for x in other.losses if x not in self.losses),
            self.drafted_tokens + other.drafted_tokens, self.accepted_tokens + other.accepted_tokens,
            max(self.left_out_turns, other.left_out_turns),
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class PromptProgress:
    """``done`` of the prompt's ``total`` uncached tokens are evaluated."""

    done: int
    total: int


@dataclass(frozen=True, slots=True)
class TextDelta:
    text: str


@dataclass(frozen=True, slots=True)
class ReasoningDelta:
    text: str


@dataclass(frozen=True, slots=True)
class ToolCallStart:
    """A call has certainly begun. ``index`` counts the step's calls from 0; ``recovered`` is as in ToolCall."""

    index: int
    id: str
    name: str
    recovered: str = ""


@dataclass(frozen=True, slots=True)
class ToolCallDelta:
    """The next part of the call's arguments, as JSON text; all parts together are ``ToolCall.arguments``."""

    index: int
    text: str


@dataclass(frozen=True, slots=True)
class ToolCallEnd:
    """The call is complete. A call without this event was cut off, and must never run."""

    index: int
    call: ToolCall


@dataclass(frozen=True, slots=True)
class ModelEnd:
    """The step is over. ``notes`` explain the parser's decisions, e.g. why a text was not a call. ``doubted`` are the indices
    of recovered calls that the model probably did not mean; they never run. ``stopped`` says why the answer was stopped, e.g.
    "after 8 calls, ..."; empty if the model ended it. ``vain`` says why a call was withheld, after which the model is to be
    asked for words (``Request.asked_again``).

    :mod:`llm_magics.session.record` names the fields of two JSON-able mappings. ``record`` (model, template, settings, hashes)
    is small and always saved. ``recording`` (raw text; if asked for, what the prompt added) is saved if the turn is recorded.
    """

    message: Message
    finish_reason: FinishReason
    usage: Usage = field(default_factory=Usage)
    record: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    doubted: tuple[int, ...] = ()
    stopped: str = ""
    recording: Mapping[str, Any] = field(default_factory=dict)
    vain: str = ""


ModelEvent: TypeAlias = PromptProgress | TextDelta | ReasoningDelta | ToolCallStart | ToolCallDelta | ToolCallEnd | ModelEnd


@dataclass(frozen=True, slots=True)
class ToolAsk:
    """A person decides whether this call may run. ``shown`` is exactly what would run; ``digest`` binds the answer to it."""

    index: int
    call: ToolCall
    shown: str
    digest: str
    reason: str = ""


@dataclass(frozen=True, slots=True)
class ToolStart:
    index: int
    call: ToolCall
    source: str = ""


@dataclass(frozen=True, slots=True)
class ToolProgress:
    """Output of a running tool: a line of text, or a MIME bundle (``data``)."""

    index: int
    text: str = ""
    data: Mapping[str, Any] = field(default_factory=dict)


ToolState: TypeAlias = Literal["done", "failed", "refused", "interrupted"]


@dataclass(frozen=True, slots=True)
class ToolEnd:
    """The call is over. The model reads ``result``, the person ``outputs`` (MIME bundles)."""

    index: int
    result: ToolResult
    state: ToolState = "done"
    seconds: float = 0.0
    outputs: tuple[Mapping[str, Any], ...] = ()
    warnings: tuple[str, ...] = ()


ToolEvent: TypeAlias = ToolAsk | ToolStart | ToolProgress | ToolEnd


@dataclass(frozen=True, slots=True)
class TurnStart:
    """``recorded``: the saved turn will hold what a replay needs."""

    turn: str
    thread: str
    model: str
    prompt: str
    recorded: bool = False


@dataclass(frozen=True, slots=True)
class Notice:
    """A remark for the person, never for the model."""

    text: str
    level: Literal["info", "warning", "error"] = "info"


@dataclass(frozen=True, slots=True)
class TurnEnd:
    finish_reason: FinishReason
    usage: Usage = field(default_factory=Usage)
    seconds: float = 0.0
    steps: int = 1


TurnEvent: TypeAlias = TurnStart | Notice | TurnEnd
Event: TypeAlias = ModelEvent | ToolEvent | TurnEvent


def assemble(events: Iterable[Event], finish_reason: FinishReason | None = None) -> Message:
    """Fold one model step's events into its assistant Message (law 3), without calls that were cut off. ``finish_reason`` is
    for a step without ModelEnd. Tool and turn events are ignored."""
    text: list[str] = []
    reasoning: list[str] = []
    calls: dict[int, ToolCall] = {}
    for event in events:
        match event:
            case TextDelta(piece):
                text.append(piece)
            case ReasoningDelta(piece):
                reasoning.append(piece)
            case ToolCallEnd(index, call):
                calls[index] = call
            case ModelEnd(finish_reason=reason):
                finish_reason = reason
    in_order = tuple(calls[i] for i in sorted(calls))
    return Message("assistant", "".join(text), "".join(reasoning), in_order, finish_reason=finish_reason)
