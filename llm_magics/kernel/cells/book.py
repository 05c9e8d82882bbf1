"""What this kernel knows of the notebook's cells: their sources, their outputs, which are tools, which names they write.

The book listens to IPython's ``pre_run_cell`` and ``post_run_cell``, and to the output of running cells. Cells that never ran
are known to the page alone; the JupyterLab extension sends them.
"""

from __future__ import annotations

import contextlib
import copy
import re
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

from IPython.core.interactiveshell import InteractiveShell

from llm_magics.errors import LLMMagicsError
from llm_magics.kernel.options.tools import CellOptions, ToolHeader, read_header
from llm_magics.kernel.page.live import Link, link_of, notebook_cells
from llm_magics.kernel.page.request import parent_metadata
from llm_magics.tools.define.registry import registered
from llm_magics.tools.results import ToolOutput

from .celltool import Cell, CellTool, cell_tool, description_of, parameters_of
from .context import Run, uncoloured
from .names import Ledger, names_of

_TOOL_LINE = re.compile(r"\s*#\s*%tool\b[ \t]*(.*)")  # e.g. "# %tool plot(city: str)"
_TAGGED = re.compile(r"tool(?::(\w+))?")  # e.g. the tags "tool" and "tool:plot_rain"
_MAX_NAME = 40
_KEPT = 500  # runs


class CellBook:
    """The cells of one kernel. ``current`` is the cell that runs now; ``cells`` maps ids to cells that ran or were read."""

    def __init__(self, shell: InteractiveShell) -> None:
        self.shell = shell
        self.ledger = Ledger()
        self.cells: dict[str, Cell] = {}
        self.current = Cell("")
        self.parameters: dict[str, Any] = {}
        self._told: dict[str, str] = {}  # cell -> its source, tags and metadata when it was last read
        self._made: dict[str, CellTool] = {}  # cell -> the tool that its source, tags or metadata made
        self._runs: dict[str, Run] = {}
        self._running: list[Run] = []  # the cell that runs, and the cells that it runs itself
        self._depth = 0
        self._undo: list[Callable[[], None]] = []
        self._unhear: list[Callable[[], None]] = []

    @property
    def runs(self) -> list[Run]:
        """Finished runs, oldest first, the latest of each cell."""
        return list(self._runs.values())

    def attach(self) -> None:
        events = self.shell.events
        publisher: Any = self.shell.display_pub
        for name, heard in (("pre_run_cell", self._before), ("post_run_cell", self._after)):
            events.register(name, heard)
            self._undo.append(partial(events.unregister, name, heard))
        if hasattr(publisher, "register_hook"):
            publisher.register_hook(self._displayed)
            self._undo.append(lambda: publisher.unregister_hook(self._displayed))

    def detach(self) -> None:
        for undo in (*reversed(self._unhear), *reversed(self._undo)):
            undo()
        for forgotten in (self._unhear, self._undo, self._running):
            forgotten.clear()

    @contextlib.contextmanager
    def nested(self) -> Iterator[None]:
        """Ignore the cell that runs inside: a tool's run does not change the state of the notebook."""
        self._depth += 1
        try:
            yield
        finally:
            self._depth -= 1

    def define(self, header: ToolHeader, cell: Cell, description: str = "") -> CellTool:
        """Make a cell a tool and register it under its name; raises ToolError."""
        made = cell_tool(self.shell, header, cell, description=description, parameters=self.parameters, book=self)
        registered.add(made)
        return made

    def ran_as_tool(self, tool: CellTool, output: ToolOutput) -> None:
        """Note the names that a tool's run wrote; the cell's outputs stay as they were."""
        if not (tool.scratch or output.is_error):
            self.ledger.ran(tool.names)

    def _before(self, info: Any) -> None:
        metadata, cell = parent_metadata(self.shell), getattr(info, "cell_id", None) or ""
        source, tags = str(info.raw_cell or ""), tuple(str(tag) for tag in metadata.get("tags") or ())
        if not self._running:
            for stream in (sys.stdout, sys.stderr):
                self._listen(stream)
        self._running.append(Run(cell or str(metadata.get("cellId") or ""), source, tags))
        if self._depth or info.silent:
            return
        self.current = Cell(source, cell, tags, copy.deepcopy(getattr(self.shell, "get_parent", dict)() or {}))
        self._hear(self.current, _tool_of(metadata), "")
        chats = cell and source.lstrip().startswith("%%chat")
        if chats and self.link is not None and self.link.heard:
            self.refresh(2.0)  # to offer also the cells that the page made tools and that never ran

    def _after(self, result: Any) -> None:
        if self._running:
            self._ended(self._running.pop(), result)
        if self._depth or result is None or result.info is None or result.info.silent:
            return
        if result.success and not result.info.raw_cell.lstrip().startswith("%%"):
            self.ledger.ran(names_of(self.shell.transform_cell(result.info.raw_cell)))

    def _ended(self, run: Run, result: Any) -> None:
        """Keep a finished run; a nested cell's run is part of the outer cell's output."""
        error = result.error_before_exec or result.error_in_exec
        if error is not None:
            run.error = error_text(error)
        elif result.result is not None:
            run.wrote(_shown(self.shell, result.result))
        if self._running:
            return
        while self._unhear:
            self._unhear.pop()()
        key = run.id or f"{len(self._runs)}: {run.source}"
        self._runs.pop(key, None)
        self._runs[key] = run
        while len(self._runs) > _KEPT:
            del self._runs[next(iter(self._runs))]

    def _listen(self, stream: Any) -> None:
        """Record what running cells write to a kernel's stream; a terminal's stream refuses it."""
        write, before = stream.write, getattr(stream, "__dict__", {}).get("write")

        def heard(text: str) -> Any:
            if self._running:
                self._running[-1].wrote(text)
            return write(text)

        try:
            stream.write = heard
        except AttributeError:
            return
        self._unhear.append(lambda: stream.__dict__.pop("write", None) if before is None else setattr(stream, "write", before))

    def _displayed(self, message: Any) -> Any:
        if self._running and message.get("msg_type") == "display_data":
            self._running[-1].wrote(f"{message['content']['data'].get('text/plain', '')}\n")
        return message

    def _hear(self, cell: Cell, metadata: Mapping[str, Any] | None, above: str) -> None:
        """Read a cell if its source, tags or the page form's metadata changed; discard the tool that it was. ``above`` is the
        markdown in front of a tagged cell: its description."""
        told = repr((cell.source, cell.tags, metadata, above))
        if cell.id:
            self.cells[cell.id] = cell
            if self._told.get(cell.id) == told and cell is not self.current:
                return
            self._told[cell.id] = told
            if (old := self._made.pop(cell.id, None)) is not None:
                registered.discard(old)
        self._read(cell, str((metadata or {}).get("description") or "") or above, metadata)

    def _read(self, cell: Cell, description: str, metadata: Mapping[str, Any] | None) -> None:
        """Take a cell's parameters, or make it a tool; an error in its header is only printed."""
        if "parameters" in cell.tags:
            self.parameters |= parameters_of(cell.source)
        try:
            header = self._header(cell, metadata)
            if header is not None:
                made = self.define(header, cell, description)
                if cell.id:
                    self._made[cell.id] = made
        except LLMMagicsError as error:
            which = "This cell" if cell.id == self.current.id else f"Another cell ({_first_line(cell.source)})"
            print(f"{which} cannot be a tool. {error}", file=sys.stderr)  # noqa: T201 (nobody catches an event's error)

    def _header(self, cell: Cell, metadata: Mapping[str, Any] | None) -> ToolHeader | None:
        """The header of a cell that is a tool by its first line, metadata or tag; None for any other cell."""
        line = _TOOL_LINE.match(cell.source.lstrip("\n").split("\n", 1)[0])
        if line is not None and line[1].strip():
            return read_header(line[1])
        if cell.source.lstrip().startswith("%%tool"):
            return None  # running it makes the tool
        if metadata and isinstance(metadata.get("name"), str):
            listed, approve = metadata.get("parameters"), metadata.get("approve")
            signature = f"{metadata['name']}({listed})" if isinstance(listed, str) else metadata["name"]
            return read_header(f"{signature} --approve {approve}" if isinstance(approve, str) and approve else signature)
        tag = next((found for found in map(_TAGGED.fullmatch, cell.tags) if found), None)
        if line is None and tag is None:
            return None
        name = (tag and tag[1]) or name_from(description_of(self.shell, cell.source))
        return ToolHeader(name, None, "", CellOptions())

    @property
    def link(self) -> Link | None:
        return link_of(getattr(self.shell, "kernel", None))

    def page_cells(self, beside: str, timeout: float = 0.5) -> list[Mapping[str, Any]] | None:
        """The cells of the notebook that holds the cell ``beside``, from the page; None if no page answers."""
        return None if (link := self.link) is None else notebook_cells(link, beside, timeout)

    def refresh(self, timeout: float = 0.5) -> None:
        """Read all cells from the page, also those that never ran."""
        above = ""
        for one in self.page_cells(self.current.id, timeout) or ():
            source, known = str(one.get("source", "")), self.cells.get(str(one.get("id", "")))
            if one.get("type") != "code":
                above = source
                continue
            tags = tuple(str(tag) for tag in one.get("tags") or ())
            cell = Cell(source, str(one.get("id", "")), tags, known.parent if known else {})
            metadata = one.get("tool") if isinstance(one.get("tool"), Mapping) else None
            if cell.id and cell.id != self.current.id:
                self._hear(cell, metadata, _plain(above if "tool" in tags else ""))
            above = ""


def _tool_of(metadata: Any) -> Mapping[str, Any] | None:
    """The page form's part of a cell's metadata, which comes with the request that runs the cell."""
    ours = metadata.get("llm_magics") if isinstance(metadata, Mapping) else None
    tool = ours.get("tool") if isinstance(ours, Mapping) else None
    return tool if isinstance(tool, Mapping) else None


def error_text(error: BaseException) -> str:
    """A traceback for the model: the user's frames alone."""
    written = traceback.TracebackException.from_exception(error)
    kept = [frame for frame in written.stack if "IPython" not in frame.filename and "/llm_magics/" not in frame.filename]
    written.stack = traceback.StackSummary.from_list(kept[-8:])
    return uncoloured("".join(written.format()))


def _shown(shell: Any, value: Any) -> str:
    try:
        data, _ = shell.display_formatter.format(value, include={"text/plain"})
    except Exception as error:
        return f"<{type(value).__name__}: its repr raised {type(error).__name__}>"
    return str(data.get("text/plain", ""))


def _first_line(source: str) -> str:
    return next((line.strip()[:60] for line in source.splitlines() if line.strip()), "empty")


def name_from(description: str) -> str:
    """Make a tool's name from its description, e.g. ``plot_rainfall_per_month``."""
    name = ""
    for word in re.findall(r"[a-z0-9]+", description.lower()):
        if len(name) + len(word) > _MAX_NAME:
            break
        name = f"{name}_{word}".strip("_")
    return name if name and not name[0].isdigit() else f"cell_{name}".strip("_")


def _plain(markdown: str) -> str:
    return "\n".join(line.lstrip("#").strip() for line in markdown.splitlines()).strip()
