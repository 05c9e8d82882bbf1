"""A question on the magic's own line: ``%%chat What is a notebook?``, with nothing below it.

IPython refuses a cell magic whose body is empty before the magic hears of it. An input transformer, which sees the cell first,
gives such a cell a body of one empty line; the magic then looks for the question on its line.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from IPython.core.interactiveshell import InteractiveShell

_ASKS = re.compile(r"%%(chat|compare)(\s|$)|%%tool\s+(--help|-h)\s*$")


def start_one_line(shell: InteractiveShell) -> Callable[[], None]:
    """Let cells of one line reach the magics that ask. Gives what ends it."""
    transformers = shell.input_transformers_cleanup
    transformers.append(with_body)
    return lambda: transformers.remove(with_body)


def with_body(lines: list[str]) -> list[str]:
    """The cell's lines, with an empty one behind the first where that is a magic which asks and nothing follows it."""
    if not lines or not _ASKS.match(lines[0]) or any(line.strip() for line in lines[1:]):
        return lines
    return [lines[0].rstrip("\n") + "\n", "\n"]
