"""A step's events as chat.completion.chunk objects, and back."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from llm_magics.errors import WireError
from llm_magics.events import (
    ModelEnd,
    ModelEvent,
    PromptProgress,
    ReasoningDelta,
    TextDelta,
    ToolCallDelta,
    ToolCallEnd,
    ToolCallStart,
    assemble,
)
from llm_magics.messages import ToolCall

from .completions import Envelope, end_extension, end_from, finish_to, usage_to_openai
from .conversation import REASONING_KEYS, call_extension
from .reading import EXTENSION, Json, as_integer, as_list, as_object, as_string


@dataclass(slots=True)
class ChunkEncoder:
    """Writes one step's events as ``chat.completion.chunk`` objects.

    Every delta of a tool call has the call's index; only the first has id and name. The finish reason has its own chunk, and
    usage is in the last one, without choices, as OpenAI does under ``include_usage``.
    """

    envelope: Envelope = field(default_factory=Envelope)
    started: bool = False

    def encode(self, event: ModelEvent) -> list[Json]:
        match event:
            case PromptProgress(done, total):
                return [self._chunk([], prompt_progress={"processed": done, "total": total})]
            case TextDelta(text):
                return [self._delta({"content": text})]
            case ReasoningDelta(text):
                return [self._delta({"reasoning_content": text})]
            case ToolCallStart(index, call_id, name, recovered):
                first = {"index": index, "id": call_id, "type": "function", "function": {"name": name, "arguments": ""}}
                return [self._delta({"tool_calls": [first | call_extension(ToolCall(name, "", recovered=recovered))]})]
            case ToolCallDelta(index, text):
                return [self._delta({"tool_calls": [{"index": index, "function": {"arguments": text}}]})]
            case ToolCallEnd(index, call):
                ended = {"index": index, "function": {"arguments": ""}, **call_extension(call, complete=True)}
                return [self._delta({"tool_calls": [ended]})]
        last = self._chunk([], usage=usage_to_openai(event.usage), **end_extension(event))
        return [self._delta({}, finish_to(event.finish_reason)), last]

    def _delta(self, delta: Json, finish: str | None = None, **more: Any) -> Json:
        if not self.started:
            delta = {"role": "assistant", **delta}
            self.started = True
        return self._chunk([{"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}], **more)

    def _chunk(self, choices: list[Json], **more: Any) -> Json:
        return self.envelope.wrap("chat.completion.chunk", choices=choices, **more)


def chunks_to_openai(events: Iterable[ModelEvent], envelope: Envelope | None = None) -> list[Json]:
    encoder = ChunkEncoder(envelope or Envelope())
    return [chunk for event in events for chunk in encoder.encode(event)]


@dataclass(slots=True)
class _OpenCall:
    id: str
    name: str
    recovered: str = ""
    arguments: list[str] = field(default_factory=list)
    ended: bool = False

    def call(self, extension: Mapping[str, Any]) -> ToolCall:
        return ToolCall(self.name, "".join(self.arguments), self.id, self.recovered, extension.get("trusted") is not False)


class ChunkDecoder:
    """Reads ``chat.completion.chunk`` objects into events; :meth:`finish` gives the ModelEnd.

    Other servers do not say that a call is complete, so their calls end with the stream. If it ends with "length", the last
    call was cut off unless its arguments are JSON.
    """

    def __init__(self) -> None:
        self._calls: dict[int, _OpenCall] = {}
        self._events: list[ModelEvent] = []
        self._finish: str | None = None
        self._tail: Json = {}
        self._says_complete = False

    def feed(self, value: object, path: str = "chunk") -> list[ModelEvent]:
        """Read one chunk. Raises WireError for a chunk that breaks the form or holds the server's error."""
        item = as_object(value, path)
        if item.get("error"):
            error = item["error"]
            message = error.get("message") if isinstance(error, Mapping) else error
            raise WireError(f"The server reports an error: {str(message)[:300]}", "See the server's log.")
        events: list[ModelEvent] = []
        if item.get("prompt_progress") is not None:
            progress = as_object(item["prompt_progress"], f"{path}.prompt_progress")
            done, total = (as_integer(progress.get(k), f"{path}.prompt_progress.{k}") for k in ("processed", "total"))
            events.append(PromptProgress(done, total))
        self._tail |= {key: item[key] for key in ("usage", EXTENSION) if item.get(key) is not None}
        choices = as_list(item.get("choices", []), f"{path}.choices")
        if choices:
            events += self._choice(as_object(choices[0], f"{path}.choices[0]"), f"{path}.choices[0]")
        self._events += events
        return events

    def finish(self) -> list[ModelEvent]:
        """Take the end of the stream: end the calls that other servers leave open, then give the ModelEnd."""
        reason, usage, notes = end_from(self._tail, self._finish, "choices[0]")
        events: list[ModelEvent] = []
        own = self._own
        for index, call in sorted(self._calls.items()):
            last = index == max(self._calls)
            if not call.ended and not own and (reason != "length" or not last or is_json("".join(call.arguments))):
                events.append(self._ended(index, {}))
        self._events += events
        return [*events, ModelEnd(assemble(self._events, reason), reason, usage, notes=notes)]

    def end_complete(self) -> list[ModelEvent]:
        """End the open calls whose arguments are whole, because another call begins."""
        events = [self._ended(i, {}) for i, call in self._calls.items() if not call.ended and is_json("".join(call.arguments))]
        self._events += events
        return list(events)

    @property
    def _own(self) -> bool:
        """Whether llm_magics wrote the stream, which then says which calls are complete."""
        return self._says_complete or EXTENSION in self._tail

    def _choice(self, choice: Mapping[str, Any], path: str) -> list[ModelEvent]:
        events: list[ModelEvent] = []
        delta = as_object(choice.get("delta") or {}, f"{path}.delta")
        for key in REASONING_KEYS:
            if delta.get(key):
                events.append(ReasoningDelta(as_string(delta[key], f"{path}.delta.{key}")))
                break
        if delta.get("content"):
            events.append(TextDelta(as_string(delta["content"], f"{path}.delta.content")))
        for i, call in enumerate(as_list(delta.get("tool_calls") or [], f"{path}.delta.tool_calls")):
            events += self._call(as_object(call, f"{path}.delta.tool_calls[{i}]"), f"{path}.delta.tool_calls[{i}]")
        if choice.get("finish_reason") is not None:
            self._finish = as_string(choice["finish_reason"], f"{path}.finish_reason")
        return events

    def _call(self, delta: Mapping[str, Any], path: str) -> list[ModelEvent]:
        index = as_integer(delta.get("index"), f"{path}.index")
        function = as_object(delta.get("function") or {}, f"{path}.function")
        extension = as_object(delta.get(EXTENSION) or {}, f"{path}.{EXTENSION}")
        events: list[ModelEvent] = []
        if index not in self._calls:
            name = as_string(function.get("name"), f"{path}.function.name")
            call_id = as_string(delta.get("id"), f"{path}.id", default="")
            recovered = as_string(extension.get("recovered"), f"{path}.{EXTENSION}.recovered", default="")
            self._calls[index] = _OpenCall(call_id, name, recovered)
            events.append(ToolCallStart(index, call_id, name, recovered))
        text = as_string(function.get("arguments"), f"{path}.function.arguments", default="")
        if text:
            self._calls[index].arguments.append(text)
            events.append(ToolCallDelta(index, text))
        if extension.get("complete") is True:
            self._says_complete = True
            events.append(self._ended(index, extension))
        return events

    def _ended(self, index: int, extension: Mapping[str, Any]) -> ToolCallEnd:
        self._calls[index].ended = True
        return ToolCallEnd(index, self._calls[index].call(extension))


def chunks_from_openai(chunks: Iterable[object]) -> list[ModelEvent]:
    decoder = ChunkDecoder()
    events = [event for i, chunk in enumerate(chunks) for event in decoder.feed(chunk, f"chunks[{i}]")]
    return events + decoder.finish()


def is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True
