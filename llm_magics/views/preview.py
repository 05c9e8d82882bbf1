"""The prompt as it would be sent: every token, also control tokens, and the share of each part."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import TypeAlias

from llm_magics.plural import counted
from llm_magics.views.markup.markdown import NO_MATHS, printable
from llm_magics.views.markup.remark import fenced

from .style import STYLE

PreviewPart: TypeAlias = tuple[str, str, Sequence[int]]  # origin, text, token ids


def preview_bundle(parts: Sequence[PreviewPart], context_size: int = 0) -> dict[str, str]:
    """The MIME bundle of a preview; ``context_size`` in tokens, 0 if unknown."""
    plain = _plain(parts, context_size)
    return {"text/html": _html(parts, context_size), "text/markdown": fenced(plain), "text/plain": plain}


def shares(parts: Sequence[PreviewPart]) -> list[tuple[str, int]]:
    found: dict[str, int] = {}
    for origin, _, ids in parts:
        found[origin] = found.get(origin, 0) + len(ids)
    return list(found.items())


def _total_line(parts: Sequence[PreviewPart], context_size: int) -> str:
    total = sum(len(ids) for _, _, ids in parts)
    if not total:
        return f"{counted(len(parts), 'part')} would be sent; the model's server counts their tokens"
    line = f"{counted(total, 'token')} would be sent" + (f", of a context of {context_size:,}" if context_size else "")
    return line + ": " + ", ".join(f"{origin} {n:,} ({n / max(total, 1):.0%})" for origin, n in shares(parts))


def _html(parts: Sequence[PreviewPart], context_size: int) -> str:
    rows = "".join(
        f"<tr><td>{escape(origin)}</td><td>{f'{len(ids):,}' if ids else ''}</td><td><pre>{escape(printable(text))}</pre>"
        f"{_ids_html(ids)}</td></tr>\n"
        for origin, text, ids in parts
    )
    head = "<thead><tr><th>part</th><th>tokens</th><th>text</th></tr></thead>"
    return (
        f'{STYLE}<div class="llm-magics {NO_MATHS}"><div class="lm-status">{escape(_total_line(parts, context_size))}</div>\n'
        f'<table class="lm-preview">{head}<tbody>\n{rows}</tbody></table></div>'
    )


def _ids_html(ids: Sequence[int]) -> str:
    text = escape(" ".join(map(str, ids)))
    return f"<details><summary>token ids</summary><code>{text}</code></details>" if ids else ""


def _plain(parts: Sequence[PreviewPart], context_size: int) -> str:
    lines = [_total_line(parts, context_size)]
    for origin, text, ids in parts:
        tokens = f", {counted(len(ids), 'token')}: {' '.join(map(str, ids))}" if ids else ""
        lines += [f"--- {origin}{tokens}", printable(text)]
    return "\n".join(lines)
