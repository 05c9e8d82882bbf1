"""A transcript as markdown and as plain text, for code hosts, nbconvert and terminals without colours."""

from __future__ import annotations

from llm_magics.segments import NoticeSegment, ReasoningSegment, TextSegment, ToolSegment
from llm_magics.transcript import Transcript
from llm_magics.views.folding import Item, NotRun, folded
from llm_magics.views.html import ShowReasoning
from llm_magics.views.markup.json_text import json_lines
from llm_magics.views.markup.markdown import printable
from llm_magics.views.markup.remark import escaped, fenced, markdown_markdown

from .lines import call_line, state_line, status_line


def transcript_markdown(transcript: Transcript, reasoning: ShowReasoning = "fold") -> str:
    """Write the transcript as markdown that is harmless even if a viewer trusts raw HTML."""
    blocks = [_markdown(item, reasoning) for item in folded(transcript.segments)]
    line = status_line(transcript)
    return "\n\n".join(block.rstrip("\n") for block in (*blocks, f"*{escaped(line)}*" if line else "") if block)


def transcript_plain(transcript: Transcript, reasoning: ShowReasoning = "fold") -> str:
    """Write the transcript as plain text; the answer's text is unchanged."""
    blocks = [_plain(item, reasoning) for item in folded(transcript.segments)]
    line = status_line(transcript)
    return "\n\n".join(block.strip("\n") for block in (*blocks, f"[{line}]" if line else "") if block)


def _markdown(item: Item, reasoning: ShowReasoning) -> str:
    match item:
        case TextSegment(text) if (lines := json_lines(text)) is not None:
            return fenced(printable(lines), "json")
        case TextSegment(text):
            return markdown_markdown(text)
        case ReasoningSegment(text):
            if reasoning == "hide":
                return ""
            quoted = "\n".join(f"> {line}".rstrip() for line in markdown_markdown(text).rstrip("\n").split("\n"))
            return f"> **Reasoning**\n>\n{quoted}"
        case NoticeSegment(text):
            return f"*{escaped(printable(text))}*"
        case ToolSegment():
            head = f"**{escaped(printable(call_line(item)))}** · {escaped(printable(state_line(item)))}"
            parts = [head, *(fenced(printable(text)) for text in (item.printed, item.result) if text)]
            return "\n\n".join(parts)
        case NotRun(calls):
            return "\n".join([f"*{item.line}:*", "", *(f"- {escaped(printable(call_line(call)))}" for call in calls)])


def _plain(item: Item, reasoning: ShowReasoning) -> str:
    match item:
        case TextSegment(text):
            return printable(text)
        case ReasoningSegment(text):
            return "" if reasoning == "hide" else "[reasoning]\n" + _indented(printable(text))
        case NoticeSegment(text):
            return f"[{printable(text)}]"
        case ToolSegment():
            texts = (printable(text) for text in (item.printed, item.result) if text)
            return "\n".join((printable(f"[{call_line(item)} · {state_line(item)}]"), *map(_indented, texts)))
        case NotRun(calls):
            return "\n".join([f"[{item.line}]", *(_indented(printable(call_line(call))) for call in calls)])


def _indented(text: str) -> str:
    return "\n".join(f"    {line}".rstrip() for line in text.strip("\n").split("\n"))
