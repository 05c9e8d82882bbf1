"""Where the engine runs: a thread of this process, or a child process behind a pipe."""

from __future__ import annotations

from collections.abc import Callable

from llm_magics.engine.values import Engine, EngineConfig


def open_engine(config: EngineConfig, progress: Callable[[float], bool | None] | None = None) -> Engine:
    """Load a model in this process. Imports llama_cpp.

    ``progress`` is called in this thread with the loaded fraction; it cancels the load by returning False. Raises
    ModelNotFoundError, ModelFileError, UnsupportedModelError, MemoryFitError or OptionError, with llama.cpp's own words.
    """
    from .local import LocalEngine

    return LocalEngine(config, progress)
