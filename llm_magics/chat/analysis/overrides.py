"""What no rendering can show, as data. Each entry says why it is here, and fills a gap: it never replaces a finding.

A template is recognised by strings that it must contain. The table has no code and at most ten entries.
"""

from __future__ import annotations

from dataclasses import dataclass

from llm_magics.chat.encodings.literal import LiteralArguments
from llm_magics.chat.encodings.syntax import NamedCall, ToolSyntax

from .reasoning import NO_REASONING, ReasoningSyntax


@dataclass(frozen=True, slots=True)
class Override:
    """Facts about templates that contain all of ``contains``, and why they cannot be derived."""

    contains: tuple[str, ...]
    reason: str
    tools: ToolSyntax | None = None
    reasoning: ReasoningSyntax = NO_REASONING


_PYTHON = LiteralArguments(quote_start='"', quote_end='"')
_BRACKETED_PYTHON = ToolSyntax(
    NamedCall(), _PYTHON, section_start="<|tool_call_start|>", section_end="<|tool_call_end|>", separator=", ", array=True
)

OVERRIDES: tuple[Override, ...] = (
    Override(
        contains=("<|tool_list_start|>", "<|tool_response_start|>"),
        reason="LFM2 describes tools and writes their results, but drops the calls: what a call looks like is nowhere in it.",
        tools=_BRACKETED_PYTHON,
    ),
    Override(
        contains=("List of tools: [", "keep_past_thinking"),
        reason="LFM2.5 Instruct: the template has no branch for tool calls.",
        tools=_BRACKETED_PYTHON,
    ),
    Override(
        contains=("<|im_middle|>", "<|tool_calls_section_begin|>", "<|tool_call_argument_begin|>"),
        reason="Kimi K2's thinking models use the same template as its plain ones, which never writes a thought.",
        reasoning=ReasoningSyntax("<think>", "</think>", derived="override"),
    ),
)
