"""Defining and running tools. ``from llm_magics.tools import toolbox`` gives the tools that come with the package."""

from __future__ import annotations

from typing import Any


def __getattr__(name: str) -> Any:
    if name == "toolbox":  # imported on first use: it needs pydantic, which %load_ext does without
        from llm_magics.tools.builtin import toolbox

        return toolbox
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
