"""The tools that a bare ``%%chat`` offers: whatever was decorated with ``@tool`` or made by ``%%tool``, by name."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from ..errors import ToolError

if TYPE_CHECKING:
    from .tool import Tool


class Registry:
    """Tools by name, in the order in which they were first registered; named sets of them beside.

    ``%%chat -t`` reads a selection: names separated by commas, ``@set`` for a named set, ``none`` for no tool.
    """

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
            near = difflib.get_close_matches(name, self._tools, 1)
            known = ", ".join(self._tools) or "none"
            raise ToolError(f"There is no tool {name!r}.", f"Did you mean {near[0]!r}?" if near else f"Registered: {known}.")
        return self._tools[name]

    @property
    def sets(self) -> dict[str, tuple[str, ...]]:
        return dict(self._sets)

    def add(self, tool: Tool) -> None:
        """Register a tool; one of the same name is replaced."""
        self._tools[tool.name] = tool

    def discard(self, tool: Tool) -> None:
        """Take a tool away, unless another one has its name by now."""
        if self._tools.get(tool.name) is tool:
            del self._tools[tool.name]

    def define_set(self, name: str, members: Iterable[str]) -> None:
        """Name a set of tools, for ``-t @name``."""
        self._sets[name.removeprefix("@")] = tuple(members)

    def clear(self) -> None:
        """Forget every tool and set."""
        self._tools.clear()
        self._sets.clear()

    def select(self, selection: str | None = None) -> tuple[Tool, ...]:
        """Read a selection; None is all registered tools. Names of the toolbox work without registering them."""
        if selection is None:
            return tuple(self)
        if selection.strip() in ("none", ""):
            return ()
        chosen: dict[str, Tool] = {}
        for word in (word.strip() for word in selection.split(",")):
            for name in self._names(word):
                chosen[name] = self._find(name)
        return tuple(chosen.values())

    def _names(self, word: str) -> tuple[str, ...]:
        if not word.startswith("@"):
            return (word,) if word else ()
        if word == "@all":
            return tuple(self._tools)
        if word == "@toolbox":
            from .toolbox import READY

            return tuple(READY)
        if word[1:] not in self._sets:
            known = ", ".join(f"@{name}" for name in ("all", "toolbox", *self._sets))
            raise ToolError(f"There is no set of tools {word!r}.", f"There are {known}; %tools set NAME a,b makes one.")
        return self._sets[word[1:]]

    def _find(self, name: str) -> Tool:
        from .toolbox import READY

        return READY[name] if name in READY and name not in self._tools else self[name]


registered = Registry()
