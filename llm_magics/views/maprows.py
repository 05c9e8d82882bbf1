"""The first rows of a map as a table of questions and answers; answers in JSON are laid out, highlighted and foldable."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from llm_magics.views.markup.json_text import json_lines, json_summary
from llm_magics.views.markup.markdown import NO_MATHS, code_html, markdown_html, printable
from llm_magics.views.markup.remark import escaped, fenced
from llm_magics.views.secrets.secrets import masked_text

from .html import unbroken
from .style import STYLE

MOST_ROWS = 30
_OPEN_ROWS = 10  # with more rows, JSON is folded
_QUESTION = 200  # characters of a question


@dataclass(frozen=True, slots=True)
class ShownRow:
    """One row: its label, its question, its answer's text, and its error, if any."""

    label: str
    prompt: str = ""
    text: str = ""
    error: str = ""
    ran: bool = True


def map_bundle(head: str, rows: Sequence[ShownRow], n_rows: int) -> dict[str, str]:
    """Every form of a map's result, by MIME type; ``rows`` are the first ``MOST_ROWS`` of ``n_rows``."""
    shown = [_safe(row) for row in rows[:MOST_ROWS]]
    left = f"{n_rows - len(shown):,} more rows are in .values" if n_rows > len(shown) else ""
    return {"text/html": _html(shown, left), "text/markdown": _markdown(shown, left), "text/plain": _plain(head, shown, left)}


def _safe(row: ShownRow) -> ShownRow:
    prompt = " ".join(row.prompt.split())
    prompt = prompt if len(prompt) <= _QUESTION else f"{prompt[:_QUESTION]}…"
    label, asked, text, error = (printable(masked_text(text)) for text in (row.label, prompt, row.text, row.error))
    return ShownRow(label, asked, text, error, row.ran)


def _html(rows: Sequence[ShownRow], left: str) -> str:
    is_open = " open" if len(rows) <= _OPEN_ROWS else ""
    body = "".join(
        f"<tr><th>{escape(row.label)}</th><td>{escape(row.prompt)}</td><td>{_answer_html(row, is_open)}</td></tr>\n"
        for row in rows
    )
    last = f'<div class="lm-notice">{left}</div>' if left else ""
    table = f'<table class="lm-map"><tr><th></th><th>Question</th><th>Answer</th></tr>\n{body}</table>'
    return unbroken(f'{STYLE}<div class="llm-magics lm-wide {NO_MATHS}">{table}{last}</div>')


def _answer_html(row: ShownRow, is_open: str) -> str:
    if not row.ran:
        return '<span class="lm-notice">did not run</span>'
    lines = json_lines(row.text)
    if lines is not None:
        code = code_html(lines, "json")
        answer = f'<details class="lm-json"{is_open}><summary>{json_summary(row.text)}</summary>{code}</details>'
    else:
        answer = markdown_html(row.text) if row.text else ""
    return answer + (f'<div class="lm-notice lm-error">{escape(row.error)}</div>' if row.error else "")


def _markdown(rows: Sequence[ShownRow], left: str) -> str:
    parts = [f"**{escaped(row.label)}** {escaped(row.prompt)}\n\n{_answer_markdown(row)}" for row in rows]
    return "\n\n".join([*parts, *([f"*{left}*"] if left else [])])


def _answer_markdown(row: ShownRow) -> str:
    if not row.ran:
        return "*did not run*"
    lines = json_lines(row.text)
    answer = fenced(lines, "json") if lines is not None else escaped(row.text)
    return "\n\n".join(part for part in (answer, f"*{escaped(row.error)}*" if row.error else "") if part)


def _plain(head: str, rows: Sequence[ShownRow], left: str) -> str:
    return "\n".join([head, *(f"{row.label}: {_answer_plain(row)}" for row in rows), *([left] if left else [])])


def _answer_plain(row: ShownRow) -> str:
    if not row.ran:
        return "[did not run]"
    return " ".join(part for part in (row.text, f"[{row.error}]" if row.error else "") if part)
