"""A model that writes its calls again instead of answering: nothing runs twice, and the turn ends with an answer."""

from __future__ import annotations

from typing import Any

import pytest

from llm_magics import ScriptedModel, Session
from llm_magics.events import ModelEnd, ModelEvent
from llm_magics.messages import Message, ToolCall
from llm_magics.models.base import Request
from llm_magics.tools.define.tool import Tool, make_tool
from tests.history_checks import broken_calls

A, B = ToolCall("look", '{"at": "a"}'), ToolCall("look", '{"at": "b"}')
A_AGAIN = ToolCall("look", '{ "at":"a" }')
CHANGE = ToolCall("change", "{}")


class World:
    """Two tools over one state: ``look`` reads it, ``change`` changes it; ``ran`` says what ran."""

    def __init__(self) -> None:
        self.state = 0
        self.ran: list[str] = []

    def tools(self, **options: Any) -> list[Tool]:
        def look(at: str) -> str:
            self.ran.append(at)
            return f"{at} is {self.state}"

        def change() -> str:
            self.ran.append("change")
            self.state += 1
            return f"changed {self.state} times"

        return [make_tool(look, **options), make_tool(change)]


@pytest.mark.parametrize(
    ("steps", "ran"),
    [
        ([A, A_AGAIN, "it is 0"], ["a"]),
        ([A, A_AGAIN, B, "done"], ["a", "b"]),  # reminded once, the model goes on
        ([A, [A_AGAIN, B], "done"], ["a", "b"]),  # what is new beside a repetition runs
        ([A, CHANGE, A_AGAIN, "done"], ["a", "change", "a"]),  # reading again after a change is no repetition
        ([A, CHANGE, A, CHANGE, A, "done"], ["a", "change", "a", "change", "a"]),
        ([A, B, A, A, B, "done"], ["a", "b", "a", "b"]),  # to and fro ends where nothing new comes of it
        ([[A, A], "twice in one message is meant"], ["a", "a"]),
        ([A, [A, CHANGE], A, "done"], ["a", "change", "a"]),
    ],
)  # fmt: skip
def test_a_call_whose_result_is_known_runs_again_only_after_something_else_did(steps: list[Any], ran: list[str]) -> None:
    world = World()
    session = Session(ScriptedModel(steps), world.tools())
    reply = session.ask("go")
    assert (world.ran, reply.finish_reason, reply.text) == (ran, "stop", steps[-1])
    assert broken_calls(session.history) == []


def test_a_repetition_is_told_the_result_and_says_in_the_trace_that_it_did_not_run() -> None:
    model = ScriptedModel([A, A_AGAIN, "it is 0"])
    reply = Session(model, World().tools()).ask("go")
    first, again = reply.trace.tools
    assert (first.state, again.state, again.is_error) == ("done", "refused", False)
    assert again.result is not None
    assert "a is 0" in again.result
    assert again.warnings
    assert model.requests[-1].messages[-1].text == again.result
    assert [call.arguments for call in reply.tool_calls] == [A.arguments, A_AGAIN.arguments]


def test_a_model_that_goes_on_repeating_is_asked_for_words_without_tools() -> None:
    model = ScriptedModel([A, A_AGAIN, A_AGAIN, "it is 0"])
    reply = Session(model, World().tools()).ask("go")
    assert [request.tool_choice for request in model.requests] == ["auto", "auto", "auto", "none"]
    # Of the repetitions it is shown the last alone, or it would go on with what it sees itself do.
    assert sum(len(message.tool_calls) for message in model.requests[-1].messages) == 2
    assert reply.text == "it is 0"


def test_a_model_that_says_nothing_when_reminded_is_asked_for_words() -> None:
    model = ScriptedModel([A, A_AGAIN, "", "it is 0"])
    session = Session(model, World().tools())
    reply = session.ask("go")
    assert (reply.text, reply.finish_reason) == ("it is 0", "stop")
    assert model.requests[-1].tool_choice == "none"
    assert model.requests[-1].messages[-1].text.endswith("in words.")
    assert [message.role for message in session.history] == ["user", "assistant", "tool", "assistant", "tool", "assistant"]


def test_an_empty_answer_is_one_where_nothing_was_repeated() -> None:
    assert Session(ScriptedModel([A, ""]), World().tools()).ask("go").finish_reason == "stop"


def test_a_model_that_calls_even_then_ends_the_turn_and_the_next_turn_works() -> None:
    world = World()
    session = Session(ScriptedModel([A, A_AGAIN, A_AGAIN, A_AGAIN, "hello"]), world.tools())
    reply = session.ask("go")
    assert (world.ran, reply.finish_reason) == (["a"], "tool_calls")
    assert reply.text == "[no answer in words; the results are: look: a is 0]"
    assert any("not run" in getattr(segment, "text", "") for segment in reply.trace.segments)
    assert [segment.state for segment in reply.trace.tools] == ["done", "refused", "refused", "refused"]
    assert broken_calls(session.history) == []
    assert session.ask("and now?").text == "hello"


def test_the_next_turn_may_call_again() -> None:
    world = World()
    session = Session(ScriptedModel([A, "0", A, "still 0"]), world.tools())
    assert [session.ask("go").text, session.ask("again").text] == ["0", "still 0"]
    assert world.ran == ["a", "a"]


def test_a_tool_that_gives_something_new_each_time_says_so_and_runs_each_time() -> None:
    world = World()
    Session(ScriptedModel([A, A, A, "done"]), world.tools(repeats=True)).ask("go")
    assert world.ran == ["a", "a", "a"]


def test_a_failed_call_is_no_known_result() -> None:
    failures = iter([ValueError("not yet"), None])

    def fragile() -> str:
        error = next(failures)
        if error:
            raise error
        return "fine"

    def other() -> str:
        return "other"

    steps = [ToolCall("fragile", "{}"), ToolCall("other", "{}"), ToolCall("fragile", "{}"), "done"]
    reply = Session(ScriptedModel(steps), [fragile, other]).ask("go")
    assert [segment.state for segment in reply.trace.tools] == ["failed", "done", "done"]


class Doubtful:
    """A model whose second answer is a call that it does not mean."""

    name = "doubtful"
    context_size = 0

    def __init__(self) -> None:
        self.requests: list[Request] = []

    def stream(self, request: Request) -> Any:
        self.requests.append(request)
        step = (A, B, "a is 0")[len(self.requests) - 1]
        for event in ScriptedModel([step]).stream(request):
            yield self._doubting(event)

    def _doubting(self, event: ModelEvent) -> ModelEvent:
        if isinstance(event, ModelEnd) and len(self.requests) == 2:
            return ModelEnd(event.message, event.finish_reason, doubted=(0,))
        return event

    def preview(self, request: Request) -> tuple[()]:
        return ()

    def close(self) -> None:
        pass


def test_a_call_that_the_model_did_not_mean_never_runs_and_words_are_asked_for() -> None:
    world, model = World(), Doubtful()
    reply = Session(model, world.tools()).ask("go")
    assert (world.ran, reply.text) == (["a"], "a is 0")
    assert [request.tool_choice for request in model.requests] == ["auto", "auto", "none"]
    assert isinstance(reply.messages[-1], Message)
    assert "a is 0" in (reply.trace.tools[1].result or "")
