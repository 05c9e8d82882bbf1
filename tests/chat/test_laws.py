"""The laws of parsing, as properties over every template: chunking, agreement, fold, lossless, replay from a pickle."""

from __future__ import annotations

import json
import pickle
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llm_magics.chat.encodings.writer import write_calls
from llm_magics.chat.format import ChatFormat
from llm_magics.chat.parsing.parser import StreamParser
from llm_magics.events import ModelEnd, ModelEvent, assemble
from llm_magics.messages import Message, ToolCall, ToolSpec, user
from tests.smoke import written_by_template

from .formats import NAMES, TEMPLATES, format_of
from .small import unfinished

each_template = pytest.mark.parametrize("path", TEMPLATES, ids=NAMES)
some = settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)

_TYPES = ("string", "integer", "number", "boolean", "array", "object")
_CHARACTERS = "aB é😀\n\"'\\<>&{}[]:,=|/1`\t()%$"


@st.composite
def tools_and_calls(draw: st.DrawFn, *, most: int, plain: bool) -> tuple[list[ToolSpec], list[ToolCall]]:
    """Tools with typed parameters, and calls of them that are valid; ``plain`` leaves out quotes and backslashes."""
    characters = "".join(c for c in _CHARACTERS if c not in "'\"\\") if plain else _CHARACTERS
    texts = st.text(characters, max_size=12)
    values: dict[str, st.SearchStrategy[Any]] = {
        "string": texts,
        "integer": st.integers(-(10**9), 10**9),
        "number": st.sampled_from([0.5, -3.25, 1e10, 7.0]),
        "boolean": st.booleans(),
        "array": st.lists(texts.filter(bool), min_size=1, max_size=3),
        "object": st.fixed_dictionaries({"x": st.integers(0, 9), "y": texts}),
    }
    schemas: dict[str, Any] = {
        **{kind: {"type": kind} for kind in _TYPES},
        "array": {"type": "array", "items": {"type": "string"}},
        "object": {"type": "object", "properties": {"x": {"type": "integer"}, "y": {"type": "string"}}},
    }
    tools, calls = [], []
    for i in range(draw(st.integers(1, most))):
        kinds = draw(st.dictionaries(st.sampled_from(["city", "arg1", "query", "max_n"]), st.sampled_from(_TYPES), max_size=4))
        arguments = {key: draw(values[kind]) for key, kind in kinds.items()}
        name = draw(st.sampled_from(["get_time", "search.docs", "f"])) + str(i)
        properties = {key: schemas[kind] for key, kind in kinds.items()}
        tools.append(ToolSpec(name, "Does it.", {"type": "object", "properties": properties}))
        calls.append(ToolCall(name, json.dumps(arguments, ensure_ascii=False), f"abcdefgh{i}"))
    return tools, calls


def pieces_of(text: str, cuts: list[int]) -> list[str]:
    """Cut a text at these places."""
    return [text[a:b] for a, b in pairwise(sorted({c % (len(text) + 1) for c in cuts} | {0, len(text)}))]


def events_of(parser: StreamParser, pieces: list[str], reason: str = "stop") -> list[ModelEvent]:
    """Feed and finish a parser."""
    events = [event for piece in pieces for event in parser.feed(piece)]
    return events + parser.finish(reason)  # type: ignore[arg-type]


def same_calls(found: tuple[ToolCall, ...], wanted: list[ToolCall]) -> bool:
    return [(c.name, json.loads(c.arguments)) for c in found] == [(c.name, json.loads(c.arguments)) for c in wanted]


@each_template
@some
@given(data=st.data())
def test_calls_that_the_template_writes_are_read_back_equal(path: Path, data: st.DataObject) -> None:
    fmt = format_of(path)
    most = 3 if fmt.tools.parallel else 1
    tools, calls = data.draw(tools_and_calls(most=most, plain=fmt.tools.shape == "pythonic"))
    prompt, text = written_by_template(fmt, tools, Message("assistant", tool_calls=tuple(calls))) or (
        fmt.render([user("hi")], tools=tools),
        write_calls(fmt.tools, calls),
    )
    cuts = data.draw(st.lists(st.integers(0, 10**6), max_size=8))
    parser = fmt.parser(tools, prompt=prompt)
    events_of(parser, pieces_of(text, cuts))
    assert same_calls(parser.message.tool_calls, calls), (text, parser.notes)
    assert parser.finish_reason == "tool_calls"


@each_template
@some
@given(data=st.data())
def test_calls_that_our_writer_writes_are_read_back_equal(path: Path, data: st.DataObject) -> None:
    fmt = format_of(path)
    several = fmt.tools.parallel and fmt.tools.blocks is None  # what stands between blocks is the template's to write
    tools, calls = data.draw(tools_and_calls(most=3 if several else 1, plain=False))
    parser = fmt.parser(tools, prompt=fmt.render([user("hi")], tools=tools, enable_thinking=False))
    events_of(parser, [write_calls(fmt.tools, calls)])
    assert same_calls(parser.message.tool_calls, calls), parser.notes


def _material(fmt: ChatFormat) -> list[str]:
    """Markers, pieces of markers and ordinary text, from which answers are put together."""
    syntax, turn = fmt.tools, fmt.turn
    texts = [*syntax.markers, turn.content_start, turn.content_end, turn.end, turn.generation_prompt, syntax.call_start]
    if fmt.reasoning is not None:
        texts += [fmt.reasoning.start, fmt.reasoning.end]
    texts.append(write_calls(syntax, [ToolCall("look_up", '{"word": "as h"}', "abcdefgh1")]))
    texts += [t[: len(t) // 2] for t in texts if len(t) > 3]
    return [t for t in texts if t] + ["hello ", " ", "\n", "look_up", '{"word": ', "<", "}", '"', "é", "'", "]"]


_LOOK_UP = ToolSpec("look_up", "", {"type": "object", "properties": {"word": {"type": "string"}}})


@each_template
@some
@given(data=st.data())
def test_any_text_in_any_pieces_gives_the_same_answer_and_loses_nothing(path: Path, data: st.DataObject) -> None:
    fmt = format_of(path)
    text = "".join(data.draw(st.lists(st.sampled_from(_material(fmt)), max_size=9)))
    cuts = data.draw(st.lists(st.integers(0, 10**6), max_size=9))
    reason = data.draw(st.sampled_from(["stop", "length"]))
    inline = data.draw(st.sampled_from(["split", "inline"]))
    prompt = fmt.render([user("hi")], tools=[_LOOK_UP], enable_thinking=data.draw(st.booleans()))
    answers = []
    for pieces in ([text], list(text), pieces_of(text, cuts)):
        parser = fmt.parser([_LOOK_UP], prompt=prompt, reasoning=inline)  # type: ignore[arg-type]
        events = events_of(parser, pieces, reason)
        answers.append((parser.message, parser.notes, unfinished(parser)))
        end = events[-1]
        assert isinstance(end, ModelEnd)
        assert assemble(events, reason) == end.message == parser.message  # type: ignore[arg-type]
        assert "".join(piece for _, piece in parser.segments) == text
        assert _words(parser, inline) == _shown(parser)
        if reason == "length":
            assert end.finish_reason == "length"
    assert answers[0] == answers[1] == answers[2]


def _words(parser: StreamParser, inline: str) -> str:
    """What the segments say is content and reasoning, without layout."""
    kinds = ("text",) if inline == "inline" else ("text", "reasoning")
    return "".join("".join(text.split()) for kind in kinds for k, text in parser.segments if k == kind)


def _shown(parser: StreamParser) -> str:
    """The message's content and reasoning, without layout; what the prompt wrote of a thought is no answer of the model's."""
    content, reasoning = "".join(parser.message.text.split()), "".join(parser.message.reasoning.split())
    setting = parser.setting
    start = "".join(setting.reasoning.start.split()) if setting.reasoning and setting.inline else ""
    written = "".join("".join(text.split()) for kind, text in parser.segments if kind == "text")
    if start and content == start + written:
        content = written
    return content + reasoning


@each_template
def test_a_parser_in_the_middle_of_an_answer_pickles(path: Path) -> None:
    fmt = format_of(path)
    text = "hello " + write_calls(fmt.tools, [ToolCall("look_up", '{"word": "ash"}', "abcdefgh1")])
    prompt = fmt.render([user("hi")], tools=[_LOOK_UP], enable_thinking=False)
    parser = fmt.parser([_LOOK_UP], prompt=prompt)
    parser.feed(text[: len(text) // 2])
    again = pickle.loads(pickle.dumps(parser))
    for each in (parser, again):
        each.feed(text[len(text) // 2 :])
        each.finish()
    assert again.message == parser.message
