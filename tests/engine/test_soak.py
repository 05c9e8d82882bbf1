"""Three minutes of clients that cancel, interrupt and come back at random; ``python -m tests.bench.soak`` runs for thirty."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path

import pytest

from tests.bench.soak import CANARIES, soak


def enough(counts: Counter[str]) -> bool:
    """Whether every way of coming and going was seen often."""
    whole = counts["whole"] > 4 * len(CANARIES)
    return whole and min(counts[how] for how in ("closed early", "cancelled", "struck by an interrupt")) > 5


@pytest.mark.model
@pytest.mark.skipif(sys.platform == "win32", reason="interrupts with a POSIX signal")
def test_clients_that_come_and_go_at_random_get_right_answers_and_leave_nothing_behind(smollm: Path) -> None:
    outcome = soak(smollm, 180, enough)
    assert outcome.wrong == []
    assert outcome.leaked == []
    assert enough(outcome.counts)
    if sys.platform == "linux":
        assert outcome.drift < 0.02
