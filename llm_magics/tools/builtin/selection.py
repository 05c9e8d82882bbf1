"""A selection of tools, as in ``%%chat --tools``: names with commas, ``@set`` for a named set, ``none`` for no tool.

Tools of the toolbox need not be registered; a registered tool of the same name has precedence.
"""

from __future__ import annotations

from llm_magics.errors import ToolError
from llm_magics.tools.define.registry import Registry
from llm_magics.tools.define.tool import Tool

from .toolbox import READY


def select(registry: Registry, selection: str | None = None) -> tuple[Tool, ...]:
    """Read a selection, e.g. ``"weather,@mine"``; None selects all registered tools. Raises ToolError naming a similar tool."""
    if selection is None:
        return tuple(registry)
    if selection.strip() in ("none", ""):
        return ()
    words = (word.strip() for word in selection.split(","))
    names = dict.fromkeys(name for word in words if word for name in _names(registry, word))
    return tuple(READY[name] if name in READY and name not in registry else registry[name] for name in names)


def _names(registry: Registry, word: str) -> tuple[str, ...]:
    """The names that one word stands for."""
    if not word.startswith("@"):
        return (word,)
    if word == "@all":
        return tuple(tool.name for tool in registry)
    if word == "@toolbox":
        return tuple(READY)
    if word[1:] not in registry.sets:
        known = ", ".join(f"@{name}" for name in ("all", "toolbox", *registry.sets))
        raise ToolError(f"There is no set of tools {word!r}.", f"Known are {known}; %tools set NAME a,b makes one.")
    return registry.sets[word[1:]]
