"""Fixtures that all rooms share: the real models, by their catalogue names."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def smollm() -> Path:
    """SmolLM2-135M's file, fetched now if it is not on this machine yet; a model that cannot be had fails the test."""
    return _model("smollm2-135m")


@pytest.fixture(scope="session")
def qwen() -> Path:
    """Qwen2.5-Coder-0.5B's file, likewise."""
    return _model("qwen2.5-coder-0.5b")


def _model(name: str) -> Path:
    from llm_magics.models.fetch import pull

    return pull(name).path
