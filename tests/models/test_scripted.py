import itertools
import json
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_magics import ScriptedModel
from llm_magics.errors import EngineError, ModelError
from llm_magics.events import ModelEnd, TextDelta, ToolCallDelta, assemble
from llm_magics.messages import Message, ToolCall, ToolSpec, assistant, system, user
from llm_magics.models.base import Model, Request, Sampling
from tests.chat.formats import OWN, format_of

HELLO = Request((system("Be brief."), user("Hello?")))
CALL = ToolCall("weather", '{"city": "Oslo"}', "c1")


def end_of(model: Model, request: Request = HELLO) -> ModelEnd:
    *_, end = model.stream(request)
    assert isinstance(end, ModelEnd)
    return end


def test_it_is_a_model() -> None:
    assert isinstance(ScriptedModel("hi"), Model)


@given(st.text(), st.text(), st.lists(st.builds(ToolCall, st.text(), st.text(), st.just("c1")), max_size=3))
def test_the_events_of_a_scripted_message_fold_to_its_end(text: str, reasoning: str, calls: list[ToolCall]) -> None:
    said = assistant(text, reasoning=reasoning, tool_calls=tuple(calls))
    events = list(ScriptedModel([said]).stream(HELLO))
    assert [type(e) for e in events].count(ModelEnd) == 1
    end = events[-1]
    assert isinstance(end, ModelEnd)
    assert assemble(events) == end.message
    assert (end.message.text, end.message.reasoning, end.message.tool_calls) == (text, reasoning, tuple(calls))
    assert end.finish_reason == ("tool_calls" if calls else "stop")


@pytest.mark.parametrize(
    ("step", "message"),
    [
        ("hi", assistant("hi")),
        (assistant("hi", reasoning="hm"), assistant("hi", reasoning="hm")),
        (CALL, assistant(tool_calls=(CALL,))),
        ([CALL, CALL], assistant(tool_calls=(CALL, CALL))),
        (lambda request: f"You said {request.messages[-1].text}", assistant("You said Hello?")),
        (lambda request: lambda again: CALL, assistant(tool_calls=(CALL,))),
    ],
)
def test_a_step_may_be_text_a_message_calls_or_a_function(step: object, message: Message) -> None:
    said = end_of(ScriptedModel([step])).message
    assert (said.text, said.reasoning, said.tool_calls) == (message.text, message.reasoning, message.tool_calls)


def test_a_single_step_needs_no_list_and_a_script_may_be_endless() -> None:
    assert end_of(ScriptedModel("hi")).message.text == "hi"
    endless = ScriptedModel(itertools.repeat("again"))
    assert [end_of(endless).message.text for _ in range(50)] == ["again"] * 50


def test_a_call_without_an_id_gets_one_that_is_unique_in_the_conversation() -> None:
    model = ScriptedModel([[ToolCall("a", "{}"), ToolCall("b", "{}")], ToolCall("a", "{}")])
    ids = [call.id for _ in range(2) for call in end_of(model).message.tool_calls]
    assert len(set(ids)) == 3
    assert all(ids)


def test_an_exception_is_raised_and_the_next_step_is_played() -> None:
    model = ScriptedModel([OSError("the disk is gone"), "still here"])
    with pytest.raises(OSError, match="disk"):
        list(model.stream(HELLO))
    assert end_of(model).message.text == "still here"


def test_a_script_that_has_ended_says_so() -> None:
    model = ScriptedModel(["one"])
    end_of(model)
    with pytest.raises(ModelError, match="no step for request 2"):
        list(model.stream(HELLO))


def test_a_closed_model_says_so() -> None:
    model = ScriptedModel(["one"])
    model.close()
    with pytest.raises(EngineError, match="closed"):
        list(model.stream(HELLO))


def test_closing_the_stream_early_leaves_the_model_ready() -> None:
    model = ScriptedModel(["a long answer " * 100, "next"])
    with closing(model.stream(HELLO)) as events:
        for event in events:
            if isinstance(event, TextDelta):
                break
    assert end_of(model).message.text == "next"


def test_max_tokens_cuts_the_answer_and_says_length() -> None:
    end = end_of(ScriptedModel("word " * 50), Request(HELLO.messages, max_tokens=3))
    assert end.finish_reason == "length"
    assert end.usage.completion_tokens == 3
    assert len("word") <= len(end.message.text) < len("word " * 50)


def test_a_call_cut_by_max_tokens_is_no_call() -> None:
    end = end_of(ScriptedModel(CALL), Request(HELLO.messages, max_tokens=1))
    assert end.finish_reason == "length"
    assert end.message.tool_calls == ()


def test_a_full_context_ends_the_answer_with_length() -> None:
    end = end_of(ScriptedModel("word " * 50, context_size=30))
    assert end.finish_reason == "length"
    assert end.usage.context_used == 30 == end.usage.context_size


@given(st.text(alphabet="ab\n ", max_size=40), st.text(alphabet="ab\n", min_size=1, max_size=3))
def test_a_stop_string_ends_the_text_and_is_no_part_of_it(text: str, stop: str) -> None:
    events = list(ScriptedModel([text]).stream(Request(HELLO.messages, stop=(stop,))))
    assert assemble(events).text == text.split(stop)[0]


def test_usage_counts_the_prefix_shared_with_the_conversation_s_last_prompt() -> None:
    model = ScriptedModel(itertools.repeat("yes"))
    first = end_of(model, Request((user("one two three"),), conversation="main")).usage
    longer = Request((user("one two three"), assistant("yes"), user("four")), conversation="main")
    second, again, other = (end_of(model, r).usage for r in (longer, longer, Request(longer.messages, conversation="b")))
    assert first.cached_tokens == 0
    assert second.cached_tokens == first.prompt_tokens
    assert again.evaluated_tokens == 1
    assert other.cached_tokens == 0
    assert all(u.prompt_tokens == u.cached_tokens + u.evaluated_tokens for u in (first, second, again, other))


def test_preview_is_the_prompt_in_parts_and_takes_no_step() -> None:
    model = ScriptedModel(["only step"])
    parts = model.preview(HELLO)
    assert [part.origin for part in parts] == ["system", "user"]
    assert all(part.token_ids for part in parts)
    recorded = end_of(model, replace(HELLO, known=())).recording
    assert recorded["prompt"] == "".join(part.text for part in parts)
    assert recorded["prompt_token_ids"] == [token for part in parts for token in part.token_ids]


def test_requests_are_kept_for_a_test_to_look_at() -> None:
    model = ScriptedModel(["hi"])
    request = Request(HELLO.messages, sampling=Sampling(seed=7))
    assert end_of(model, request).record["sampling"]["seed"] == 7
    assert model.requests == [request]


def test_a_pace_spreads_the_tokens_over_time(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("time.perf_counter", lambda: now[0])
    monkeypatch.setattr("time.sleep", lambda seconds: now.__setitem__(0, now[0] + seconds))
    usage = end_of(ScriptedModel("word " * 10, tokens_per_second=200)).usage
    assert usage.tokens_per_second == pytest.approx(200)
    assert usage.time_to_first_token == pytest.approx(1 / 200)


def test_arguments_stream_in_pieces_that_make_up_the_call() -> None:
    pieces = [e.text for e in ScriptedModel(CALL).stream(HELLO) if isinstance(e, ToolCallDelta)]
    assert len(pieces) > 1
    assert "".join(pieces) == CALL.arguments


WEATHER = ToolSpec("weather", "Tell the weather.", {"type": "object", "properties": {"city": {"type": "string"}}})


@pytest.mark.parametrize("path", sorted(OWN.glob("*.jinja")), ids=lambda path: path.stem)
def test_under_a_template_text_is_what_the_model_writes_and_is_parsed_so(path: Path) -> None:
    form = format_of(path)
    asked = (user("How is the weather?"),)
    before = form.render(asked, tools=[WEATHER]).text
    history = (*asked, assistant(tool_calls=(replace(CALL, id="abcdefghi"),)))
    raw = form.render(history, tools=[WEATHER], add_generation_prompt=False).text.removeprefix(before)
    model = ScriptedModel([raw, "It is cold."], template=form)
    end = end_of(model, Request(asked, (WEATHER,), known=()))
    assert [(c.name, json.loads(c.arguments)) for c in end.message.tool_calls] == [("weather", {"city": "Oslo"})]
    assert end.finish_reason == "tool_calls"
    assert end.recording["prompt"] == before == "".join(part.text for part in model.preview(Request(asked, (WEATHER,))))
    said = end_of(model, Request(asked)).message
    assert said.reasoning + said.text == "It is cold."  # where the generation prompt opens a thought, it is one


def test_a_template_may_be_given_as_its_source() -> None:
    model = ScriptedModel(["hello"], template=(OWN / "json.jinja").read_text())
    assert end_of(model).message.text == "hello"
