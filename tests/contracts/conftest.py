"""One engine of each kind for all tests of a file."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from llm_magics.engine.values import Engine, EngineConfig

from .engines import OPENERS


@pytest.fixture(scope="module", params=OPENERS)
def engine(request: pytest.FixtureRequest, smollm: Path) -> Iterator[Engine]:
    with closing(OPENERS[request.param](EngineConfig(str(smollm), n_ctx=1024))) as engine:
        yield engine
