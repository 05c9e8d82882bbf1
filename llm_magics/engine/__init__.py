"""The engine: llama.cpp behind plain, picklable values. The only room that imports llama_cpp, and it does so lazily."""

from __future__ import annotations

from collections.abc import Callable

from .values import Engine, EngineConfig


def open_engine(config: EngineConfig, progress: Callable[[float], bool | None] | None = None) -> Engine:
    """Load a model in this process; see :func:`llm_magics.engine.local.open_engine`. Imports llama_cpp."""
    from .local import open_engine as open_local

    return open_local(config, progress)
