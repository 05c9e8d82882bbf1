"""The tools that a bare ``%%chat`` offers: those decorated with ``@tool`` or made by ``%%tool``, by name."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from llm_magics.errors import ToolError
from llm_magics.options import near

if TYPE_CHECKING:
    from .tool import Tool


class Registry:
    """Tools by name, in the order of first registration, and named sets of tools."""

    def __init__(self) -> None:
        self._tools: dict[str, Tool] = {}
        self._sets: dict[str, tuple[str, ...]] = {}

    def __iter__(self) -> Iterator[Tool]:
        return iter(tuple(self._tools.values()))

    def __len__(self) -> int:
        return len(self._tools)

    def __contains__(self, name: str) -> bool:
        return name in self._tools

    def __getitem__(self, name: str) -> Tool:
        if name not in self._tools:
            known = ", ".join(self._tools) or "none"
            raise ToolError(f"There is no tool {name!r}.", near(name, self._tools) or f"Registered: {known}.")
        return self._tools[name]

    @property
    def sets(self) -> dict[str, tuple[str, ...]]:
        return dict(self._sets)

    def add(self, tool: Tool) -> None:
        """Register a tool, replacing one of the same name."""
        self._tools[tool.name] = tool

    def discard(self, tool: Tool) -> None:
        """Remove a tool, unless another one has taken its name."""
        if self._tools.get(tool.name) is tool:
            del self._tools[tool.name]

    def define_set(self, name: str, members: Iterable[str]) -> None:
        """Name a set of tools, for ``-t @name``."""
        self._sets[name.removeprefix("@")] = tuple(members)

    def clear(self) -> None:
        """Forget every tool and set."""
        self._tools.clear()
        self._sets.clear()


registered = Registry()
