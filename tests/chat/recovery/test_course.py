"""What a further call would add to a turn, which calls may not be written again, and when one is tried."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from llm_magics.chat.recovery.course import Course
from llm_magics.chat.recovery.trial import next_trial
from llm_magics.chat.recovery.wrappers import near_miss_grammar
from llm_magics.events import ModelEnd
from llm_magics.messages import Message, ToolCall, ToolResult, ToolSpec, assistant, tool_message, user
from tests.chat.grammars import accepts

from .test_recover import HERMES


def call(tool: str, id: str = "", /, **arguments: Any) -> ToolCall:
    return ToolCall(tool, json.dumps(arguments), id, "fenced JSON")


def spec(name: str, **properties: str) -> ToolSpec:
    members = {key: {"type": kind} for key, kind in properties.items()}
    return ToolSpec(name, "", {"type": "object", "properties": members, "required": list(members)[:1]})


APPLES = "How many apples and bananas are in stock?"
STOCK, LIGHT, NOTES, NUMBER = (
    spec("stock", item="string", unit="string"), spec("set_light", room="string", on="boolean"), spec("list_notes"),
    spec("to_hexadecimal", number="integer"),
)  # fmt: skip


@pytest.mark.parametrize(
    ("asked", "made", "further", "worth"),
    [
        (APPLES, call("stock", item="apple"), call("stock", item="banana"), True),
        (APPLES, call("stock", item="apple"), call("stock", item="Apples"), False),
        (APPLES, call("stock", item="apple"), call("stock", item="pear"), False),
        ("What does a pen cost, and how many are in stock?", call("price", item="pen"), call("stock", item="pen"), True),
        ("What does a pen cost?", call("price", item="pen"), call("stock", item="pen"), False),
        ("What is Tim's age?", call("age", name="Tim"), call("age", name="Tim. The age of Tim is 69."), False),
        ("Compute 12 * 12 and 13 * 13.", call("calculate", x="12 * 12"), call("calculate", x="13*13"), True),
        ("Compute 17 * 23.", call("calculate", x="17 * 23"), call("calculate", x="391"), False),
        ("Mail Ann with the subject 'Party'.", call("contact", name="Ann"), call("send", to="ann@x.org", s="Party"), True),
        ("Light in kitchen and hall", call("set", room="kitchen", on=True), call("set", room="hall", on=True), True),
        ("Quelle heure à Tokyo et à Londres ?", call("time", city="Tokyo"), call("time", city="London"), True),
        ("北京和上海现在多少度？", call("weather", city="北京"), call("weather", city="上海"), True),
        ("北京和上海现在多少度？", call("weather", city="北京"), call("weather", city="Paris"), False),
    ],
)
def test_a_further_call_is_worth_making_if_it_says_something_asked_and_not_said(
    asked: str, made: ToolCall, further: ToolCall, worth: bool
) -> None:
    course = Course(asked).after([made])
    assert (course.objection(further) == "") == worth
    assert course.objection(made)


@pytest.mark.parametrize(
    ("asked", "made", "further", "worth"),
    [
        ("What do 3 lamps cost?", call("price", item="lamp"), call("calculate", x="3 * 35"), False),
        ("What do 3 lamps and 4 pens cost?", call("price", item="lamp"), call("price", item="pen"), True),
        ("Sum of 12 and 13, and of 14 and 15?", call("calculate", x="12 + 13"), call("calculate", x="14 + 16"), False),
        ("Sum of 12 and 13, and of 14 and 15?", call("calculate", x="12 + 13"), call("calculate", x="sum(14, 15)"), True),
        ("Mail Ann the weather.", call("weather", city="Oslo"), call("mail", to="Ann", body="It is sunny."), False),
        ("Mail 'Hello' to Ann and Bob.", call("mail", to="Ann", body="Hello"), call("mail", to="Bob", body="Hello!"), True),
        ("42 * 18, then that in hexadecimal.", call("multiply", a=42, b=18), call("to_hexadecimal", number=42), False),
        ("Weather in Oslo, and mail 'Hello' to Ann.", call("weather", city="Oslo"), call("mail", to="Ann", body="Hello"), True),
    ],
)
def test_a_further_call_does_not_make_up_what_the_first_one_will_tell(
    asked: str, made: ToolCall, further: ToolCall, worth: bool
) -> None:
    both: dict[str, Any] = {"type": "object", "properties": {"to": {}, "body": {}}, "required": ["to", "body"]}
    specs = (spec("calculate", x="string"), spec("price", item="string"), NUMBER, ToolSpec("mail", "", both))
    tools = {tool.name: tool for tool in specs}
    course = Course(asked).after([made])
    assert (course.objection(further, tools[further.name]) == "") == worth
    known = Course(asked, made=(made,))  # its result is there
    assert known.objection(further, tools[further.name]) == ""


def test_a_call_may_be_made_again_once_its_result_is_not_known_any_more() -> None:
    read = call("read", page="a")
    assert Course("Read a, change it, read it again.", made=(read, call("change", page="a"))).objection(read) == ""


def test_an_item_of_a_list_that_a_call_gave_is_asked_for_and_a_single_result_is_not() -> None:
    listed, made = '["shopping.txt", "ideas.txt"]', (call("list_notes"),)
    for told, further, worth in [
        (listed, call("open", name="ideas.txt"), True), ("391", call("open", name="391"), False),
        ("a.txt\nb.txt", call("open", name="b.txt"), True), ("ideas", call("open", name="ideas"), False),
        ('{"city": "Oslo", "unit": "celsius"}', call("convert_units", unit="celsius"), False),
        ("[3, 4]", call("open", n=4), False),
    ]:  # fmt: skip
        assert (Course("What is there?", (told,), made).objection(further) == "") == worth


def test_the_course_of_a_conversation_is_that_of_its_last_turn() -> None:
    first, good, bad = call("stock", "1", item="pen"), call("stock", "2", item="apple"), call("stock", "3", item="kiwi")
    results = [ToolResult("1", "stock", "3"), ToolResult("2", "stock", "12"), ToolResult("3", "stock", "Error: none", True)]
    messages = [user("Pens?"), assistant(tool_calls=(first,)), tool_message(results[0]), assistant("3"), user("Apples, kiwis?"),
                assistant(tool_calls=(good, bad)), *map(tool_message, results[1:])]  # fmt: skip
    course = Course.of(messages, [good])
    assert (course.asked, course.made, course.failed) == ("Apples, kiwis?", (good,), (bad,))
    assert course.taken == {"stock": [{"item": "apple"}]}
    assert course.objection(call("stock", item="kiwis")) == ""  # what failed has not been said


@pytest.mark.parametrize(
    ("failed", "further", "worth"),
    [
        (call("weather", city="Atlantis"), call("weather", city="Atlantis"), False),
        (call("weather", city="Atlantis"), call("weather", city="Atlantis}}"), False),
        (call("weather", city="Atlantis", unit="celsius"), call("weather", city="Atlantis"), False),
        (call("weather", city="atlantis"), call("weather", city="Atlantis"), True),  # an error may lie in the spelling
        (call("weather", city="Atlantis"), call("weather", city="Atlantis City"), True),
        (call("weather", city="Atlantis"), call("weather", city="Paris"), False),
        (call("weather", city="Atlantis"), call("climate", city="Atlantis"), True),
    ],
)
def test_a_call_that_failed_is_worth_making_only_with_other_words(failed: ToolCall, further: ToolCall, worth: bool) -> None:
    course = Course("What is the weather in Atlantis, if there is any?", failed=(failed,))
    assert (course.objection(further) == "") == worth
    unit = {"type": "object", "properties": {"city": {"type": "string"}, "unit": {"enum": ["celsius", "fahrenheit"]}}}
    other = replace(failed, arguments=json.dumps({**json.loads(failed.arguments), "unit": "fahrenheit"}))
    assert course.objection(other, ToolSpec(failed.name, "", unit))  # the unit was not to blame
    assert replace(course, failed=(failed, call(failed.name, city="x"))).objection(call(failed.name, city="Atlantis Town"))


@pytest.mark.parametrize(
    ("text", "free"),
    [
        ('{"name": "stock", "arguments": {"item": "banana"}}', True),
        ('{"name": "stock", "arguments": {"item": "apple"}}', False),
        ('{"name": "stock", "arguments": {"item": "Apples"}}', False),
        ('{"name": "stock", "arguments": {"item": "an apple}}"}}', False),
        ('{"name": "stock", "arguments": {"unit": "kg", "item": "apple"}}', False),  # the item makes it another call
        ("stock(item='apple')", False),
        ("stock(item='pear')", True),
        ('{"name": "set_light", "arguments": {"room": "hall", "on": true}}', False),
        ('{"name": "set_light", "arguments": {"room": "kitchen", "on": true}}', True),
        ('{"name": "list_notes", "arguments": {}}', False),
        ('{"name": "to_hexadecimal", "arguments": {"number": 10}}', False),
        ('{"name": "to_hexadecimal", "arguments": {"number": 100}}', True),
    ],
)
def test_the_grammar_holds_back_what_was_called(text: str, free: bool) -> None:
    taken = {
        "stock": [{"item": "apple"}], "set_light": [{"room": "hall", "on": True}], "list_notes": [{}],
        "to_hexadecimal": [{"number": 10}],
    }  # fmt: skip
    tools = (STOCK, LIGHT, NOTES, NUMBER)
    assert accepts(near_miss_grammar(HERMES, tools, "strict", unlike=taken), text) == free
    assert accepts(near_miss_grammar(HERMES, tools, "strict"), text)


def test_where_nothing_is_left_there_is_no_grammar() -> None:
    assert near_miss_grammar(HERMES, [NOTES], "strict", unlike={"list_notes": [{}]}) == ""


CALL = '```json\n{"name": "stock", "arguments": {"item": "apple"}}\n```'
DONE = ModelEnd(Message("assistant", tool_calls=(call("stock", item="apple"),)), "tool_calls")
VAIN = ModelEnd(Message("assistant"), "stop", vain="stock would add nothing that was asked")


def test_after_a_call_another_one_is_tried_in_its_wrapper_and_unlike_it() -> None:
    trial = next_trial(DONE, CALL, [1, 2], (STOCK, NUMBER), Course(APPLES))
    assert trial is not None
    assert (trial.lead, trial.ids, trial.n_calls) == ('```json\n{"name": "', (1, 2), 1)
    assert trial.course.taken == {"stock": [{"item": "apple"}]}


def test_after_a_call_in_vain_behind_results_another_tool_is_tried() -> None:
    course = Course(APPLES).after([call("stock", item="apple")])
    trial = next_trial(VAIN, CALL, [1, 2], (STOCK, NUMBER), course)
    assert trial is not None
    assert (trial.ids, trial.tools) == ((), (NUMBER,))
    assert next_trial(VAIN, CALL, [1, 2], (STOCK,), course) is None
    assert next_trial(VAIN, CALL, [1, 2], (STOCK, NUMBER), Course(APPLES)) is None  # words are the better answer then


@pytest.mark.parametrize(
    "end",
    [
        ModelEnd(Message("assistant", "Hello!"), "stop"),
        ModelEnd(Message("assistant", "First", tool_calls=DONE.message.tool_calls), "tool_calls"),
        ModelEnd(Message("assistant", reasoning="stock?", tool_calls=DONE.message.tool_calls), "tool_calls"),
        ModelEnd(Message("assistant", tool_calls=(ToolCall("stock", "{}"),)), "tool_calls"),  # in the template's own syntax
        ModelEnd(DONE.message, "length"),
        ModelEnd(DONE.message, "tool_calls", stopped="after 8 calls"),
    ],
)
def test_after_words_own_calls_and_what_was_cut_off_nothing_is_tried(end: ModelEnd) -> None:
    assert next_trial(end, CALL, [1, 2], (STOCK, NUMBER), Course(APPLES)) is None
