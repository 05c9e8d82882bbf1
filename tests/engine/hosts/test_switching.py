"""The switch interval is short while an engine is busy and what it was before when none is."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest

from llm_magics.engine.hosts import interpreter


@pytest.fixture(autouse=True)
def _interval() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(0.005)
    yield
    sys.setswitchinterval(before)


def test_it_is_short_until_the_last_engine_rests() -> None:
    interpreter.hurry()
    interpreter.hurry()
    assert sys.getswitchinterval() == pytest.approx(interpreter.BUSY_INTERVAL)
    interpreter.relax()
    assert sys.getswitchinterval() == pytest.approx(interpreter.BUSY_INTERVAL)
    interpreter.relax()
    assert sys.getswitchinterval() == pytest.approx(0.005)


def test_an_interval_that_somebody_else_set_meanwhile_stays() -> None:
    interpreter.hurry()
    sys.setswitchinterval(0.002)
    interpreter.relax()
    assert sys.getswitchinterval() == pytest.approx(0.002)
