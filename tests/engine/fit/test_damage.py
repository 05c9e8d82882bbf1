"""A short run of :mod:`tests.engine.fit.damage`; the long one is ``make damage``."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from .damage import outcomes
from .damaged_files import KINDS, written_case

COUNT, SEED = 160, 12


@pytest.mark.timeout(1800)
def test_damaged_and_foreign_files_load_or_are_refused_by_a_named_error(tmp_path: Path) -> None:
    found = list(outcomes(COUNT, SEED, tmp_path))
    assert [outcome for outcome in found if outcome.is_fault] == []
    assert [outcome.number for outcome in found] == list(range(COUNT))
    ends = Counter(outcome.end for outcome in found)
    assert ends["loaded"] > COUNT // 20
    assert ends["ModelFileError"] > COUNT // 3
    assert len({outcome.kind for outcome in found}) == len(KINDS)


def is_small(path: Path) -> bool:
    return path.is_file() and path.stat().st_size < 10**6


def test_a_seed_gives_the_same_files(tmp_path: Path) -> None:
    seen = []
    for run in ("one", "two"):
        (tmp_path / run).mkdir()
        cases = [written_case(SEED, number, tmp_path / run) for number in range(40)]
        seen.append([(kind, path.read_bytes() if is_small(path) else b"") for kind, path in cases])
    assert seen[0] == seen[1]
    assert len({content for _, content in seen[0]}) > 30
