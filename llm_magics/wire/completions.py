"""Whole completions and their ends, in OpenAI's JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, cast

from llm_magics.events import ModelEnd, Usage
from llm_magics.messages import FinishReason, Message

from .conversation import message_from, message_to
from .reading import EXTENSION, Json, as_integer, as_list, as_object, as_string, wrong

_FINISH = {name: name for name in ("stop", "length", "tool_calls")} | {"function_call": "tool_calls", "content_filter": "stop"}


@dataclass(frozen=True, slots=True)
class Envelope:
    """The head of a completion: its id, its time (seconds since 1970) and its model."""

    id: str = "chatcmpl-0"
    created: int = 0
    model: str = ""

    def wrap(self, kind: str, **body: Any) -> Json:
        return {"id": self.id, "object": kind, "created": self.created, "model": self.model, **body}


def completion_to_openai(end: ModelEnd, envelope: Envelope | None = None) -> Json:
    choice = {"index": 0, "message": message_to(end.message), "logprobs": None, "finish_reason": finish_to(end.finish_reason)}
    body: Json = {"choices": [choice], "usage": usage_to_openai(end.usage)}
    return (envelope or Envelope()).wrap("chat.completion", **body, **end_extension(end))


def completion_from_openai(value: object, path: str = "completion") -> ModelEnd:
    """Read a ``chat.completion``: its first choice, the finish reason and the usage."""
    item = as_object(value, path)
    choices = as_list(item.get("choices"), f"{path}.choices")
    if not choices:
        raise wrong(f"{path}.choices", "a list with a choice", [])
    choice = as_object(choices[0], f"{path}.choices[0]")
    message = message_from(choice.get("message"), f"{path}.choices[0].message")
    reason, usage, notes = end_from(item, choice.get("finish_reason"), f"{path}.choices[0]")
    message = Message("assistant", message.content, message.reasoning, message.tool_calls, finish_reason=reason)
    return ModelEnd(message, reason, usage, notes=notes)


def usage_to_openai(usage: Usage) -> Json:
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.total_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens},
    }


def finish_to(reason: FinishReason) -> str:
    return reason if reason in _FINISH else "stop"


def end_extension(end: ModelEnd) -> Json:
    extension: Json = {"usage": asdict(end.usage)} if end.usage != Usage() else {}
    if end.notes:
        extension["notes"] = list(end.notes)
    if end.finish_reason not in _FINISH:
        extension["finish_reason"] = end.finish_reason
    return {EXTENSION: extension} if extension else {}


def end_from(item: Mapping[str, Any], finish: object, path: str) -> tuple[FinishReason, Usage, tuple[str, ...]]:
    extension = as_object(item.get(EXTENSION) or {}, EXTENSION)
    reason = extension.get("finish_reason") or _FINISH.get(as_string(finish, f"{path}.finish_reason", default="stop"), "stop")
    if reason not in ("stop", "length", "tool_calls", "interrupted", "error"):
        raise wrong(f"{EXTENSION}.finish_reason", "a finish reason", reason)
    notes = tuple(as_string(n, f"{EXTENSION}.notes") for n in as_list(extension.get("notes", []), f"{EXTENSION}.notes"))
    return cast(FinishReason, reason), _usage_from(item.get("usage"), extension.get("usage")), notes


def _usage_from(value: object, exact: object) -> Usage:
    if exact is not None:
        known = {f.name for f in fields(Usage)}
        given = {k: v for k, v in as_object(exact, f"{EXTENSION}.usage").items() if k in known}
        return Usage(**given | {"losses": tuple(given.get("losses", ()))})
    if value is None:
        return Usage()
    item = as_object(value, "usage")
    prompt = as_integer(item.get("prompt_tokens", 0), "usage.prompt_tokens")
    details = as_object(item.get("prompt_tokens_details") or {}, "usage.prompt_tokens_details")
    cached = as_integer(details.get("cached_tokens") or 0, "usage.prompt_tokens_details.cached_tokens")
    completion = as_integer(item.get("completion_tokens", 0), "usage.completion_tokens")
    return Usage(prompt, cached, prompt - cached, completion)
