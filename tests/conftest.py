"""What all rooms' tests share: the real models, by their catalogue names, and when tests that need a GPU can run."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile("any machine", deadline=None)  # how long an example takes says nothing while others use the machine
settings.load_profile("any machine")

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # started in the background of a shell; what is tested is interrupted
    signal.signal(signal.SIGINT, signal.default_int_handler)

_CACHE = os.environ.get("LLM_MAGICS_CACHE")  # before any test sets one of its own


@pytest.fixture(scope="session")
def smollm() -> Path:
    """SmolLM2-135M's file, fetched now if it is not on this machine yet; a model that cannot be had fails the test."""
    return _model("smollm2-135m")


@pytest.fixture(scope="session")
def qwen() -> Path:
    """Qwen2.5-Coder-0.5B's file, likewise."""
    return _model("qwen2.5-coder-0.5b")


@pytest.fixture(scope="session")
def qwen_large() -> Path:
    """Qwen2.5-Coder-1.5B's file, likewise: for what the smaller one honestly cannot do."""
    return _model("qwen2.5-coder-1.5b")


def _model(name: str) -> Path:
    from llm_magics.store.fetch import pull

    with pytest.MonkeyPatch.context() as patch:
        if _CACHE is None:
            patch.delenv("LLM_MAGICS_CACHE", raising=False)
        else:
            patch.setenv("LLM_MAGICS_CACHE", _CACHE)
        return pull(name).path


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests marked ``gpu`` run wherever there is an NVIDIA GPU and a build of llama.cpp that uses it."""
    marked = [item for item in items if item.get_closest_marker("gpu")]
    if marked and not _gpu_usable():
        for item in marked:
            item.add_marker(pytest.mark.skip(reason="no NVIDIA GPU, or llama-cpp-python was built without CUDA"))


def _gpu_usable() -> bool:
    from llm_magics.engine.fit.memory import nvidia_gpus

    if not nvidia_gpus():
        return False
    from llm_magics.engine.native.llama import supports_gpu

    return supports_gpu()
