"""Cards, notes, tables, progress bars and offers of an action, from plain text."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

from llm_magics.views.markup.markdown import NO_MATHS, printable
from llm_magics.views.markup.remark import escaped, fenced

from .style import STYLE

ACTION_TYPE = "application/vnd.llm-magics.action+json"
_SHORT = 24  # characters
Rows = Sequence[tuple[str, str]]


def card_bundle(title: str, rows: Rows, note: str = "") -> dict[str, str]:
    rows = [(name, value) for name, value in rows if value]
    cells = "".join(f"<tr><th>{_safe(name)}</th><td>{_safe(value)}</td></tr>\n" for name, value in rows)
    html = _framed(f'<strong>{_safe(title)}</strong>\n<table class="lm-card">{cells}</table>{_note(note)}')
    width = max((len(name) for name, _ in rows), default=0)
    lines = [title, *(f"  {name:<{width}}  {value}" for name, value in rows), *([note] if note else [])]
    return _bundle(html, "\n".join(lines))


def note_bundle(note: str) -> dict[str, str]:
    return {**_bundle(_framed(_note(note)), note), "text/markdown": escaped(printable(note))}


def table_bundle(columns: Sequence[str], rows: Sequence[Sequence[str]], note: str = "") -> dict[str, str]:
    head = "".join(f"<th>{_safe(column)}</th>" for column in columns)
    body = "".join("<tr>" + "".join(map(_cell, row)) + "</tr>\n" for row in rows)
    table = f"<table><thead><tr>{head}</tr></thead><tbody>\n{body}</tbody></table>" if rows else ""
    widths = [max(len(row[at]) for row in (columns, *rows)) for at in range(len(columns))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in (columns, *rows)]
    return _bundle(_framed(table + _note(note)), "\n".join((*(lines if rows else ()), *([note] if note else []))))


def action_bundle(label: str, code: str) -> dict[str, Any]:
    """An offer to run ``code``, which fixes an error: a line to type, and on a page with the extension a button, which runs
    e.g. ``%load_model smollm2-135m`` in a cell above the failed one, and then the failed cell again."""
    line = f"To continue, run {printable(code)} and then this cell again."
    html = f"To continue, run <code>{escape(printable(code))}</code> and then this cell again."
    bundle = {"text/html": _framed(f'<div class="lm-notice">{html}</div>'), "text/markdown": escaped(line), "text/plain": line}
    return {**bundle, ACTION_TYPE: {"label": label, "code": code}}


def bytes_text(size: int) -> str:
    """E.g. ``398 MB`` or ``4.1 GB``."""
    return f"{size / 1e6:,.0f} MB" if size < 1e9 else f"{size / 1e9:,.1f} GB"


def bar_text(what: str, done: int, total: int) -> str:
    """One line of progress, e.g. ``fetching  [#####.....]  52 %  210 MB of 398 MB``."""
    if total <= 0:
        return f"{what}  {bytes_text(done)}" if done else what
    filled = min(20 * done // total, 20)
    size = f"  {bytes_text(done)} of {bytes_text(total)}" if total > 1 else ""
    return f"{what}  [{'#' * filled}{'.' * (20 - filled)}]  {min(100 * done // total, 100)} %{size}"


def _framed(html: str) -> str:
    return f'{STYLE}<div class="llm-magics {NO_MATHS}">{html}</div>'


def _bundle(html: str, plain: str) -> dict[str, str]:
    return {"text/html": html, "text/markdown": fenced(printable(plain)), "text/plain": printable(plain)}


def _cell(text: str) -> str:
    """One cell; a short text such as ``491 MB`` stays on one line."""
    return f'<td class="lm-short">{_safe(text)}</td>' if len(text) <= _SHORT else f"<td>{_safe(text)}</td>"


def _safe(text: str) -> str:
    return escape(printable(text)).replace("\n", "<br>")


def _note(note: str) -> str:
    return f'<div class="lm-notice">{_safe(note)}</div>' if note else ""
