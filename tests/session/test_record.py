"""What a saved turn keeps: hashes and settings always, what a replay needs with ``record``; linear in the number of turns."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given

from llm_magics import Message, ScriptedModel, Session, ToolCall, load_model
from llm_magics.canonical import canonical, hash_of
from llm_magics.events import Event, ModelEnd, PromptProgress, TurnEnd, assemble
from llm_magics.models.base import Request, Sampling
from llm_magics.models.local import LocalModel
from llm_magics.segments import Step
from llm_magics.session.record import Recorder, SchemaBook, request_hashes, sequence_of
from llm_magics.tools.define.tool import as_tool
from llm_magics.transcript import Transcript
from llm_magics.wire import messages_to_openai
from tests.turns import Turn, turns

CALL = ToolCall("measured", '{"place": "Oslo"}', "c1")


def measured(place: str) -> list[int]:
    """Give the temperatures that were measured at a place."""
    return [1, 2, 3]


def saved(session: Session) -> list[dict[str, Any]]:
    """The session's turns as a notebook keeps them, through JSON."""
    return [json.loads(json.dumps(turn.trace.to_json())) for turn in session.turns]


def scripted() -> Iterator[Any]:
    for n in itertools.count():
        yield replace(CALL, id=f"c{n}")
        yield "It gets warmer."


def talk(n_turns: int, **settings: Any) -> Session:
    session = Session(ScriptedModel(scripted()), [measured], "You know the weather.", **settings)
    for at in range(n_turns):
        session.ask(f"Question {at:03}?")
    return session


# --- growth -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("record", [False, True])
def test_each_turn_adds_as_many_bytes_as_the_one_before(record: bool) -> None:
    sizes = [len(json.dumps(turn)) for turn in saved(talk(40, record=record))]
    assert max(sizes[20:]) - min(sizes[20:]) < 200  # numbers of more digits, ids of another length
    assert max(sizes[1:20]) + 200 > max(sizes[20:])


@pytest.mark.parametrize("record", [False, True])
def test_each_step_of_a_turn_adds_as_many_bytes_as_the_one_before(record: bool) -> None:
    steps = [ToolCall("measured", json.dumps({"place": f"town {n:03}"}), f"c{n:03}") for n in range(30)]
    session = Session(ScriptedModel([*steps, "Done."]), [measured], max_steps=40, record=record)
    session.ask("Ask for every town.")
    sizes = [len(json.dumps(step)) for step in saved(session)[0]["steps"]]
    assert len(sizes) == 31
    assert max(sizes[1:30]) - min(sizes[1:30]) < 100


# --- what is there without record ---------------------------------------------------------------------------------------------


def test_without_record_no_turn_repeats_what_another_one_says() -> None:
    session = Session(ScriptedModel(["An early answer.", "A late answer."]), system="A word of the system.")
    session.ask("An early question.")
    session.ask("A late question.")
    first, second = map(json.dumps, saved(session))
    assert "An early question." in first
    assert "A late question." in second
    assert "early" not in second
    assert "A word of the system." not in first + second
    assert not any(key in first + second for key in ("token_ids", "recording", "prompt_kept"))


def test_a_saved_session_goes_on_after_restore_with_the_same_messages() -> None:
    session = talk(3)
    later = Session(ScriptedModel(["As I said."]), [measured], "You know the weather.")
    later.restore(Transcript.from_json(turn) for turn in saved(session))
    assert messages_to_openai(later.history) == messages_to_openai(session.history)
    assert later.ask("And now?").text == "As I said."


def test_hashes_tell_requests_apart_by_what_differs() -> None:
    request = Request((Message("system", "Be brief."), Message("user", "hi")), sampling=Sampling(seed=1))
    plain = request_hashes(request, 0)
    changes = {
        "messages": replace(request, messages=(request.messages[0], Message("user", "ho"))),
        "system": replace(request, messages=(Message("system", "Be long."), request.messages[1])),
        "tools": replace(request, tools=(as_tool(measured).spec,)),
        "settings": replace(request, sampling=Sampling(seed=2)),
    }
    for name, changed in changes.items():
        other = request_hashes(changed, 0)
        assert {key for key in plain if plain[key] != other[key]} == {name}
    assert request_hashes(replace(request, conversation="other", priority=1), 0) == plain  # these change no answer


def test_a_turn_hashes_its_own_messages_alone() -> None:
    one, other = Session(ScriptedModel(["a", "c"])), Session(ScriptedModel(["b", "c"]))
    for session in (one, other):
        session.ask("The same question?")
        session.ask("And again?")
    (_, a), (_, b) = saved(one), saved(other)
    assert a["steps"][0]["record"]["request"] == b["steps"][0]["record"]["request"]
    assert a["steps"][0]["record"]["request"]["earlier"] == 2
    assert a["steps"][0]["record"]["request"]["messages"] == hash_of([{"role": "user", "content": "And again?"}])


def test_canonical_json_is_one_for_equal_data() -> None:
    assert canonical({"b": [1, 2.5], "a": "ä\n"}) == '{"a":"ä\\n","b":[1,2.5]}' == canonical({"a": "ä\n", "b": (1, 2.5)})
    assert hash_of("\ud800") != hash_of("\ud801")  # half a surrogate pair, as broken JSON brings it, is no error


# --- what record adds ---------------------------------------------------------------------------------------------------------


def test_a_recorded_turn_says_so_and_the_others_do_not() -> None:
    session = Session(ScriptedModel(itertools.repeat("yes")))
    session.ask("a")
    session.ask("b", record=True)
    assert [turn["recorded"] for turn in saved(session)] == [False, True]
    assert ["recording" in turn["steps"][0] for turn in saved(session)] == [False, True]


def prompts_of(model: ScriptedModel) -> list[list[int]]:
    return [[token for part in model.preview(request) for token in part.token_ids] for request in model.requests]


def chained(traces: list[Transcript]) -> list[list[int]]:
    """Every recorded prompt, whole."""
    whole = []
    for at, trace in enumerate(traces):
        for number, step in enumerate(trace.steps):
            if "prompt_kept" in step.recording:
                before, name = sequence_of([*traces[:at], replace(trace, steps=trace.steps[:number])])
                assert step.recording["prompt_kept"] == 0 or step.recording["prompt_after"] == name
                whole.append(before[: step.recording["prompt_kept"]] + list(step.recording["prompt_token_ids"]))
    return whole


def test_every_recorded_prompt_can_be_put_together_again() -> None:
    session = talk(3, record=True)
    assert isinstance(session.model, ScriptedModel)
    assert chained([Transcript.from_json(turn) for turn in saved(session)]) == prompts_of(session.model)


def test_a_turn_that_was_not_recorded_is_in_the_next_recorded_prompt() -> None:
    session = talk(2, record=True)
    session.ask("Not recorded?", record=False)
    session.ask("Recorded again?")
    assert isinstance(session.model, ScriptedModel)
    prompts = prompts_of(session.model)
    assert chained([Transcript.from_json(turn) for turn in saved(session)]) == [*prompts[:4], *prompts[6:]]


def test_a_restored_session_goes_on_recording_what_is_new_alone() -> None:
    session = talk(3, record=True)
    later = Session(ScriptedModel(["As I said."]), [measured], "You know the weather.", record=True)
    later.restore(Transcript.from_json(turn) for turn in saved(session))
    later.ask("And now?")
    recording = later.turns[-1].trace.steps[0].recording
    assert recording["prompt_kept"] > 0
    assert recording["prompt_after"] == f"{session.turns[-1].id}/1"
    assert "And now?" in recording["prompt"]
    assert "Question 000?" not in recording["prompt"]


@pytest.mark.parametrize(
    "change",
    [{"prompt_kept": "all"}, {"prompt_kept": 10**9}, {"prompt_kept": -1}, {"prompt_after": "another/0"},
     {"prompt_token_ids": None}, {"prompt_token_ids": ["a"]}],
)  # fmt: skip
def test_what_a_damaged_recording_says_is_not_built_upon(change: dict[str, Any]) -> None:
    data = saved(talk(2, record=True))
    data[1]["steps"][0]["recording"] |= change
    data[1]["steps"].pop()
    assert sequence_of([Transcript.from_json(turn) for turn in data]) == ([], "")


def test_a_tool_s_description_is_saved_once_and_named_by_its_hash() -> None:
    session = talk(3, record=True)
    turns = saved(session)
    held = [step["recording"]["schemas"] for turn in turns for step in turn["steps"]]
    assert [len(schemas) for schemas in held] == [1, 0, 0, 0, 0, 0]
    (key, schema), = held[0].items()
    assert hash_of(schema) == key
    assert schema["function"]["name"] == "measured"
    assert all(step["recording"]["tools"] == {"measured": key} for turn in turns for step in turn["steps"])


def test_a_schema_whose_turn_is_replaced_is_held_by_the_next_one() -> None:
    session = talk(2, record=True)
    session.rewind(session.turns[0].id)
    session.ask("Anew?")
    assert len(saved(session)[0]["steps"][0]["recording"]["schemas"]) == 1


def test_a_restored_session_knows_which_schemas_its_notebook_holds() -> None:
    later = Session(ScriptedModel(scripted()), [measured], "You know the weather.", record=True)
    later.restore(Transcript.from_json(turn) for turn in saved(talk(2, record=True)))
    later.ask("And now?")
    assert [step["recording"]["schemas"] for step in saved(later)[-1]["steps"]] == [{}, {}]


def test_forks_hold_a_schema_once_together_and_the_answer_s_schema_too() -> None:
    session = Session(ScriptedModel(itertools.repeat('{"n": 1}')), [measured], record=True)
    session.ask("one", response_schema={"type": "object"})
    other = session.fork("other")
    other.ask("two", response_schema={"type": "object"})
    (first,), (_, second) = saved(session), saved(other)
    assert len(first["steps"][0]["recording"]["schemas"]) == 2
    assert second["steps"][0]["recording"]["schemas"] == {}
    assert second["steps"][0]["recording"]["response_schema"] == hash_of({"type": "object"})


def test_a_schema_book_gives_each_schema_to_one_turn() -> None:
    book = SchemaBook()
    assert book.claim("a", {"1": {}, "2": {}}) == {"1": {}, "2": {}}
    assert book.claim("b", {"2": {}, "3": {}}) == {"3": {}}
    book.release(["a"])
    assert book.claim("b", {"1": {}, "3": {}}) == {"1": {}}


def test_a_recorder_asks_for_nothing_unless_the_turn_is_recorded() -> None:
    request = Request((Message("user", "hi"),))
    assert Recorder().asking(request) is request
    assert Recorder(schemas=SchemaBook(), sequence=[1, 2]).asking(request).known == (1, 2)


# --- a record gives its events back -------------------------------------------------------------------------------------------


def steps_of(events: tuple[Event, ...]) -> list[tuple[Event, ...]]:
    ends = [at for at, event in enumerate(events) if isinstance(event, ModelEnd)]
    return [events[begin:end] for begin, end in zip([0, *(at + 1 for at in ends)], [at + 1 for at in ends], strict=False)]


@given(turns())
def test_a_recorded_turn_holds_everything_that_its_events_said(turn: Turn) -> None:
    """Law 7's half that a record must meet: whatever ends a step or a turn can be made again from the saved form."""
    transcript = replace(Transcript.of(turn.events), recorded=True)
    again = Transcript.from_json(json.loads(json.dumps(transcript.to_json())))
    answers = [message for message in again.messages() if message.role == "assistant"]
    ends = [event for event in turn.events if isinstance(event, ModelEnd)]
    for step, answer, end in zip(again.steps, answers, ends, strict=True):
        told = {name: getattr(step, name) for name in Step.__slots__ if name != "token_ids"}  # these are in the message
        made = ModelEnd(answer, **told)
        assert json.loads(json.dumps(made.record)) == json.loads(json.dumps(end.record))
        assert replace(made, record={}, recording={}) == replace(end, record={}, recording={})
        assert made.recording == end.recording
    for answer, events in zip(answers, steps_of(turn.events), strict=True):
        assert replace(answer, token_ids=()) == assemble(events)
    end_of_turn = turn.events[-1]
    assert isinstance(end_of_turn, TurnEnd)
    assert (again.state, again.usage, again.seconds) == (end_of_turn.finish_reason, end_of_turn.usage, end_of_turn.seconds)
    shown = [event for event in turn.events if not isinstance(event, PromptProgress)]
    assert replace(Transcript.of(shown), recorded=True) == again


# --- a real model -------------------------------------------------------------------------------------------------------------


@pytest.mark.model
def test_a_real_model_s_prompts_are_recorded_as_what_they_add(smollm: Path) -> None:
    with closing(load_model(smollm, ctx=2048)) as model:
        session = Session(model, system="Answer in one word.", sampling=Sampling(temperature=0, seed=1), record=True)
        for question in ("Name a colour.", "Name a town.", "Name a tree."):
            session.ask(question, max_tokens=8)
        traces = [Transcript.from_json(turn) for turn in saved(session)]
        _check_prompts(model, session, traces)
        steps = [step for trace in traces for step in trace.steps]
        assert [step.recording["prompt_kept"] > 0 for step in steps] == [False, True, True]
        assert [len(step.recording["prompt_token_ids"]) < 20 for step in steps[1:]] == [True, True]
        assert all(step.recording["text"] == trace.text for trace, step in zip(traces, steps, strict=True))
        assert steps[0].record["model"]["file"] == smollm.name
        assert str(smollm.parent) not in json.dumps(saved(session))


@pytest.mark.model
@pytest.mark.parametrize("record", [False, True])
def test_a_restored_conversation_sends_what_the_one_that_ran_on_sends(smollm: Path, record: bool) -> None:
    with closing(load_model(smollm, ctx=2048)) as model:
        settings: dict[str, Any] = {"sampling": Sampling(temperature=0, seed=1), "max_tokens": 16, "record": record}
        session = Session(model, system="Answer in one sentence.", **settings)
        for question in ("Name a colour.", "Name a town."):
            session.ask(question)
        restored = Session(model, system="Answer in one sentence.", **settings)
        restored.restore(Transcript.from_json(turn) for turn in saved(session))
        assert [bool(m.token_ids) for m in restored.history if m.role == "assistant"] == [record] * 2
        one, other = (model.preview(each.request("And a tree?")) for each in (session, restored))
        assert "".join(part.text for part in one) == "".join(part.text for part in other)
        assert restored.ask("And a tree?").text == session.ask("And a tree?").text != ""


def _check_prompts(model: LocalModel, session: Session, traces: list[Transcript]) -> None:
    """Each prompt as recorded is the one that the messages in front of its answer render to."""
    for at, prompt in enumerate(chained(traces)):
        messages = (Message("system", "Answer in one word."), *session.history[: 2 * at + 1])
        parts = model.preview(Request(messages))
        assert b"".join(model.engine.pieces(prompt)).decode() == "".join(part.text for part in parts)
