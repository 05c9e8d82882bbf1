"""Where the engine runs: a thread of this process, or a child process behind a pipe."""

from __future__ import annotations

from collections.abc import Callable

from llm_magics.engine.values import Engine, EngineConfig


def open_engine(config: EngineConfig, progress: Callable[[float], bool | None] | None = None) -> Engine:
    """Load a model in this process; see :func:`llm_magics.engine.hosts.local.open_engine`. Imports llama_cpp."""
    from .local import open_engine as open_local

    return open_local(config, progress)
