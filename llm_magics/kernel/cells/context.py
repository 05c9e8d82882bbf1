"""Other cells as context: what was run in this kernel and what came of it, written as text for the model.

:class:`CellLog` listens to IPython's cell events and to what goes out while a cell runs. It keeps the latest run of each cell,
and of its output only as much as a prompt could use. Where the page can be asked, it says which cells there are and in which
order; otherwise the order is that of running.
"""

from __future__ import annotations

import re
import sys
import traceback
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from llm_magics.errors import OptionError
from llm_magics.options import near

_KEPT_CELLS = 500
_KEPT_CHARS = 20_000  # of one cell's output
_CELL_CHARS = 4_000  # of one cell's source, and of its output, in a prompt
_ALL_CHARS = 16_000  # of all cells in a prompt
_ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
# cells that talk with a model are part of the conversation already, e.g. "%%chat -c above"
_OWN = re.compile(r"\s*(%%chat\b|%%compare\b|%(load_ext|reload_ext|load_model|unload_model|models|thread|llm|chat|tools)\b)")


@dataclass(eq=False)
class Run:
    """A cell as it was run: ``id`` is the front end's, empty where it sends none."""

    id: str
    source: str
    tags: tuple[str, ...] = ()
    kind: str = "code"
    error: str = ""
    _output: list[str] = field(default_factory=list)
    _size: int = 0

    @property
    def output(self) -> str:
        return _ANSI.sub("", "".join(self._output)).strip()

    def wrote(self, text: str) -> None:
        """Add to the output, up to the most that is kept."""
        if text and self._size < _KEPT_CHARS:
            self._output.append(text[: _KEPT_CHARS - self._size])
            self._size += len(text)


class CellLog:
    """The cells that this kernel ran. ``start`` puts it on a shell, ``stop`` takes it off again."""

    def __init__(self, shell: Any) -> None:
        self._shell = shell
        self._runs: OrderedDict[str, Run] = OrderedDict()
        self._stack: list[Run] = []
        self._undo: list[Callable[[], None]] = []
        self._unhear: list[Callable[[], None]] = []

    @property
    def runs(self) -> list[Run]:
        """Finished runs, oldest first, the latest of each cell."""
        return list(self._runs.values())

    def start(self) -> None:
        events, publisher = self._shell.events, self._shell.display_pub
        events.register("pre_run_cell", self._began)
        self._undo.append(lambda: events.unregister("pre_run_cell", self._began))
        events.register("post_run_cell", self._ended)
        self._undo.append(lambda: events.unregister("post_run_cell", self._ended))
        if hasattr(publisher, "register_hook"):
            publisher.register_hook(self._displayed)
            self._undo.append(lambda: publisher.unregister_hook(self._displayed))

    def stop(self) -> None:
        for undo in (*reversed(self._unhear), *reversed(self._undo)):
            undo()
        self._unhear.clear()
        self._undo.clear()
        self._stack.clear()

    def _listen(self, stream: Any) -> None:
        """Hear what is written to a kernel's stream while cells run; a terminal's own stream cannot be listened to."""
        write, before = stream.write, getattr(stream, "__dict__", {}).get("write")

        def heard(text: str) -> Any:
            if self._stack:
                self._stack[-1].wrote(text)
            return write(text)

        try:
            stream.write = heard
        except AttributeError:
            return
        self._unhear.append(lambda: stream.__dict__.pop("write", None) if before is None else setattr(stream, "write", before))

    def _began(self, info: Any) -> None:
        metadata = parent_metadata(self._shell)
        cell = str(getattr(info, "cell_id", None) or metadata.get("cellId") or "")
        if not self._stack:
            for stream in (sys.stdout, sys.stderr):
                self._listen(stream)
        self._stack.append(Run(cell, str(info.raw_cell or ""), tuple(str(tag) for tag in metadata.get("tags") or ())))

    def _ended(self, result: Any) -> None:
        if not self._stack:
            return
        run = self._stack.pop()
        error = result.error_before_exec or result.error_in_exec
        if error is not None:
            run.error = error_text(error)
        elif result.result is not None:
            run.wrote(_shown(self._shell, result.result))
        if self._stack:
            return  # run by another cell: what came of it is that one's output
        while self._unhear:
            self._unhear.pop()()
        key = run.id or f"{len(self._runs)}: {run.source}"
        self._runs.pop(key, None)
        self._runs[key] = run
        while len(self._runs) > _KEPT_CELLS:
            self._runs.popitem(last=False)

    def _displayed(self, message: Any) -> Any:
        if self._stack and message.get("msg_type") == "display_data":
            self._stack[-1].wrote(f"{message['content']['data'].get('text/plain', '')}\n")
        return message


def parent_metadata(shell: Any) -> Mapping[str, Any]:
    """What the front end sent along with the cell that runs, e.g. ``cellId`` and ``tags``; empty in a terminal."""
    return _parent_part(shell, "metadata")


def parent_header(shell: Any) -> Mapping[str, Any]:
    """The header of the request that runs, e.g. ``session`` and ``msg_id``; empty in a terminal."""
    return _parent_part(shell, "header")


def _parent_part(shell: Any, name: str) -> Mapping[str, Any]:
    parent = shell.get_parent() if hasattr(shell, "get_parent") else None
    part = parent.get(name) if isinstance(parent, Mapping) else None
    return part if isinstance(part, Mapping) else {}


def error_text(error: BaseException) -> str:
    """A traceback as the model may read it: the user's frames, not IPython's."""
    written = traceback.TracebackException.from_exception(error)
    kept = [frame for frame in written.stack if "IPython" not in frame.filename and "/llm_magics/" not in frame.filename]
    written.stack = traceback.StackSummary.from_list(kept[-8:])
    return _ANSI.sub("", "".join(written.format())).strip()


def select(wanted: Sequence[str], runs: Sequence[Run], page: Sequence[Mapping[str, Any]] | None, cell: str) -> list[Run]:
    """Choose cells as ``-c`` says.

    Args:
        wanted: "none", "prev", "above", "all" and "tag:NAME", together.
        runs: what was run, oldest first.
        page: the notebook's cells in order, where the page could be asked.
        cell: the id of the asking cell.
    """
    known = _in_page_order(runs, page) if page is not None else [run for run in runs if run.id != cell or not cell]
    here = next((at for at, run in enumerate(known) if run.id == cell and cell), len(known))
    chosen: list[Run] = []
    for word in wanted:
        kind, _, name = word.partition(":")
        if kind == "tag" and name:
            found = [run for run in known if name in run.tags]
            if not found:
                tags = sorted({tag for run in known for tag in run.tags})
                raise OptionError(f"No cell that is known has the tag {name!r}.", near(name, tags) or "Run that cell first.")
            chosen += found
        elif word in ("prev", "above"):
            above = [run for run in known[:here] if not _OWN.match(run.source)]
            chosen += above if word == "above" else [run for run in above if run.kind == "code"][-1:]
        elif word == "all":
            chosen += [run for run in known if run.id != cell or not cell]
        elif word != "none":
            raise OptionError(f"-c cannot be {word!r}.", "It is none, prev, above, all or tag:NAME.")
    return [run for run in known if run in chosen and not _OWN.match(run.source)]


def _in_page_order(runs: Sequence[Run], page: Sequence[Mapping[str, Any]]) -> list[Run]:
    ran = {run.id: run for run in runs}
    found = []
    for cell in page:
        tags = tuple(str(tag) for tag in cell.get("tags") or ())
        fresh = Run(str(cell.get("id", "")), str(cell.get("source", "")), tags, str(cell.get("type", "code")))
        if fresh.id not in ran:  # run before this kernel could see it, e.g. before %load_ext: the page shows what came of it
            fresh.wrote(str(cell.get("output") or ""))
            fresh.error = str(cell.get("error") or "")
        found.append(ran.get(fresh.id, fresh))
    return found


def written(runs: Iterable[Run], limit: int = _ALL_CHARS) -> str:
    """Write cells for the model, each cut to a readable size; where all are too much, the earliest give way, and it says so."""
    blocks = [_written(run) for run in runs]
    dropped = 0
    while len(blocks) > 1 and sum(map(len, blocks)) > limit:
        blocks.pop(0)
        dropped += 1
    if not blocks:
        return ""
    note = f" ({dropped} earlier ones left out)" if dropped else ""
    return f"Cells of my notebook{note}:\n\n" + "\n\n".join(_cut(block, limit) for block in blocks)


def _written(run: Run) -> str:
    from llm_magics.views.markup.remark import fenced

    if run.kind == "markdown":
        return _cut(run.source)
    parts = [fenced(_cut(run.source), "python")]
    if run.output:
        parts.append("Output:\n" + fenced(_cut(run.output)))
    if run.error:
        parts.append("Error:\n" + fenced(_cut(run.error)))
    return "\n".join(parts)


def _cut(text: str, limit: int = _CELL_CHARS) -> str:
    """Cut the middle out of a long text: the start says what it is, the end how it came out."""
    if len(text) <= limit:
        return text
    half = limit // 2
    return f"{text[:half]}\n[... {len(text) - 2 * half:,} characters left out ...]\n{text[-half:]}"


def _shown(shell: Any, value: Any) -> str:
    """A result as text/plain; a failing repr is the cell's own affair."""
    try:
        data, _ = shell.display_formatter.format(value, include={"text/plain"})
    except Exception as error:
        return f"<{type(value).__name__}: its repr raised {type(error).__name__}>"
    return str(data.get("text/plain", ""))
