"""Which names a cell reads and writes, and which of its inputs are out of date."""

from __future__ import annotations

import ast
import builtins
from collections.abc import Iterable
from dataclasses import dataclass, field

_SHELL = {"__file__", "__name__", "get_ipython", "display", "In", "Out", "_", "__", "___", "exit", "quit"}
_BUILTINS = _SHELL.union(dir(builtins))


@dataclass(frozen=True, slots=True)
class Names:
    """The global names of one cell: those it ``reads`` before binding them, and all it ``writes``."""

    reads: frozenset[str] = frozenset()
    writes: frozenset[str] = frozenset()


def names_of(source: str, bound: Iterable[str] = ()) -> Names:
    """Find the names in plain Python source (magics already transformed); none if it does not parse."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return Names()
    known, reads, writes = set(bound) | _BUILTINS, set(), set()
    for statement in tree.body:
        found = _Found()
        found.visit(statement)
        reads |= found.reads - known
        known |= found.writes
        writes |= found.writes
    return Names(frozenset(reads), frozenset(writes - set(bound)))


class _Found(ast.NodeVisitor):
    """The module-level names of one statement: a function's own names do not count."""

    def __init__(self) -> None:
        self.reads: set[str] = set()
        self.writes: set[str] = set()

    def visit_Name(self, node: ast.Name) -> None:
        (self.reads if isinstance(node.ctx, ast.Load) else self.writes).add(node.id)

    def visit_AugAssign(self, node: ast.AugAssign) -> None:
        if isinstance(node.target, ast.Name):
            self.reads.add(node.target.id)
        self.generic_visit(node)

    def visit_For(self, node: ast.For | ast.AsyncFor) -> None:
        self.visit(node.iter)
        self._bound(node.target, [*node.body, *node.orelse])

    def visit_With(self, node: ast.With | ast.AsyncWith) -> None:
        for item in node.items:
            self.visit(item.context_expr)
        targets = [item.optional_vars for item in node.items if item.optional_vars is not None]
        self._bound(ast.Tuple(targets, ast.Store()), node.body)

    def _bound(self, target: ast.expr, body: list[ast.stmt]) -> None:
        """Visit a body after the target's names are set."""
        inner, set_first = _Found(), _Found()
        set_first.visit(target)
        for statement in body:
            inner.visit(statement)
        self.reads |= set_first.reads | (inner.reads - set_first.writes)
        self.writes |= set_first.writes | inner.writes

    def visit_Import(self, node: ast.Import) -> None:
        self.writes |= {alias.asname or alias.name.split(".")[0] for alias in node.names}

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        self.writes |= {alias.asname or alias.name for alias in node.names}

    def visit_ExceptHandler(self, node: ast.ExceptHandler) -> None:
        inner = self._inside(node)
        self.reads |= inner.reads - {node.name}
        self.writes |= inner.writes

    def visit_FunctionDef(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        self.writes.add(node.name)
        for outside in (*node.decorator_list, *node.args.defaults, *node.args.kw_defaults):
            if outside is not None:
                self.visit(outside)
        self._function(node)

    visit_AsyncFor, visit_AsyncWith, visit_AsyncFunctionDef = visit_For, visit_With, visit_FunctionDef

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        self.writes.add(node.name)
        inner = self._inside(node)
        self.reads |= inner.reads - inner.writes

    def visit_ListComp(self, node: ast.AST) -> None:
        inner = self._inside(node)
        self.reads |= inner.reads - inner.writes

    visit_SetComp = visit_DictComp = visit_GeneratorExp = visit_ListComp

    def _inside(self, node: ast.AST) -> _Found:
        inner = _Found()
        inner.generic_visit(node)
        return inner

    def _function(self, node: ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) -> None:
        inner = _Found()
        for part in node.body if isinstance(node.body, list) else [node.body]:
            inner.visit(part)
        declared = {name for part in ast.walk(node) if isinstance(part, ast.Global) for name in part.names}
        own = {arg.arg for arg in ast.walk(node.args) if isinstance(arg, ast.arg)} | (inner.writes - declared)
        self.reads |= inner.reads - own
        self.writes |= inner.writes & declared

    visit_Lambda = _function


@dataclass(slots=True)
class Ledger:
    """Which run last wrote each name, to find values that are older than their sources."""

    _run: int = 0
    _writer: dict[str, tuple[int, frozenset[str]]] = field(default_factory=dict)

    def ran(self, names: Names) -> None:
        self._run += 1
        for name in names.writes:
            self._writer[name] = (self._run, names.reads - names.writes)

    def stale(self, reads: Iterable[str]) -> list[str]:
        """A warning for each of ``reads`` that was made from something that has changed since."""
        found = ((name, self._newer(name)) for name in sorted(set(reads)))
        return [f"{name} was made before {newer} was last changed; run its cell again." for name, newer in found if newer]

    def _newer(self, name: str) -> str:
        """A direct or indirect source of ``name`` that was written after the name made from it; empty if there is none."""
        todo, seen = [name], {name}
        while todo:
            made, sources = self._writer.get(todo.pop(), (0, frozenset()))
            for source in sorted(sources):
                if self._writer.get(source, (0, frozenset()))[0] > made:
                    return source
                if source not in seen:
                    seen.add(source)
                    todo.append(source)
        return ""
