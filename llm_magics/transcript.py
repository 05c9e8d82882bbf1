"""One turn so far: a pure fold of events into segments, and its saved form.

Theory of operation: :meth:`Transcript.fold` takes one event and returns a new Transcript. A delta extends the last segment of
its kind, so a Transcript does not depend on how the text was cut into deltas. Views draw segments; ``messages()`` makes the
turn's messages from them, so the answer is stored once.

**Saved form.** MIME type ``application/vnd.llm-magics.transcript+json``, one JSON object::

    {"version": 2,
     "turn": "id of the turn", "thread": "main", "model": "name of the model",
     "prompt": "the user message as it was sent", "recorded": false,
     "state": "running" | "stop" | "length" | "tool_calls" | "interrupted" | "error",
     "segments": [
        {"type": "text",      "step": 0, "text": "..."},
        {"type": "reasoning", "step": 0, "text": "..."},
        {"type": "notice",    "step": 0, "text": "...", "level": "info" | "warning" | "error"},
        {"type": "tool", "step": 0, "index": 0, "id": "c1", "name": "weather", "arguments": "{\\"city\\": \\"Oslo\\"}",
         "state": "writing" | "ready" | "asking" | "running" | "done" | "failed" | "refused" | "interrupted" | "cut",
         "recovered": "", "trusted": true, "source": "",
         "ask": null | {"shown": "...", "digest": "...", "reason": "..."},
         "printed": "", "outputs": [{"image/png": "..."}], "result": null | "what the model reads",
         "is_error": false, "seconds": 0.0, "warnings": []}],
     "progress": null | {"done": 128, "total": 512},
     "usage": {"prompt_tokens": 0, ...the fields of Usage}, "seconds": 0.0,
     "settings": {"cell": "its id", "after": "turn it stands behind", "aside": false, "system": "...", "options": {...}},
     "steps": [{"finish_reason": "stop", "usage": {...}, "notes": [], "doubted": [], "stopped": "",
                "record": {...}, "token_ids": [...], "recording": {...}}]}

Segments are in the order in which they began. ``step`` counts the turn's model steps from 0. A tool segment is "writing" until
its call is complete, "ready" until it runs, and "cut" if the step ended before the call did. ``progress`` is there only while a
prompt is evaluated. ``steps`` has one object for each finished step; its ``record`` says with which settings the step was asked
(:mod:`llm_magics.session.record`). ``token_ids`` and ``recording``, which a replay needs beside the messages, are there only if
``recorded`` is true (``--record``). No turn repeats an earlier turn's data, so a notebook grows linearly: even a picture may
be a pointer to the HTML beside it (:mod:`llm_magics.views.pictures`). ``to_json(record=False)``, the form of snapshots of a
running turn and of stripped notebooks, lacks ``settings`` and ``steps``. Unknown keys are ignored, unknown versions refused.

**Version 1** had neither ``recorded`` nor ``recording``; each step's ``record`` held the whole prompt, as text and token ids,
and the tools' schemas. Such a turn is read as not recorded: without its prompts, with its answers' token ids in memory.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, cast, get_args

from . import events
from .errors import TranscriptError
from .events import Event, Usage
from .messages import FinishReason, Message, ToolResult, tool_message, user
from .segments import (
    Ask,
    NoticeSegment,
    ReasoningSegment,
    Segment,
    Step,
    TextSegment,
    ToolSegment,
    ToolStatus,
    TurnState,
    listed,
    one_of,
    segment_from_json,
    segment_to_json,
    step_from_json,
    step_from_json_1,
    step_to_json,
    take,
    usage_from_json,
)

MIME_TYPE = "application/vnd.llm-magics.transcript+json"
VERSION = 2
_STEPS: Mapping[int, Callable[[Any], Step]] = {1: step_from_json_1, 2: step_from_json}
INTERRUPTED_RESULT = "interrupted: this call did not finish"


@dataclass(frozen=True, slots=True)
class Transcript:
    """One turn as a value. The kernel fills ``settings``; the rest comes from the events. In memory, steps always have their
    token ids and the model's raw text; they are saved if the turn is ``recorded``."""

    turn: str = ""
    thread: str = ""
    model: str = ""
    prompt: str = ""
    state: TurnState = "running"
    segments: tuple[Segment, ...] = ()
    steps: tuple[Step, ...] = ()
    progress: tuple[int, int] | None = None
    usage: Usage = field(default_factory=Usage)
    seconds: float = 0.0
    settings: Mapping[str, Any] = field(default_factory=dict)
    recorded: bool = False

    @classmethod
    def of(cls, flow: Iterable[Event]) -> Transcript:
        return functools.reduce(cls.fold, flow, cls())

    def fold(self, event: Event) -> Transcript:
        """Take one event, at the cost of a copy of the segment that it changes."""
        match event:
            case events.TextDelta(text):
                return self._said(TextSegment, text)
            case events.ReasoningDelta(text):
                return self._said(ReasoningSegment, text)
            case events.PromptProgress(done, total):
                return replace(self, progress=(done, total))
            case events.TurnStart(turn, thread, model, prompt, recorded):
                return replace(self, turn=turn, thread=thread, model=model, prompt=prompt, recorded=recorded)
            case events.Notice(text, level):
                return self._with(NoticeSegment(text, level, len(self.steps)))
            case events.ModelEnd():
                return self._end_step(event)
            case events.TurnEnd(reason, usage, seconds):
                return replace(self._close_calls(), state=reason, usage=usage, seconds=seconds, progress=None)
            case _:
                return _fold_tool(self, event)

    def finish(self, reason: FinishReason) -> Transcript:
        """Close a turn whose TurnEnd never came, e.g. because the interrupt hit the view; a closed turn stays as it is."""
        if self.state != "running":
            return self
        return replace(self._close_calls(), state=reason, progress=None)

    @property
    def text(self) -> str:
        """The answer: the text of the last step with text."""
        texts = [s for s in self.segments if isinstance(s, TextSegment)]
        return "".join(s.text for s in texts if s.step == texts[-1].step) if texts else ""

    @property
    def tools(self) -> tuple[ToolSegment, ...]:
        return tuple(s for s in self.segments if isinstance(s, ToolSegment))

    def messages(self) -> tuple[Message, ...]:
        """The turn's messages, each call answered exactly once (law 5); a call without a result counts as interrupted."""
        found = [user(self.prompt)]
        last = max((s.step for s in self.segments), default=-1)
        for number in range(max(last + 1, len(self.steps))):
            found += self._step_messages(number)
        return tuple(found)

    def _step_messages(self, number: int) -> list[Message]:
        mine = [s for s in self.segments if s.step == number]
        step = self.steps[number] if number < len(self.steps) else None
        calls = sorted((s for s in mine if isinstance(s, ToolSegment) and s.complete), key=lambda s: s.index)
        answer = Message(
            "assistant",
            "".join(s.text for s in mine if isinstance(s, TextSegment)),
            "".join(s.text for s in mine if isinstance(s, ReasoningSegment)),
            tuple(s.call for s in calls),
            token_ids=step.token_ids if step else (),
            finish_reason=step.finish_reason if step else self.state if self.state != "running" else None,
        )
        if step is None and not (answer.text or answer.reasoning or calls):
            return []
        return [answer, *map(_result_message, calls)]

    def to_json(self, record: bool = True) -> dict[str, Any]:
        """Encode as the head of this file says; ``record`` False leaves out ``settings`` and ``steps``."""
        data: dict[str, Any] = {
            "version": VERSION,
            **{name: getattr(self, name) for name in ("turn", "thread", "model", "prompt", "recorded", "state")},
            "segments": [segment_to_json(s) for s in self.segments],
            "progress": None if self.progress is None else {"done": self.progress[0], "total": self.progress[1]},
            "usage": asdict(self.usage),
            "seconds": self.seconds,
        }
        if record:
            data["settings"] = dict(self.settings)
            data["steps"] = [step_to_json(step, self.recorded) for step in self.steps]
        return listed(data)

    @classmethod
    def from_json(cls, data: Any) -> Transcript:
        """Decode a saved transcript of any version; raises TranscriptError that says where it is damaged."""
        read_step = _STEPS[_version(data)]
        progress = data.get("progress")
        return cls(
            **{name: take(data, name, str) for name in ("turn", "thread", "model", "prompt")},
            state=cast(TurnState, one_of(data, "state", ("running", *get_args(FinishReason)))),
            segments=tuple(segment_from_json(s) for s in take(data, "segments", list)),
            steps=tuple(read_step(s) for s in take(data, "steps", list, [])),
            progress=None if progress is None else (take(progress, "done", int), take(progress, "total", int)),
            usage=usage_from_json(take(data, "usage", dict)),
            seconds=float(take(data, "seconds", (int, float))),
            settings=take(data, "settings", dict, {}),
            recorded=take(data, "recorded", bool, False),
        )

    def _with(self, segment: Segment) -> Transcript:
        return replace(self, segments=(*self.segments, segment))

    def _replace(self, at: int, segment: Segment) -> Transcript:
        return replace(self, segments=(*self.segments[:at], segment, *self.segments[at + 1 :]))

    def _said(self, kind: type[TextSegment] | type[ReasoningSegment], text: str) -> Transcript:
        """Extend the step's last segment of this kind, even behind a notice, which must not cut a code block in two."""
        if not text:
            return self
        step = len(self.steps)
        transcript = self if self.progress is None else replace(self, progress=None)
        for at in range(len(self.segments) - 1, -1, -1):
            segment = self.segments[at]
            if isinstance(segment, NoticeSegment):
                continue
            if isinstance(segment, kind) and segment.step == step:
                return transcript._replace(at, kind(segment.text + text, step))
            break
        return transcript._with(kind(text, step))

    def _end_step(self, end: events.ModelEnd) -> Transcript:
        ids = end.message.token_ids
        step = Step(end.finish_reason, end.usage, ids, end.notes, end.record, end.recording, end.doubted, end.stopped)
        closed = self._close_calls(unwritten_only=True)
        return replace(closed, steps=(*self.steps, step), usage=self.usage + end.usage, progress=None)

    def _close_calls(self, unwritten_only: bool = False) -> Transcript:
        """Set the final state of calls that will not be finished."""
        closed: dict[str, ToolStatus] = {"writing": "cut"}
        if not unwritten_only:
            closed |= {"ready": "interrupted", "asking": "interrupted", "running": "interrupted"}
        segments = (
            replace(s, state=closed[s.state]) if isinstance(s, ToolSegment) and s.state in closed else s for s in self.segments
        )
        return replace(self, segments=tuple(segments))


def _version(data: Any) -> int:
    version = data.get("version") if isinstance(data, Mapping) else None
    if type(version) is int and version in _STEPS:
        return version
    found = type(data).__name__ if not isinstance(data, Mapping) else f"version {version!r}"
    newer = type(version) is int and version > VERSION
    raise TranscriptError(
        f"This is not a transcript that llm_magics can read (versions {', '.join(map(str, _STEPS))}): it is {found}.",
        "Update llm_magics." if newer else "Run the cell again.",
    )


def _fold_tool(transcript: Transcript, event: Event) -> Transcript:
    """Fold an event of a call: of the latest call with the event's index."""
    if isinstance(event, events.ToolCallStart):
        segment = ToolSegment(event.index, event.name, event.id, recovered=event.recovered, step=len(transcript.steps))
        return replace(transcript, progress=None)._with(segment)
    index = cast(int, getattr(event, "index", None))
    for at in range(len(transcript.segments) - 1, -1, -1):
        segment_at = transcript.segments[at]
        if isinstance(segment_at, ToolSegment) and segment_at.index == index:
            return transcript._replace(at, _advance(segment_at, event))
    call = getattr(event, "call", None)
    if call is None:
        raise TranscriptError(f"{type(event).__name__} for call {index}, which never began.")
    started = transcript._with(ToolSegment(index, call.name, call.id, step=len(transcript.steps)))
    return _fold_tool(started, event)


def _advance(segment: ToolSegment, event: Event) -> ToolSegment:
    match event:
        case events.ToolCallDelta(text=text):
            return replace(segment, arguments=segment.arguments + text)
        case events.ToolCallEnd(call=call):
            return replace(segment, state="ready", **asdict(call))
        case events.ToolAsk(call=call, shown=shown, digest=digest, reason=reason):
            return replace(segment, state="asking", ask=Ask(shown, digest, reason), **asdict(call))
        case events.ToolStart(call=call, source=source):
            return replace(segment, state="running", source=source, **asdict(call))
        case events.ToolProgress(text=text, data=data):
            outputs = (*segment.outputs, data) if data else segment.outputs
            return replace(segment, printed=segment.printed + text, outputs=outputs)
        case events.ToolEnd(result=result, state=state, seconds=seconds, outputs=outputs, warnings=warnings):
            return replace(
                segment, id=segment.id or result.call_id, state=state, result=result.content, is_error=result.is_error,
                seconds=seconds, outputs=outputs or segment.outputs, warnings=warnings,
            )  # fmt: skip
    raise TranscriptError(f"{type(event).__name__} is not an event of a tool call.")


def _result_message(segment: ToolSegment) -> Message:
    said, failed = (INTERRUPTED_RESULT, True) if segment.result is None else (segment.result, segment.is_error)
    return tool_message(ToolResult(segment.id, segment.name, said, failed))
