"""Language models inside notebooks: a model resident in the kernel, ``%%chat`` cells, functions and cells as tools.

Public names are imported on first use, so that ``import llm_magics`` and ``%load_ext llm_magics`` stay cheap.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .version import __version__ as __version__

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

_HOMES = {
    "load_model": ".models.loading",
    "connect_model": ".models.remote.model",
    "ScriptedModel": ".models.scripted",
    "map_prompts": ".session.map",
    "MapResult": ".session.map",
    "Session": ".session.session",
    "Reply": ".session.session",
    "tool": ".tools.define.tool",
    "Message": ".messages",
    "ToolCall": ".messages",
    "ToolResult": ".messages",
    "ToolSpec": ".messages",
    "LLMMagicsError": ".errors",
}

__all__ = [*_HOMES, "__version__", "load_ipython_extension", "unload_ipython_extension"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name], __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)


def load_ipython_extension(shell: InteractiveShell) -> None:
    """Register the magics; called by ``%load_ext llm_magics``."""
    from llm_magics.kernel.magics.register import load

    load(shell)


def _jupyter_labextension_paths() -> list[dict[str, str]]:
    """The place of the JupyterLab extension's bundle, for Jupyter's build tools."""
    return [{"src": "labextension", "dest": "llm-magics"}]


def unload_ipython_extension(shell: InteractiveShell) -> None:
    """Remove the magics; called by ``%unload_ext`` and ``%reload_ext``. Loaded models stay."""
    from llm_magics.kernel.magics.register import unload

    unload(shell)
