"""Where the engine runs: a thread of this process, or a child process behind a pipe."""

from __future__ import annotations

from collections.abc import Callable

from llm_magics.engine.values import Engine, EngineConfig


def open_engine(
    config: EngineConfig, progress: Callable[[float], bool | None] | None = None, *, isolated: bool = False
) -> Engine:
    """Load a model in this process, which imports llama_cpp, or ``isolated`` in a child process.

    ``progress`` is called in this thread with the loaded fraction; it cancels the load by returning False. Raises
    ModelNotFoundError, ModelFileError, UnsupportedModelError, MemoryFitError or OptionError, with llama.cpp's own words.
    """
    if isolated:
        from .pipe import PipeEngine

        return PipeEngine(config, progress)
    from .local import LocalEngine

    return LocalEngine(config, progress)
