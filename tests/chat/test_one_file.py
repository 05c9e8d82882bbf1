"""What the project does not know is added in one place: from here alone, through the public registries."""

from __future__ import annotations

import json

import pytest

from llm_magics.chat.recovery.bodies import Named
from llm_magics.chat.recovery.recovery import Recovery
from llm_magics.chat.recovery.wrappers import Wrapper, near_miss_grammar, read_calls, registered
from llm_magics.events import assemble
from llm_magics.messages import Message
from tests.chat.grammars import accepts, refused_at
from tests.chat.recovery.test_recover import HERMES, TOOLS

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
            assert accepts(near_miss_grammar(HERMES, TOOLS, reading), text)  # type: ignore[arg-type]  # one of the three
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
