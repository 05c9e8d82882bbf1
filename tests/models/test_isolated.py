"""A model in a process of its own is the same model: event by event, call by call, also after that process has died."""

from __future__ import annotations

import itertools
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from llm_magics import Session, load_model, tool
from llm_magics.engine.values import EngineConfig, GenerateRequest, Generation
from llm_magics.errors import EngineDiedError, OptionError
from llm_magics.events import Event, ModelEnd, TextDelta, ToolEnd, TurnEnd, TurnStart, Usage
from llm_magics.models.local import LocalModel
from llm_magics.models.settings import LoadSettings

CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"], "additionalProperties": False}


@tool
def weather(city: str) -> str:
    """Tell the weather of a city.

    Args:
        city: its name in English.
    """
    return f"{city}: 21 degrees"


@pytest.fixture(scope="module")
def models(qwen: Path) -> Iterator[tuple[LocalModel, LocalModel]]:
    with ExitStack() as stack:
        here, apart = (
            stack.enter_context(closing(load_model(qwen, ctx=2048, in_kernel=not own, isolated=own))) for own in (False, True)
        )
        assert (here.own_process, apart.own_process != 0) == (0, True)
        yield here, apart


def told(event: Event) -> Event:
    """The event without what differs from run to run: times, random ids, and the turn's name."""
    match event:
        case TurnStart():
            return replace(event, turn="", model="")
        case ModelEnd():
            event = replace(event, usage=timeless(event.usage), record={**event.record, "model": None})
            calls = tuple(replace(call, id="") for call in event.message.tool_calls)
            return replace(event, message=replace(event.message, tool_calls=calls))
        case ToolEnd():
            return replace(event, result=replace(event.result, call_id=""), seconds=0.0)
        case TurnEnd():
            return replace(event, usage=timeless(event.usage), seconds=0.0)
    if hasattr(event, "call"):
        return replace(event, call=replace(event.call, id=""))  # type: ignore[type-var]
    return replace(event, id="") if hasattr(event, "id") else event  # type: ignore[type-var]


def timeless(usage: Usage) -> Usage:
    return replace(usage, prompt_seconds=0.0, completion_seconds=0.0, time_to_first_token=0.0)


ASKED: list[tuple[str, dict[str, Any]]] = [
    ("Name three rivers.", {"max_tokens": 24}),
    ("What is the weather in Paris?", {"tools": [weather], "max_tokens": 60}),
    ("And in Oslo?", {"tools": [weather], "tool_choice": "required", "max_tokens": 60}),
    ("Which city did I ask for first?", {"response_schema": CITY, "max_tokens": 40}),
    ("Say more.", {"max_tokens": 8, "record": True, "logprobs": 2}),
]


@pytest.mark.model
def test_greedy_turns_are_the_same_event_by_event_in_the_kernel_and_isolated(models: tuple[LocalModel, LocalModel]) -> None:
    traces: list[list[Event]] = []
    for model in models:
        session = Session(model, seed=0)
        session.configure(temperature=0)
        traces.append([told(event) for text, more in ASKED for event in session.turn(text, **more)])
    here, apart = traces
    assert [type(event).__name__ for event in here] == [type(event).__name__ for event in apart]
    for mine, other in zip(here, apart, strict=True):
        assert mine == other
    assert any(isinstance(event, ToolEnd) for event in here)
    assert sum(isinstance(event, TextDelta) for event in here) > 20


@pytest.mark.model
@pytest.mark.skipif(sys.platform == "win32", reason="needs a POSIX signal")
def test_a_child_killed_in_a_turn_ends_that_turn_and_the_next_one_is_right(models: tuple[LocalModel, LocalModel]) -> None:
    _, apart = models
    session = Session(apart, seed=0)
    session.configure(temperature=0)
    expected = session.fork("alone").ask("Name three rivers.", max_tokens=16).text
    seen = []
    with pytest.raises(EngineDiedError, match="SIGKILL"):
        for event in session.turn("Write a very long story.", max_tokens=400):
            seen.append(event)
            if isinstance(event, TextDelta) and sum(isinstance(one, TextDelta) for one in seen) == 3:
                os.kill(first := apart.own_process, signal.SIGKILL)
    assert apart.own_process == first  # nothing is loaded again before the next turn
    assert isinstance(seen[-1], TurnEnd)
    assert seen[-1].finish_reason == "error"
    assert [message.role for message in session.history] == ["user", "assistant"]
    reply = session.ask("Go on.", max_tokens=8)
    assert "the model was loaded again" in " ".join(reply.usage.losses)
    assert session.fork("alone", turns=()).ask("Name three rivers.", max_tokens=16).text == expected


@pytest.mark.model
@pytest.mark.skipif(sys.platform == "win32", reason="needs a POSIX signal")
def test_a_child_killed_in_a_map_costs_the_rows_that_ran(
    models: tuple[LocalModel, LocalModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, apart = models
    apart.engine.tokenize("", special=False)  # starts a process, if an earlier test has killed it
    first, submit, number = apart.own_process, apart.engine.submit, itertools.count()

    def struck(request: GenerateRequest) -> Generation:
        if next(number) == 6:
            os.kill(first, signal.SIGKILL)
        return submit(request)

    monkeypatch.setattr(apart.engine, "submit", struck)
    rows = [f"Say the number {n}." for n in range(16)]
    result = apart.map(rows, max_tokens=8, temperature=0, concurrency=2, progress=False)
    assert set(map(type, result.errors.values())) == {EngineDiedError}
    assert len(result.errors) <= 3
    assert apart.own_process != first
    again = apart.map(rows, max_tokens=8, temperature=0, concurrency=2, resume=result, progress=False)
    assert (again.errors, again.pending) == ({}, [])


@pytest.mark.model
def test_unloading_ends_the_process_with_all_its_memory(smollm: Path) -> None:
    model = load_model(smollm, ctx=512, isolated=True)
    child = psutil.Process(model.own_process)
    assert child.memory_info().rss > 50 * 2**20
    model.close()
    assert not child.is_running()


def test_a_device_isolates_unless_told_otherwise() -> None:
    cpu, gpu, draft = (EngineConfig("m", n_gpu_layers=n, draft_gpu_layers=d) for n, d in ((0, 0), (-1, 0), (0, -1)))
    assert [LoadSettings().isolates(one) for one in (cpu, gpu, draft)] == [False, True, True]
    assert [LoadSettings(in_kernel=True).isolates(one) for one in (cpu, gpu, draft)] == [False] * 3
    assert [LoadSettings(isolated=True).isolates(one) for one in (cpu, gpu, draft)] == [True] * 3
    with pytest.raises(OptionError, match="process of its own or in this kernel"):
        LoadSettings(isolated=True, in_kernel=True)
