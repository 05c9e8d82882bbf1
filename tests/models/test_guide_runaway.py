"""The guide of an answer whose calls do not end: it stops the model, and the calls that are complete come out."""

from __future__ import annotations

import json

import pytest

from llm_magics.chat.encodings.writer import write_calls
from llm_magics.chat.recovery.units import Units
from llm_magics.events import ModelEnd, ToolCallStart, assemble
from llm_magics.messages import ToolCall, ToolSpec, user
from llm_magics.models.base import Request
from llm_magics.models.guide import ChatGuide, make_guide
from llm_magics.tools.runaway import CallLimit

from .test_guide import FORMAT, START

WORDS = ["ash", "bee", "cow", "dew", "elk", "fig", "gnu", "hen", "ivy", "jay", "kid", "log"]
LOOK = ToolSpec("look", "Look.", {"type": "object", "properties": {"at": {"type": "string"}}, "required": ["at"]})


def guide() -> ChatGuide:
    request = Request((user("Look around."),), (LOOK,), call_limit=CallLimit(own=6, recovered=5))
    prompt = FORMAT.render(request.messages, tools=request.tools)
    return make_guide(FORMAT, prompt, request, frozenset({START.strip()}))


def arguments(n: int, series: bool) -> list[str]:
    return [json.dumps({"at": f"page {i}" if series else WORDS[i % 12] + "x" * (i // 12)}) for i in range(n)]


def own(texts: list[str]) -> str:
    return str(write_calls(FORMAT.tools, [ToolCall("look", text) for text in texts]))


def objects(texts: list[str]) -> list[str]:
    return [f'{{"name": "look", "arguments": {text}}}' for text in texts]


WRAPPERS = {
    "own": own,
    "array": lambda texts: "[" + ",\n".join(objects(texts)) + "]",
    "fenced array": lambda texts: "```json\n[" + ", ".join(objects(texts)) + "]\n```",
    "lines": lambda texts: "\n".join(objects(texts)),
    "fences": lambda texts: "\n".join(f"```json\n{one}\n```" for one in objects(texts)),
    "keyword calls": lambda texts: "[" + ", ".join(f"look(at={json.loads(text)['at']!r})" for text in texts) + "]",
}


@pytest.mark.parametrize("wrapper", sorted(WRAPPERS))
@pytest.mark.parametrize("series", [False, True])
@pytest.mark.parametrize("step", [1, 3, 7])
def test_calls_without_end_are_stopped_and_the_complete_ones_come_out(wrapper: str, series: bool, step: int) -> None:
    n = 4 if series else 6 if wrapper == "own" else 5
    texts = arguments(16, series)
    written = WRAPPERS[wrapper](texts)
    watched = guide()
    steps = [watched.start()]
    for at in range(0, len(written), step):
        steps.append(watched.feed(written[at : at + step]))
        if steps[-1].stop:
            break
    assert steps[-1].stop
    assert at < len(WRAPPERS[wrapper](texts[: n + 1])) + step
    steps.append(watched.finish("stop"))
    events = [event for one in steps for event in one.events]
    end = events[-1]
    assert isinstance(end, ModelEnd)
    assert ("differ in one number" if series else f"after {n} calls") in end.stopped
    kept = [(call.name, json.loads(call.arguments)) for call in end.message.tool_calls]
    assert kept == [("look", json.loads(text)) for text in texts[: len(kept)]]
    assert len(kept) == n
    assert assemble(events) == end.message  # type: ignore[arg-type]
    assert len([event for event in events if isinstance(event, ToolCallStart)]) == len(kept)
    assert end.message.text.strip() == ""
    assert all(call.trusted for call in end.message.tool_calls)
    assert end.finish_reason == "tool_calls"


@pytest.mark.parametrize("wrapper", sorted(WRAPPERS))
@pytest.mark.parametrize("series", [False, True])
def test_calls_up_to_a_limit_pass(wrapper: str, series: bool) -> None:
    watched = guide()
    watched.start()
    text = WRAPPERS[wrapper](arguments(4, series))
    assert not any(watched.feed(character).stop for character in text)
    end = watched.finish("stop").events[-1]
    assert isinstance(end, ModelEnd)
    assert end.stopped == ""
    assert len(end.message.tool_calls) == 4


def test_no_limit_stops_nothing() -> None:
    request = Request((user("Look around."),), (LOOK,))
    watched = make_guide(FORMAT, FORMAT.render(request.messages, tools=request.tools), request, frozenset())
    watched.start()
    assert not any(watched.feed(character).stop for character in own(arguments(20, True)))


@pytest.mark.parametrize(
    ("text", "calls", "begun"),
    [
        ('{"a": {"b": "}"}}', ['{"a": {"b": "}"}}'], False),
        ('[{"a": 1}, {"a": "{', ['{"a": 1}'], True),
        ('```json\n{"a": "\\"}"}\n```\n```json\n{', ['{"a": "\\"}"}'], True),
        ("f(a=')', b=\"it's\")\ng(", ["(a=')', b=\"it's\")"], True),
        ('{"a": "it\'s"} {"b": 2}', ['{"a": "it\'s"}', '{"b": 2}'], False),
        ("<tag>", [], False),
        ("]})", [], False),
    ],
)
def test_units_are_balanced_stretches(text: str, calls: list[str], begun: bool) -> None:
    units = Units()
    for character in text:
        units.take(character)
    assert ([text[start:end] for start, end in units.spans], units.begun) == (calls, begun)


@pytest.mark.parametrize("wrapper", ["lines", "fences", "array", "keyword calls"])
def test_of_a_call_written_over_and_over_no_half_one_is_left_as_text(wrapper: str) -> None:
    watched = guide()
    watched.start()
    for character in WRAPPERS[wrapper](['{"at": "f(1), f(2)"}'] * 9):
        if watched.feed(character).stop:
            break
    events = watched.finish("stop").events
    end = events[-1]
    assert isinstance(end, ModelEnd)
    assert end.message.text.strip() == ""
    assert {call.arguments.replace(" ", "") for call in end.message.tool_calls} == {'{"at":"f(1),f(2)"}'}
