"""Calls in vain: nobody reads their text, nothing runs twice, and the turn ends in words. Native calls keep their traces."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from llm_magics import Session
from llm_magics.chat.encodings.writer import write_calls
from llm_magics.chat.format import ChatFormat
from llm_magics.messages import ToolCall
from llm_magics.session.session import Reply
from llm_magics.tools.define.tool import Tool, make_tool
from tests.history_checks import broken_calls, broken_order

from .guided import Guided
from .test_session_tools import HERMES

FORMAT = ChatFormat.from_template(HERMES)


class Notes:
    """A notebook of two pages; ``ran`` says what was called."""

    def __init__(self) -> None:
        self.pages = {"apples": "12", "bananas": "7"}
        self.ran: list[str] = []

    def tools(self, **options: Any) -> list[Tool]:
        def read(page: str) -> str:
            self.ran.append(f"read {page}")
            if page not in self.pages:
                raise ValueError(f"There is no page {page!r}.")
            return self.pages[page]

        def write(page: str, text: str) -> str:
            self.ran.append(f"write {page}")
            self.pages[page] = text
            return "written"

        return [make_tool(read, **options), make_tool(write)]


def near(name: str, **arguments: Any) -> str:
    return "```json\n" + json.dumps({"name": name, "arguments": arguments}) + "\n```"


def own(*calls: tuple[str, dict[str, Any]]) -> str:
    return str(write_calls(FORMAT.tools, [ToolCall(name, json.dumps(arguments)) for name, arguments in calls]))


def asked(script: list[str], question: str, notes: Notes, **options: Any) -> tuple[Reply, Guided]:
    model = Guided(script, template=HERMES)
    session = Session(model, notes.tools(**options))
    reply = session.ask(question)
    assert broken_calls(session.history) + broken_order(session.history) == []
    return reply, model


VAIN = [
    '{"name": "hello", "arguments": {"message": "Hello!"}}',
    '```json\n{\n  "name": "hello",\n  "parameters": {}\n}\n```',
    '{{"name": "hello", "arguments": {}}}',
    '[{"name": "hello", "arguments": {}}]',
    '{"type": "function", "function": {"name": "hello", "parameters": {}}}',
    '{"name": "read", "arguments": {}}',
    '{"name": "read", "arguments": {"page": "app',
]


@pytest.mark.parametrize("text", VAIN)
def test_what_looks_like_a_call_and_is_none_is_not_the_answer(text: str) -> None:
    notes = Notes()
    reply, model = asked([text, "Hello!"], "Hello!", notes)
    assert (reply.text, reply.finish_reason, notes.ran) == ("Hello!", "stop", [])
    assert [(r.tool_choice, r.in_words) for r in model.requests] == [("auto", False), ("none", True)]
    assert [message.text for message in reply.messages] == ["Hello!", "Hello!"]
    assert not reply.trace.tools
    assert reply.trace.steps[0].notes  # they say what was withheld, and why


@pytest.mark.parametrize("text", ['{"name": "Ada", "age": 36}', '{"hello": 1}', "```python\nread(page)\n```", "read it"])
def test_other_json_and_code_is_an_answer(text: str) -> None:
    assert asked([text], "Who is Ada?", Notes())[0].text == text


def test_a_call_in_doubled_braces_is_one() -> None:
    notes = Notes()
    reply, _ = asked(['{{"name": "read", "arguments": {"page": "apples"}}}', "There are 12."], "How many apples?", notes)
    assert (notes.ran, reply.text) == (["read apples"], "There are 12.")


def test_words_before_a_call_in_vain_stay() -> None:
    reply, _ = asked(["Let me see.\n" + VAIN[0], "Hello!"], "Hello!", Notes())
    assert [message.text.strip() for message in reply.messages[1:]] == ["Let me see.", "Hello!"]


@pytest.mark.parametrize("again", [near("read", page="apples"), '{"name": "read", "arguments": {"page": "pears"}}'])
def test_after_a_result_a_call_that_adds_nothing_asked_for_does_not_run_and_is_not_shown(again: str) -> None:
    notes = Notes()
    reply, model = asked([near("read", page="apples"), again, "There are 12."], "How many apples?", notes)
    assert (notes.ran, reply.text) == (["read apples"], "There are 12.")
    assert [segment.state for segment in reply.trace.tools] == ["done"]
    assert model.requests[-1].messages[-1].text.endswith("in words.")


def test_after_a_result_a_call_for_what_is_still_open_runs() -> None:
    notes = Notes()
    script = [near("read", page="apples"), near("read", page="bananas"), "12 and 7."]
    reply, _ = asked(script, "How many apples and bananas?", notes)
    assert (notes.ran, reply.text) == (["read apples", "read bananas"], "12 and 7.")


def test_of_several_calls_those_that_are_new_run() -> None:
    notes = Notes()
    both = json.dumps([{"name": "read", "arguments": {"page": page}} for page in ("apples", "bananas")])
    asked([near("read", page="apples"), both, "12 and 7."], "How many apples and bananas?", notes)
    assert notes.ran == ["read apples", "read bananas"]


def test_reading_changing_and_reading_again_is_no_repetition() -> None:
    notes = Notes()
    script = [near("read", page="apples"), near("write", page="apples", text="13"), near("read", page="apples"), "13 now."]
    reply, _ = asked(script, "Read apples, write 13, and read it again.", notes)
    assert notes.ran == ["read apples", "write apples", "read apples"]
    assert reply.text == "13 now."


@pytest.mark.parametrize(("second", "ran"), [("apples", ["read Apples", "read apples"]), ("Apples", ["read Apples"])])
def test_a_call_that_failed_may_be_corrected_but_not_written_again(second: str, ran: list[str]) -> None:
    notes = Notes()
    reply, _ = asked([near("read", page="Apples"), near("read", page=second), "done"], "Read the page apples.", notes)
    assert (notes.ran, reply.text, reply.finish_reason) == (ran, "done", "stop")


def test_behind_a_failure_words_are_asked_for_about_what_failed() -> None:
    _, model = asked([near("read", page="pears"), near("read", page="pears"), "There are none."], "Read pears.", Notes())
    assert model.requests[-1].messages[-1].text.endswith("what could not be done, and why.")


# --- calls in the template's own syntax ---------------------------------------------------------------------------------------

READ, WRITE = ("read", {"page": "apples"}), ("write", {"page": "apples", "text": "13"})
TEN = [("write", {"page": f"p{i}", "text": "x" * i}) for i in range(10)]
NATIVE: dict[str, tuple[list[str], dict[str, Any], list[str]]] = {
    "values that nobody said": ([own(("write", {"page": "zebra", "text": "2031-04-05"})), "ok"], {}, ["write zebra"]),
    "polling a clock": ([own(READ), own(READ), own(READ), "ok"], {"repeats": True}, ["read apples"] * 3),
    "ten calls at once": ([own(*TEN), "ok"], {}, [f"write p{i}" for i in range(10)]),
    "read, change, read": ([own(READ), own(WRITE), own(READ), "ok"], {}, ["read apples", "write apples", "read apples"]),
}


@pytest.mark.parametrize("name", sorted(NATIVE))
@pytest.mark.parametrize("reader", [Guided, None])
def test_native_turns_keep_their_traces(name: str, reader: Callable[..., Any] | None) -> None:
    from llm_magics import ScriptedModel

    script, options, ran = NATIVE[name]
    notes, model = Notes(), (reader or ScriptedModel)(script, template=HERMES)
    reply = Session(model, notes.tools(**options)).ask("Go.")
    assert (notes.ran, reply.text, reply.finish_reason) == (ran, "ok", "stop")
    assert {segment.state for segment in reply.trace.tools} == {"done"}
    assert {request.tool_choice for request in model.requests} == {"auto"}
    assert len(model.requests) == len(script)
