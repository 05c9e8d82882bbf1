"""Three minutes of clients that cancel, interrupt and come back at random; ``python -m tests.bench.soak`` runs for thirty."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.bench.soak import CANARIES, soak


@pytest.mark.model
@pytest.mark.skipif(sys.platform == "win32", reason="interrupts with a POSIX signal")
def test_clients_that_come_and_go_at_random_get_right_answers_and_leave_nothing_behind(smollm: Path) -> None:
    outcome = soak(smollm, 180)
    assert outcome.wrong == []
    assert outcome.leaked == []
    assert outcome.counts["whole"] > 4 * len(CANARIES)
    assert min(outcome.counts[how] for how in ("closed early", "cancelled", "struck by an interrupt")) > 5
    if sys.platform == "linux":
        assert outcome.drift < 0.02
