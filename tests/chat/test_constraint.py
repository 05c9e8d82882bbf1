"""Constraints: what the template writes is accepted, what breaks a schema refused; each tool choice holds what it says."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from llm_magics.chat.analysis.reasoning import ReasoningSyntax
from llm_magics.chat.constraint import Frame, build_constraint, first_tag
from llm_magics.chat.encodings.syntax import NamedCall, ToolSyntax
from llm_magics.chat.encodings.tagged import TaggedArguments
from llm_magics.chat.encodings.writer import write_calls
from llm_magics.chat.format import ChatFormat
from llm_magics.errors import SchemaError
from llm_magics.messages import Message, ToolCall, ToolSpec, user
from llm_magics.models.base import Request
from llm_magics.models.guide import constraint_for
from tests.smoke import written_by_template

from .formats import NAMES, TEMPLATES, format_of
from .grammars import accepts, refused_at
from .test_laws import same_calls
from .values import random_object, random_value

each_template = pytest.mark.parametrize("path", TEMPLATES, ids=NAMES)

HERMES = ToolSyntax(call_start="<tool_call>\n", call_end="\n</tool_call>", separator="\n")
TAGS = TaggedArguments("<parameter=", ">\n", "\n</parameter>", "\n", constants="python")
CODER = ToolSyntax(
    NamedCall(">\n"),
    TAGS,
    call_start="<tool_call>\n<function=",
    call_end="\n</function>\n</tool_call>",
    separator="\n",
)
THINK = ReasoningSyntax("<think>\n", "\n</think>\n\n")
WEATHER = ToolSpec(
    "get_weather",
    "",
    {
        "type": "object",
        "properties": {
            "city": {"type": "string"},
            "days": {"type": "integer", "minimum": 1, "maximum": 7},
            "unit": {"enum": ["celsius", "fahrenheit"]},
            "code": {"type": "string", "pattern": "^[0-9]{5}$"},
        },
        "required": ["city"],
        "additionalProperties": False,
    },
)
NOW = ToolSpec("now", "", {"type": "object", "properties": {}, "additionalProperties": False})


def _tools(rng: random.Random) -> list[ToolSpec]:
    return [ToolSpec(f"tool_{i}", "Does it.", random_object(rng)) for i in range(2)]


def _calls(rng: random.Random, tools: list[ToolSpec], most: int) -> list[ToolCall]:
    """Valid calls of different tools, one to ``most``."""
    chosen = rng.sample(tools, rng.randint(1, most))
    arguments = [json.dumps(random_value(rng, dict(t.parameters)), ensure_ascii=False) for t in chosen]
    return [ToolCall(t.name, a, f"abcdefgh{i}") for i, (t, a) in enumerate(zip(chosen, arguments, strict=True))]


@each_template
def test_two_hundred_random_calls_are_accepted_and_read_back_equal(path: Path) -> None:
    fmt, rng = format_of(path), random.Random(3)
    most = 2 if fmt.tools.parallel and fmt.tools.blocks is None else 1  # blocks are the template's to write
    for _ in range(40):
        tools = _tools(rng)
        grammar = build_constraint(fmt.tools, tools).calls
        prompt = fmt.render([user("hi")], tools=tools, enable_thinking=False)
        for calls in (_calls(rng, tools, most) for _ in range(5)):
            text = str(write_calls(fmt.tools, calls))
            at = refused_at(grammar, text)
            assert at is None, text.encode()[:at].decode("utf-8", "replace")[-80:]
            assert accepts(grammar, text), text
            parser = fmt.parser(tools, prompt=prompt)
            parser.feed(text)
            parser.finish("stop")
            assert same_calls(parser.message.tool_calls, calls), (text, parser.notes)


def _can_be_said(fmt: ChatFormat, calls: list[ToolCall]) -> bool:
    """Has the template a way to write these values? Some write Python strings without escapes, some leave a nested null out."""
    written = "".join(call.arguments for call in calls)
    if isinstance(fmt.tools.arguments, TaggedArguments) and fmt.tools.arguments.nested:
        return "null" not in written
    return fmt.tools.shape != "pythonic" or not any(c in written for c in "'\\")


def _without_end(fmt: ChatFormat, text: str) -> str:
    """An answer as the engine sees it: without the tokens that end a turn."""
    for end in sorted((e.strip() for e in (fmt.turn.end, *fmt.turn.extra_ends) if e.strip()), key=len, reverse=True):
        text = text.rstrip().removesuffix(end)
    return text.rstrip()


@each_template
def test_two_hundred_calls_that_the_template_renders_are_read_back_equal_and_accepted(path: Path) -> None:
    fmt, rng = format_of(path), random.Random(5)
    seen = 0
    while seen < 200:
        tools = _tools(rng)
        grammar = ""
        for calls in (_calls(rng, tools, 2 if fmt.tools.parallel else 1) for _ in range(5)):
            if not _can_be_said(fmt, calls):
                continue
            seen += 1
            prompt, text = written_by_template(fmt, tools, Message("assistant", tool_calls=tuple(calls))) or (
                fmt.render([user("hi")], tools=tools),
                write_calls(fmt.tools, calls),
            )
            parser = fmt.parser(tools, prompt=prompt)
            parser.feed(text)
            parser.finish("stop")
            assert same_calls(parser.message.tool_calls, calls), (text, parser.notes)
            grammar = grammar or constraint_for(fmt, prompt, Request((user("hi"),), tuple(tools), "required")).start
            answer = _without_end(fmt, str(text))
            section_end = fmt.tools.section_end.strip()  # some templates write it after the results only
            assert accepts(grammar, answer) or accepts(grammar, answer + section_end), (refused_at(grammar, answer), answer)


@each_template
def test_nothing_but_a_call_is_accepted_under_required(path: Path) -> None:
    fmt = format_of(path)
    prompt = fmt.render([user("hi")], tools=[WEATHER])
    request = Request((user("hi"),), (WEATHER, NOW), "get_weather")
    grammar = constraint_for(fmt, prompt, request).start
    good = str(write_calls(fmt.tools, [ToolCall("get_weather", '{"city": "Rome", "days": 3}', "abcdefgh1")]))
    opened = refused_at(grammar, "Sure!") is None and fmt.tools.blocks is None
    if fmt.reasoning is not None and opened:  # the prompt has opened the reasoning
        good = "Sure!" + fmt.reasoning.end + good
    for text in ("Sure!", "", "{}"):
        assert not accepts(grammar, text)
    assert accepts(grammar, good), good
    for wrong in (good.replace("3", "9"), good.replace("city", "town"), good.replace("get_weather", "now")):
        assert not accepts(grammar, wrong), wrong


@each_template
def test_no_call_can_start_under_none(path: Path) -> None:
    fmt = format_of(path)
    prompt = fmt.render([user("hi")])
    grammar = constraint_for(fmt, prompt, Request((user("hi"),), (WEATHER,), "none")).start
    if fmt.tools.shape == "generic":
        assert not grammar  # such a model is told of calls by us, and here it is not
        return
    call = str(write_calls(fmt.tools, [ToolCall("get_weather", '{"city": "Rome"}', "abcdefgh1")]))
    closing = fmt.reasoning.end if fmt.reasoning is not None and not accepts(grammar, "Hello.") else ""
    if not grammar:
        assert not fmt.tools.has_marker or fmt.tools.blocks is not None
        return
    assert accepts(grammar, closing + 'Hello, "world"! <b>{1: 2}</b>\n')
    assert not accepts(grammar, closing + call), call


def test_only_the_named_tool_is_allowed_and_order_is_free() -> None:
    grammar = build_constraint(HERMES, [WEATHER, NOW], tool_choice="get_weather").start
    call = '<tool_call>\n{"name": "get_weather", "arguments": %s}\n</tool_call>'
    assert accepts(grammar, call % '{"days": 3, "city": "Rome"}')
    assert accepts(grammar, call % '{"city":"Rome",\n  "unit": "celsius"}')
    assert not accepts(grammar, call % '{"days": 3}')
    assert not accepts(grammar, call % '{"city": "Rome", "city": "Oslo"}')
    assert not accepts(grammar, '<tool_call>\n{"name": "now", "arguments": {}}\n</tool_call>')


def test_one_call_where_parallel_calls_are_off() -> None:
    one = str(write_calls(HERMES, [ToolCall("now", "{}")]))
    assert accepts(build_constraint(HERMES, [NOW]).calls, one + "\n" + one)
    assert not accepts(build_constraint(HERMES, [NOW], parallel=False).calls, one + "\n" + one)
    assert accepts(build_constraint(HERMES, [NOW], parallel=False).calls, one + "\n\n")


TAGGED: list[tuple[str, bool]] = [
    ("<parameter=city>\nRome\n</parameter>", True),
    ("<parameter=city>Rome</parameter>", True),  # without the layout
    ("<parameter=city>\n</p> <b>\n  x\n</parameter>\n<parameter=days>\n3\n</parameter>", True),
    ("<parameter=unit>celsius</parameter><parameter=city>x</parameter>", True),
    ("<parameter=code>\n12345\n</parameter><parameter=city>x</parameter>", True),
    ("<parameter=code>\n1234\n</parameter><parameter=city>x</parameter>", False),
    ("<parameter=unit>kelvin</parameter><parameter=city>x</parameter>", False),
    ("<parameter=days>three</parameter><parameter=city>x</parameter>", False),
    ("<parameter=days>3</parameter>", False),
    ("<parameter=town>Rome</parameter>", False),
]


@pytest.mark.parametrize(("arguments", "good"), TAGGED)
def test_tagged_values_are_held_to_their_types(arguments: str, good: bool) -> None:
    grammar = build_constraint(CODER, [WEATHER]).calls
    text = f"<tool_call>\n<function=get_weather>\n{arguments}\n</function>\n</tool_call>"
    assert accepts(grammar, text) is good


def test_reasoning_comes_first_and_may_speak_of_calls() -> None:
    frame = Frame(reasoning=THINK)
    call = str(write_calls(HERMES, [ToolCall("now", "{}")]))
    closed = build_constraint(HERMES, [NOW], tool_choice="required", frame=frame).start
    thought = "<think>\nI could write <tool_call> now.\n</think>\n\n"
    assert accepts(closed, thought + call)
    assert accepts(closed, call)
    assert not accepts(closed, thought)
    opened = build_constraint(HERMES, [NOW], tool_choice="required", frame=Frame(reasoning=THINK, reasoning_open=True)).start
    assert accepts(opened, "so\n</think>\n\n" + call)
    assert not accepts(opened, call)
    none = build_constraint(HERMES, [NOW], tool_choice="none", frame=frame).start
    assert accepts(none, thought + "No.")
    assert not accepts(none, thought + call)


def test_a_response_schema_is_json_after_the_reasoning_or_a_call_instead() -> None:
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"], "additionalProperties": False}
    plain = build_constraint(None, [], response_schema=schema).start
    assert accepts(plain, '{\n  "n": 3\n}')
    assert not accepts(plain, '{"n": "3"}')
    assert not accepts(plain, '\n{"n": 3}')
    assert not accepts(plain, '{\n\n\n\n"n": 3}')
    both = build_constraint(HERMES, [NOW], response_schema=schema, frame=Frame(reasoning=THINK)).start
    assert accepts(both, '<think>\nhm\n</think>\n\n{"n": 3}')
    assert accepts(both, str(write_calls(HERMES, [ToolCall("now", "{}")])))
    assert not accepts(both, "no")


def test_a_closing_marker_that_ends_the_generation_need_not_be_written() -> None:
    syntax = ToolSyntax(NamedCall("<|args|>"), call_start="<|call|>", call_end="<|eom|>")
    grammar = build_constraint(syntax, [NOW], frame=Frame(ends=frozenset({"<|eom|>"}))).calls
    assert accepts(grammar, "<|call|>now<|args|>{}")
    assert accepts(grammar, "<|call|>now<|args|>{}<|eom|>")
    assert not accepts(build_constraint(syntax, [NOW]).calls, "<|call|>now<|args|>{}")


def test_what_a_grammar_leaves_to_validation_is_named_by_tool() -> None:
    tool = ToolSpec("pick", "", {"type": "object", "properties": {"xs": {"type": "array", "uniqueItems": True}}})
    assert build_constraint(HERMES, [tool]).unenforced == ("pick: #/properties/xs/uniqueItems",)


def test_a_tool_whose_schema_cannot_be_used_is_refused_before_anything_runs() -> None:
    broken: dict[str, Any] = {"type": "object", "properties": {"a": {"type": "thing"}}}
    with pytest.raises(SchemaError):
        build_constraint(HERMES, [ToolSpec("f", "", broken)])


def test_the_first_tag_of_a_marker() -> None:
    assert first_tag("\n<tool_call>\n<function=") == "<tool_call>"
    assert first_tag(" \n") == ""
