"""Messages and tools as callers give them: our own values, or dictionaries in the OpenAI form."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias

from llm_magics.errors import TemplateError
from llm_magics.messages import ImagePart, Message, Part, TextPart, ToolCall, ToolSpec

AnyMessage: TypeAlias = Message | Mapping[str, Any]
AnyTool: TypeAlias = ToolSpec | Mapping[str, Any]

_ROLES = ("system", "developer", "user", "assistant", "tool")
_REASONING_KEYS = ("reasoning_content", "reasoning", "thinking")


def messages_from(values: Iterable[AnyMessage]) -> tuple[Message, ...]:
    """Take messages in either form. Raises TemplateError for another form."""
    return tuple(v if isinstance(v, Message) else _message(v) for v in values)


def tools_from(values: Iterable[AnyTool] | None) -> tuple[ToolSpec, ...]:
    """Take tools in either form. Raises TemplateError for another form."""
    return tuple(v if isinstance(v, ToolSpec) else _tool(v) for v in values or ())


def _message(value: Mapping[str, Any]) -> Message:
    role = value.get("role") if isinstance(value, Mapping) else None
    if role not in _ROLES:
        raise TemplateError(f"A message has an unknown role: {role!r}.", f"Use one of {', '.join(_ROLES)}.")
    reasoning = next((value[k] for k in _REASONING_KEYS if value.get(k)), "")
    content = value.get("content")
    return Message(
        role,
        content or "" if content is None or isinstance(content, str) else tuple(map(_part, content)),
        reasoning=str(reasoning),
        tool_calls=tuple(_call(c) for c in value.get("tool_calls") or ()),
        tool_call_id=value.get("tool_call_id") or "",
        name=value.get("name") or "",
    )


def _part(value: Any) -> Part:
    if isinstance(value, str):
        return TextPart(value)
    if isinstance(value, Mapping) and isinstance(value.get("text"), str):
        return TextPart(value["text"])
    if image := value.get("image_url") if isinstance(value, Mapping) else None:
        return ImagePart(image["url"] if isinstance(image, Mapping) else str(image))
    raise TemplateError("A part of a message's content is neither text nor an image.", "Give text parts, or image_url parts.")


def _call(value: Mapping[str, Any]) -> ToolCall:
    function = value.get("function") or value
    arguments = function.get("arguments", "{}")
    if not isinstance(arguments, str):
        arguments = json.dumps(arguments, ensure_ascii=False)
    return ToolCall(str(function["name"]), arguments or "{}", id=value.get("id") or "")


def _tool(value: Mapping[str, Any]) -> ToolSpec:
    function = value.get("function", value) if isinstance(value, Mapping) else {}
    if not isinstance(function.get("name"), str):
        raise TemplateError("A tool has no name.", 'Give a ToolSpec, or {"type": "function", "function": {"name": ...}}.')
    empty = {"type": "object", "properties": {}}
    return ToolSpec(function["name"], function.get("description") or "", function.get("parameters") or empty)
