"""How a magic fails: with one sentence for errors of ours and for interrupts, and like any other cell for the rest."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from llm_magics.errors import LLMMagicsError


@contextlib.contextmanager
def plainly(interrupted: str = "stopped.") -> Iterator[None]:
    """Have IPython show an error of ours, or an interrupt, without a traceback through this package. It is raised all the same.

    ``interrupted`` is what an interrupt says. ``_render_traceback_`` is IPython's own way for an exception to say how it looks.
    """
    try:
        yield
    except KeyboardInterrupt as interrupt:
        interrupt._render_traceback_ = lambda: [_line("KeyboardInterrupt", interrupted)]  # type: ignore[attr-defined]
        raise
    except LLMMagicsError as error:
        line = _line(type(error).__name__, str(error))
        error._render_traceback_ = lambda: [line]  # type: ignore[attr-defined]
        raise


def _line(name: str, said: str) -> str:
    return f"\x1b[31m{name}\x1b[0m: {said}"
