"""Shared by all magics: registration on a shell, errors without tracebacks, and questions on a cell's first line."""

from __future__ import annotations

import contextlib
import re
import sys
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from IPython.core.interactiveshell import InteractiveShell
from IPython.core.magic import Magics, cell_magic, line_magic, no_var_expand

from llm_magics.errors import LLMMagicsError
from llm_magics.kernel.options.line import HelpAsked, Spec
from llm_magics.kernel.runtime import Runtime

_ASKS = re.compile(r"%%(chat|compare)(\s|$)|%%tool\s+(--help|-h)\s*$")
Method = TypeVar("Method", bound=Callable[..., None])


def documented(spec: Spec[Any]) -> Callable[[Method], Method]:
    """Decorate a magic's method: its docstring is the help, for ``%%chat?``, and IPython leaves its line as typed."""

    def decorate(method: Method) -> Method:
        method.__doc__ = spec.help()
        return no_var_expand(method)

    return decorate


def magic(spec: Spec[Any], interrupted: str = "stopped.") -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Make a magic of a method that takes the parsed line and, for a cell, the question, which is below the line or on it."""

    def decorate(method: Callable[..., None]) -> Callable[..., None]:
        def run(self: Any, line: str, cell: str | None = None) -> None:
            with plainly(self.runtime, interrupted):
                namespace, tell = self.runtime.shell.user_ns, self.runtime.tell_once
                if cell is not None and not cell.strip():
                    method(self, *spec.parse_question(line, namespace, tell))
                else:
                    method(self, spec.parse(line, namespace, tell), *([] if cell is None else [cell]))

        run.__name__ = method.__name__
        kind = cell_magic if spec.magic.startswith("%%") else line_magic
        made: Callable[..., None] = kind(documented(spec)(run))
        return made

    return decorate


def register(shell: InteractiveShell, magics: Magics) -> Callable[[], None]:
    """Register the magics of a class; return what removes them and restores the earlier magics of the same names."""
    table: dict[str, dict[str, Any]] = shell.magics_manager.lsmagic()
    names = [(kind, name) for kind, named in magics.magics.items() for name in named]
    before = {(kind, name): table[kind].get(name) for kind, name in names}
    shell.register_magics(magics)
    ours = {(kind, name): table[kind][name] for kind, name in names}

    def unregister() -> None:
        for kind, name in names:
            if table[kind].get(name) is not ours[kind, name]:
                continue  # replaced by another extension since
            del table[kind][name]
            if before[kind, name] is not None:
                table[kind][name] = before[kind, name]

    return unregister


@contextlib.contextmanager
def plainly(runtime: Runtime, interrupted: str = "stopped.") -> Iterator[None]:
    """Show an LLMMagicsError, or an interrupt (``interrupted``), as one sentence without a traceback, and offer the action
    that fixes it. Print the help for a line that asks for it. IPython shows an exception by its ``_render_traceback_``."""
    try:
        yield
    except HelpAsked as asked:
        sys.stdout.write(f"{asked.what}\n")
    except (KeyboardInterrupt, LLMMagicsError) as error:
        said = interrupted
        if isinstance(error, LLMMagicsError):
            said, runtime.offer = str(error), error.action
        line = f"\x1b[31m{type(error).__name__}\x1b[0m: {said}"
        error._render_traceback_ = lambda: [line]  # type: ignore[union-attr]
        raise


def start_one_line(shell: InteractiveShell) -> Callable[[], None]:
    """Allow one-line cells such as ``%%chat What is a notebook?``; return what ends it. IPython refuses a cell magic with an
    empty body, so an input transformer adds an empty line."""
    transformers = shell.input_transformers_cleanup
    transformers.append(with_body)
    return lambda: transformers.remove(with_body)


def with_body(lines: list[str]) -> list[str]:
    """The cell's lines, with an empty line behind the line of a magic that asks, if nothing follows."""
    if not lines or not _ASKS.match(lines[0]) or any(line.strip() for line in lines[1:]):
        return lines
    return [lines[0].rstrip("\n") + "\n", "\n"]
