"""What flows: the events of a model's answer, of a tool's run and of a whole turn; and the one fold over them.

Three families. A *ModelEvent* comes from one model step, a *ToolEvent* from running one call, a *TurnEvent* frames them. A
turn reads as the regular expression::

    TurnStart ( PromptProgress* (TextDelta | ReasoningDelta | ToolCallStart ToolCallDelta* ToolCallEnd)* ModelEnd
                ( ToolAsk? ToolStart ToolProgress* ToolEnd | ToolAsk? ToolEnd )* )* TurnEnd          with Notice anywhere

Models and the wire format use :func:`assemble` to fold a step's events back into its Message (law 3: ``assemble(events) ==
ModelEnd.message``, up to ``token_ids``). A session folds a whole turn into its trace (:mod:`.transcript`), which views draw.
All events pickle.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from .messages import FinishReason, Message, ToolCall, ToolResult


@dataclass(frozen=True, slots=True)
class Usage:
    """Token counts and times of one step, or of a whole turn when summed.

    ``prompt_tokens`` is the prompt's length, of which ``cached_tokens`` were already in the KV cache and ``evaluated_tokens``
    were computed (``prompt == cached + evaluated``). ``losses`` names each reason why less was cached than the conversation
    would allow (e.g. "recovered call re-rendered"). Seconds are wall-clock, measured on the engine's side. Of
    ``drafted_tokens`` that speculation guessed, ``accepted_tokens`` came true. ``left_out_turns`` are the oldest turns that the
    model was not shown because the context was full.
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
        """Decode speed; 0.0 where nothing was generated."""
        return self.completion_tokens / self.completion_seconds if self.completion_seconds > 0 else 0.0

    def __add__(self, other: Usage) -> Usage:
        """Sum two steps of one turn: counts and seconds add, the context is the later one's, the first token the earlier's."""
        return Usage(
            self.prompt_tokens + other.prompt_tokens,
            self.cached_tokens + other.cached_tokens,
            self.evaluated_tokens + other.evaluated_tokens,
            self.completion_tokens + other.completion_tokens,
            self.prompt_seconds + other.prompt_seconds,
            self.completion_seconds + other.completion_seconds,
            self.time_to_first_token or other.time_to_first_token,
            other.context_used or self.context_used,
            other.context_size or self.context_size,
            self.losses + tuple(x for x in other.losses if x not in self.losses),
            self.drafted_tokens + other.drafted_tokens,
            self.accepted_tokens + other.accepted_tokens,
            max(self.left_out_turns, other.left_out_turns),
        )


# --- ModelEvent -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class PromptProgress:
    """The prompt is being evaluated: ``done`` of ``total`` tokens that were not cached."""

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
    """A call has certainly begun; ``index`` counts the calls of this step from 0. ``recovered`` as in ToolCall."""

    index: int
    id: str
    name: str
    recovered: str = ""


@dataclass(frozen=True, slots=True)
class ToolCallDelta:
    """More of the call's arguments, as JSON text; concatenated they are ``ToolCall.arguments``."""

    index: int
    text: str


@dataclass(frozen=True, slots=True)
class ToolCallEnd:
    """The call is complete. A call without this event was cut off and must never run."""

    index: int
    call: ToolCall


@dataclass(frozen=True, slots=True)
class ModelEnd:
    """The step is over. ``notes`` explain the parser's decisions, e.g. why something was no call. ``doubted`` are the indices
    of recovered calls that the model probably did not mean: they are never run. ``stopped`` says why the answer was ended
    although the model would have gone on, e.g. "after 8 calls, ..."; empty if the model ended it.

    Two JSON-able mappings say how the answer came about (:mod:`llm_magics.session.record` names their fields). ``record`` is
    small and always saved: model, template, settings, hashes. ``recording`` is saved only where the turn is recorded: the
    model's raw text, and where the request asks for it, what the prompt added.
    """

    message: Message
    finish_reason: FinishReason
    usage: Usage = field(default_factory=Usage)
    record: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    doubted: tuple[int, ...] = ()
    stopped: str = ""
    recording: Mapping[str, Any] = field(default_factory=dict)


ModelEvent: TypeAlias = PromptProgress | TextDelta | ReasoningDelta | ToolCallStart | ToolCallDelta | ToolCallEnd | ModelEnd

# --- ToolEvent --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ToolAsk:
    """Somebody must decide whether this call may run. ``shown`` is exactly what would run; ``digest`` binds an answer to it."""

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
    """Something a running tool gave out: a line of text, or a MIME bundle (``data``)."""

    index: int
    text: str = ""
    data: Mapping[str, Any] = field(default_factory=dict)


ToolState: TypeAlias = Literal["done", "failed", "refused", "interrupted"]


@dataclass(frozen=True, slots=True)
class ToolEnd:
    """The call is over. ``result`` is what the model reads, ``outputs`` (MIME bundles) what the person reads."""

    index: int
    result: ToolResult
    state: ToolState = "done"
    seconds: float = 0.0
    outputs: tuple[Mapping[str, Any], ...] = ()
    warnings: tuple[str, ...] = ()


ToolEvent: TypeAlias = ToolAsk | ToolStart | ToolProgress | ToolEnd

# --- TurnEvent --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class TurnStart:
    """``recorded`` says that the saved turn will hold what a replay needs."""

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
    """Fold one model step's events into its assistant Message (law 3).

    Calls without a ToolCallEnd were cut off and are left out; ``finish_reason`` is used where no ModelEnd came. Tool and turn
    events pass by unread.
    """
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
    return Message(
        "assistant",
        "".join(text),
        reasoning="".join(reasoning),
        tool_calls=tuple(calls[i] for i in sorted(calls)),
        finish_reason=finish_reason,
    )
