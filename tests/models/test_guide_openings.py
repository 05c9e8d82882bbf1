"""Wherever the parser says that a call has begun, the guide arms: with outer tags or without, in every template."""

from __future__ import annotations

from pathlib import Path

import pytest

from llm_magics.chat.encodings.syntax import ToolSyntax
from llm_magics.chat.encodings.writer import write_calls
from llm_magics.chat.parsing.call import CallReader
from llm_magics.chat.parsing.callevents import Calls
from llm_magics.chat.scan.reader import Reader
from llm_magics.engine.values import Grammar
from llm_magics.events import ToolCallStart
from llm_magics.messages import ToolCall, ToolSpec, user
from llm_magics.models.base import Request
from llm_magics.models.guide import ChatGuide, make_guide, takes
from tests.chat.formats import NAMES, TEMPLATES, format_of
from tests.chat.test_laws import same_calls

STEP = ToolSpec(
    "step",
    "Take steps.",
    {"type": "object", "properties": {"count": {"type": "integer"}}, "required": ["count"], "additionalProperties": False},
)
CALL = ToolCall("step", '{"count": 41}', "abcdefgh1")


def _guide(path: Path) -> ChatGuide:
    fmt = format_of(path)
    request = Request((user("Go."),), (STEP,))
    prompt = fmt.render(request.messages, tools=[STEP], enable_thinking=False)
    return make_guide(fmt, prompt, request)  # no marker is a single token, so that only the parser says what has begun


def _beginnings(syntax: ToolSyntax) -> list[str]:
    """The same call from each of the tags by which it may begin, the outermost first."""
    whole = str(write_calls(syntax, [CALL]))
    left_out = CallReader(Reader(), syntax, [STEP], Calls("")).left_out
    places = sorted(whole.find(tag, len(before.strip())) for tag, before in left_out.items())
    return list(dict.fromkeys([whole, *(whole[at:] for at in places if at >= 0)]))


@pytest.mark.parametrize("path", TEMPLATES, ids=NAMES)
def test_wherever_a_call_has_begun_the_guide_arms(path: Path) -> None:
    fmt = format_of(path)
    for syntax in (fmt.tools, *fmt.analysis.alternates):
        for text in _beginnings(syntax):
            _arms(_guide(path), text)


def _arms(guide: ChatGuide, text: str) -> None:
    """Feed a call character by character: at its start at the latest a grammar is armed, and it holds the argument."""
    guide.start()
    armed: Grammar | None = None
    begun = False
    for at, character in enumerate(text, 1):
        step = guide.feed(character)
        armed = armed or step.arm
        begun = begun or any(isinstance(event, ToolCallStart) for event in step.events)
        if armed is None:
            assert not begun, f"unarmed after {text[:at]!r}"
            continue
        rest = text[at:]
        if step.arm is not None and "41" in rest:
            assert takes(armed.text, armed.pending + rest)
            assert not takes(armed.text, armed.pending + rest.replace("41", "xx"))
    end = guide.finish("stop").events[-1]
    calls = end.message.tool_calls  # type: ignore[attr-defined]  # the last event is the ModelEnd
    if begun:
        assert same_calls(calls, [CALL])
        assert armed is not None


def test_a_call_without_its_outer_tag_is_held_to_its_schema() -> None:
    path = next(p for p in TEMPLATES if p.stem == "tagged")
    syntax = format_of(path).tools
    beginnings = _beginnings(syntax)
    assert len(beginnings) > 1, "this template's calls have an inner tag"
    guide = _guide(path)
    guide.start()
    steps = [guide.feed(character) for character in beginnings[1]]
    (armed,) = [step.arm for step in steps if step.arm]
    assert armed.pending.startswith(syntax.call_start.split()[0]), "the outer tag is given to the grammar"
    assert any(isinstance(event, ToolCallStart) for step in steps for event in step.events)
