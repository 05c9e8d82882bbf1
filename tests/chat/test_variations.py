"""What models vary around a call, over templates of every kind: what is rendered is varied, and must mean the same."""

# ruff: noqa: E501 - a template is easier to read on one line

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from llm_magics.chat.encodings.syntax import JsonCall, ToolSyntax
from llm_magics.chat.encodings.writer import write_calls
from llm_magics.chat.format import ChatFormat
from llm_magics.chat.parsing.parser import StreamParser
from llm_magics.chat.syntax.tags import closing
from llm_magics.messages import Message, ToolCall, ToolSpec, user

from .small import (
    ARRAY,
    BARE,
    JSON,
    LINES,
    LIST,
    MARKED_ARRAY,
    MARKED_LIST,
    NOW,
    SECTION,
    TAGGED,
    calls_of,
    read,
    template,
    unfinished,
)

TYPED = ToolSpec(
    "measure",
    "Measures.",
    {
        "type": "object",
        "properties": {
            "text": {"type": "string"},
            "n": {"type": "integer"},
            "x": {"type": "number"},
            "ok": {"type": "boolean"},
            "maybe": {"anyOf": [{"type": "integer"}, {"type": "null"}]},
            "either": {"type": ["string", "integer"]},
            "unit": {"enum": ["m", "ft"]},
            "items": {"type": "array", "items": {"type": "string"}},
            "where": {"type": "object"},
        },
    },
)
TOOLS = (TYPED, NOW)
INVOKED = template(
    "{{ '<call name=\"' ~ n ~ '\">\\n' }}{% for k, v in a.items() %}{{ '<arg name=\"' ~ k ~ '\" text=\"' ~ ('true' if v is string else 'false') ~ '\">' ~ (v if v is string else v | tojson) ~ '</arg>\\n' }}"
    "{% endfor %}{{ '</call>\\n' }}", before="<calls>\n", behind="</calls>",
)  # fmt: skip
NAMED = template("{{ '[DO]' ~ n ~ '[WITH]' ~ a | tojson }}")
FENCED = template("{{ '<one>' ~ n ~ '\\n```json\\n' ~ a | tojson ~ '\\n```</one>' }}", before="<all>", behind="</all>")
QUOTED = template(
    "{{ '<do>call:' ~ n ~ '{' }}{% for k, v in a.items() %}{{ k ~ ':' ~ ('<q>' ~ v ~ '<q>' if v is string else v | tojson) ~ (',' if not loop.last else '') }}{% endfor %}{{ '}</do>' }}"
)
SOURCES = {
    "json": JSON, "section": SECTION, "tagged": TAGGED, "lines": LINES, "invoked": INVOKED, "named": NAMED, "fenced": FENCED,
    "bare": BARE, "array": ARRAY, "marked array": MARKED_ARRAY, "list": LIST, "marked list": MARKED_LIST, "quoted": QUOTED,
}  # fmt: skip

VALUES: dict[str, dict[str, Any]] = {
    "none": {},
    "plain": {"text": "ash"},
    "types": {"text": "a", "n": -7, "x": 0.25, "ok": False, "maybe": None, "unit": "ft"},
    "digits": {"text": "123", "unit": "m", "either": "word"},
    "constants": {"text": "null", "ok": True, "n": 0},
    "nested": {"where": {"a": [1, {"b": None}], "c": "d, e"}, "items": ["x", "y z"]},
    "lines": {"text": "one\ntwo\n\nthree", "n": 1},
    "signs": {"text": 'He said "hi", it\'s {fine} [ok] = 1', "n": 2},
    "empty": {"text": "", "items": []},
    "unicode": {"text": "北京 🌧 é"},
}


def variations(syntax: ToolSyntax, calls: list[ToolCall]) -> Iterator[tuple[str, str, str]]:
    """What a model may write for calls, and the content that stands beside it: a name for it, the text, the content."""
    written = write_calls(syntax, calls)
    yield "as it is", written, ""
    yield "white space around", "\n\n" + written + " \n", ""
    if not syntax.has_marker:
        return
    yield "text before", "Let me look.\n\n" + written, "Let me look."
    if syntax.section_end.strip() or syntax.call_end.strip():
        yield "text behind", written + "\n\nDone.", "Done."
    if len(calls) == 1:
        yield "no end", write_calls(replace(syntax, section_end=""), calls), ""
    else:
        yield "sections of their own", "\n".join(write_calls(syntax, [c]) for c in calls), ""
    bare = replace(syntax, section_start="", section_end="")
    if syntax.call_start.strip() and syntax.call_end.strip() and not syntax.array:
        each = [write_calls(bare, [c]).strip() for c in calls]
        for sign in ("", "\n", ",\n", "; "):
            yield f"{sign!r} between", syntax.section_start + sign.join(each) + syntax.section_end, ""


def parsed(fmt: ChatFormat, text: str, *, everywhere: bool = True) -> Iterator[StreamParser]:
    """The text parsed whole, by character, and cut in two: everywhere, or in the middle."""
    prompt = fmt.render([user("hi")], tools=TOOLS)
    cuts = range(1, len(text)) if everywhere else [len(text) // 2]
    for pieces in ([text], list(text), *([text[:cut], text[cut:]] for cut in cuts)):
        parser = fmt.parser(TOOLS, prompt=prompt)
        for piece in pieces:
            parser.feed(piece)
        parser.finish()
        yield parser


@pytest.mark.parametrize("source", SOURCES.values(), ids=SOURCES)
@pytest.mark.parametrize("values", VALUES.values(), ids=VALUES)
def test_what_models_vary_around_calls_changes_no_call(source: str, values: dict[str, Any]) -> None:
    fmt = ChatFormat.from_template(source)
    one = ToolCall("measure", json.dumps(values, ensure_ascii=False), "abcdefgh0")
    now = ToolCall("now", "{}", "abcdefgh1")
    for calls in [[one], [one, now, one]] if fmt.tools.parallel else [[one]]:
        for how, text, content in variations(fmt.tools, calls):
            expected = [(call.name, json.loads(call.arguments)) for call in calls]
            for parser in parsed(fmt, text, everywhere=False):
                got = calls_of(parser), parser.message.text.strip()
                assert got == (expected, content), (how, text, parser.notes)
                assert "".join(piece for _, piece in parser.segments) == text


ASH = ("measure", {"text": "ash"})
_JSON = '{"name": "measure", "arguments": {"text": "ash"}}'
_NOW = '{"name": "now", "arguments": {}}'


@pytest.mark.parametrize(
    ("source", "text", "calls"),
    [
        (JSON, f"<do>[{_JSON}, {_NOW}]</do>", [ASH, ("now", {})]),
        (JSON, f"<do>\n[{_JSON}]\n</do>\n<do>{_NOW}</do>", [ASH, ("now", {})]),
        (JSON, f"<do>\n{_JSON}\n{_NOW}\n</do>", [ASH, ("now", {})]),
        (JSON, f"<do>{_JSON}{_NOW}</do><do>{_NOW}</do>", [ASH, ("now", {}), ("now", {})]),
        (JSON, f"<do>\n```json\n{_JSON}\n```\n</do>", [ASH]),
        (JSON, f'<do>{{"type": "function", "function": {_JSON}}}</do>', [ASH]),
        (JSON, '<do>measure{"text": "ash"}</do>', [ASH]),
        (MARKED_ARRAY, '[DO]measure{"text": "ash"}', [ASH]),
        (MARKED_ARRAY, '[DO]measure {"text": "ash"}[DO]now{}', [ASH, ("now", {})]),
        (NAMED, f"[DO][{_JSON}, {_NOW}]", [ASH, ("now", {})]),
        (NAMED, f"[DO] {_JSON}", [ASH]),
        (NAMED, '[DO]measure{"text": "ash"}[DO]now[WITH]{}', [ASH, ("now", {})]),
        (FENCED, '<all><one>measure\n{"text": "ash"}</one></all>', [ASH]),
        (SECTION, '<all><one>measure<args>```json\n{"text": "ash"}\n```</one></all>', [ASH]),
        (SECTION, "<all><one>now<args></one></all>", [("now", {})]),
        (SECTION, "<all><one>now</one></all>", [("now", {})]),
        (BARE, '[{"name": "measure", "parameters": {"text": "ash"}}, {"name": "now", "parameters": {}}]', [ASH, ("now", {})]),
    ],
)
def test_a_call_between_the_templates_markers_may_be_written_otherwise(source: str, text: str, calls: list[Any]) -> None:
    for parser in parsed(ChatFormat.from_template(source), text):
        assert (calls_of(parser), parser.message.text) == (calls, "")


@pytest.mark.parametrize(
    ("source", "text", "calls"),
    [
        (INVOKED, '<calls>\n<call name="now"/>\n</calls>', [("now", {})]),
        (INVOKED, '<calls>\n<call name="now" />\n<call name="now"></call>\n</calls>', [("now", {})] * 2),
        (INVOKED, '<calls><call name="now"/><call name="measure"><arg name="text" text="true">ash</arg></call></calls>', [("now", {}), ASH]),
        (INVOKED, '<calls>\n<call name="measure">\n{"text": "ash"}\n</call>\n</calls>', [ASH]),
        (INVOKED, '<calls>\n<call name="measure">\n<arg name="text">ash</arg>\n<arg name="n">3</arg>\n</call>\n</calls>', [("measure", {"text": "ash", "n": 3})]),
        (LINES, "<do>\n<fn=now/>\n</do>", [("now", {})]),
        (LINES, "<do>\n<fn=measure>\n<p=text>\nash\n</fn>\n</do>", [ASH]),
        (LINES, "<do>\n<fn=measure>\n<p=text>\na\n</fn>\nb\n</p>\n</fn>\n</do>", [("measure", {"text": "a\n</fn>\nb"})]),
        (TAGGED, "<do>measure\\n<key>text</key>\\n<value>ash</value>\\n</do>", [ASH]),
        (TAGGED, '<do>measure<key>items</key><value>[\\"a\\", \\"b\\"]</value></do>', [("measure", {"items": ["a", "b"]})]),
        (TAGGED, '<do>measure<key>n</key><value>"3"</value></do>', [("measure", {"n": 3})]),
        (TAGGED, '<do>measure<key>where</key><value>"{\\"a\\": 1}"</value></do>', [("measure", {"where": {"a": 1}})]),
        (TAGGED, '<do>measure<key>text</key><value>"3"</value></do>', [("measure", {"text": '"3"'})]),
        (TAGGED, "<do>measure<key>text</key><value>a\\nb</value></do>", [("measure", {"text": "a\\nb"})]),
        (QUOTED, '<do>call:measure{"text": "ash"}</do>', [ASH]),
        (QUOTED, '<do>call:measure{"text":<q>ash<q>,n:3}</do>', [("measure", {"text": "ash", "n": 3})]),
    ],
)  # fmt: skip
def test_tags_of_arguments_may_be_written_otherwise(source: str, text: str, calls: list[Any]) -> None:
    for parser in parsed(ChatFormat.from_template(source), text):
        assert (calls_of(parser), parser.message.text) == (calls, ""), parser.notes


@pytest.mark.parametrize("source", [BARE, LIST], ids=["bare", "list"])
@pytest.mark.parametrize("end", ["", "<|done|>", "\n<|done|>\n"])
def test_control_tags_beside_a_call_without_a_marker_are_no_content(source: str, end: str) -> None:
    fmt = ChatFormat.from_template(source)
    text = write_calls(fmt.tools, [ToolCall("measure", '{"text": "ash"}')])
    for parser in parsed(fmt, "<|begin|>" + text + end):
        assert (calls_of(parser), parser.message.text) == ([ASH], "")
    both = read(source, text + "<|begin|>" + text, TOOLS) if fmt.tools.shape == "json" else None
    assert both is None or calls_of(both) == [ASH, ASH]
    told = read(source, text + " <|begin|> and more", TOOLS)
    assert told.message.text.strip() == "<|begin|> and more"


def test_a_call_that_begins_and_ends_with_the_same_tag_is_closed_by_its_pair() -> None:
    source = TAGGED.replace("</do>", "<do>")
    fmt = ChatFormat.from_template(source)
    assert fmt.tools.call_end == closing("<do>") == "</do>"
    call = ToolCall("measure", '{"text": "ash"}', "abcdefgh0")
    history = fmt.render([user("hi"), Message("assistant", tool_calls=(call, call))], tools=TOOLS, add_generation_prompt=False).text
    theirs = history.rpartition("<|assistant|>")[2].removesuffix("<|end|>")
    assert theirs.count("<do>") == 4
    for text in (theirs, write_calls(fmt.tools, [call, call])):
        parser = read(source, text, TOOLS)
        assert (calls_of(parser), parser.message.text) == ([ASH, ASH], "")


@pytest.mark.parametrize(
    ("each", "keys"),
    [
        ("{{ '<do>{\"name\": \"' ~ n ~ ', \"arguments\": ' ~ a | tojson ~ '\"}</do>' }}", ("name", "arguments")),
        ("{{ '<do>{\"name\": ' ~ n ~ ', \"arguments\": ' ~ a | tojson ~ '}</do>' }}", ("name", "arguments")),
        ("{{ '<do>{\"fn\": \"' ~ n ~ '\" \"args\": ' ~ a | tojson ~ '}</do>' }}", ("fn", "args")),
        ("{{ '<do>{\"name\": \"' ~ n ~ '\", \"arguments\": ' ~ a | tojson ~ '</do>' }}", ("name", "arguments")),
        ("{{ '<do>{\"name\": \"' ~ n ~ '\", \"arguments\": \"' ~ a | tojson ~ '\"}</do>' }}", ("name", "arguments")),
    ],
    ids=["quotes", "no quotes", "no comma", "no brace", "unescaped"],
)
def test_json_that_a_template_writes_wrongly_is_read_rightly_and_as_it_writes_it(each: str, keys: tuple[str, str]) -> None:
    source = template(each)
    fmt = ChatFormat.from_template(source)
    assert (fmt.tools.shape, fmt.tools.section_start + fmt.tools.call_start, fmt.tools.call_end) == ("json", "<do>", "</do>")
    one = f'<do>{{"{keys[0]}": "measure", "{keys[1]}": {{"text": "ash", "n": 3}}}}</do>'
    call = ToolCall("measure", '{"text": "ash", "n": 3}', "abcdefgh0")
    assert write_calls(fmt.tools, [call]) == one
    history = fmt.render([user("hi"), Message("assistant", tool_calls=(call, call))], tools=TOOLS, add_generation_prompt=False).text
    theirs = history.rpartition("<|assistant|>")[2].removesuffix("<|end|>")
    for text, count in ((one, 1), (one + "\n" + one, 2), (theirs, 2), ("Well. " + theirs, 2)):
        parser = read(source, text, TOOLS)
        assert calls_of(parser) == [("measure", {"text": "ash", "n": 3})] * count, (text, parser.notes)
        assert parser.message.text.strip() == ("Well." if text.startswith("Well") else "")


def test_nested_json_that_a_template_writes_wrongly_keeps_its_keys() -> None:
    source = template("{{ '<do>{\"function\": {\"name\": \"' ~ n ~ ', \"arguments\": ' ~ a | tojson ~ '}}</do>' }}")
    fields = ChatFormat.from_template(source).tools.call
    assert isinstance(fields, JsonCall)
    assert (fields.name, fields.arguments) == (("function", "name"), ("function", "arguments"))
    parser = read(source, '<do>{"function": {"name": "measure", "arguments": {"text": "ash"}}}</do>', TOOLS)
    assert calls_of(parser) == [ASH]


def test_a_call_cut_off_where_a_template_writes_json_wrongly_is_shown() -> None:
    source = template("{{ '<do>{\"name\": \"' ~ n ~ ', \"arguments\": ' ~ a | tojson ~ '\"}</do>' }}")
    fmt = ChatFormat.from_template(source)
    parser = fmt.parser(TOOLS, prompt=fmt.render([user("hi")], tools=TOOLS))
    parser.feed('<do>{"name": "measure", "arguments": {"text": "a')
    parser.finish("length")
    call = unfinished(parser)
    assert call is not None
    assert (call.name, call.arguments) == ("measure", '{"text": "a')


def test_an_empty_section_between_square_tags_holds_no_list() -> None:
    source = template("{{ {'name': n, 'arguments': a} | tojson }}", before="[calls][", between=", ", behind="][/calls]")
    for text, count in (("[calls][/calls]", 0), ("[calls][][/calls]", 0), (f"[calls][{_NOW}][/calls]", 1)):
        parser = read(source, text, TOOLS)
        assert (calls_of(parser), parser.message.text) == ([("now", {})] * count, "")


def test_a_thought_that_the_prompt_has_opened_may_be_opened_again() -> None:
    """Most engines drop the second marker, one keeps it as a part of the thought: that is the one miss in the second corpus."""
    source = template("{{ '<do>' ~ n ~ '</do>' }}", thoughts=True).replace("'<|assistant|>'", "'<|assistant|><think>\\n'")
    parser = read(source, "<think>hm</think>Yes.", TOOLS)
    assert (parser.message.reasoning, parser.message.text) == ("hm", "Yes.")
