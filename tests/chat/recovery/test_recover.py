"""Near misses: which become calls, which stay text and why, and which of them may run by themselves."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_magics.chat.encodings.syntax import JsonCall, ToolSyntax
from llm_magics.chat.recovery.bodies import FoundCall
from llm_magics.chat.recovery.course import Course
from llm_magics.chat.recovery.evidence import FURTHER, LIMIT, TEXT_CAP, Evidence, Rivals, share_said
from llm_magics.chat.recovery.recovery import Recovery, quotable
from llm_magics.chat.recovery.wrappers import near_miss_grammar, read_calls
from llm_magics.events import ModelEvent, TextDelta, assemble
from llm_magics.messages import Message, ToolCall, ToolResult, ToolSpec, assistant, tool_message, user
from tests.chat.grammars import accepts, refused_at

HERMES = ToolSyntax(call_start="<tool_call>\n", call_end="\n</tool_call>", separator="\n")
LLAMA = ToolSyntax(JsonCall(arguments=("parameters",)), parallel=False)
TOOLS = (
    ToolSpec(
        "get_weather",
        "",
        {
            "type": "object",
            "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
            "required": ["city"],
            "additionalProperties": False,
        },
    ),
    ToolSpec("math.now", "", {"type": "object", "properties": {}}),
)
ROME = '{"name": "get_weather", "arguments": {"city": "Rome"}}'

# near miss, arguments of its calls, what it is called
CALLS: list[tuple[str, list[dict[str, object]], str]] = [
    (f"```json\n{ROME}\n```", [{"city": "Rome"}], "fenced JSON"),
    (f"```\n{ROME}\n```", [{"city": "Rome"}], "fenced JSON"),
    (f"```tool_call\n[{ROME},\n{ROME}]\n```", [{"city": "Rome"}] * 2, "fenced JSON"),
    (f"```json\n{ROME}\n```\n\n```json\n{ROME}\n```", [{"city": "Rome"}] * 2, "fenced JSON"),
    (ROME, [{"city": "Rome"}], "bare JSON"),
    (f"  {ROME}\n", [{"city": "Rome"}], "bare JSON"),
    (ROME.replace("arguments", "parameters"), [{"city": "Rome"}], "bare JSON, 'parameters' for 'arguments'"),
    ('{"type": "function", "function": ' + ROME + "}", [{"city": "Rome"}], "bare JSON"),
    ('{"get_weather": {"city": "Rome", "days": 2}}', [{"city": "Rome", "days": 2}], "bare JSON"),
    ("{" + ROME + "}", [{"city": "Rome"}], "doubled braces"),
    (f"{ROME}\n</tool_call>", [{"city": "Rome"}], "missing opening tag"),
    (f"<tools>\n{ROME}\n</tools>", [{"city": "Rome"}], "wrong tag"),
    ('get_weather(city="Rome", days=2)', [{"city": "Rome", "days": 2}], "keyword call"),
    ("[get_weather(city='Rome'), math.now()]", [{"city": "Rome"}, {}], "keyword call"),
    ("```tool_code\nget_weather(city='Rome')\n```", [{"city": "Rome"}], "keyword call"),
    (ROME.replace('{"name"', '{"id": "x1", "name"'), [{"city": "Rome"}], "bare JSON"),
    (ROME[:-1] + ', "id": 7}', [{"city": "Rome"}], "bare JSON"),
]

# calls that are none for certain until they end, so that nothing is armed
LATE = [
    '{"arguments": {"city": "Rome"}, "name": "get_weather"}',
    '{"type": "function", "function": {"arguments": {"city": "Rome"}, "name": "get_weather"}}',
]

TEXTS: list[str] = [
    "The weather is fine.",
    '{"city": "Rome"}',
    '{"name": "get_forecast", "arguments": {"city": "Rome"}}',  # no such tool
    '{"name": "get_weather", "age": 3}',
    "```python\nget_weather(city='Rome')\n```",  # code about a call
    "```json\n{\n" + ROME + "\n}\n```",
    f"You would write {ROME}.",  # in a sentence
    "get_weather tells you the weather.",
    "get_weather(city) takes a city.",
    "<b>bold</b>",
    '{"name": "get_weather", "arguments": {"city": "Ro',  # cut off
]


def read(
    pieces: list[str], said: tuple[str, ...] = (), syntax: ToolSyntax = HERMES, complete: bool = True
) -> tuple[Message, Recovery]:
    recovery = Recovery(TOOLS, syntax, said=said)
    events: list[ModelEvent] = [event for piece in pieces for event in recovery.feed(piece)]
    return assemble(events + recovery.finish(complete)), recovery


@pytest.mark.parametrize(("text", "arguments", "name"), CALLS)
def test_the_right_call_in_the_wrong_wrapper_is_a_call(text: str, arguments: list[dict[str, object]], name: str) -> None:
    message, _ = read([text])
    assert [json.loads(call.arguments) for call in message.tool_calls] == arguments
    assert {call.recovered for call in message.tool_calls} == {name}
    assert all(call.trusted for call in message.tool_calls)
    assert message.text.strip() == ""


@pytest.mark.parametrize("text", LATE)
def test_a_call_whose_arguments_come_first_is_a_call(text: str) -> None:
    message, recovery = read(list(text))
    assert [(c.name, json.loads(c.arguments)) for c in message.tool_calls] == [("get_weather", {"city": "Rome"})]
    assert recovery.opened is None
    assert accepts(near_miss_grammar(HERMES, TOOLS, "strict"), text)


@pytest.mark.parametrize("value", ["[true]", '{"x": null}', "[[false, {'y': true}]]"])
def test_constants_of_json_are_read_at_any_depth_of_a_keyword_call(value: str) -> None:
    tool = ToolSpec("f", "", {"type": "object", "properties": {"a": {}}})
    recovery = Recovery([tool], HERMES)
    events = [*recovery.feed(f"f(a={value})"), *recovery.finish()]
    (call,) = assemble(events).tool_calls
    assert json.loads(call.arguments) == {"a": json.loads(value.replace("'", '"'))}


@pytest.mark.parametrize(("written", "value"), [(r'"\ud83d\ude00"', "😀"), (r"'(a)\1\d'", r"(a)\1\d")])
def test_a_keyword_call_may_use_any_name_and_spells_strings_as_templates_do(written: str, value: str) -> None:
    tool = ToolSpec("get-mail", "", {"type": "object", "properties": {"from": {}}})
    recovery = Recovery([tool], HERMES)
    (call,) = assemble([*recovery.feed(f"get-mail(from={written})"), *recovery.finish()]).tool_calls
    assert (call.name, json.loads(call.arguments)) == ("get-mail", {"from": value})


@pytest.mark.parametrize("text", TEXTS)
def test_what_is_no_call_stays_text_to_the_letter(text: str) -> None:
    message, _ = read([text])
    assert message.text == text
    assert not message.tool_calls


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.lists(st.sampled_from([*(c[0] for c in CALLS), *TEXTS, "\n", "\n\n", " ", "Sure:"]), max_size=4), st.data())
def test_any_pieces_give_the_same_message(parts: list[str], data: st.DataObject) -> None:
    text = "\n".join(parts)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=12)))
    pieces = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    whole, _ = read([text])
    assert read(pieces)[0] == whole
    assert read(list(text))[0] == whole


def test_text_goes_out_at_once_and_only_a_possible_call_is_held() -> None:
    recovery = Recovery(TOOLS, HERMES)
    assert recovery.feed("Hello") == [TextDelta("Hello")]
    assert recovery.feed("\n```js") == [TextDelta("\n")]
    recovery = Recovery(TOOLS, HERMES)
    assert recovery.feed("```json\n{") == []
    assert recovery.feed('"temperature"') != []


def test_the_grammar_is_armed_once_nothing_else_is_possible() -> None:
    recovery = Recovery(TOOLS, HERMES)
    recovery.feed('```json\n{"name": "get_weather", "arguments": ')
    assert recovery.opened is None
    recovery.feed("{")
    assert recovery.opened is not None
    strict = recovery.opened.grammar
    assert refused_at(strict, recovery.opened.written) is None
    assert accepts(strict, recovery.opened.written + '"days": 2, "city": "Rome"}}\n```')
    assert refused_at(strict, recovery.opened.written + '"town"') is not None


def test_arguments_that_break_the_schema_stay_text_with_the_reason() -> None:
    text = ROME.replace("city", "town")
    message, recovery = read([text])
    assert message.text == text
    assert "town" in recovery.notes[0] or "city" in recovery.notes[0]


def test_the_templates_own_field_names_are_no_near_miss_of_themselves() -> None:
    message, _ = read(["```\n" + ROME.replace("arguments", "parameters") + "\n```"], syntax=LLAMA)
    assert message.tool_calls[0].recovered == "fenced JSON"


TRUST: list[tuple[str, tuple[str, ...], bool]] = [
    (ROME, (), True),
    (ROME, ("What is the weather in Rome?",), True),
    (f"Sure:\n{ROME}", (), False),
    (f"{ROME}\nThat is the call.", (), False),
    (ROME, (f"Please run {ROME}",), False),
    (ROME, (ROME.replace(" ", ""),), False),
    (f"```json\n{ROME}\n```", (f"<html>{ROME}</html>",), False),
    ('get_weather(city="Rome")', (f"now say {ROME}",), False),  # another wrapper, the same call
]


@pytest.mark.parametrize(("text", "said", "trusted"), TRUST)
def test_a_recovered_call_runs_alone_only_if_it_is_the_whole_message_and_nobody_said_it(
    text: str, said: tuple[str, ...], trusted: bool
) -> None:
    message, _ = read([text], said)
    assert [call.trusted for call in message.tool_calls] == [trusted]


def test_a_cut_off_answer_has_no_trusted_call_and_an_open_one_is_text() -> None:
    message, _ = read([ROME + "\n"], complete=False)
    assert [call.trusted for call in message.tool_calls] == [False]
    message, recovery = read([ROME[:-3]], complete=False)
    assert message.text == ROME[:-3]
    assert recovery.notes == ["the answer ended inside a call in the wrong wrapper"]


def test_what_users_and_tools_said_is_quotable() -> None:
    said = [user("u"), assistant("a", tool_calls=(ToolCall("f", "{}", "1"),)), tool_message(ToolResult("1", "f", "t"))]
    assert quotable(said) == ["u", "t"]


# --- did the model mean it? ---------------------------------------------------------------------------------------------------


Tokens = list[tuple[str, float | None]]
SURE = (("```", 0.0),)  # no other token could have stood at the beginning


def judged(tokens: Tokens, said: tuple[str, ...] = (), rivals: Rivals = SURE, **more: Any) -> tuple[Message, Recovery]:
    recovery = Recovery(TOOLS, HERMES, said=said, **more)
    events: list[ModelEvent] = []
    for text, logprob in tokens:
        recovery.observe(text, logprob, rivals if recovery.at_beginning else ())
        events += recovery.feed(text)
    return assemble(events + recovery.finish()), recovery


def written(doubt: float, city: str = "Rome") -> Tokens:
    """A call whose choices have this mean doubt, all of it at the value."""
    pieces = ["```", "json", "\n", '{"', "name", '": "', "get_weather", '", "', "arguments", '": {"', "city", '": "']
    choices = sum(any(c.isalnum() for c in piece) for piece in pieces) + 1
    return [*((piece, 0.0) for piece in pieces), (city, -doubt * choices), ('"}}', 0.0), ("\n```", 0.0)]


def test_a_sure_call_is_one_and_a_doubtful_one_is_text_and_the_notes_give_the_evidence() -> None:
    sure, recovery = judged(written(LIMIT * 0.9))
    assert [call.name for call in sure.tool_calls] == ["get_weather"]
    low, high, limit = f"{LIMIT * 0.9:.3f}", f"{LIMIT * 1.1:.3f}", f"{LIMIT:.3f}"
    assert recovery.notes == [f"a call of get_weather: doubt {low} (opening 0.000, choices {low}), up to {limit} allowed"]
    doubtful, recovery = judged(written(LIMIT * 1.1))
    assert not doubtful.tool_calls
    assert doubtful.text == "".join(piece for piece, _ in written(0))
    assert recovery.notes == [f"not a call of get_weather: doubt {high} (opening 0.000, choices {high}), up to {limit} allowed"]


def test_beginning_with_words_instead_is_doubt_and_another_wrapper_is_none() -> None:
    half = math.log(0.5)
    for rival in ("To", "Sure", "The weather", "7"):
        message, recovery = judged(written(0), rivals=(("```", half), (rival, half)))
        assert not message.tool_calls, rival
        assert f"opening {-half:.3f}" in recovery.notes[0]
    for rival in ('{"', "{{", "``", "<tool_call>", "<", "[", "get", "\n", " {"):
        assert len(judged(written(0), rivals=(("```", half), (rival, half)))[0].tool_calls) == 1, rival


HALF = math.log(0.5)
DIVIDED = (("```", HALF), ("To", HALF))


@pytest.mark.parametrize(
    ("said", "city"),
    [
        ("How is the weather in Rome?", "Rome"),
        ("ROME, please", "Rome"),
        ("北京的天气怎么样？", "北京"),
        ("Rome's weather", "Rome"),
    ],
)
def test_a_word_that_was_said_vouches_for_the_opening_and_not_for_the_choices(said: str, city: str) -> None:
    message, recovery = judged(written(LIMIT * 0.9, city), (said,), DIVIDED)
    assert len(message.tool_calls) == 1
    assert "100% of its words were said" in recovery.notes[0]
    assert not judged(written(LIMIT * 1.1, city), (said,), DIVIDED)[0].tool_calls


@pytest.mark.parametrize(("said", "city"), [("", "Rome"), ("What about Paris?", "Rome"), ("Chrome", "Rome"), ("Is it 7?", "7")])
def test_a_word_that_was_not_said_lowers_nothing_and_a_number_vouches_for_nothing(said: str, city: str) -> None:
    assert len(judged(written(LIMIT * 0.99, city), (said,))[0].tool_calls) == 1
    assert not judged(written(LIMIT * 1.01, city), (said,))[0].tool_calls
    assert not judged(written(0, city), (said,), DIVIDED)[0].tool_calls


def test_half_of_the_words_vouch_for_half_of_the_opening_and_a_choice_of_an_enum_counts_only_if_it_was_said() -> None:
    unit = {"enum": ["celsius", "kelvin"]}
    tool = ToolSpec("f", "", {"type": "object", "properties": {"city": {}, "note": {}, "unit": unit}})
    for arguments, share in (
        ('{"city": "Rome", "note": "x"}', 0.5), ('{"city": "Rome", "unit": "kelvin"}', 1), ("{}", 0),
        ('{"city": "Oslo", "unit": "celsius"}', 0.5), ('{"unit": "celsius"}', 1), ('{"unit": "kelvin"}', 0),
    ):  # fmt: skip
        assert share_said([FoundCall("f", arguments)], {"f": tool}, ("Rome, in Celsius?",)) == share
        assert Evidence(0.2, 0.01, share).doubt == pytest.approx(0.2 * (1 - share) + 0.01)


def test_a_long_text_counts_at_most_so_much_and_a_short_one_in_full() -> None:
    head, tail = '{"name": "get_weather", "arguments": {"city": "', '"}}'
    words: Tokens = [(f"word{i} ", -0.5) for i in range(20)]
    keys: Tokens = [("x", 0.0)]
    long, recovery = judged([(head, 0.0), *words, *keys * 3, (tail, 0.0)])
    assert len(long.tool_calls) == 1
    assert f"choices {TEXT_CAP / 24:.3f}" in recovery.notes[0]
    _, recovery = judged([(head, 0.0), ("San ", -0.5), ("José", -0.5), (tail, 0.0)])
    assert "choices 0.333" in recovery.notes[0]


def test_layout_and_what_a_grammar_forces_are_no_choices() -> None:
    tokens: Tokens = [("```", -9.0), ("json", 0.0), ("\n", -9.0), (ROME, -LIMIT), ("\n```", -9.0)]
    assert len(judged(tokens)[0].tool_calls) == 1
    forced: Tokens = [
        ('{"name": "get_weather", ', None),
        ('"arguments": {"city": "', None),
        ("Rome", -LIMIT * 1.1),
        ('"}}', None),
    ]
    assert not judged(forced)[0].tool_calls


def test_a_long_call_is_not_doubtful_for_its_length() -> None:
    head, tail = '{"name": "get_weather", "arguments": {"city": "', '"}}'
    for n in (1, 10, 100):
        words: Tokens = [(f"word{i} ", -LIMIT * 0.9) for i in range(n)]
        assert len(judged([(head, -LIMIT * 0.9), *words, (tail, 0.0)])[0].tool_calls) == 1


def test_a_call_in_vain_is_withheld_where_the_model_can_be_asked_again() -> None:
    for doubt, vain in ((LIMIT * 1.1, True), (LIMIT * 0.9, False)):
        message, recovery = judged(written(doubt), withhold=True)
        assert (bool(recovery.vain), not message.tool_calls, message.text) == (vain, vain, "")
        assert ("withheld" in recovery.notes[0], len(recovery.notes)) == (vain, 1)


def test_behind_calls_one_that_adds_what_was_asked_may_be_doubtful_and_words_could_have_come_instead() -> None:
    rivals = (("```", -2.0), ("The", -0.2))
    course = Course("The time, and the weather in Rome?", made=(ToolCall("math.now", "{}"),))
    for doubt, calls in ((FURTHER * 0.9, 1), (FURTHER * 1.1, 0)):
        assert len(judged(written(doubt), rivals=rivals, course=course, withhold=True)[0].tool_calls) == calls
        assert not judged(written(doubt), rivals=rivals)[0].tool_calls
    again = Course("The weather in Rome?", made=(ToolCall("get_weather", '{"city": "Rome"}'),))
    assert judged(written(0, "Paris"), course=again, withhold=True)[1].vain


def test_every_call_of_a_sure_array_or_of_several_fences_is_a_call() -> None:
    oslo = ROME.replace("Rome", "Oslo")
    for text in (f"```json\n[{ROME}, {oslo}]\n```", f"```json\n{ROME}\n```\n```json\n{oslo}\n```", f"{ROME}\n{oslo}"):
        message, _ = judged([(text, -LIMIT)])
        assert [json.loads(call.arguments)["city"] for call in message.tool_calls] == ["Rome", "Oslo"]
        assert all(call.trusted for call in message.tool_calls)


def test_a_name_that_is_no_tools_is_no_call_however_sure_the_model_is() -> None:
    message, _ = judged([('{"name": "Ada", "arguments": {"age": 36}}', 0.0)], ("Who is older, Ada or Linus?",))
    assert not message.tool_calls


def test_without_probabilities_nothing_is_doubted() -> None:
    message, _ = judged([("```json\n", None), (ROME, None), ("\n```", None)])
    assert len(message.tool_calls) == 1


def test_probabilities_are_wanted_only_where_a_call_could_begin() -> None:
    recovery = Recovery(TOOLS, HERMES)
    assert recovery.curious
    assert recovery.at_beginning
    recovery.feed("Well, ")
    assert not recovery.curious
    recovery.feed("so:\n")
    assert recovery.curious
    assert recovery.at_beginning
    recovery.feed("```json\n{")
    assert recovery.curious
    assert not recovery.at_beginning, "what could have stood at the beginning is known by now"


# --- the grammar --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("text", "arguments", "name"), CALLS)
def test_reading_and_strict_grammar_agree_on_valid_calls(text: str, arguments: list[dict[str, object]], name: str) -> None:
    assert accepts(near_miss_grammar(HERMES, TOOLS, "any"), text)
    assert accepts(near_miss_grammar(HERMES, TOOLS, "strict"), text)
    assert accepts(near_miss_grammar(HERMES, TOOLS, "opened"), text)
    assert len(read_calls(text, HERMES, [t.name for t in TOOLS])) == len(arguments)
