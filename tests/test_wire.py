"""The wire form: both directions agree (law 4), foreign streams are read, and bad JSON is named by its path."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_magics.errors import WireError
from llm_magics.events import (
    ModelEnd,
    ModelEvent,
    PromptProgress,
    ReasoningDelta,
    TextDelta,
    ToolCallDelta,
    ToolCallEnd,
    ToolCallStart,
    Usage,
    assemble,
)
from llm_magics.messages import ImagePart, Message, TextPart, ToolCall, ToolSpec
from llm_magics.wire import (
    ChunkDecoder,
    Envelope,
    chunks_from_openai,
    chunks_to_openai,
    completion_from_openai,
    completion_to_openai,
    messages_from_openai,
    messages_to_openai,
    response_format_from_openai,
    response_format_to_openai,
    tool_choice_from_openai,
    tool_choice_to_openai,
    tools_from_openai,
    tools_to_openai,
)

words = st.text("aé😀 \n\"{}", min_size=1, max_size=8)
names = st.sampled_from(["f", "get_weather", "math.now"])
arguments = st.sampled_from(['{"a": 1}', "{}"])
calls = st.builds(ToolCall, names, arguments, st.text("ab12", min_size=1), st.sampled_from(["", "bare"]), st.booleans())


@st.composite
def steps(draw: st.DrawFn) -> list[ModelEvent]:
    """The events of one model step: progress, text and reasoning between calls, the last of which may be cut off."""
    events: list[ModelEvent] = [PromptProgress(i, 9) for i in range(draw(st.integers(0, 2)))]
    index = 0
    for _ in range(draw(st.integers(0, 5))):
        kind = draw(st.sampled_from(["text", "reasoning", "call"]))
        if kind != "call":
            events.append((TextDelta if kind == "text" else ReasoningDelta)(draw(words)))
            continue
        call = draw(calls)
        cut = draw(st.integers(0, len(call.arguments)))
        events.append(ToolCallStart(index, call.id, call.name, call.recovered))
        events += [ToolCallDelta(index, part) for part in (call.arguments[:cut], call.arguments[cut:]) if part]
        events.append(ToolCallEnd(index, call))
        index += 1
    reason = draw(st.sampled_from(["stop", "length", "tool_calls", "interrupted", "error"]))
    if reason in ("length", "interrupted") and draw(st.booleans()):
        events += [ToolCallStart(index, "cut", "f"), ToolCallDelta(index, '{"a')]
    usage = Usage(draw(st.integers(0, 99)), 3, 4, 5, 0.5, 0.25, losses=("x",))
    notes = tuple(draw(st.lists(words, max_size=2)))
    return [*events, ModelEnd(assemble(events, reason), reason, usage, notes=notes)]


@settings(max_examples=200, deadline=None)
@given(steps())
def test_decoding_what_was_encoded_gives_the_same_events(events: list[ModelEvent]) -> None:
    wire = json.loads(json.dumps(chunks_to_openai(events)))
    assert chunks_from_openai(wire) == events


@settings(max_examples=100, deadline=None)
@given(steps())
def test_chunks_keep_the_form_that_clients_rely_on(events: list[ModelEvent]) -> None:
    chunks = chunks_to_openai(events, Envelope("chatcmpl-7", 1, "m"))
    assert {(c["id"], c["object"], c["model"]) for c in chunks} == {("chatcmpl-7", "chat.completion.chunk", "m")}
    deltas = [choice["delta"] for c in chunks for choice in c["choices"]]
    assert [d.get("role") for d in deltas] == ["assistant", *[None] * (len(deltas) - 1)]
    seen: set[int] = set()
    for call in (call for d in deltas for call in d.get("tool_calls", ())):
        assert isinstance(call["index"], int)
        assert ("id" in call) == ("name" in call["function"]) == (call["index"] not in seen)
        seen.add(call["index"])
    reasons = [choice["finish_reason"] for c in chunks for choice in c["choices"]]
    assert [r for r in reasons if r] == [reasons[-1]]
    assert chunks[-1]["choices"] == []
    assert set(chunks[-1]["usage"]) >= {"prompt_tokens", "completion_tokens", "total_tokens"}


@settings(max_examples=100, deadline=None)
@given(steps())
def test_a_whole_completion_comes_back(events: list[ModelEvent]) -> None:
    end = events[-1]
    assert isinstance(end, ModelEnd)
    assert completion_from_openai(json.loads(json.dumps(completion_to_openai(end)))) == end


def _foreign(*deltas: dict[str, Any], finish: str = "tool_calls") -> list[ModelEvent]:
    chunks = [{"object": "chat.completion.chunk", "choices": [{"index": 0, "delta": d, "finish_reason": None}]} for d in deltas]
    return chunks_from_openai([*chunks, {"choices": [{"index": 0, "delta": {}, "finish_reason": finish}]}])


def test_calls_of_other_servers_end_with_the_stream() -> None:
    first = {"tool_calls": [{"index": 0, "id": "a", "function": {"name": "f", "arguments": ""}}]}
    more = {"tool_calls": [{"index": 0, "function": {"arguments": '{"x":'}}]}
    rest = {"tool_calls": [{"index": 0, "function": {"arguments": " 1}"}}]}
    second = {"tool_calls": [{"index": 1, "id": "b", "function": {"name": "g", "arguments": "{}"}}]}
    end = _foreign({"role": "assistant", "content": None}, first, more, rest, second)[-1]
    assert isinstance(end, ModelEnd)
    assert end.message.tool_calls == (ToolCall("f", '{"x": 1}', "a"), ToolCall("g", "{}", "b"))
    cut = _foreign(first, more, finish="length")[-1]
    assert isinstance(cut, ModelEnd)
    assert cut.message.tool_calls == ()
    assert cut.finish_reason == "length"


def test_an_error_in_a_stream_is_raised() -> None:
    with pytest.raises(WireError, match="overloaded"):
        ChunkDecoder().feed({"error": {"message": "overloaded"}})


MESSAGES = (
    Message("system", "Be brief."),
    Message("user", (TextPart("What is this?"), ImagePart("data:,x", "a cat"))),
    Message("assistant", "", "hm", (ToolCall("f", '{"a": 1}', "1", "bare JSON", False),)),
    Message("tool", "boom", tool_call_id="1", name="f", is_error=True),
    Message("assistant", "A cat."),
)


def test_messages_come_back() -> None:
    wire = json.loads(json.dumps(messages_to_openai(MESSAGES)))
    assert messages_from_openai(wire) == MESSAGES
    assert wire[2]["content"] is None
    assert wire[3]["tool_call_id"] == "1"


def test_tools_choices_and_formats_come_back() -> None:
    tools = (ToolSpec("f", "Does it.", {"type": "object", "properties": {"a": {"type": "integer"}}}), ToolSpec("g"))
    assert tools_from_openai(json.loads(json.dumps(tools_to_openai(tools)))) == tools
    for choice in ("auto", "none", "required", "f"):
        assert tool_choice_from_openai(tool_choice_to_openai(choice), tools) == choice
    schema = {"type": "object"}
    assert response_format_from_openai(response_format_to_openai(schema)) == schema
    assert response_format_from_openai(response_format_to_openai(None)) is None
    assert response_format_from_openai({"type": "json_object"}) == {"type": "object"}
    assert tools_from_openai(None) == ()
    assert tool_choice_from_openai(None) == "auto"


WRONG: list[tuple[Any, Any, str]] = [
    (messages_from_openai, {}, "messages"),
    (messages_from_openai, ["x"], "messages[0]"),
    (messages_from_openai, [{"role": "robot"}], "messages[0].role"),
    (messages_from_openai, [{"role": "user", "content": 3}], "messages[0].content"),
    (messages_from_openai, [{"role": "user", "content": [{"type": "text"}]}], "messages[0].content[0].text"),
    (messages_from_openai, [{"role": "user", "content": [{"type": "sound"}]}], "messages[0].content[0].type"),
    (messages_from_openai, [{"role": "tool", "tool_calls": [{}]}], "messages[0].tool_calls[0].function"),
    (messages_from_openai, [{"role": "tool", "tool_calls": [{"function": {}}]}], "messages[0].tool_calls[0].function.name"),
    (tools_from_openai, [{"type": "web"}], "tools[0].type"),
    (tools_from_openai, [{"function": {"name": ""}}], "tools[0].function.name"),
    (tools_from_openai, [{"function": {"name": "f"}}] * 2, "tools[1].function.name"),
    (tools_from_openai, [{"function": {"name": "f", "parameters": []}}], "tools[0].function.parameters"),
    (tool_choice_from_openai, "maybe", "tool_choice"),
    (tool_choice_from_openai, {"function": {}}, "tool_choice.function.name"),
    (response_format_from_openai, {"type": "xml"}, "response_format.type"),
    (response_format_from_openai, {"type": "json_schema"}, "response_format.json_schema"),
    (completion_from_openai, {"choices": []}, "completion.choices"),
    (chunks_from_openai, [{"choices": [{"delta": {"tool_calls": [{}]}}]}], "chunks[0].choices[0].delta.tool_calls[0].index"),
]


@pytest.mark.parametrize(("read", "value", "path"), WRONG, ids=[path for _, _, path in WRONG])
def test_bad_json_is_named_by_its_path(read: Any, value: Any, path: str) -> None:
    with pytest.raises(WireError) as caught:
        read(value)
    assert caught.value.what.startswith(path)
    assert caught.value.next_action


def test_a_choice_that_names_no_tool_is_refused() -> None:
    with pytest.raises(WireError):
        tool_choice_from_openai({"type": "function", "function": {"name": "g"}}, (ToolSpec("f"),))
