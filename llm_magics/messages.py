"""What a conversation is made of: frozen values that know no IO, no storage and no display.

The names are those of the OpenAI chat API where it has one. Everything here pickles.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

Role: TypeAlias = Literal["system", "developer", "user", "assistant", "tool"]
FinishReason: TypeAlias = Literal["stop", "length", "tool_calls", "interrupted", "error"]
ToolChoice: TypeAlias = str  # "auto", "none", "required", or the name of one tool
JsonSchema: TypeAlias = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class TextPart:
    """A run of text inside a message's content."""

    text: str


@dataclass(frozen=True, slots=True)
class ImagePart:
    """A picture inside a message's content; models without vision get its ``description``."""

    url: str
    description: str = ""


Part: TypeAlias = TextPart | ImagePart


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A request by the model to run one tool.

    ``arguments`` is the JSON text that the model wrote (in tagged syntaxes: the JSON text that its tags spell), never
    healed or re-serialised. ``recovered`` says which near miss it was read from, e.g. "fenced JSON"; empty for a call in the
    template's own syntax. ``trusted`` is False for a recovered call that must not run without somebody's approval.
    """

    name: str
    arguments: str
    id: str = ""
    recovered: str = ""
    trusted: bool = True


@dataclass(frozen=True, slots=True)
class ToolResult:
    """What one tool call gave, as the model will read it."""

    call_id: str
    name: str
    content: str
    is_error: bool = False


@dataclass(frozen=True, slots=True)
class ToolSpec:
    """A tool as the model sees it: ``parameters`` is a JSON schema of type object."""

    name: str
    description: str = ""
    parameters: JsonSchema = field(default_factory=lambda: {"type": "object", "properties": {}})


@dataclass(frozen=True, slots=True)
class Message:
    """One message of a conversation.

    ``token_ids`` are the ids an assistant message was generated with, exactly as sampled, without the generation prompt and
    without the end-of-turn token; empty for a message that nobody generated here. ``tool_call_id`` and ``name`` belong to
    messages of role "tool" (which call they answer). ``is_error`` marks a tool message whose call failed.
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
        """The content as plain text: pictures by their description."""
        if isinstance(self.content, str):
            return self.content
        return "".join(p.text if isinstance(p, TextPart) else p.description for p in self.content)


def system(text: str) -> Message:
    """Make a system message."""
    return Message("system", text)


def user(text: str) -> Message:
    """Make a user message."""
    return Message("user", text)


def assistant(text: str = "", *, reasoning: str = "", tool_calls: tuple[ToolCall, ...] = ()) -> Message:
    """Make an assistant message."""
    return Message("assistant", text, reasoning=reasoning, tool_calls=tool_calls)


def tool_message(result: ToolResult) -> Message:
    """Make the tool message that carries a result back to the model."""
    return Message("tool", result.content, tool_call_id=result.call_id, name=result.name, is_error=result.is_error)
