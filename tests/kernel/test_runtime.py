"""What a kernel holds: models by name, one of them current, unloaded when idle; and where an interrupt may strike."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from llm_magics import ScriptedModel
from llm_magics.errors import NoModelError, OptionError
from llm_magics.kernel.interrupts import Interrupts
from llm_magics.kernel.runtime import Runtime, Thread
from llm_magics.session.session import Session


class Closing(ScriptedModel):
    """A model that counts how often it was closed."""

    def __init__(self, *script: Any) -> None:
        super().__init__(script or ("yes",))
        self.closed = 0

    def close(self) -> None:
        self.closed += 1


@pytest.fixture
def runtime() -> Runtime:
    return Runtime(SimpleNamespace(user_ns={}, execution_count=1))


def test_the_last_model_loaded_answers_and_gives_way_when_it_goes(runtime: Runtime) -> None:
    one, two = Closing(), Closing()
    runtime.add("one", one)
    runtime.add("two", two)
    assert runtime.resident().model is two
    assert runtime.unload() == "two"
    assert (two.closed, runtime.resident().name) == (1, "one")
    assert runtime.unload("one") == "one"
    with pytest.raises(NoModelError, match="%load_model"):
        runtime.resident()


def test_a_name_loaded_again_replaces_its_model(runtime: Runtime) -> None:
    old, new = Closing(), Closing()
    runtime.add("m", old)
    runtime.add("m", new)
    assert (old.closed, new.closed) == (1, 0)
    runtime.add("m", new)
    assert new.closed == 0


def test_an_unknown_name_lists_near_ones(runtime: Runtime) -> None:
    runtime.add("qwen", Closing())
    with pytest.raises(NoModelError, match="Did you mean qwen"):
        runtime.resident("qwne")


def test_a_variable_may_hold_the_model(runtime: Runtime) -> None:
    held = Closing()
    runtime.shell.user_ns = {"held": held, "other": 3}
    assert runtime.find_model("held").model is held
    with pytest.raises(NoModelError):
        runtime.find_model("other")


def test_an_idle_model_is_unloaded_and_one_in_use_is_not(runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr("llm_magics.kernel.runtime.time.monotonic", lambda: now[0])
    model, kept = Closing(), Closing()
    runtime.add("kept", kept)
    resident = runtime.add("m", model, ttl=60)
    resident.last_used = now[0]
    now[0] += 59
    assert runtime.unload_idle() == []
    with runtime.using(resident):
        now[0] += 1000
        assert runtime.unload_idle() == []
        with pytest.raises(OptionError, match="in use by a running cell"):
            runtime.unload("m")
    now[0] += 59
    assert runtime.unload_idle() == []
    now[0] += 1
    assert runtime.unload_idle() == ["m"]
    assert (model.closed, kept.closed) == (1, 0)
    runtime.close()


def test_the_timer_unloads_by_itself(runtime: Runtime) -> None:
    runtime.add("m", Closing(), ttl=0.01)
    timer = runtime._timer
    assert timer is not None
    timer.join(30)
    assert not runtime.residents


def test_closing_frees_everything_once(runtime: Runtime) -> None:
    model = Closing()
    runtime.add("m", model)
    runtime.enter(runtime.thread(), model)
    runtime.close()
    runtime.close()
    assert model.closed == 1
    assert not runtime.threads


def test_a_thread_is_kept_once_it_is_entered_and_its_model_changes_with_that_alone(runtime: Runtime) -> None:
    first, other = Closing(), Closing()
    runtime.add("m", first)
    assert runtime.thread("z").session is not runtime.thread("z").session
    assert not runtime.threads
    entered = runtime.enter(runtime.thread("z"), first)
    assert runtime.thread("z", other) is entered
    assert entered.session.model is first
    assert runtime.enter(entered, other).session.model is other


def test_a_cell_replaces_what_its_earlier_run_made() -> None:
    thread = Thread("main", Session(ScriptedModel(["a", "b", "c"])))
    assert thread.turn_of("cell", 1) is None
    for turn in ("t1", "t2"):
        thread.session.ask("hi", turn=turn)
        thread.made("cell", turn, 1)
        assert thread.turn_of("cell", 1) is None  # the same run: a second question, not a second try
    assert thread.turn_of("cell", 2) == "t1"
    thread.made("cell", "t3", 2)
    assert thread.turn_of("cell", 3) is None  # t3 never came to be
    assert thread.turn_of("", 3) is None


def strike() -> None:
    os.kill(os.getpid(), signal.SIGINT)


def held_back(done: list[str]) -> None:
    with Interrupts() as interrupts:
        strike()
        done.append("held back")
        with interrupts.allowed():
            done.append("never")


def cleaned_up(done: list[str]) -> None:
    with Interrupts() as interrupts:
        try:
            with interrupts.allowed():
                strike()
                done.append("never")
        finally:
            strike()
            done.append("cleaned up")


def to_the_end(done: list[str]) -> None:
    with Interrupts():
        strike()
        done.append("to the end")


@pytest.mark.skipif(os.name != "posix", reason="sends a POSIX signal")
def test_code_that_swallows_an_interrupt_is_struck_again_by_a_later_one(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("llm_magics.kernel.interrupts.time.monotonic", lambda: now[0])
    swallowed: list[float] = []

    def stubborn() -> None:
        with Interrupts() as interrupts, interrupts.allowed():
            for now[0] in (10.0, 10.5, 12.0):
                try:
                    strike()
                except KeyboardInterrupt:
                    swallowed.append(now[0])

    with pytest.raises(KeyboardInterrupt):
        stubborn()  # the one that came too soon is told at the end
    assert swallowed == [10.0, 12.0]


@pytest.mark.skipif(os.name != "posix", reason="sends a POSIX signal")
@pytest.mark.parametrize(("run", "done"), [(held_back, "held back"), (cleaned_up, "cleaned up"), (to_the_end, "to the end")])
def test_an_interrupt_strikes_where_it_is_allowed_and_waits_elsewhere(run: Callable[[list[str]], None], done: str) -> None:
    before = signal.getsignal(signal.SIGINT)
    seen: list[str] = []
    with pytest.raises(KeyboardInterrupt):
        run(seen)
    assert seen == [done]
    assert signal.getsignal(signal.SIGINT) is before
