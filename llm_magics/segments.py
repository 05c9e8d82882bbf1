"""The segments of a turn (runs of text and reasoning, tool calls, notices) as values, and as the JSON that the head of
:mod:`llm_magics.transcript` describes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, Literal, TypeAlias, TypeVar, cast, get_args

from .errors import TranscriptError
from .events import Usage
from .messages import FinishReason, ToolCall

TurnState: TypeAlias = Literal["running"] | FinishReason
ToolStatus: TypeAlias = Literal["writing", "ready", "asking", "running", "done", "failed", "refused", "interrupted", "cut"]
NoticeLevel: TypeAlias = Literal["info", "warning", "error"]


@dataclass(frozen=True, slots=True)
class TextSegment:
    text: str
    step: int = 0


@dataclass(frozen=True, slots=True)
class ReasoningSegment:
    text: str
    step: int = 0


@dataclass(frozen=True, slots=True)
class NoticeSegment:
    text: str
    level: NoticeLevel = "info"
    step: int = 0


@dataclass(frozen=True, slots=True)
class Ask:
    """A question for approval: ``shown`` is exactly what would run, ``digest`` binds the answer to it."""

    shown: str
    digest: str
    reason: str = ""


@dataclass(frozen=True, slots=True)
class ToolSegment:
    """One tool call from its first character to its result. ``printed`` is the text of the tool's progress. The model reads
    ``result`` (None until there is one), the person ``outputs`` (MIME bundles)."""

    index: int
    name: str
    id: str = ""
    arguments: str = ""
    state: ToolStatus = "writing"
    recovered: str = ""
    trusted: bool = True
    source: str = ""
    ask: Ask | None = None
    printed: str = ""
    outputs: tuple[Mapping[str, Any], ...] = ()
    result: str | None = None
    is_error: bool = False
    seconds: float = 0.0
    warnings: tuple[str, ...] = ()
    step: int = 0

    @property
    def complete(self) -> bool:
        """Whether the model has written the whole call."""
        return self.state not in ("writing", "cut")

    @property
    def call(self) -> ToolCall:
        return ToolCall(self.name, self.arguments, self.id, self.recovered, self.trusted)


Segment: TypeAlias = TextSegment | ReasoningSegment | NoticeSegment | ToolSegment


@dataclass(frozen=True, slots=True)
class Step:
    """One finished model step, with the fields of ModelEnd; its text and calls are the segments with its number."""

    finish_reason: FinishReason
    usage: Usage = field(default_factory=Usage)
    token_ids: tuple[int, ...] = ()
    notes: tuple[str, ...] = ()
    record: Mapping[str, Any] = field(default_factory=dict)
    recording: Mapping[str, Any] = field(default_factory=dict)
    doubted: tuple[int, ...] = ()
    stopped: str = ""


_KINDS: dict[str, type[Segment]] = {
    "text": TextSegment, "reasoning": ReasoningSegment, "notice": NoticeSegment, "tool": ToolSegment
}  # fmt: skip
_NAMES = {kind: name for name, kind in _KINDS.items()}
T = TypeVar("T")


def listed(value: Any) -> Any:
    """Copy JSON-able data, with lists in place of tuples, as JSON returns them."""
    if isinstance(value, Mapping):
        return {key: listed(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [listed(item) for item in value]
    return value


def segment_to_json(segment: Segment) -> dict[str, Any]:
    return {"type": _NAMES[type(segment)], **asdict(segment)}


def segment_from_json(data: Any) -> Segment:
    kind = _KINDS[one_of(data, "type", tuple(_KINDS))]
    step = take(data, "step", int)
    if kind is NoticeSegment:
        return NoticeSegment(take(data, "text", str), cast(NoticeLevel, one_of(data, "level", get_args(NoticeLevel))), step)
    if kind is TextSegment or kind is ReasoningSegment:
        return kind(take(data, "text", str), step=step)
    ask, result = data.get("ask"), data.get("result")
    if result is not None and not isinstance(result, str):
        raise _damaged("a tool call's 'result' is not text")
    return ToolSegment(
        take(data, "index", int),
        **{name: take(data, name, str) for name in ("name", "id", "arguments")},
        **{name: take(data, name, str, "") for name in ("recovered", "source", "printed")},
        state=cast(ToolStatus, one_of(data, "state", get_args(ToolStatus))),
        trusted=take(data, "trusted", bool, True),
        ask=None if ask is None else Ask(**{name: take(ask, name, str, "") for name in ("shown", "digest", "reason")}),
        outputs=tuple(take({"output": o}, "output", dict) for o in take(data, "outputs", list, [])),
        result=result,
        is_error=take(data, "is_error", bool, False),
        seconds=float(take(data, "seconds", (int, float), 0.0)),
        warnings=tuple(str(w) for w in take(data, "warnings", list, [])),
        step=step,
    )


def step_to_json(step: Step, recorded: bool) -> dict[str, Any]:
    """Encode a step; without the parts that only a replay needs, unless its turn is ``recorded``."""
    data = asdict(step)
    if not recorded:
        del data["token_ids"], data["recording"]
    return data


def step_from_json(data: Any) -> Step:
    return Step(
        finish_reason=cast(FinishReason, one_of(data, "finish_reason", get_args(FinishReason))),
        usage=usage_from_json(take(data, "usage", dict)),
        token_ids=_numbers(data, "token_ids"),
        notes=tuple(str(n) for n in take(data, "notes", list, [])),
        record=take(data, "record", dict, {}),
        recording=take(data, "recording", dict, {}),
        doubted=_numbers(data, "doubted"),
        stopped=take(data, "stopped", str, ""),
    )


# The parts of a version 1 record that version 2 keeps only in recorded turns.
_HEAVY = ("prompt", "prompt_token_ids", "token_ids", "text", "logprobs", "tools", "response_schema")


def step_from_json_1(data: Any) -> Step:
    """Read a step of version 1 without its prompt, which repeats the whole conversation; its raw text stays."""
    step = step_from_json(data)
    record = {key: value for key, value in step.record.items() if key not in _HEAVY}
    recording = {key: step.record[key] for key in ("text", "logprobs") if key in step.record}
    return replace(step, record=record, recording=recording)


def _numbers(data: Any, key: str) -> tuple[int, ...]:
    found: list[Any] = take(data, key, list, [])
    if not all(type(number) is int for number in found):
        raise _damaged(f"{key!r} has a value that is not a whole number")
    return tuple(found)


def usage_from_json(data: Mapping[str, Any]) -> Usage:
    known = {f.name for f in fields(Usage)}
    given: dict[str, Any] = {key: tuple(value) if key == "losses" else value for key, value in data.items() if key in known}
    if not all(isinstance(value, (int, float, tuple)) for value in given.values()):
        raise _damaged("its 'usage' has a value that is not a number")
    return Usage(**given)


def _damaged(what: str) -> TranscriptError:
    return TranscriptError(f"A saved transcript is damaged: {what}.", "Run its cell again.")


def take(data: Any, key: str, kind: type[T] | tuple[type, ...], default: Any = ...) -> T:
    """Read one typed value; ``default`` replaces a missing key, never a value of the wrong type."""
    value = data.get(key, default) if isinstance(data, Mapping) else ...
    if value is ... or not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise _damaged(f"{key!r} is missing or of the wrong type")
    return cast(T, value)


def one_of(data: Any, key: str, names: tuple[str, ...]) -> str:
    value: str = take(data, key, str)
    if value not in names:
        raise _damaged(f"{key!r} is {value!r}, not one of {', '.join(names)}")
    return value
