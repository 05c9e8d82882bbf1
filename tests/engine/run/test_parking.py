"""Conversations that lost their slot wait in memory, then on disk: within budgets, in private, and back with no new prefill."""

from __future__ import annotations

import errno
import io
import os
import signal
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from llm_magics.engine.hosts import open_engine
from llm_magics.engine.run.parking import Parking
from llm_magics.engine.values import EngineConfig
from llm_magics.errors import OptionError
from tests.engine.tiny_gguf import tiny_model

from .test_reuse import ask, assert_same, config
from .test_slots import prompts

STATES = {name: name.encode() * 10 for name in "abcd"}  # ten bytes each


class FullDisk(io.BytesIO):
    def write(self, data: object) -> int:
        raise OSError(errno.ENOSPC, "no space left on device")


def parked(memory: int, disk: int, directory: Path, names: str = "abcd") -> Parking:
    parking = Parking(memory, disk, str(directory))
    for number, name in enumerate(names):
        parking.put(name, [number], STATES[name])
    parking.settle()
    return parking


@pytest.mark.parametrize(
    ("memory", "disk", "kept", "in_memory"),
    [(40, 0, "abcd", 40), (25, 0, "cd", 20), (25, 10, "bcd", 20), (20, 100, "abcd", 20), (0, 30, "bcd", 0), (0, 0, "", 0)],
)
def test_the_longest_parked_go_to_disk_and_then_away(
    tmp_path: Path, memory: int, disk: int, kept: str, in_memory: int
) -> None:
    parking = parked(memory, disk, tmp_path)
    assert (parking.in_memory, parking.on_disk) == (in_memory, 10 * len(kept) - in_memory)
    assert [name for name in STATES if parking.tokens(name) is not None] == list(kept)
    assert {name: parking.take(name) for name in kept} == {name: STATES[name] for name in kept}
    assert (parking.in_memory, parking.on_disk) == (0, 0)
    assert all(parking.take(name) is None for name in STATES)


def test_parking_again_under_a_name_replaces_what_was_there(tmp_path: Path) -> None:
    parking = parked(10, 20, tmp_path, "abc")
    parking.put("a", [7], b"new")
    assert parking.tokens("a") == [7]
    assert parking.take("a") == b"new"
    assert parking.on_disk + parking.in_memory == 20


def test_what_is_on_disk_has_no_name_and_is_nobody_elses(tmp_path: Path) -> None:
    parking = parked(0, 100, tmp_path / "private")
    assert stat.S_IMODE(os.stat(tmp_path / "private").st_mode) == 0o700
    assert list((tmp_path / "private").iterdir()) == []
    modes = [stat.S_IMODE(os.fstat(item.file.fileno()).st_mode) for item in parking._parked.values() if item.file]
    assert modes == [0o600] * 4
    files = [item.file for item in parking._parked.values() if item.file]
    parking.close()
    assert all(file.closed for file in files)


def test_a_directory_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OptionError, match="file"):
        Parking(0, 100, str(tmp_path / "file"))


def test_a_disk_that_fails_loses_only_what_was_parked_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parking = parked(20, 100, tmp_path, "ab")
    monkeypatch.setattr("tempfile.TemporaryFile", lambda **_: FullDisk())
    parking.put("c", [2], STATES["c"])
    parking.settle()
    assert parking.tokens("a") is None
    assert (parking.take("b"), parking.take("c")) == (STATES["b"], STATES["c"])


class SlowDisk(io.BytesIO):
    """A disk that takes nothing until it may."""

    writing, may = threading.Event(), threading.Event()

    def write(self, data: Any) -> int:
        self.writing.set()
        assert self.may.wait(60)
        return super().write(data)


@pytest.fixture
def slow_disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[SlowDisk]]:
    SlowDisk.writing.clear()
    SlowDisk.may.clear()
    monkeypatch.setattr("tempfile.TemporaryFile", lambda **_: SlowDisk())
    yield SlowDisk
    SlowDisk.may.set()


def test_what_is_on_its_way_to_disk_is_there_already(tmp_path: Path, slow_disk: type[SlowDisk]) -> None:
    parking = Parking(10, 30, str(tmp_path))
    for number, name in enumerate("abcd"):
        parking.put(name, [number], STATES[name])  # and does not wait for the disk
    assert slow_disk.writing.wait(60)
    assert (parking.in_memory, parking.on_disk) == (10, 30)
    assert parking.take("a") == STATES["a"]  # the one that is being written
    assert parking.take("b") == STATES["b"]  # one that waits
    parking.drop("c")
    slow_disk.may.set()
    parking.settle()
    assert (parking.in_memory, parking.on_disk) == (10, 0)
    parking.close()


def test_no_more_waits_for_a_slow_disk_than_may(
    tmp_path: Path, slow_disk: type[SlowDisk], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llm_magics.engine.run.parking._ON_THE_WAY", 15)
    parking = Parking(0, 100, str(tmp_path))
    for number, name in enumerate("abcd"):
        parking.put(name, [number], STATES[name])
    assert [name for name in STATES if parking.tokens(name) is not None] == ["a"]
    slow_disk.may.set()
    parking.settle()
    parking.put("d", [3], STATES["d"])
    parking.settle()
    assert [parking.take(name) for name in "ad"] == [STATES["a"], STATES["d"]]
    parking.close()


def test_the_engine_goes_on_while_a_state_is_written(plain: Path, tmp_path: Path, slow_disk: type[SlowDisk]) -> None:
    first, second = prompts(1, 0, 150, seed=1)[0], prompts(1, 0, 150, seed=2)[0]
    options = {"park_memory": 0, "park_disk": 2**20, "park_directory": str(tmp_path)}
    with closing(open_engine(config(plain, **options))) as engine:
        ask(engine, first, conversation="one")
        answered = threading.Thread(target=ask, args=(engine, second), kwargs={"conversation": "two"})
        answered.start()
        assert slow_disk.writing.wait(60)
        answered.join(30)
        stalled = answered.is_alive()
        slow_disk.may.set()
        answered.join(60)
        assert not stalled


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    return tiny_model(context=1024).write(tmp_path / "plain.gguf")


@pytest.mark.parametrize("budgets", [{"park_memory": 2**20}, {"park_memory": 0, "park_disk": 2**20}])
def test_every_conversation_is_taken_back_without_a_prefill(
    plain: Path, tmp_path: Path, budgets: dict[str, int]
) -> None:
    threads = {name: prompts(1, 0, 150, seed=i)[0] for i, name in enumerate("vwxyz")}
    cold = open_engine(config(plain, deterministic=True))
    with closing(cold), closing(open_engine(config(plain, park_directory=str(tmp_path), **budgets))) as engine:
        for turn in range(3):
            for name, prompt in threads.items():
                found, end = ask(engine, prompt, conversation=name)
                if turn:
                    assert end.n_evaluated == 2  # the last sampled token and the new one
                assert_same(found, ask(cold, prompt)[0])
                threads[name] = (*prompt, *end.ids, 9)


def test_without_a_budget_nothing_is_kept(plain: Path) -> None:
    first, second = prompts(1, 0, 150, seed=1)[0], prompts(1, 0, 150, seed=2)[0]
    with closing(open_engine(config(plain, park_memory=0))) as engine:
        ask(engine, first, conversation="one")
        ask(engine, second, conversation="two")
        assert ask(engine, first, conversation="one")[1].n_evaluated == 150


@pytest.mark.parametrize("name", ["park_memory", "park_disk"])
def test_a_budget_below_nothing_is_refused(plain: Path, name: str) -> None:
    with pytest.raises(OptionError, match=name):
        open_engine(EngineConfig(str(plain), **{name: -1}))  # type: ignore[arg-type]


KILLED = """
import sys, time
from llm_magics.engine.run.parking import Parking
parking = Parking(0, 1 << 20, sys.argv[1])
parking.put("a", [1], b"secret" * 1000)
parking.settle()
assert parking.on_disk == 6000
print("parked", flush=True)
time.sleep(60)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="kills with a POSIX signal")
def test_a_process_that_is_killed_leaves_nothing_on_disk(tmp_path: Path) -> None:
    child = subprocess.Popen([sys.executable, "-c", KILLED, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    assert child.stdout.readline() == "parked\n"
    child.send_signal(signal.SIGKILL)
    child.wait(30)
    child.stdout.close()
    assert list(tmp_path.iterdir()) == []
