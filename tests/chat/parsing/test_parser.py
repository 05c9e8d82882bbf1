"""How an answer streams: at once where certain, held back where not, and never a call that is none."""

from __future__ import annotations

import json

import pytest

from llm_magics.chat.parsing.parser import StreamParser
from llm_magics.events import ModelEnd, ModelEvent, ReasoningDelta, TextDelta, ToolCallDelta, ToolCallEnd, ToolCallStart
from llm_magics.messages import ToolSpec, user
from tests.chat.formats import OWN, format_of
from tests.chat.small import unfinished

LOOK_UP = ToolSpec("look_up", "", {"type": "object", "properties": {"word": {"type": "string"}, "n": {"type": "integer"}}})
CALL = '<invoke>\n{"tool": "look_up", "input": {"word": "ash"}}\n</invoke>'


def parser_of(stem: str, **options: object) -> StreamParser:
    fmt = format_of(OWN / f"{stem}.jinja")
    return fmt.parser([LOOK_UP], prompt=fmt.render([user("hi")], tools=[LOOK_UP], enable_thinking=False), **options)  # type: ignore[arg-type]


def fed(parser: StreamParser, *pieces: str) -> list[list[ModelEvent]]:
    return [parser.feed(piece) for piece in pieces]


def test_text_goes_out_at_once() -> None:
    assert fed(parser_of("json"), "Hel", "lo", ", you") == [[TextDelta("Hel")], [TextDelta("lo")], [TextDelta(", you")]]


def test_only_what_could_become_a_marker_is_held_back() -> None:
    assert fed(parser_of("json"), "a <", "b", "<in", "k") == [[TextDelta("a")], [TextDelta(" <b")], [], [TextDelta("<ink")]]


def test_a_call_starts_with_its_name_and_its_arguments_stream() -> None:
    given = fed(parser_of("json"), '<invoke>\n{"tool": "look_up"', ', "input": {"wo', 'rd": "as', 'h"}', "}")
    assert [type(e) for e in given[0]] == [ToolCallStart]
    assert given[1:4] == [[ToolCallDelta(0, '{"wo')], [ToolCallDelta(0, 'rd": "as')], [ToolCallDelta(0, 'h"}')]]
    assert [type(e) for e in given[4]] == [ToolCallEnd]


def test_strings_in_tags_stream_as_json() -> None:
    given = fed(parser_of("tagged"), '<runs>\n<run tool="look_up">', '\n<set name="word" kind="text">a"b', "\nc", "</set>")
    assert given[1] == [ToolCallDelta(0, '{"word": "a\\"b')]
    assert given[2] == [ToolCallDelta(0, "\\nc")]


def test_a_value_that_is_no_string_comes_whole() -> None:
    given = fed(parser_of("tagged"), '<run tool="look_up">\n<set name="n" kind="data">1', "2", "</set>\n</run>")
    assert given[1] == []
    assert ToolCallDelta(0, "12}") in given[2]


def test_a_cut_off_call_never_ends_and_the_finish_reason_stays() -> None:
    parser = parser_of("json")
    events = [*parser.feed('<invoke>\n{"tool": "look_up", "input": {"word": "a'), *parser.finish("length")]
    assert not any(isinstance(e, ToolCallEnd) for e in events)
    assert parser.finish_reason == "length"
    assert parser.message.tool_calls == ()
    call = unfinished(parser)
    assert call is not None
    assert call.arguments == '{"word": "a'


def test_a_complete_call_cut_off_behind_it_stays_a_call() -> None:
    parser = parser_of("json")
    parser.feed('<invoke>\n{"tool": "look_up", "input": {}}')
    parser.finish("length")
    assert len(parser.message.tool_calls) == 1
    assert parser.finish_reason == "length"


def test_a_malformed_call_is_text_from_its_first_character_and_says_why() -> None:
    parser = parser_of("json")
    text = '<invoke>\n{"tool": "look_up", "input": {"word": tru}}\n</invoke> and more'
    events = [*parser.feed(text), *parser.finish()]
    assert parser.message.text == text
    assert isinstance(events[-1], ModelEnd)
    assert any("not a tool call" in note for note in events[-1].notes)
    assert not any(isinstance(e, ToolCallEnd) for e in events)


def test_what_follows_a_failed_call_is_still_read() -> None:
    parser = parser_of("json")
    parser.feed("<invoke>no<invoke> " + CALL)
    parser.finish()
    assert parser.message.text == "<invoke>no<invoke>"
    assert len(parser.message.tool_calls) == 1


def test_a_mention_inside_reasoning_is_no_call_and_streams_on() -> None:
    parser = parser_of("json")
    given = fed(parser, "<musing>\nMaybe ", CALL, " or not", "\n</musing>\n\nNo.")
    assert given[0] == [ReasoningDelta("Maybe")]
    assert given[1] == []
    assert given[2] == [ReasoningDelta(" " + CALL + " or not")]
    assert parser.finish()[-1].message.tool_calls == ()  # type: ignore[union-attr]


@pytest.mark.parametrize("choice", ["none"])
def test_nothing_is_a_call_where_none_is_allowed(choice: str) -> None:
    parser = parser_of("json", tool_choice=choice)
    parser.feed(CALL)
    parser.finish()
    assert parser.message.text == CALL


def test_ids_of_the_model_are_kept() -> None:
    parser = parser_of("name_json")
    parser.feed('[USE]look_up[REF]zyxwvuts9[WITH]{"word": "ash"}')
    parser.finish()
    assert parser.message.tool_calls[0].id == "zyxwvuts9"


def test_ids_are_made_where_the_template_has_none_and_differ_between_prompts() -> None:
    fmt = format_of(OWN / "json.jinja")
    ids = []
    for question in ("one", "two", "one"):
        parser = fmt.parser([LOOK_UP], prompt=fmt.render([user(question)], tools=[LOOK_UP]))
        parser.feed(CALL + "\n" + CALL)
        parser.finish()
        ids.append([call.id for call in parser.message.tool_calls])
    assert ids[0] == ids[2] != ids[1]
    assert len({*ids[0], *ids[1]}) == 4
    assert all(len(i) == 9 and i.isalnum() for pair in ids for i in pair)


@pytest.mark.parametrize(
    ("schema", "text", "value"),
    [
        ({"type": "string"}, "30", "30"),
        ({"type": "string"}, "null", "null"),
        ({"type": "integer"}, "30", 30),
        ({"type": "number"}, "1.5", 1.5),
        ({"type": "boolean"}, "True", True),
        ({"type": ["string", "null"]}, "null", None),
        ({"type": ["string", "null"]}, "nil", "nil"),
        ({"type": ["string", "integer"]}, "2 dollars", "2 dollars"),
        ({"enum": ["on", "off"]}, "on", "on"),
        ({"anyOf": [{"type": "integer"}, {"type": "object"}]}, '{"a": 1}', {"a": 1}),
        ({"$ref": "#/$defs/n"}, "7", 7),
        ({"type": "array"}, "[1, 'a']", [1, "a"]),
        ({}, "7", 7),
        ({}, "seven", "seven"),
    ],
)
def test_untyped_tags_are_read_as_the_schema_says(schema: dict[str, object], text: str, value: object) -> None:
    from llm_magics.chat.encodings.typed import json_of
    from llm_magics.schema.normal import parameters

    read = parameters({"properties": {"x": schema}, "$defs": {"n": {"type": "integer"}}})
    assert json.loads(json_of(text, read.types(read.member(read.root, "x")))) == value


def test_a_finished_parser_takes_no_more() -> None:
    parser = parser_of("json")
    parser.finish()
    with pytest.raises(ValueError, match="finished"):
        parser.feed("x")
