"""What this kernel knows of the notebook's cells: their sources, which of them are tools, what their runs made.

The book listens to IPython's ``pre_run_cell`` and ``post_run_cell``. Cells that were never run are known to the page alone and
come through the JupyterLab extension, where there is one (:meth:`CellBook.refresh`).
"""

from __future__ import annotations

import contextlib
import copy
import re
import sys
from collections.abc import Iterator, Mapping
from typing import Any

from IPython.core.interactiveshell import InteractiveShell

from llm_magics.errors import LLMMagicsError
from llm_magics.kernel.options.tools import CellOptions, ToolHeader, read_header
from llm_magics.kernel.page.live import Link, link_of, notebook_cells
from llm_magics.tools.define.registry import registered
from llm_magics.tools.results import ToolOutput

from .celltool import Cell, CellTool, cell_tool, description_of, parameters_of
from .names import Ledger, names_of

_TOOL_LINE = re.compile(r"\s*#\s*%tool\b[ \t]*(.*)")  # e.g. "# %tool plot(city: str)"
_TAGGED = re.compile(r"tool(?::(\w+))?")  # e.g. the tags "tool" and "tool:plot_rain"
_MAX_NAME = 40


class CellBook:
    """The cells of one kernel. ``current`` is the cell that runs now, ``cells`` maps ids to the cells that ran or were read."""

    def __init__(self, shell: InteractiveShell) -> None:
        self.shell = shell
        self.ledger = Ledger()
        self.cells: dict[str, Cell] = {}
        self.current = Cell("")
        self._told: dict[str, str] = {}  # cell -> what it said when it was read last, e.g. of being a tool
        self._made: dict[str, CellTool] = {}  # cell -> the tool that it was made by its text, tag or metadata
        self.parameters: dict[str, Any] = {}
        self.page = False
        self._depth = 0

    def attach(self) -> None:
        """Begin to listen."""
        self.shell.events.register("pre_run_cell", self._before)
        self.shell.events.register("post_run_cell", self._after)

    def detach(self) -> None:
        """Listen no more."""
        self.shell.events.unregister("pre_run_cell", self._before)
        self.shell.events.unregister("post_run_cell", self._after)

    @contextlib.contextmanager
    def nested(self) -> Iterator[None]:
        """Pass over the cell that runs inside: it is a tool's, and no new state of the notebook."""
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
        """Note what a tool's run wrote. Its outputs are the call's alone; those of the cell stay as they were."""
        if not (tool.scratch or output.is_error):
            self.ledger.ran(tool.names)

    # --- cells that run -------------------------------------------------------------------------------------------------

    def _before(self, info: Any) -> None:
        if self._depth or info.silent:
            return
        parent: dict[str, Any] = copy.deepcopy(getattr(self.shell, "get_parent", dict)() or {})
        tags = tuple(str(tag) for tag in (parent.get("metadata") or {}).get("tags") or ())
        self.current = Cell(info.raw_cell or "", getattr(info, "cell_id", None) or "", tags, parent)
        self._hear(self.current, _tool_of(parent.get("metadata")), "")
        chats = self.current.id and self.current.source.lstrip().startswith("%%chat")
        if chats and self._link is not None and self._link.heard:
            self.refresh(2.0)  # cells that were made tools on the page, and never ran, are offered too

    def _after(self, result: Any) -> None:
        if self._depth or result is None or result.info is None or result.info.silent:
            return
        if result.success and not result.info.raw_cell.lstrip().startswith("%%"):
            self.ledger.ran(names_of(self.shell.transform_cell(result.info.raw_cell)))

    def _hear(self, cell: Cell, metadata: Mapping[str, Any] | None, above: str) -> None:
        """Read a cell that says something else than last time; what it was before, e.g. a tool of another name, is taken back.

        A cell says something by its source, its tags, and the metadata that the page's form writes. ``above`` is the markdown
        in front of it, which describes a cell that is a tool by its tag.
        """
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
        """Take a cell's parameters or make it a tool, where it says so; what is wrong with its header is only said."""
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
            print(f"{which} cannot be a tool. {error}", file=sys.stderr)  # noqa: T201 (an event has nobody to raise to)

    def _header(self, cell: Cell, metadata: Mapping[str, Any] | None) -> ToolHeader | None:
        """Find the header of a cell that says it is a tool, None for any other cell."""
        line = _TOOL_LINE.match(cell.source.lstrip("\n").split("\n", 1)[0])
        if line is not None and line[1].strip():
            return read_header(line[1])
        if cell.source.lstrip().startswith("%%tool"):
            return None  # its own line says what it is, and running it makes the tool
        if metadata and isinstance(metadata.get("name"), str):
            listed, approve = metadata.get("parameters"), metadata.get("approve")
            signature = f"{metadata['name']}({listed})" if isinstance(listed, str) else metadata["name"]
            return read_header(f"{signature} --approve {approve}" if isinstance(approve, str) and approve else signature)
        tag = next((found for found in map(_TAGGED.fullmatch, cell.tags) if found), None)
        if line is None and tag is None:
            return None
        name = (tag and tag[1]) or name_from(description_of(self.shell, cell.source))
        return ToolHeader(name, None, "", CellOptions())

    # --- the page -------------------------------------------------------------------------------------------------------

    @property
    def _link(self) -> Link | None:
        return link_of(getattr(self.shell, "kernel", None))

    def refresh(self, timeout: float = 0.5) -> bool:
        """Read all cells off the page, also those never run; False where no page with the extension replied."""
        link = self._link
        found = notebook_cells(link, self.current.id, timeout) if link is not None else None
        self.page = found is not None
        above = ""
        for one in found or ():
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
        return self.page


def _tool_of(metadata: Any) -> Mapping[str, Any] | None:
    """What the page's form has written into a cell's metadata, which comes with the request that runs the cell."""
    ours = metadata.get("llm_magics") if isinstance(metadata, Mapping) else None
    tool = ours.get("tool") if isinstance(ours, Mapping) else None
    return tool if isinstance(tool, Mapping) else None


def _first_line(source: str) -> str:
    return next((line.strip()[:60] for line in source.splitlines() if line.strip()), "empty")


def name_from(description: str) -> str:
    """Make a tool's name of what it does, e.g. ``plot_rainfall_per_month``."""
    words = re.findall(r"[a-z0-9]+", description.lower())
    name = ""
    for word in words:
        if len(name) + len(word) > _MAX_NAME:
            break
        name = f"{name}_{word}".strip("_")
    return name if name and not name[0].isdigit() else f"cell_{name}".strip("_")


def _plain(markdown: str) -> str:
    """Take the marks of a markdown cell's headings away."""
    return "\n".join(line.lstrip("#").strip() for line in markdown.splitlines()).strip()

