"""A transcript as static HTML: readable without extension and kernel, and safe whatever a model or tool wrote.

``nbconvert --to markdown`` puts it into markdown, where an empty line would end it, so it has none.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from html import escape
from typing import Any, Literal, TypeAlias

from llm_magics.segments import NoticeSegment, ReasoningSegment, TextSegment, ToolSegment
from llm_magics.transcript import Transcript
from llm_magics.views.markup.json_text import json_lines, json_summary
from llm_magics.views.markup.markdown import NO_MATHS, GrowingMarkdown, code_html, markdown_html, printable
from llm_magics.views.markup.sanitize import sanitized
from llm_magics.views.secrets.secret_text import MASK
from llm_magics.views.text.lines import call_line, losses_line, state_line, status_line

from .folding import Item, NotRun, folded
from .style import STYLE

ShowReasoning: TypeAlias = Literal["fold", "full", "hide"]
_BASE64 = re.compile(r"[A-Za-z0-9+/\s]+={0,2}\s*")
_EMPTY_LINES = re.compile(r"\n((?:[ \t]*\n)+)")
_PICTURES = ("image/png", "image/jpeg")


def transcript_html(transcript: Transcript, reasoning: ShowReasoning = "fold") -> str:
    return GrowingHtml(reasoning, growing=False).html(transcript)


@dataclass
class GrowingHtml:
    """Writes a growing transcript; unchanged segments are not rendered again."""

    reasoning: ShowReasoning = "fold"
    growing: bool = True
    _known: dict[int, tuple[Item, str]] = field(default_factory=dict)
    _texts: dict[int, GrowingMarkdown] = field(default_factory=dict)

    def html(self, transcript: Transcript) -> str:
        body = "".join(self._item(at, item) for at, item in enumerate(folded(transcript.segments)))
        return f'{STYLE}<div class="llm-magics {NO_MATHS}">\n{body}{_status(transcript)}</div>'

    def _item(self, at: int, item: Item) -> str:
        known = self._known.get(at)
        if known is None or not (known[0] is item or (isinstance(item, NotRun) and item.is_same(known[0]))):
            known = self._known[at] = (item, unbroken(self._write(at, item)))
        return known[1]

    def _write(self, at: int, item: Item) -> str:
        match item:
            case TextSegment(text) if (lines := json_lines(text)) is not None:
                code = code_html(printable(lines), "json")
                return f'<details class="lm-json" open><summary>{json_summary(text)}</summary>{code}</details>\n'
            case TextSegment(text):
                return f'<div class="lm-text">{self._markdown(at, text)}</div>\n'
            case ReasoningSegment(text) if self.reasoning == "hide":
                return ""
            case ReasoningSegment(text):
                is_open = " open" if self.reasoning == "full" else ""
                prose = f'<div class="lm-prose">{self._markdown(at, text)}</div>'
                return f'<details class="lm-reasoning"{is_open}><summary>Reasoning</summary>{prose}</details>\n'
            case NoticeSegment(text, level):
                return f'<div class="lm-notice lm-{level}">{escape(printable(text))}</div>\n'
            case ToolSegment():
                return tool_html(item)
            case NotRun(calls):
                rows = "".join(map(tool_html, calls))
                return f'<details class="lm-notrun"><summary>{item.line}</summary>{rows}</details>\n'

    def _markdown(self, at: int, text: str) -> str:
        return self._texts.setdefault(at, GrowingMarkdown()).html(text) if self.growing else markdown_html(text)


def tool_html(segment: ToolSegment) -> str:
    """Write one call as a row that unfolds; open at once if it has outputs or waits for approval."""
    is_open = " open" if segment.outputs or segment.state == "asking" else ""
    head = f"<code>{escape(printable(call_line(segment)))}</code> · {escape(printable(state_line(segment)))}"
    parts = []
    asking = segment.ask if segment.state == "asking" else None
    if asking is not None:
        shown = code_html(printable(asking.shown), "python")
        some = ", with what looks like a secret masked" if MASK in asking.shown else ""
        parts.append(_labelled(f"Waits for approval. This would run{some}:", shown, asking.reason))
    elif segment.arguments:
        parts.append(_labelled("Arguments", code_html(printable(_pretty(segment.arguments)), "json")))
    if segment.printed:
        parts.append(_labelled("Printed", code_html(printable(segment.printed))))
    parts += [output_html(output) for output in segment.outputs]
    if segment.result is not None:
        parts.append(_labelled("Result", code_html(printable(_pretty(segment.result)))))
    parts += [f'<div class="lm-notice lm-warning">{escape(printable(w))}</div>' for w in segment.warnings]
    if segment.source and asking is None:  # a question shows the source already
        parts.append(_labelled("What ran", code_html(printable(segment.source), "python")))
    return f'<details class="lm-tool lm-{segment.state}"{is_open}><summary>{head}</summary>{"".join(parts)}</details>\n'


def output_html(bundle: Mapping[str, Any]) -> str:
    """Write a tool's MIME bundle: a picture, a rebuilt table, or text; other types are only named."""
    for kind in _PICTURES:
        data = bundle.get(kind)
        if isinstance(data, str) and _BASE64.fullmatch(data):
            label = escape(printable(str(bundle.get("text/plain", "picture"))[:200]))
            return f'<img src="data:{kind};base64,{"".join(data.split())}" alt="{label}">\n'
    if "text/html" in bundle:
        return f"<div>{sanitized(printable(_text(bundle['text/html'])))}</div>\n"
    if "text/markdown" in bundle:
        return f"<div>{markdown_html(_text(bundle['text/markdown']))}</div>\n"
    if "text/plain" in bundle:
        return code_html(printable(_text(bundle["text/plain"])))
    if "application/json" in bundle:
        return code_html(json.dumps(bundle["application/json"], indent=1, ensure_ascii=False), "json")
    return f'<div class="lm-notice">(output of type {escape(printable(", ".join(map(str, bundle))))})</div>\n'


def unbroken(html: str) -> str:
    """Write the line ends of empty lines as entities: the same document, but one block in markdown."""
    return _EMPTY_LINES.sub(lambda lines: "\n" + lines[1].replace("\n", "&#10;"), html)


def _text(value: Any) -> str:
    """A MIME bundle's text, which may be a list of lines, as in notebook files."""
    return "".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)


def _labelled(label: str, html: str, remark: str = "") -> str:
    said = f" {escape(printable(remark))}" if remark else ""
    return f'<div class="lm-notice">{escape(label)}{said}</div>{html}'


def _pretty(text: str) -> str:
    try:
        value = json.loads(text)
    except ValueError:
        return text
    return json.dumps(value, indent=1, ensure_ascii=False) if isinstance(value, (dict, list)) else text


def _status(transcript: Transcript) -> str:
    line = status_line(transcript)
    losses = losses_line(transcript)
    title = f' title="{escape(printable(losses))}"' if losses else ""
    return f'<div class="lm-status"{title}>{escape(printable(line))}</div>\n' if line else ""
