"""What models write beside their template: layout between markers, empty sections, lists, thoughts in the middle."""

from __future__ import annotations

import pytest

from llm_magics.messages import ToolSpec
from tests.chat.small import ARRAY, BARE, JSON, LINES, LIST, MARKED_LIST, SECTION, TAGGED, calls_of, read

ASH = ("look_up", {"word": "ash"})


@pytest.mark.parametrize(
    ("source", "text"),
    [
        (TAGGED, "<do>look_up\n<key>word</key>\n<value>ash</value>\n</do>"),
        (TAGGED, "<do>\nlook_up <key>word</key> <value>ash</value> </do>"),
        (SECTION, '<all>\n<one>look_up<args>{"word": "ash"}</one>\n</all>'),
        (SECTION, '<all> <one>look_up <args>{"word": "ash"}</one></all>'),
        (SECTION, '<one>look_up<args>{"word": "ash"}</one>'),
        (MARKED_LIST, '<do> [look_up(word="ash")] </do>'),
    ],
)
def test_layout_between_neighbouring_markers_does_not_count(source: str, text: str) -> None:
    parser = read(source, text)
    assert calls_of(parser) == [ASH]
    assert parser.message.text == ""


@pytest.mark.parametrize(
    ("source", "text", "content"),
    [
        (TAGGED, "<do></do>Hello.", "Hello."),
        (SECTION, "Hello.\n<all></all>", "Hello."),
        (SECTION, "<all>\n<one>\n</one>\n</all>Hello.", "Hello."),
        (LINES, "<do>\n</do>\nHello.", "Hello."),
        (MARKED_LIST, "<do>[]</do>", ""),
        (MARKED_LIST, "<do></do>", ""),
        (JSON, "Wrap it in <do></do> and wait.", "Wrap it in <do></do> and wait."),
    ],
)
def test_an_empty_section_is_no_content_unless_a_sentence_names_it(source: str, text: str, content: str) -> None:
    parser = read(source, text)
    assert calls_of(parser) == []
    assert parser.message.text.strip() == content


@pytest.mark.parametrize(
    ("source", "text"),
    [
        (ARRAY, '[{"name": "look_up", "arguments": {"word": "ash"}}, {"name": "now", "arguments": {}}]'),
        (ARRAY, ' [ {"name": "look_up", "arguments": {"word": "ash"}} , {"name": "now", "arguments": {}} ] '),
        (LIST, '[look_up(word="ash"), now()]'),
        (LIST, "[look_up(word='ash'),\n now()]"),
        (BARE, '{"name": "look_up", "parameters": {"word": "ash"}}{"name": "now", "parameters": {}}'),
        (BARE, '{"name": "look_up", "parameters": {"word": "ash"}}; {"name": "now", "parameters": {}}'),
        (BARE, '<|tag|>{"name": "look_up", "parameters": {"word": "ash"}}\n{"name": "now", "parameters": {}}'),
        (MARKED_LIST, '<do>[{"name": "look_up", "arguments": {"word": "ash"}}, {"name": "now", "arguments": {}}]</do>'),
    ],
)
def test_calls_without_a_marker_of_their_own_are_read_to_the_last(source: str, text: str) -> None:
    parser = read(source, text)
    assert calls_of(parser) == [ASH, ("now", {})]
    assert parser.message.text == ""


@pytest.mark.parametrize(
    ("source", "text"),
    [
        (ARRAY, "[1, 2, 3]"),
        (ARRAY, '[{"name": "ash", "arguments": {}}]'),
        (LIST, "[look_up](https://example.org) says so."),
        (LIST, "[see below]"),
        (BARE, '{"name": "look_up", "height": {"ash": 2}}'),
        (BARE, '<|tag|> {"word": "ash"}'),
    ],
)
def test_text_that_only_begins_like_such_a_call_stays_text(source: str, text: str) -> None:
    parser = read(source, text)
    assert parser.message.tool_calls == ()
    assert parser.message.text == text


@pytest.mark.parametrize(
    ("source", "text"),
    [
        (JSON, '<do>{"name": "look_up", "parameters": {"word": "ash"}}</do>'),
        (ARRAY, '{"name": "look_up", "arguments": {"word": "ash"}}'),
        (LINES, "<do>\n<fn=look_up>\n<p=word>\nash\n<p=n>\n3\n</p>\n</fn>\n</do>"),
        (LINES, '<do>\n{"name": "look_up", "arguments": {"word": "ash", "n": 3}}\n</do>'),
        (MARKED_LIST, "<do>[look_up(word=ash)]</do>"),
    ],
)
def test_near_misses_between_exact_markers_are_calls(source: str, text: str) -> None:
    ((name, arguments),) = calls_of(parser := read(source, text))
    assert (name, arguments["word"], set(arguments) <= {"word", "n"}) == ("look_up", "ash", True)
    assert parser.message.text == ""


@pytest.mark.parametrize("gap", [("\n", "\n"), ("\n\n", ""), ("", "\n"), ("", " ")])
def test_a_thought_in_the_middle_glues_no_words(gap: tuple[str, str]) -> None:
    parser = read(JSON, f"One.{gap[0]}<think>hm</think>{gap[1]}Two.")
    assert parser.message.text.split() == ["One.", "Two."]
    assert parser.message.reasoning == "hm"


@pytest.mark.parametrize("quote", ["`<think>`", "(<think>)", "“<think>”", "'<think>'", "<think> "])
def test_a_quoted_marker_opens_no_thought(quote: str) -> None:
    parser = read(JSON, f"Write {quote} first.")
    assert (parser.message.text, parser.message.reasoning) == (f"Write {quote} first.", "")


OPENED = "{% for m in messages %}<{{ m.role }}>{{ m.content.split('</think>')[-1] }}{% endfor %}<assistant><think>\n"


def test_a_thought_that_is_opened_again_is_one_thought() -> None:
    parser = read(OPENED, "<think>hm</think>Well.", ())
    assert (parser.message.text, parser.message.reasoning) == ("Well.", "hm")


WORDS = ToolSpec("mix", "", {"type": "object", "properties": {"w": {"type": "array"}, "n": {"type": "integer"}}})


def test_an_argument_that_comes_again_is_a_list_if_a_list_is_due() -> None:
    text = "<do>\n<fn=mix>\n<p=w>\nash\n</p>\n<p=w>\noak\n</p>\n<p=n>\n2\n</p>\n</fn>\n</do>"
    assert calls_of(read(LINES, text, (WORDS,))) == [("mix", {"w": ["ash", "oak"], "n": 2})]


def test_an_argument_that_comes_twice_makes_no_call_otherwise() -> None:
    text = "<do>\n<fn=mix>\n<p=n>\n1\n</p>\n<p=n>\n2\n</p>\n</fn>\n</do>"
    parser = read(LINES, text, (WORDS,))
    assert parser.message.tool_calls == ()
    assert "comes twice" in parser.notes[0]
    assert parser.message.text == text
