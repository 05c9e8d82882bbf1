"""The one thing that mends an error, offered below it: a button on a page with our extension, a line to type elsewhere.

The MIME type holds e.g. ``{"label": "Load smollm2-135m", "code": "%load_model smollm2-135m"}``. A page puts the code into a
cell above the one that failed, runs it, and runs that one again.
"""

from __future__ import annotations

from html import escape
from typing import Any

from llm_magics.views.markup.markdown import NO_MATHS, printable
from llm_magics.views.markup.remark import escaped

from .style import STYLE

MIME_TYPE = "application/vnd.llm-magics.action+json"


def action_bundle(label: str, code: str) -> dict[str, Any]:
    """Every form of an offer to run ``code``, by MIME type."""
    line = f"To go on, run {printable(code)} and then this cell again."
    html = f"To go on, run <code>{escape(printable(code))}</code> and then this cell again."
    return {
        "text/html": f'{STYLE}<div class="llm-magics {NO_MATHS}"><div class="lm-notice">{html}</div></div>',
        "text/markdown": escaped(line),
        "text/plain": line,
        MIME_TYPE: {"label": label, "code": code},
    }
