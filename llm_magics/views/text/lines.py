"""The short lines in every form of a transcript: the status line at the end, and the head of a tool row."""

from __future__ import annotations

import json

from llm_magics.plural import counted
from llm_magics.segments import ToolSegment
from llm_magics.tools.results import NOBODY_ASKED
from llm_magics.transcript import Transcript

ENDINGS = {
    "running": "",
    "stop": "",
    "tool_calls": "stopped after its tool calls",
    "length": "cut off",
    "interrupted": "interrupted",
    "error": "ended by an error",
}
_STATES = {"writing": "being written", "ready": "ready", "asking": "waits for approval", "cut": "cut off, did not run"}


def status_line(transcript: Transcript) -> str:
    """The end and the cost of a turn, e.g. ``128 tokens · 21.3 tokens/s · first token after 0.82 s``."""
    if transcript.state == "running":
        if transcript.progress is None:
            return ""
        done, total = transcript.progress
        return f"reading the prompt: {done:,} of {counted(total, 'token')}"
    usage = transcript.usage
    parts = [ENDINGS[transcript.state]]
    if usage.completion_tokens:
        parts.append(counted(usage.completion_tokens, "token"))
        parts.append(f"{usage.tokens_per_second:.1f} tokens/s" if usage.completion_seconds > 0 else "")
        parts.append(f"first token after {usage.time_to_first_token:.2f} s" if usage.time_to_first_token else "")
    if usage.drafted_tokens:
        parts.append(f"{usage.accepted_tokens:,} of {usage.drafted_tokens:,} guessed tokens accepted")
    if usage.context_used:
        parts.append(f"context {usage.context_used:,}" + (f" of {usage.context_size:,}" if usage.context_size else ""))
    parts.append("recorded" if transcript.recorded else "")
    return " · ".join(part for part in parts if part)


def losses_line(transcript: Transcript) -> str:
    """Which part of the prompt had to be evaluated again, and why; empty if none."""
    usage = transcript.usage
    if not usage.losses:
        return ""
    return f"{usage.evaluated_tokens:,} of {usage.prompt_tokens:,} prompt tokens evaluated: {'; '.join(usage.losses)}"


def call_line(segment: ToolSegment, limit: int = 100) -> str:
    """Write a call as Python would, cut to ``limit`` characters, e.g. ``weather(city="Oslo", days=3)``."""
    try:
        arguments = json.loads(segment.arguments)
    except ValueError:
        arguments = None
    if isinstance(arguments, dict):
        inside = ", ".join(f"{key}={json.dumps(value, ensure_ascii=False)}" for key, value in arguments.items())
    else:
        inside = segment.arguments.strip()
    line = " ".join(f"{segment.name or '(unnamed)'}({inside})".split())
    return line if len(line) <= limit else line[: limit - 1] + "…"


def state_line(segment: ToolSegment) -> str:
    """The state of a call, e.g. ``done · 0.31 s · read from fenced JSON``."""
    denied = segment.state == "refused" and segment.ask is not None
    not_run = segment.state == "refused" and not segment.is_error
    nobody = NOBODY_ASKED in (segment.result or "")
    said = ("nobody could be asked" if nobody else "denied by you") if denied else "not run" if not_run else ""
    parts = [said or _STATES.get(segment.state, segment.state)]
    if segment.seconds:
        parts.append(f"{segment.seconds:.2f} s")
    if segment.recovered:
        parts.append(f"read from {segment.recovered}")
    return " · ".join(parts)
