"""An engine in a process of its own: how it starts and ends, and what it lets through."""

from __future__ import annotations

import gc
import os
import signal
import sys
import threading
import types
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from llm_magics.engine.hosts import open_engine, process
from llm_magics.engine.hosts.frames import read_frame
from llm_magics.engine.hosts.pipe import PipeEngine
from llm_magics.engine.hosts.process import EngineProcess
from llm_magics.engine.native.child import python_command
from llm_magics.engine.run.sequence import RUN_AHEAD
from llm_magics.engine.values import GenerateRequest, GuideStep, Tokens
from llm_magics.errors import EngineError, ModelFileError, ModelNotFoundError
from tests.engine.guess.test_draft import peaked
from tests.engine.guides import Recorder
from tests.engine.hosts.piped import GREEDY, PROMPT, ask, gone
from tests.engine.run.test_reuse import config

posix = pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return peaked().write(tmp_path / "tiny.gguf")


# --- what the child is, and what it lets through ----------------------------------------------------------------------------


@posix
def test_an_interrupt_of_the_whole_group_is_the_parent_s_alone(file: Path) -> None:
    with closing(PipeEngine(config(file))) as engine:
        expected = ask(engine).ids
        assert os.getpgid(engine.info.pid) != os.getpgid(0)
        os.kill(engine.info.pid, signal.SIGINT)
        assert ask(engine).ids == expected


@dataclass
class Loud(Recorder):
    """Prints, as libraries do."""

    def feed(self, text: str) -> GuideStep:
        print("noise", flush=True)
        os.write(1, b"more noise\n")
        return super().feed(text)


def test_what_a_library_prints_is_no_answer(file: Path) -> None:
    with closing(PipeEngine(config(file))) as engine:
        assert ask(engine, guide=Loud()).ids == ask(engine).ids


@dataclass
class Unsendable(Recorder):
    def feed(self, text: str) -> GuideStep:
        return GuideStep(events=(lambda: None,))


def test_events_that_do_not_pickle_are_a_named_error_and_harm_nobody(file: Path) -> None:
    with closing(PipeEngine(config(file))) as engine:
        expected = ask(engine).ids
        with pytest.raises(EngineError, match="cannot send an event"):
            ask(engine, guide=Unsendable())
        assert ask(engine).ids == expected


def test_a_guide_that_the_child_cannot_import_is_a_named_error(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("only_in_this_process")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr(Loud, "__module__", module.__name__)
    module.Loud = Loud  # type: ignore[attr-defined]
    with closing(PipeEngine(config(file))) as engine:
        with pytest.raises(EngineError, match="cannot read this request"):
            ask(engine, guide=Loud())
        with pytest.raises(EngineError, match="cannot get this request"):
            ask(engine, guide=Recorder.__init__.__get__(lambda: None))
        assert len(ask(engine).ids) == 12


def test_a_slow_consumer_bounds_how_far_the_child_runs_ahead(file: Path) -> None:
    with closing(PipeEngine(config(file, n_ctx=1024))) as engine:
        slow = engine.submit(GenerateRequest(PROMPT, GREEDY, max_tokens=RUN_AHEAD + 200))
        quick = ask(engine, RUN_AHEAD + 200)  # one slot: the slow one gives it up when it is far ahead
        assert slow._box.qsize() == RUN_AHEAD
        assert list(slow)[-1].ids == quick.ids  # type: ignore[union-attr]


def test_the_events_of_one_step_come_in_one_message(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    frames: list[bytes] = []
    monkeypatch.setattr(process, "read_frame", lambda pipe: frames.append(read_frame(pipe)) or frames[-1])
    with closing(PipeEngine(config(file, n_slots=8))) as engine:
        frames.clear()
        running = [engine.submit(GenerateRequest((*PROMPT, 70 + i), GREEDY, max_tokens=60)) for i in range(8)]
        events = [event for generation in running for event in generation if isinstance(event, Tokens)]
    assert len(events) == 8 * 60
    assert len(frames) < 2 * 60 + 8 * 4


def test_a_guide_runs_in_the_child(file: Path) -> None:
    with closing(PipeEngine(config(file))) as engine:
        end = ask(engine, guide=Where())
        assert end.events == (engine.info.pid,)
        assert engine.info.pid != os.getpid() == open_engine_pid(file)


@dataclass
class Where(Recorder):
    def finish(self, reason: str) -> GuideStep:
        return GuideStep(events=(os.getpid(),))


def open_engine_pid(file: Path) -> int:
    with closing(open_engine(config(file))) as engine:
        return engine.info.pid


def test_where_a_wait_must_be_cut_in_pieces_answers_come_all_the_same(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on Windows, where Ctrl-C does not interrupt a long wait."""
    monkeypatch.setattr(process, "_WAIT", 0.001)
    with closing(PipeEngine(config(file))) as engine:
        assert len(ask(engine, 60).ids) == 60


def test_on_windows_the_child_gets_a_group_and_no_console(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[dict[str, Any]] = []
    monkeypatch.setattr(process.subprocess, "CREATE_NEW_PROCESS_GROUP", 0x200, raising=False)
    monkeypatch.setattr(process.subprocess, "CREATE_NO_WINDOW", 0x8000000, raising=False)
    monkeypatch.setattr(process, "start_child", lambda command, stderr, **options: given.append(options))
    process._start(("python",))
    assert given[0]["creationflags"] == 0x8000200


# --- loading and closing ----------------------------------------------------------------------------------------------------


def test_errors_of_a_load_come_as_they_are_and_leave_no_process(tmp_path: Path, file: Path) -> None:
    cut = tmp_path / "cut.gguf"
    cut.write_bytes(file.read_bytes()[:3000])
    before = set(psutil.Process().children())
    for path, error in ((cut, ModelFileError), (tmp_path / "nowhere.gguf", ModelNotFoundError)):
        with pytest.raises(error, match=path.name):
            PipeEngine(config(path))
    with pytest.raises(EngineError, match="cancelled"):
        PipeEngine(config(file), lambda fraction: False)
    assert all(gone(child.pid) for child in set(psutil.Process().children()) - before)


def test_a_folder_that_was_left_does_not_matter(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(file.parent)
    with closing(PipeEngine(config(Path(file.name)))) as engine:
        expected = ask(engine).ids
        monkeypatch.chdir("/")
        psutil.Process(engine.info.pid).kill()
        engine._loaded._reader.join(60)
        assert ask(engine).ids == expected


def close(engine: PipeEngine) -> None:
    engine.close()


def drop(engine: PipeEngine) -> None:
    """Nobody holds it any more."""


@pytest.mark.parametrize("end", [close, drop])
def test_an_engine_that_is_closed_or_dropped_leaves_no_process_and_no_thread(
    file: Path, end: Callable[[PipeEngine], None]
) -> None:
    def threads() -> set[threading.Thread]:
        return {thread for thread in threading.enumerate() if thread.name == "llm-magics-pipe"}

    before, interval = threads(), sys.getswitchinterval()
    engine = PipeEngine(config(file))
    ask(engine)
    with closing(engine.submit(GenerateRequest(PROMPT, GREEDY))) as running:
        next(running)
        assert sys.getswitchinterval() < interval
    pid, mine = engine.info.pid, threads() - before
    assert len(mine) == 3
    end(engine)
    del engine
    gc.collect()
    assert gone(pid)
    for thread in mine:
        thread.join(60)
    assert not any(thread.is_alive() for thread in mine)
    assert sys.getswitchinterval() == interval


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_after_a_fork_the_model_stays_the_parent_s(file: Path) -> None:
    with closing(PipeEngine(config(file))) as engine:
        expected = ask(engine).ids
        forked = os.fork()
        if forked == 0:
            try:
                engine.submit(GenerateRequest((1, 2)))
            except EngineError as error:
                engine.close()
                os._exit(17 if "fork" in str(error) else 1)
            os._exit(2)
        assert os.waitstatus_to_exitcode(os.waitpid(forked, 0)[1]) == 17
        assert ask(engine).ids == expected


def test_the_command_needs_nothing_of_the_parent_s_environment(
    file: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "json.py").write_text("raise SystemExit('shadowed')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), "", *sys.path])
    assert EngineProcess.command == python_command("llm_magics.engine.hosts.child")
    with closing(PipeEngine(config(file))) as engine:
        assert len(ask(engine).ids) == 12
