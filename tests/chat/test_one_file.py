"""What the project does not know is added in one place: from here alone, through the public registries."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_magics.chat import encodings
from llm_magics.chat.constraint import build_constraint
from llm_magics.chat.encodings.syntax import NamedCall
from llm_magics.chat.encodings.writer import write_calls
from llm_magics.chat.format import ChatFormat
from llm_magics.chat.recovery.recovery import Recovery
from llm_magics.chat.recovery.wrappers import Wrapper, near_miss_grammar, read_calls, registered
from llm_magics.events import assemble
from llm_magics.messages import Message, ToolCall
from tests.chat import test_constraint, test_laws
from tests.chat.formats import format_of
from tests.chat.grammars import accepts, refused_at
from tests.chat.named_calls import Named
from tests.chat.recovery.test_recover import HERMES, TOOLS
from tests.chat.small import LOOK_UP, calls_of, read, template
from tests.chat.test_laws import some
from tests.chat.yaml_lines import YamlLines

# --- an encoding of arguments: one module -----------------------------------------------------------------------------------

LINES = template(
    "{{ '<act>' ~ n ~ '\\n' }}{% for k, v in a.items() %}{{ k ~ ': ' ~ (v | tojson) ~ '\\n' }}{% endfor %}{{ '</act>' }}",
    thoughts=True,
)
LAWS = [
    test_laws.test_calls_that_the_template_writes_are_read_back_equal,
    test_laws.test_calls_that_our_writer_writes_are_read_back_equal,
    test_laws.test_any_text_in_any_pieces_gives_the_same_answer_and_loses_nothing,
]
MORE_LAWS = [
    test_laws.test_a_parser_in_the_middle_of_an_answer_pickles,
    test_constraint.test_two_hundred_random_calls_are_accepted_and_read_back_equal,
    test_constraint.test_two_hundred_calls_that_the_template_renders_are_read_back_equal_and_accepted,
    test_constraint.test_nothing_but_a_call_is_accepted_under_required,
    test_constraint.test_no_call_can_start_under_none,
]


@pytest.fixture(name="lines")
def _lines(tmp_path: Path) -> Iterator[Path]:
    """A template whose calls are in lines, while that encoding is known."""
    path = tmp_path / "lines.jinja"
    path.write_text(LINES, encoding="utf-8")
    with encodings.registered(YamlLines):
        yield path


def test_analysis_finds_an_encoding_that_is_one_module(lines: Path) -> None:
    tools = format_of(lines).tools
    assert (tools.call, tools.arguments) == (NamedCall("\n"), YamlLines(": "))
    assert (tools.call_start, tools.call_end, tools.shape) == ("<act>", "</act>", "name + lines")


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.__name__)
def test_the_laws_of_parsing_hold_for_it(law: Any, lines: Path) -> None:
    @some
    @given(data=st.data())
    def holds(data: st.DataObject) -> None:
        law.hypothesis.inner_test(path=lines, data=data)

    holds()


@pytest.mark.parametrize("law", MORE_LAWS, ids=lambda law: law.__name__)
def test_the_laws_of_constraints_hold_for_it(law: Callable[[Path], None], lines: Path) -> None:
    law(lines)


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ('word: "ash"', {"word": "ash"}),
        ("word: ash and elm", {"word": "ash and elm"}),
        ("word: 3", {"word": "3"}),
        ("n: 3\nword : ash", {"n": 3, "word": "ash"}),
        ('where: {"x": [1, true]}', {"where": {"x": [1, True]}}),
    ],
)
def test_the_grammar_admits_what_is_read(line: str, value: dict[str, Any], lines: Path) -> None:
    text = f"<act>look_up\n{line}\n</act>"
    assert calls_of(read(LINES, text)) == [("look_up", value)]
    assert accepts(build_constraint(format_of(lines).tools, [LOOK_UP]).calls, text)


@pytest.mark.parametrize("line", ["n: ash", 'n: "3', "word: ash elm\nn", "n: [", "n: 3.5"])
def test_the_grammar_refuses_what_would_be_another_value(line: str, lines: Path) -> None:
    assert not accepts(build_constraint(format_of(lines).tools, [LOOK_UP]).calls, f"<act>look_up\n{line}\n</act>")


def test_an_encoding_is_forgotten_with_its_block() -> None:
    call = ToolCall("look_up", '{"word": "ash"}', "abcdefgh1")
    source = LINES.replace("act>", "do>")
    with encodings.registered(YamlLines):
        assert ChatFormat.from_template(source).tools.arguments == YamlLines(": ")
        assert write_calls(ChatFormat.from_template(source).tools, [call]) == '<do>look_up\nword: "ash"\n</do>'
    assert YamlLines not in encodings.encodings()
    assert not isinstance(ChatFormat.from_template(source).tools.arguments, YamlLines)


# --- a near-miss wrapper: one entry -----------------------------------------------------------------------------------------

REACT = Wrapper("ReAct", Named("Action Input:"), "Action:")
ROME = 'Action: get_weather\nAction Input: {"city": "Rome"}'
NOW = "Action: math.now\nAction Input: {}"
CALLS = [
    (ROME, [("get_weather", {"city": "Rome"})]),
    (f"{ROME}\n\n{NOW}\n", [("get_weather", {"city": "Rome"}), ("math.now", {})]),
    ('Action:get_weather Action Input:\n{"days": 2, "city": "Oslo"}', [("get_weather", {"days": 2, "city": "Oslo"})]),
]


def recovered(pieces: list[str]) -> tuple[Message, Recovery]:
    recovery = Recovery(TOOLS, HERMES)
    events = [event for piece in pieces for event in recovery.feed(piece)]
    return assemble(events + recovery.finish()), recovery


@pytest.mark.parametrize(("text", "calls"), CALLS)
def test_recovery_knows_a_wrapper_that_is_one_entry(text: str, calls: list[tuple[str, object]]) -> None:
    with registered(REACT):
        for pieces in ([text], list(text)):
            message, _ = recovered(pieces)
            assert [(c.name, json.loads(c.arguments)) for c in message.tool_calls] == calls
            assert {(c.recovered, c.trusted) for c in message.tool_calls} == {("ReAct", True)}
            assert not message.text.strip()


@pytest.mark.parametrize(("text", "calls"), CALLS)
def test_the_grammar_knows_a_wrapper_that_is_one_entry(text: str, calls: list[tuple[str, object]]) -> None:
    names = [tool.name for tool in TOOLS]
    with registered(REACT):
        for reading in ("any", "opened", "strict"):
            assert accepts(near_miss_grammar(HERMES, TOOLS, reading), text)  # type: ignore[arg-type]
        assert [(c.name, json.loads(c.arguments)) for c in read_calls(text, HERMES, names)] == calls


def test_what_a_new_wrapper_holds_is_armed_judged_and_counted_as_in_the_others() -> None:
    with registered(REACT):
        recovery = Recovery(TOOLS, HERMES)
        assert recovery.feed("Action: get_weather\nAction Input: ") == []
        assert recovery.opened is None
        recovery.feed("{")
        assert recovery.opened is not None
        assert accepts(recovery.opened.grammar, recovery.opened.written + '"city": "Rome"}')
        assert refused_at(recovery.opened.grammar, recovery.opened.written + '"town"') is not None
        recovery.feed('"city": "Rome"}')
        assert [call.name for call in recovery.written()] == ["get_weather"]
        wrong = ROME.replace("city", "town")
        message, recovery = recovered([wrong])
        assert (message.text, len(recovery.notes)) == (wrong, 1)
        other = ROME.replace("get_weather", "get_forecast")
        assert recovered([other])[0].text == other


def test_a_wrapper_is_forgotten_with_its_block() -> None:
    with registered(REACT):
        assert recovered([ROME])[0].tool_calls
    message, _ = recovered([ROME])
    assert (message.text, message.tool_calls) == (ROME, ())
    assert refused_at(near_miss_grammar(HERMES, TOOLS, "any"), ROME) is not None
