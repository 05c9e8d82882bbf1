"""Messages, calls and tools as frozen values that pickle. Names are those of OpenAI's chat API, if it has one."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

Role: TypeAlias = Literal["system", "developer", "user", "assistant", "tool"]
FinishReason: TypeAlias = Literal["stop", "length", "tool_calls", "interrupted", "error"]
ToolChoice: TypeAlias = str  # "auto", "none", "required", or the name of one tool
JsonSchema: TypeAlias = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class TextPart:
    text: str


@dataclass(frozen=True, slots=True)
class ImagePart:
    """A picture; models without vision get its ``description``."""

    url: str
    description: str = ""


Part: TypeAlias = TextPart | ImagePart


@dataclass(frozen=True, slots=True)
class ToolCall:
    """The model's request to run one tool.

    ``arguments`` is the JSON text as the model wrote it (in tagged syntaxes, the JSON that its tags mean), never repaired or
    written again. ``recovered`` names the near miss that it was read from, e.g. "fenced JSON"; empty for a call in the
    template's own syntax. A recovered call that is not ``trusted`` must not run without approval.
    """

    name: str
    arguments: str
    id: str = ""
    recovered: str = ""
    trusted: bool = True

    @property
    def key(self) -> tuple[str, str]:
        """Name and arguments, to compare calls by: spacing and the order of keys do not matter."""
        try:
            return self.name, json.dumps(json.loads(self.arguments or "{}"), sort_keys=True)
        except (ValueError, RecursionError):
            return self.name, self.arguments


@dataclass(frozen=True, slots=True)
class ToolResult:
    """The result of one tool call, as the model reads it."""

    call_id: str
    name: str
    content: str
    is_error: bool = False


@dataclass(frozen=True, slots=True)
class ToolSpec:
    """A tool as the model sees it; ``parameters`` is a JSON schema of type object."""

    name: str
    description: str = ""
    parameters: JsonSchema = field(default_factory=lambda: {"type": "object", "properties": {}})


@dataclass(frozen=True, slots=True)
class Message:
    """One message of a conversation.

    ``token_ids`` are the sampled ids of an assistant message, without the generation prompt and the end-of-turn token; empty
    for a message that was not generated here. In a message of role "tool", ``tool_call_id`` and ``name`` are those of the call
    that it answers; ``is_error`` says that the call failed.
    """

    role: Role
    content: str | tuple[Part, ...] = ""
    reasoning: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str = ""
    name: str = ""
    is_error: bool = False
    token_ids: tuple[int, ...] = ()
    finish_reason: FinishReason | None = None

    @property
    def text(self) -> str:
        """The content as plain text, each picture as its description."""
        if isinstance(self.content, str):
            return self.content
        return "".join(p.text if isinstance(p, TextPart) else p.description for p in self.content)


def system(text: str) -> Message:
    return Message("system", text)


def user(text: str) -> Message:
    return Message("user", text)


def assistant(text: str = "", *, reasoning: str = "", tool_calls: tuple[ToolCall, ...] = ()) -> Message:
    return Message("assistant", text, reasoning=reasoning, tool_calls=tool_calls)


def tool_message(result: ToolResult) -> Message:
    """The tool message that gives a result to the model."""
    return Message("tool", result.content, tool_call_id=result.call_id, name=result.name, is_error=result.is_error)
