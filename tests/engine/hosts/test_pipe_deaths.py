"""When an engine's process or its parent dies: what is told, what is left, and what the next request finds."""

from __future__ import annotations

import os
import pickle
import random
import signal
import subprocess
import sys
import threading
import time
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from llm_magics.engine.hosts import process
from llm_magics.engine.hosts.frames import read_frame, write_frame
from llm_magics.engine.hosts.pipe import PipeEngine
from llm_magics.engine.hosts.process import EngineProcess, died
from llm_magics.engine.native.child import start_child
from llm_magics.engine.values import EngineConfig, GenerateRequest
from llm_magics.errors import EngineDiedError, EngineError, ModelFileError
from tests.engine.guess.test_draft import peaked
from tests.engine.guides import Recorder
from tests.engine.hosts.piped import GREEDY, PROMPT, ask, gone
from tests.engine.run.test_reuse import config

KILLS = int(os.environ.get("LLM_MAGICS_KILLS", "4"))  # `make whole` asks for more
posix = pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return peaked().write(tmp_path / "tiny.gguf")


# --- a child that dies ------------------------------------------------------------------------------------------------------


@posix
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGABRT])
def test_a_killed_child_costs_what_runs_and_the_next_request_starts_another(file: Path, number: signal.Signals) -> None:
    loads: list[float] = []
    with closing(PipeEngine(config(file, n_ctx=1024), loads.append)) as engine:  # longer than it runs ahead of a reader
        expected, first = ask(engine).ids, engine.info.pid
        others = [engine.submit(GenerateRequest(PROMPT, GREEDY)) for _ in range(3)]
        next(others[0])
        os.kill(first, number)
        for running in others:
            with pytest.raises(EngineDiedError, match=number.name) as raised:
                list(running)
            assert list(running) == []
        assert "variables are unharmed" in raised.value.next_action
        loads.clear()
        again = ask(engine)
        assert (again.ids, engine.info.pid != first) == (expected, True)
        assert "the engine's process had ended, so the model was loaded again" in again.losses
        assert loads[-1] == 1.0
        assert ask(engine).losses == ()
    assert gone(engine.info.pid)


@posix
def test_a_child_that_died_between_two_requests_is_replaced_without_an_error(file: Path) -> None:
    with closing(PipeEngine(config(file))) as engine:
        expected, pid = ask(engine).ids, engine.info.pid
        for again in (
            lambda: ask(engine).ids == expected,
            lambda: engine.pieces([5]),
            lambda: engine.tokenize("a", special=False),
        ):
            os.kill(engine.info.pid, signal.SIGKILL)
            assert again()
            assert engine.info.pid != pid
            pid = engine.info.pid


@dataclass
class Deadly(Recorder):
    """Kills the process that unpickles it."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (_die, ())


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@posix
def test_a_request_that_kills_each_child_is_an_error(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with closing(PipeEngine(config(file))) as engine:
        expected = ask(engine).ids
        with pytest.raises(EngineDiedError, match="SIGKILL"):
            ask(engine, guide=Deadly())
        assert ask(engine).ids == expected


@posix
def test_threads_that_find_it_dead_start_one_new_child(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with closing(PipeEngine(config(file, n_slots=4))) as engine:
        expected = ask(engine).ids
        started: list[EngineConfig] = []
        real = EngineProcess.__init__
        monkeypatch.setattr(EngineProcess, "__init__", lambda self, given: (started.append(given), real(self, given))[1])
        os.kill(engine.info.pid, signal.SIGKILL)
        engine._loaded._reader.join(60)
        found: list[tuple[int, ...]] = []
        threads = [threading.Thread(target=lambda: found.append(ask(engine).ids)) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(120)
    assert found == [expected] * 8
    assert len(started) == 1


@posix
def test_a_file_that_has_changed_is_not_taken_for_the_same_model(file: Path) -> None:
    with closing(PipeEngine(config(file))) as engine:
        ask(engine)
        os.kill(engine.info.pid, signal.SIGKILL)
        engine._loaded._reader.join(60)
        peaked(layers=1).write(file)
        with pytest.raises(ModelFileError, match="another model"):
            ask(engine)


def test_an_interrupted_load_again_leaves_the_next_request_to_try(file: Path) -> None:
    strike = False

    def progress(fraction: float) -> None:
        if strike:
            raise KeyboardInterrupt

    with closing(PipeEngine(config(file), progress)) as engine:
        expected = ask(engine).ids
        psutil.Process(engine.info.pid).kill()
        engine._loaded._reader.join(60)
        strike = True
        with pytest.raises(KeyboardInterrupt):
            ask(engine)
        strike = False
        assert ask(engine).ids == expected


DEATHS: dict[str, tuple[int, str, int, tuple[str, ...]]] = {
    "killed": (-9, "", 0, ("SIGKILL", "memory")),
    "an assertion": (
        -6,
        "/build/ggml.c:4014: GGML_ASSERT(a) failed",
        0,
        ("SIGABRT", "line: ggml.c:4014: GGML_ASSERT(a) failed"),
    ),
    "out of memory": (1, "<4>failed to allocate CUDA0 buffer of size 123", 99, ("exit status 1", "free some")),
    "a device": (
        -6,
        "<4>CUDA error: an illegal memory access was encountered",
        0,
        ("CUDA error", "--gpu-layers 0", "--in-kernel"),
    ),
    "with layers on a device": (134, "Remote RPC server crashed", -1, ("exit status 134", "RPC", "--gpu-layers 0")),
    "unknown": (-77, "", 0, ("signal 77",)),
}


@pytest.mark.parametrize("name", DEATHS)
def test_the_error_says_what_happened_and_what_to_do(name: str) -> None:
    status, log, layers, words = DEATHS[name]
    given = EngineConfig("/home/me/m.gguf", n_gpu_layers=layers)
    for loading in (False, True):
        text = str(died(given, status, process.parse_log(log), loading=loading))
        assert all(word in text for word in ("m.gguf", "Your variables are unharmed.", *words)), text
        assert ("while it loaded" in text) == loading
        assert "/home" not in text
        assert "/build" not in text


@posix
def test_an_assertion_in_llama_cpp_is_told_in_its_own_words(tmp_path: Path) -> None:
    broken = peaked()
    broken.metadata["llama.expert_count"] = (4, 4)  # four experts and none used: an assertion in llama.cpp
    told = r"tiny\.gguf died \(SIGABRT\) while it loaded the model; its last log line: [\w.-]+:\d+: GGML_ASSERT"
    with pytest.raises(EngineDiedError, match=told):
        PipeEngine(config(broken.write(tmp_path / "tiny.gguf")))


def test_a_child_that_cannot_load_says_its_last_words(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    says = "import sys; sys.stderr.write('<2>fine\\nat last: this\\n\\n'); sys.stdout.write('x' * 5); sys.exit(3)"
    monkeypatch.setattr(EngineProcess, "command", (sys.executable, "-c", says))
    with pytest.raises(EngineDiedError, match=r"exit status 3\) while it loaded the model; its last log line: at last: this"):
        PipeEngine(config(file))


def test_a_child_that_died_before_anybody_listened_is_told(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def ended(command: tuple[str, ...], start: Any = process._start) -> Any:
        child = start(command)
        child.wait(60)
        return child

    monkeypatch.setattr(process, "_start", ended)
    monkeypatch.setattr(EngineProcess, "command", (sys.executable, "-c", "raise SystemExit(3)"))
    with pytest.raises(EngineDiedError, match="exit status 3"):
        PipeEngine(config(file))


def test_a_python_that_cannot_be_started_is_a_named_error(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(EngineProcess, "command", ("/nowhere/python",))
    with pytest.raises(EngineError, match="cannot be started") as raised:
        PipeEngine(config(file))
    assert "--in-kernel" in raised.value.next_action


# --- a parent that dies -----------------------------------------------------------------------------------------------------

PARENT = """
import os, sys, time
from llm_magics.engine.hosts.pipe import PipeEngine
from llm_magics.engine.values import *
print("begins", flush=True)
while True:
    engine = PipeEngine(EngineConfig(sys.argv[1], n_ctx=512))
    if "forks" in sys.argv and os.fork() == 0:  # holds the pipe open for as long as it lives
        time.sleep(600)
    for _ in range(20):
        list(engine.submit(GenerateRequest(tuple(range(10, 60)), max_tokens=100)))
    print("asked", flush=True)
    if "forks" in sys.argv:
        time.sleep(600)
    engine.close()
"""


def test_no_child_outlives_its_parent_whenever_that_is_killed(file: Path) -> None:
    """``LLM_MAGICS_KILLS=20`` kills that many parents, at random moments of loads, answers and ends."""
    dice = random.Random(9)
    orphans = 0
    while orphans < KILLS:
        parent = subprocess.Popen([sys.executable, "-c", PARENT, str(file)], stdout=subprocess.PIPE)
        assert parent.stdout is not None
        parent.stdout.readline()
        time.sleep(dice.uniform(0, 3))
        children = psutil.Process(parent.pid).children(recursive=True)
        parent.kill()
        parent.communicate()
        assert all(gone(child.pid) for child in children)
        orphans += bool(children)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_sibling_that_holds_the_pipe_keeps_no_child_alive(file: Path) -> None:
    parent = subprocess.Popen([sys.executable, "-c", PARENT, str(file), "forks"], stdout=subprocess.PIPE)
    assert parent.stdout is not None
    assert [parent.stdout.readline() for _ in range(2)] == [b"begins\n", b"asked\n"]
    children = psutil.Process(parent.pid).children(recursive=True)
    (sibling,) = [child for child in children if "llm_magics.engine.hosts.child" not in child.cmdline()]
    parent.kill()
    try:
        assert all(gone(child.pid) for child in children if child != sibling)
        assert sibling.is_running()
    finally:
        sibling.kill()
        parent.communicate()


@pytest.mark.parametrize("moment", ["before it knows the model", "while it loads", "when it is idle"])
def test_the_pipe_s_end_alone_ends_the_child(file: Path, moment: str) -> None:
    """As on Windows, where a parent's id does not change at its end."""
    blind = "import os; os.getppid = lambda: 1; from llm_magics.engine.hosts.child import main; main()"
    with start_child((sys.executable, "-P", "-c", blind), subprocess.DEVNULL) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        if moment != "before it knows the model":
            write_frame(child.stdin, pickle.dumps((config(file), sys.path)))
        while moment == "when it is idle" and not any(
            hasattr(item, "n_ctx") for _, item in pickle.loads(read_frame(child.stdout))
        ):
            pass
        child.stdin.close()
        assert child.wait(60) == 0


@pytest.mark.model
def test_a_script_without_a_main_guard_runs_once(smollm: Path, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "print('ran')\n"
        "from llm_magics import Session, load_model\n"
        f"model = load_model({str(smollm)!r}, ctx=512, isolated=True)\n"
        "print(Session(model, seed=0).ask('Hello', max_tokens=4).usage.completion_tokens)\n"
        "import sys; print('llama_cpp' in sys.modules, model.own_process > 0)\n"
    )
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=300)
    assert (done.returncode, done.stderr) == (0, "")
    ran, tokens, where = done.stdout.splitlines()
    assert (ran, tokens in ("1", "2", "3", "4"), where.split()[1]) == ("ran", True, "True")
