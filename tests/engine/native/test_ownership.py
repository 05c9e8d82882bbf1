"""Whatever goes wrong while a model is opened, nothing that llama.cpp has made is left without an owner."""

from __future__ import annotations

import gc
import os
import signal
import sys
import threading
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from llm_magics.engine.guess import draft, speculation
from llm_magics.engine.hosts import local, open_engine
from llm_magics.engine.hosts.interpreter import held
from llm_magics.engine.native import context, model
from llm_magics.engine.native.library import lib
from llm_magics.engine.values import EngineConfig, GenerateRequest
from llm_magics.errors import EngineError
from tests.engine.run.test_reuse import config
from tests.engine.tiny_gguf import tiny_model


@pytest.fixture
def chosen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> EngineConfig:
    monkeypatch.setenv("LLM_MAGICS_CACHE", str(tmp_path / "cache"))
    large = tiny_model(context=1024).write(tmp_path / "large.gguf")
    small = tiny_model(context=1024, layers=1).write(tmp_path / "small.gguf")
    return config(large, draft=str(small), park_directory=str(tmp_path / "parked"))


@pytest.fixture
def living(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How many models and contexts of llama.cpp there are."""
    counts: Counter[str] = Counter()

    def counted(name: str, kind: str, step: int) -> None:
        real = getattr(lib, name)

        def call(*args: Any) -> Any:
            result = real(*args)
            counts[kind] += step if step < 0 or result else 0
            return result

        monkeypatch.setattr(lib, name, call)

    counted("llama_model_load_from_file", "models", 1)
    counted("llama_model_free", "models", -1)
    counted("llama_init_from_model", "contexts", 1)
    counted("llama_free", "contexts", -1)
    return counts


def nothing_is_left(living: Counter[str]) -> bool:
    if living["models"] or living["contexts"]:
        gc.collect()  # an engine that nobody holds is freed, too
    return living["models"] == living["contexts"] == 0 and not any(t.name == "llm-magics-engine" for t in threading.enumerate())


class Injected(Exception):
    pass


STEPS: list[tuple[Any, str]] = [
    (local, "_check_model"),
    (local, "Context"),
    (speculation, "Draft"),
    (speculation, "_makers"),
    (speculation, "exact_rows"),
    (local, "Scheduler"),
    (local, "_describe"),
    (local, "_Core"),
    (local, "ConstraintEngine"),
    (local.weakref, "finalize"),
    (threading.Thread, "start"),
    (model.Model, "_read_vocabulary"),
    (context.Context, "_read_sizes"),
    (draft, "check_vocabularies"),
    (draft, "Batch"),
]


@pytest.mark.parametrize("error", [Injected, KeyboardInterrupt])
@pytest.mark.parametrize(("where", "name"), STEPS, ids=[name for _, name in STEPS])
def test_a_step_that_fails_frees_what_was_made_before(
    chosen: EngineConfig,
    living: Counter[str],
    where: Any,
    name: str,
    error: type[BaseException],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fails(*_: Any, **__: Any) -> None:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(where, name, fails)
        with pytest.raises(error):
            open_engine(chosen)
    assert nothing_is_left(living)
    with closing(open_engine(chosen)) as engine:
        assert list(engine.submit(GenerateRequest((5, 6, 7), max_tokens=2)))
    assert nothing_is_left(living)


FILES = {module.__file__ for module in (local, model, context, draft, speculation)}


def interrupted_at(line: int, action: Callable[[], Any]) -> tuple[Any, bool]:
    """Run an action with an interrupt at its so manyth line in the files that hold llama.cpp's objects, where each line counts
    once for each of two models: the result, and whether there were so many lines."""
    seen: Counter[tuple[str, int]] = Counter()

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        if frame.f_code.co_filename not in FILES:
            return None
        where = (frame.f_code.co_filename, frame.f_lineno)
        if event == "line" and seen[where] < 2:
            seen[where] += 1
            if seen.total() == line:
                signal.raise_signal(signal.SIGINT)
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        return action(), seen.total() >= line
    finally:
        sys.settrace(before)


@pytest.mark.skipif(sys.platform == "win32", reason="needs a POSIX signal")
def test_an_interrupt_at_any_line_of_opening_leaves_nothing_behind(chosen: EngineConfig, living: Counter[str]) -> None:
    line = 0
    while True:
        line += 1
        try:
            engine, struck = interrupted_at(line, lambda: open_engine(chosen))
        except KeyboardInterrupt:
            assert nothing_is_left(living), f"line {line}"
            continue
        engine.close()
        del engine
        assert nothing_is_left(living)
        if not struck:
            break
        raise AssertionError(f"the interrupt at line {line} was lost")
    assert line > 150


def test_an_interrupt_while_the_weights_are_read_stops_the_load(chosen: EngineConfig, living: Counter[str]) -> None:
    told = []

    def progress(fraction: float) -> None:
        if not told:
            signal.raise_signal(signal.SIGINT)
        told.append(fraction)

    with pytest.raises(KeyboardInterrupt):
        open_engine(replace(chosen, draft=""), progress)
    assert len(told) == 1
    assert nothing_is_left(living)


# --- holding interrupts back ------------------------------------------------------------------------------------------------


def test_an_interrupt_that_is_held_takes_place_at_the_end() -> None:
    done = []
    with pytest.raises(KeyboardInterrupt), held() as state:
        os.kill(os.getpid(), signal.SIGINT) if sys.platform != "win32" else signal.raise_signal(signal.SIGINT)
        done.append("after")
        assert state.struck
    assert done == ["after"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_what_handled_interrupts_before_handles_the_held_one() -> None:
    heard: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, _: heard.append(number))
    try:
        with held():
            signal.raise_signal(signal.SIGINT)
            assert not heard
        assert heard == [signal.SIGINT]
    finally:
        signal.signal(signal.SIGINT, before)


def test_another_thread_has_no_interrupts_to_hold() -> None:
    failed: list[BaseException] = []

    def run() -> None:
        try:
            with held() as state:
                state.check()
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert not failed


# --- who waits for whom -----------------------------------------------------------------------------------------------------


def test_a_long_tokenisation_does_not_keep_the_engine_from_its_pieces(
    chosen: EngineConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, go_on = threading.Event(), threading.Event()
    real = lib.llama_tokenize

    def slow(*args: Any) -> Any:
        begun.set()
        assert go_on.wait(60)
        return real(*args)

    with closing(open_engine(replace(chosen, draft=""))) as engine:
        monkeypatch.setattr(lib, "llama_tokenize", slow)
        found: list[tuple[int, ...]] = []
        tokenizing = threading.Thread(target=lambda: found.append(engine.tokenize("abc", special=False)))
        tokenizing.start()
        assert begun.wait(60)
        asked = GenerateRequest((5, 6, 7), max_tokens=20)
        answered = threading.Thread(target=lambda: list(engine.submit(asked)))
        answered.start()
        answered.join(30)
        stalled = answered.is_alive()
        closed = threading.Thread(target=engine.close)  # while the text is still being read
        closed.start()
        closed.join(0.5)
        assert closed.is_alive(), "the model was freed under its reader"
        go_on.set()
        for thread in (tokenizing, answered, closed):
            thread.join(60)
            assert not thread.is_alive()
        assert not stalled
        assert len(found) == 1
        with pytest.raises(EngineError, match="closed"):
            engine.tokenize("abc", special=False)
