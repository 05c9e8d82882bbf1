import json
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_magics.errors import TranscriptError
from llm_magics.events import (
    ModelEnd,
    Notice,
    PromptProgress,
    ReasoningDelta,
    TextDelta,
    ToolCallDelta,
    ToolCallEnd,
    ToolCallStart,
    ToolEnd,
    ToolProgress,
    ToolStart,
    TurnStart,
    assemble,
)
from llm_magics.messages import Message, ToolCall, ToolResult
from llm_magics.segments import NoticeSegment, TextSegment
from llm_magics.transcript import Transcript

from .turns import Turn, turns

CALL = ToolCall("weather", '{"city": "Oslo"}', "c1")
START = TurnStart("t1", "main", "scripted", "hello")
WRITTEN = (ToolCallStart(0, "c1", "weather"), ToolCallDelta(0, CALL.arguments), ToolCallEnd(0, CALL))


def without_ids(transcript: Transcript) -> tuple[Message, ...]:
    return tuple(replace(message, token_ids=()) for message in transcript.messages())


@given(turns())
def test_folding_a_turn_gives_the_messages_that_its_steps_ended_with(turn: Turn) -> None:
    assert Transcript.of(turn.events).messages() == turn.messages


@given(turns())
def test_each_step_reads_as_assemble_folds_it(turn: Turn) -> None:
    answers = [m for m in Transcript.of(turn.events).messages() if m.role == "assistant"]
    step: list = []
    for event in turn.events:
        step.append(event)
        if isinstance(event, ModelEnd):
            folded, answer = assemble(step), answers.pop(0)
            assert (answer.text, answer.reasoning, answer.tool_calls) == (folded.text, folded.reasoning, folded.tool_calls)
            step = []
    assert not answers


@given(turns())
def test_the_saved_form_survives_json_and_gives_the_same_transcript(turn: Turn) -> None:
    transcript = Transcript.of(turn.events)
    again = Transcript.from_json(json.loads(json.dumps(transcript.to_json())))
    assert again.to_json() == transcript.to_json()
    if transcript.recorded:
        assert again == transcript
        assert again.messages() == transcript.messages()
    else:  # token ids and raw texts stay behind
        assert again.messages() == without_ids(transcript)
        assert not any(step.token_ids or step.recording for step in again.steps)


@given(turns(), st.data())
def test_a_turn_cut_anywhere_is_valid_history_and_can_be_saved(turn: Turn, data: st.DataObject) -> None:
    shown = turn.events[: data.draw(st.integers(1, len(turn.events)))]
    transcript = Transcript.of(shown).finish("interrupted")
    pending: list[str] = []
    for message in transcript.messages():
        if message.role == "tool":
            assert message.tool_call_id == pending.pop(0)
        else:
            assert not pending
            pending = [call.id for call in message.tool_calls]
    assert not pending
    assert transcript.state != "running"
    messages = transcript.messages() if transcript.recorded else without_ids(transcript)
    assert Transcript.from_json(transcript.to_json()).messages() == messages


@given(turns(), st.data())
@settings(max_examples=50)
def test_how_the_text_was_cut_into_deltas_does_not_show(turn: Turn, data: st.DataObject) -> None:
    merged: list = []
    for event in turn.events:
        last = merged[-1] if merged else None
        if isinstance(event, (TextDelta, ReasoningDelta)) and type(last) is type(event):
            merged[-1] = type(event)(last.text + event.text)
        else:
            merged.append(event)
    assert Transcript.of(merged) == Transcript.of(turn.events)


def test_a_notice_inside_an_answer_does_not_cut_its_text_in_two() -> None:
    transcript = Transcript.of([START, TextDelta("```py\n"), Notice("slow"), TextDelta("x = 1\n```")])
    assert transcript.segments == (TextSegment("```py\nx = 1\n```"), NoticeSegment("slow"))


def test_calls_of_two_steps_with_the_same_index_stay_apart() -> None:
    done = ToolEnd(0, ToolResult("c1", "weather", "4 degrees"))
    end = ModelEnd(Message("assistant", tool_calls=(CALL,)), "tool_calls")
    first = Transcript.of([START, *WRITTEN, end, ToolStart(0, CALL), ToolProgress(0, "asking\n"), done])
    both = first
    for event in (*WRITTEN, end, ToolStart(0, CALL), ToolProgress(0, "again\n")):
        both = both.fold(event)
    assert [(s.step, s.state, s.printed) for s in both.tools] == [(0, "done", "asking\n"), (1, "running", "again\n")]


def test_a_call_that_was_cut_off_is_shown_and_is_no_call() -> None:
    transcript = Transcript.of([START, *WRITTEN[:2], ModelEnd(Message("assistant"), "length")])
    assert transcript.tools[0].state == "cut"
    assert [m.tool_calls for m in transcript.messages() if m.role == "assistant"] == [()]


def test_the_prompt_s_progress_is_gone_with_the_first_word() -> None:
    transcript = Transcript.of([START, PromptProgress(8, 16)])
    assert transcript.progress == (8, 16)
    assert transcript.fold(TextDelta("a")).progress is None


def test_a_snapshot_leaves_the_record_out_and_can_be_read() -> None:
    end = ModelEnd(Message("assistant", "hi", token_ids=(1, 2)), "stop", record={"model": {"name": "x"}})
    data = Transcript.of([START, TextDelta("hi"), end]).to_json(record=False)
    assert "steps" not in data
    assert "settings" not in data
    assert Transcript.from_json(data).text == "hi"


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"version": 3}, "versions 1, 2.*version 3.*Update"),
        ({"version": True}, "version True"),
        ({"version": "2"}, "version '2'"),
        ({"recorded": 1}, "'recorded'"),
        ({"steps": [{"finish_reason": "stop", "usage": {}, "token_ids": [1.5]}]}, "'token_ids'"),
        ({"turn": 3}, "'turn'"),
        ({"state": "odd"}, "'state'"),
        ({"segments": [{"type": "video", "step": 0}]}, "'type'"),
        ({"segments": [{"type": "text", "step": True, "text": ""}]}, "'step'"),
        ({"segments": [{"type": "tool", "step": 0, "index": 0, "name": "", "id": "", "arguments": 1}]}, "'arguments'"),
        ({"segments": "none"}, "'segments'"),
        ({"usage": {"prompt_tokens": "3"}}, "'usage'"),
        ({"progress": {"done": 1}}, "'total'"),
        ({"steps": [{"finish_reason": "stop", "usage": {}, "token_ids": "1"}]}, "'token_ids'"),
    ],
)
def test_a_damaged_transcript_is_refused_by_name(change: dict, named: str) -> None:
    with pytest.raises(TranscriptError, match=named):
        Transcript.from_json(Transcript.of([START, TextDelta("hi")]).to_json() | change)


@pytest.mark.parametrize("data", [None, [], "text", 3, {}])
def test_what_is_no_transcript_at_all_is_refused(data: object) -> None:
    with pytest.raises(TranscriptError):
        Transcript.from_json(data)


def test_keys_of_a_later_minor_form_are_ignored() -> None:
    data = Transcript.of([START, TextDelta("hi")]).to_json()
    data["colour"] = "blue"
    data["segments"][0]["weight"] = 3
    data["usage"]["joules"] = 1
    assert Transcript.from_json(data).text == "hi"
