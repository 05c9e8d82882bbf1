"""Session: turns, history, threads and replies, with a scripted model."""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Iterator

import pydantic
import pytest

from llm_magics import Session
from llm_magics.errors import LLMMagicsError, ModelError, OptionError, SchemaError
from llm_magics.events import Event, ModelEnd, ModelEvent, Notice, PromptProgress, TextDelta, TurnEnd, TurnStart, assemble
from llm_magics.messages import Message
from llm_magics.models.base import Request
from llm_magics.models.meter import Meter, Metered
from llm_magics.models.scripted import ScriptedModel


def roles(session: Session) -> list[str]:
    return [message.role for message in session.history]


def test_a_turn_begins_with_turn_start_and_ends_with_turn_end() -> None:
    events = list(Session(ScriptedModel(["Hello!"])).turn("Hi"))
    assert isinstance(events[0], TurnStart)
    assert events[0].prompt == "Hi"
    assert isinstance(events[-1], TurnEnd)
    assert events[-1].finish_reason == "stop"


def test_the_model_sees_system_prompt_and_earlier_turns() -> None:
    model = ScriptedModel(["One", "Two"])
    session = Session(model, system="Be brief.")
    session.ask("first")
    session.ask("second")
    assert [(m.role, m.text) for m in model.requests[1].messages] == [
        ("system", "Be brief."), ("user", "first"), ("assistant", "One"), ("user", "second"),
    ]  # fmt: skip


def test_assembling_the_events_gives_the_committed_message() -> None:
    session = Session(ScriptedModel([Message("assistant", "Words.", reasoning="Thoughts.")]))
    events = list(session.turn("Hi"))
    end = next(event for event in events if isinstance(event, ModelEnd))
    assert assemble(events) == end.message == session.history[-1]


def test_an_override_holds_for_its_turn_alone() -> None:
    model = ScriptedModel(["a", "b"])
    session = Session(model, seed=1, system="old")
    session.ask("x", seed=7, system="new", max_tokens=5, stop="END", template_kwargs={"k": 1}, thinking=False)
    session.ask("y")
    first, second = model.requests
    assert (first.sampling.seed, first.messages[0].text, first.max_tokens, first.stop) == (7, "new", 5, ("END",))
    assert (first.template_kwargs, first.thinking) == ({"k": 1}, False)
    assert (second.sampling.seed, second.messages[0].text, second.stop, second.thinking) == (1, "old", (), None)


def test_an_unknown_override_is_named_with_a_near_one_before_anything_runs() -> None:
    model = ScriptedModel(["a"])
    with pytest.raises(OptionError, match="max_tokens"):
        Session(model).turn("x", max_token=3)
    assert model.requests == []


def test_a_forced_tool_that_is_not_offered_is_refused_before_anything_runs() -> None:
    model = ScriptedModel(["a"])
    with pytest.raises(OptionError, match="weather"):
        Session(model).turn("x", tool_choice="weather")
    with pytest.raises(OptionError, match="no tool is offered"):
        Session(model).turn("x", tool_choice="required")
    assert model.requests == []


def test_json_has_the_limit_that_is_asked_for_and_not_the_turns() -> None:
    model = ScriptedModel(["a", "b", "c"])
    session = Session(model)
    session.ask("x")
    session.ask("x", max_tokens=90)
    model.map(["x"], max_tokens=90, progress=False)
    asked = [(request.soft_limit, request.max_tokens) for request in model.requests]
    assert asked == [(None, session.settings.limits.tokens), (90, 90), (90, 90)]


def test_an_interrupted_answer_is_kept_and_marked() -> None:
    session = Session(ScriptedModel(["one two three four five six", "fine"]))
    with pytest.raises(KeyboardInterrupt), contextlib.closing(session.turn("count")) as events:
        for number, _ in enumerate(events):
            if number == 4:
                raise KeyboardInterrupt
    kept = session.history[-1]
    assert kept.role == "assistant"
    assert kept.finish_reason == "interrupted"
    assert kept.text
    assert "one two three four five six".startswith(kept.text)
    assert session.ask("again").text == "fine"


def test_an_interrupt_inside_the_model_is_told_and_raised_again() -> None:
    session = Session(ScriptedModel([KeyboardInterrupt()]))
    seen: list[Event] = []
    with pytest.raises(KeyboardInterrupt):
        for event in session.turn("x"):
            seen.append(event)
    assert isinstance(seen[-1], TurnEnd)
    assert seen[-1].finish_reason == "interrupted"


class Counting(ScriptedModel):
    """Says a word for each token and counts them, as a local model does. ``strikes`` raises an interrupt behind that many."""

    strikes = 99

    def stream(self, request: Request) -> Iterator[ModelEvent]:
        return Metered(self._counted, Meter(4096, prompt=7))

    def _counted(self, meter: Meter) -> Generator[ModelEvent, None, None]:
        yield PromptProgress(3, 5)
        meter.read(3, 2)
        for number in range(9):
            if number == self.strikes:
                raise KeyboardInterrupt
            meter.wrote(1)
            yield TextDelta("word ")
        raise AssertionError("nobody reads on to here")


@pytest.mark.parametrize("inside", [True, False], ids=["inside the model", "while it is drawn"])
def test_an_interrupted_turn_tells_the_tokens_that_came(inside: bool) -> None:
    model = Counting([])
    model.strikes = 4 if inside else 99
    session = Session(model)
    with pytest.raises(KeyboardInterrupt), contextlib.closing(session.turn("count")) as events:
        n_words = 0
        for event in events:
            n_words += isinstance(event, TextDelta)
            if n_words == 4 and not inside:
                raise KeyboardInterrupt
    reply = session.reply
    assert reply is not None
    assert (reply.text, reply.finish_reason) == ("word " * 4, "interrupted")
    usage = reply.usage
    assert (usage.prompt_tokens, usage.cached_tokens, usage.evaluated_tokens, usage.completion_tokens) == (7, 2, 5, 4)
    assert (usage.context_used, usage.context_size) == (11, 4096)
    assert usage.completion_seconds > 0


def test_a_turn_to_which_the_model_said_nothing_leaves_no_trace_in_the_history() -> None:
    session = Session(ScriptedModel([ModelError("broken"), "fine"]))
    with pytest.raises(ModelError, match="broken"):
        session.ask("x")
    assert session.history == ()
    session.ask("y")
    assert roles(session) == ["user", "assistant"]


def test_a_stream_that_breaks_off_is_an_error_and_keeps_the_text() -> None:
    class Broken(ScriptedModel):
        def stream(self, request):  # type: ignore[no-untyped-def]
            yield from (event for event in super().stream(request) if not isinstance(event, ModelEnd))

    session = Session(Broken(["half an answer"]))
    with pytest.raises(ModelError, match="broke off"):
        session.ask("x")
    assert (session.history[-1].text, session.history[-1].finish_reason) == ("half an answer", "error")


def test_asking_under_the_same_turn_name_replaces_it_and_says_what_became_stale() -> None:
    model = ScriptedModel(["a", "b", "c", "a2", "d"])
    session = Session(model)
    for name in "ABC":
        session.ask(name, turn=f"cell-{name}")
    events = list(session.turn("A again", turn="cell-A"))
    assert any(isinstance(event, Notice) and "2 later turns" in event.text for event in events)
    assert isinstance(events[0], TurnStart)
    assert [m.text for m in session.history] == ["A again", "a2"]
    assert [m.text for m in model.requests[3].messages] == ["A again"]


def test_replacing_the_last_turn_says_nothing() -> None:
    session = Session(ScriptedModel(["a", "a2"]))
    session.ask("A", turn="cell")
    assert not any(isinstance(event, Notice) for event in session.turn("A", turn="cell"))


def test_a_fork_goes_its_own_way() -> None:
    session = Session(ScriptedModel(["a", "b", "c"]), system="s")
    session.ask("1")
    fork = session.fork("other")
    fork.ask("2")
    assert len(session.history) == 2
    assert len(fork.history) == 4
    assert fork.thread == "other"
    assert fork.settings == session.settings


def test_a_turn_left_lying_about_is_ended_by_the_next() -> None:
    session = Session(ScriptedModel(["one two three", "b"]))
    left = session.turn("x")
    next(left)
    next(left)
    next(left)
    assert session.ask("y").text == "b"
    assert roles(session) == ["user", "assistant", "user", "assistant"]
    assert session.history[1].finish_reason == "interrupted"
    with pytest.raises(StopIteration):
        next(left)


def test_a_saved_trace_restores_the_conversation() -> None:
    session = Session(ScriptedModel(["a", "b"]))
    session.ask("1")
    session.ask("2")
    later = Session(ScriptedModel(["c"]))
    later.restore(type(turn.trace).from_json(turn.trace.to_json()) for turn in session.turns)
    assert later.history == session.history
    later.ask("3")
    assert len(later.history) == 6


class Point(pydantic.BaseModel):
    x: int
    y: int


@pytest.mark.parametrize("schema", [Point, Point.model_json_schema()])
def test_value_is_the_validated_object(schema: object) -> None:
    session = Session(ScriptedModel(['{"x": 1, "y": 2}', '{"x": 1}']))
    reply = session.ask("a point", response_schema=schema)
    assert reply.value == (Point(x=1, y=2) if schema is Point else {"x": 1, "y": 2})
    bad = session.ask("a point", response_schema=schema)
    with pytest.raises(SchemaError, match="y"):
        _ = bad.value


def test_without_a_schema_there_is_no_value() -> None:
    assert Session(ScriptedModel(["1"])).ask("x").value is None


def test_an_answer_cut_off_by_its_limit_says_so() -> None:
    reply = Session(ScriptedModel(["a long answer of many words"])).ask("x", max_tokens=2)
    assert reply.finish_reason == "length"
    assert any("max_tokens" in getattr(s, "text", "") for s in reply.trace.segments)


def test_a_session_that_answers_in_another_thread_refuses_a_second_turn() -> None:
    import threading

    entered, go_on = threading.Event(), threading.Event()

    def wait(request: object) -> str:
        entered.set()
        go_on.wait(10)
        return "late"

    session = Session(ScriptedModel([wait, "b"]))
    thread = threading.Thread(target=session.ask, args=("x",))
    thread.start()
    entered.wait(10)
    try:
        with pytest.raises(LLMMagicsError, match="another thread"):
            session.ask("y")
    finally:
        go_on.set()
        thread.join()
    assert [m.text for m in session.history] == ["x", "late"]
