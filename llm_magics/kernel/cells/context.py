"""Other cells as context: which ones a prompt shows, in the page's order (without a page: as run), and how they are written."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from llm_magics.errors import OptionError
from llm_magics.options import near
from llm_magics.tools.results import shorten

_KEPT_CHARS = 20_000  # of one cell's output, in memory
_CELL_CHARS = 4_000  # of one cell's source, and of its output, in a prompt
_ALL_CHARS = 16_000  # of all cells in a prompt
_ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
# cells that talk to a model, e.g. "%%chat -c above", are part of the conversation already
_OWN = re.compile(r"\s*(%%chat\b|%%compare\b|%(load_ext|reload_ext|load_model|unload_model|models|thread|llm|chat|tools)\b)")


@dataclass(eq=False)
class Run:
    """One run of a cell; ``id`` is the front end's cell id, empty if it sends none."""

    id: str
    source: str
    tags: tuple[str, ...] = ()
    kind: str = "code"
    error: str = ""
    _output: list[str] = field(default_factory=list)
    _size: int = 0

    @property
    def output(self) -> str:
        return uncoloured("".join(self._output))

    def wrote(self, text: str) -> None:
        if text and self._size < _KEPT_CHARS:
            self._output.append(text[: _KEPT_CHARS - self._size])
            self._size += len(text)


def uncoloured(text: str) -> str:
    """Remove terminal colours, e.g. ``\\x1b[0;31m``."""
    return _ANSI.sub("", text).strip()


def select(wanted: Sequence[str], runs: Sequence[Run], page: Sequence[Mapping[str, Any]] | None, cell: str) -> list[Run]:
    """Choose the cells for ``-c``: ``wanted`` are any of "none", "prev", "above", "all" and "tag:NAME". ``runs`` are oldest
    first, ``page`` are the notebook's cells in order, if the page answered, and ``cell`` is the id of the asking cell."""
    known = _in_page_order(runs, page) if page is not None else [run for run in runs if run.id != cell or not cell]
    here = next((at for at, run in enumerate(known) if run.id == cell and cell), len(known))
    chosen: list[Run] = []
    for word in wanted:
        kind, _, name = word.partition(":")
        if kind == "tag" and name:
            found = [run for run in known if name in run.tags]
            if not found:
                tags = sorted({tag for run in known for tag in run.tags})
                raise OptionError(f"No known cell has the tag {name!r}.", near(name, tags) or "Run that cell first.")
            chosen += found
        elif word in ("prev", "above"):
            above = [run for run in known[:here] if not _OWN.match(run.source)]
            chosen += above if word == "above" else [run for run in above if run.kind == "code"][-1:]
        elif word == "all":
            chosen += [run for run in known if run.id != cell or not cell]
        elif word != "none":
            raise OptionError(f"-c cannot be {word!r}.", "Write none, prev, above, all or tag:NAME.")
    return [run for run in known if run in chosen and not _OWN.match(run.source)]


def _in_page_order(runs: Sequence[Run], page: Sequence[Mapping[str, Any]]) -> list[Run]:
    ran = {run.id: run for run in runs}
    found = []
    for cell in page:
        tags = tuple(str(tag) for tag in cell.get("tags") or ())
        fresh = Run(str(cell.get("id", "")), str(cell.get("source", "")), tags, str(cell.get("type", "code")))
        if fresh.id not in ran:  # e.g. run before %load_ext: only the page has its output
            fresh.wrote(str(cell.get("output") or ""))
            fresh.error = str(cell.get("error") or "")
        found.append(ran.get(fresh.id, fresh))
    return found


def written(runs: Iterable[Run], limit: int = _ALL_CHARS) -> str:
    """Write cells for the model, each cut to a readable size. Drop the earliest if all are too long, with a note."""
    blocks = found = [_written(run) for run in runs]
    while len(blocks) > 1 and sum(map(len, blocks)) > limit:
        blocks = blocks[1:]
    note = f" ({len(found) - len(blocks)} earlier ones left out)" if len(blocks) < len(found) else ""
    return f"Cells of my notebook{note}:\n\n" + "\n\n".join(shorten(block, limit) for block in blocks) if blocks else ""


def _written(run: Run) -> str:
    from llm_magics.views.markup.remark import fenced

    if run.kind == "markdown":
        return shorten(run.source, _CELL_CHARS)
    parts = [fenced(shorten(run.source, _CELL_CHARS), "python")]
    if run.output:
        parts.append("Output:\n" + fenced(shorten(run.output, _CELL_CHARS)))
    if run.error:
        parts.append("Error:\n" + fenced(shorten(run.error, _CELL_CHARS)))
    return "\n".join(parts)
