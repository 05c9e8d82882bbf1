"""Notebook cells as tools: a header makes a cell's source a typed tool.

A header is ``name(city: str, n: int = 3) -> dict --approve ask``, behind ``%%tool``, or behind ``# %tool`` in a cell's first
line. The cell's first comment or string describes the tool. The cell runs in the user's namespace on the main thread, with its
parameters as variables; its prints, displays, last value and error are the result.
"""

from __future__ import annotations

import ast
import contextlib
import inspect
import re
import threading
import traceback
import typing
from collections.abc import Callable, Container, Generator, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from IPython.core.interactiveshell import InteractiveShell

from llm_magics.errors import ToolError
from llm_magics.kernel.options.tools import ToolHeader
from llm_magics.tools.define.signature import Signature, read_signature
from llm_magics.tools.define.tool import Tool, ToolOptions
from llm_magics.tools.results import ToolOutput, render, render_error
from llm_magics.tools.run.capture import current

from .cellrun import CellRun, run_source
from .names import Names, names_of

if TYPE_CHECKING:
    from .book import CellBook

_TOOL_LINE = re.compile(r"\s*#\s*%tool\b")  # e.g. "# %tool plot(city: str)"


@dataclass(frozen=True, slots=True)
class Cell:
    """One cell; ``parent`` is the request that last ran it, empty if it never ran here."""

    source: str
    id: str = ""
    tags: tuple[str, ...] = ()
    parent: Mapping[str, Any] = field(default_factory=dict)


class CellTool(Tool):
    """A cell as a tool. Calling it like a function of its header runs the cell and returns its value."""

    def __init__(
        self, face: Callable[..., Any], signature: Signature, options: ToolOptions, *, shell: InteractiveShell, cell: Cell,
        scratch: bool = False, book: CellBook | None = None,
    ) -> None:  # fmt: skip
        super().__init__(face, signature, options)
        self.shell, self.cell, self.scratch, self.book = shell, cell, scratch, book

    @property
    def source(self) -> str:
        return self._code.strip("\n")

    @property
    def names(self) -> Names:
        return names_of(self.shell.transform_cell(self.cell.source), self.signature.names)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        bound = inspect.signature(self.function).bind(*args, **kwargs)
        run = self.run({**self.signature.defaults, **bound.arguments})
        if run.error is not None:
            raise run.error
        return run.value

    def run(self, arguments: Mapping[str, Any]) -> CellRun:
        """Run the cell with these arguments, and the header's defaults, as variables."""
        if threading.current_thread() is not threading.main_thread():
            raise ToolError(f"The cell {self.name} runs only on the main thread.", "Ask from a cell, not from a thread.")
        bound = inspect.signature(self.function).bind_partial(**arguments)
        bound.apply_defaults()
        with self.book.nested() if self.book else contextlib.nullcontext():
            return run_source(self.shell, self._code, bound.arguments, self.cell.id, self.scratch)

    @property
    def _code(self) -> str:
        """The source to run; a ``parameters`` cell does not set its own parameters again."""
        if "parameters" not in self.cell.tags:
            return self.cell.source
        return without_parameters(self.cell.source, self.signature.names)

    def invoke(self, arguments: dict[str, Any]) -> Generator[Any, None, Any]:
        if self.options.mocked:
            return (yield from super().invoke(arguments))
        stale = tuple(self.book.ledger.stale(self.names.reads)) if self.book else ()
        run = self.run(arguments)
        sink = current()
        output = outcome(self.shell, run, "" if sink is None else sink.text, stale)
        if self.book is not None:
            self.book.ran_as_tool(self, output)
        return output


def outcome(shell: InteractiveShell, run: CellRun, printed: str, warnings: tuple[str, ...] = ()) -> ToolOutput:
    """Make one result of a run's prints, displays, value and error: text for the model, bundles for the person."""
    texts = [printed.strip(), *(str(bundle.get("text/plain", "")) for bundle in run.displayed)]
    outputs: list[Mapping[str, Any]] = list(run.displayed)
    if run.error is not None:
        error = render_error(run.error)
        texts.append(error.text + _where(run.error))
        outputs.append({"text/plain": run.traceback or error.text})
    elif run.value is not None and not _shown_already(run):
        value = render(run.value)
        texts.append(value.text)
        outputs += value.outputs or (_formatted(shell, run.value),)
        warnings += value.warnings
    text = "\n".join(text for text in texts if text.strip())
    return ToolOutput(text or "(done, no value)", tuple(outputs), run.error is not None, warnings)


def _shown_already(run: CellRun) -> bool:
    """Whether the value is a plot that the run has displayed, e.g. the axes that ``df.plot()`` returns."""
    drawn = callable(getattr(run.value, "get_figure", None)) or callable(getattr(run.value, "get_axes", None))
    return drawn and any("image/png" in bundle for bundle in run.displayed)


def _formatted(shell: InteractiveShell, value: Any) -> Mapping[str, Any]:
    data = shell.display_formatter.format(value)[0] if shell.display_formatter is not None else {}
    return data or {"text/plain": repr(value)}


def _where(error: BaseException) -> str:
    in_cell = [line for frame, line in traceback.walk_tb(error.__traceback__) if frame.f_code.co_name == "<module>"]
    number = error.lineno if isinstance(error, SyntaxError) else in_cell[-1] if in_cell else None
    return f" (line {number} of the cell)" if number else ""


def cell_tool(
    shell: InteractiveShell, header: ToolHeader, cell: Cell, *,
    description: str = "", parameters: Mapping[str, Any] | None = None, book: CellBook | None = None,
) -> CellTool:  # fmt: skip
    """Make a cell, without its ``%%tool`` line, a tool. Raises ToolError for invalid Python in the cell or the header.

    Args:
        shell: runs the cell; its namespace resolves the header's types and defaults.
        description: for the model; if empty, the source's first comment or string.
        parameters: defaults for a header without a parameter list; those that the cell reads become its parameters.
    """
    try:
        ast.parse(shell.transform_cell(cell.source))
    except SyntaxError as error:
        what = f"The cell {header.name} is not valid Python: {error.msg}{_where(error)}."
        raise ToolError(what, "Correct it, and run it again.") from None
    listed = header.parameters if header.parameters is not None else _inferred(shell, cell, parameters or {})
    face = _face(shell, header.name, listed, header.returns)
    face.__doc__ = description or description_of(shell, cell.source)
    given = header.options
    options = ToolOptions(given.approve, given.timeout, given.max_chars, repeats=given.repeats)
    signature = read_signature(face, header.name)
    return CellTool(face, signature, options, shell=shell, cell=cell, scratch=given.scratch, book=book)


def _face(shell: InteractiveShell, name: str, parameters: str, returns: str) -> Callable[..., Any]:
    """Evaluate the header as a ``def`` in the user's namespace, for its signature."""
    arrow = f" -> {returns}" if returns else ""
    scope = {**_CONVENIENCES, **shell.user_ns}
    try:
        exec(compile(f"def {name}({parameters}){arrow}: ...", f"<header of {name}>", "exec", dont_inherit=True), scope)
    except Exception as error:  # a type or a default of the header may raise anything
        what = f"The header {name}({parameters}){arrow} cannot be evaluated: {type(error).__name__}: {error}."
        raise ToolError(what, "Import or define its types first.") from error

    def face(*args: Any, **kwargs: Any) -> Any: ...

    face.__name__ = face.__qualname__ = name
    face.__module__ = "__main__"
    face.__signature__ = inspect.signature(scope[name])  # type: ignore[attr-defined]  # what inspect reads first
    return face


_CONVENIENCES = {name: getattr(typing, name) for name in ("Annotated", "Any", "Literal", "Optional", "Union")}


def _inferred(shell: InteractiveShell, cell: Cell, known: Mapping[str, Any]) -> str:
    """Write a parameter list of the known parameters that a cell reads or sets, typed by their defaults."""
    names = names_of(shell.transform_cell(cell.source))
    listed = []
    for name, default in known.items():
        if name in names.reads or (name in names.writes and "parameters" in cell.tags):
            kind = f": {type(default).__name__}" if isinstance(default, (str, bool, int, float, list, dict)) else ""
            listed.append(f"{name}{kind} = {default!r}")
    return ", ".join(listed)


def parameters_of(source: str) -> dict[str, Any]:
    """Read a papermill ``parameters`` cell: its assignments of literals."""
    return {name: value for name, value, _ in _assignments(source)}


def without_parameters(source: str, names: Container[str]) -> str:
    """Blank out the assignments of literals to these names; line numbers stay."""
    lines = source.split("\n")
    for name, _, statement in _assignments(source):
        if name in names and statement.end_lineno is not None:
            for number in range(statement.lineno - 1, statement.end_lineno):
                lines[number] = ""
    return "\n".join(lines)


def _assignments(source: str) -> Iterator[tuple[str, Any, ast.stmt]]:
    try:
        body = ast.parse(source).body
    except SyntaxError:
        return
    for statement in body:
        match statement:
            case (
                ast.Assign(targets=[ast.Name(id=name)], value=value)
                | ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value)
            ):
                with contextlib.suppress(ValueError):  # not a literal
                    yield name, ast.literal_eval(value), statement


def description_of(shell: InteractiveShell, source: str) -> str:
    """The description of a cell: its first comment or string, else its first line."""
    comment: list[str] = []
    code = ""
    for line in source.splitlines():
        if _TOOL_LINE.match(line) or (not line.strip() and not comment):
            continue
        if not line.lstrip().startswith("#"):
            code = line
            break
        comment.append(line.strip().lstrip("#").strip())
    if comment:
        return "\n".join(comment).strip()
    try:
        spoken = ast.get_docstring(ast.parse(shell.transform_cell(source)))
    except SyntaxError:
        spoken = None
    return spoken or (f"Run the notebook cell that begins with: {code.strip()}" if code else "")
