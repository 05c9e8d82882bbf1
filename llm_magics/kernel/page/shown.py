"""How a Reply (its answer, without the record) and a map's result (a table of rows) look as the last value of a cell."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from IPython.core.interactiveshell import InteractiveShell

if TYPE_CHECKING:
    from llm_magics.session.map import MapResult
    from llm_magics.session.session import Reply
    from llm_magics.views.maprows import ShownRow


def start_shown(shell: InteractiveShell) -> Callable[[], None]:
    """Register the formatters; return what removes them."""
    formatter: Any = shell.display_formatter.mimebundle_formatter  # type: ignore[union-attr]  # every shell has one
    for name, draw in _DRAWN.items():
        formatter.for_type_by_name(*name, draw)

    def stop() -> None:
        for name in _DRAWN:
            formatter.deferred_printers.pop(name, None)
        for kind in [kind for kind in formatter.type_printers if (kind.__module__, kind.__name__) in _DRAWN]:
            del formatter.type_printers[kind]

    return stop


def reply_bundle(reply: Reply, include: Any = None, exclude: Any = None) -> dict[str, str]:
    from llm_magics.views.html import transcript_html
    from llm_magics.views.secrets.secrets import masked
    from llm_magics.views.text.plain import transcript_markdown, transcript_plain

    trace = masked(reply.trace)
    return {
        "text/html": transcript_html(trace),
        "text/markdown": transcript_markdown(trace),
        "text/plain": transcript_plain(trace),
    }


def result_bundle(result: MapResult, include: Any = None, exclude: Any = None) -> dict[str, str]:
    from llm_magics.views.maprows import MOST_ROWS, map_bundle

    return map_bundle(repr(result), [_row(result, at) for at in range(min(len(result), MOST_ROWS))], len(result))


def _row(result: MapResult, at: int) -> ShownRow:
    from llm_magics.views.maprows import ShownRow

    row, label, prompt = result.rows[at], str(result.source.labels[at]), result.source.prompts[at]
    asked = prompt if isinstance(prompt, str) else ""
    if row is None:
        return ShownRow(label, asked, ran=False)
    return ShownRow(label, asked, row.text, "" if row.error is None else str(row.error))


# by name, because the classes are imported with the first answer
_DRAWN: dict[tuple[str, str], Callable[..., dict[str, str]]] = {
    ("llm_magics.session.session", "Reply"): reply_bundle,
    ("llm_magics.session.map", "MapResult"): result_bundle,
}
