"""How values of ours look when a cell ends in one: a Reply as its answer, without the record that its own cell keeps."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from IPython.core.interactiveshell import InteractiveShell

if TYPE_CHECKING:
    from ..session import Reply

_REPLY = ("llm_magics.session", "Reply")  # by name: the class is imported with the first answer


def start_shown(shell: InteractiveShell) -> Callable[[], None]:
    """Draw our values. Gives what ends it."""
    formatter: Any = shell.display_formatter.mimebundle_formatter  # type: ignore[union-attr]  # every shell has one
    formatter.for_type_by_name(*_REPLY, reply_bundle)

    def stop() -> None:
        formatter.deferred_printers.pop(_REPLY, None)
        for kind in [kind for kind in formatter.type_printers if (kind.__module__, kind.__name__) == _REPLY]:
            del formatter.type_printers[kind]

    return stop


def reply_bundle(reply: Reply, include: Any = None, exclude: Any = None) -> dict[str, str]:
    """The forms of an answer for a reader; what looks like a secret is masked."""
    from ..views.html import transcript_html
    from ..views.plain import transcript_markdown, transcript_plain
    from ..views.secrets import masked

    trace = masked(reply.trace)
    return {
        "text/html": transcript_html(trace),
        "text/markdown": transcript_markdown(trace),
        "text/plain": transcript_plain(trace),
    }
