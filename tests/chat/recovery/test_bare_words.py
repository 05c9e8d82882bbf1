"""Markers that are bare words: ``TOOLCALL`` and ``ENDCALL`` on lines of their own, without any sign."""

# ruff: noqa: E501 - a template is easier to read on one line

from __future__ import annotations

import pytest

from llm_magics.chat.encodings.writer import write_calls
from llm_magics.chat.format import ChatFormat
from llm_magics.messages import ToolCall
from tests.chat.small import calls_of, read, template

ASH = ToolCall("look_up", '{"word": "ash", "n": 3}', "abcdefgh1")
_TAGGED = (
    "{{ '\\nTOOLCALL\\n' ~ n ~ '\\n' }}{% for k, v in a.items() %}{{ 'KEY ' ~ k ~ ' VALUE ' ~ (v if v is string else v | tojson) ~ ' ENDKEY\\n' }}"
    "{% endfor %}{{ 'ENDCALL\\n' }}"
)
FORMS = {
    "json": template("{{ '\\nTOOLCALL\\n' ~ {'name': n, 'arguments': a} | tojson ~ '\\nENDCALL\\n' }}"),
    "array": template(
        "{{ {'name': n, 'arguments': a} | tojson }}", before="\\nTOOLCALL\\n[", between=", ", behind="]\\nENDCALL\\n"
    ).replace("\\n", "\n"),
    "name and json": template("{{ '\\nTOOLCALL\\n' ~ n ~ '\\nWITH\\n' ~ a | tojson ~ '\\nENDCALL\\n' }}"),
    "section": template(
        "{{ 'TOOLCALL ' ~ n ~ ' WITH ' ~ a | tojson ~ ' ENDCALL\\n' }}", before="\nALLCALLS\n", behind="ENDALL\n"
    ),
    "tagged": template(_TAGGED),
    "pythonic": template(
        "{{ n ~ '(' }}{% for k, v in a.items() %}{{ k ~ '=' ~ v | tojson ~ (', ' if not loop.last else '') }}{% endfor %}{{ ')' }}",
        before="\nTOOLCALL\n[",
        between=", ",
        behind="]\nENDCALL\n",
    ),
}
FORM = pytest.mark.parametrize("source", FORMS.values(), ids=FORMS)
LOOKED_UP = ("look_up", {"word": "ash", "n": 3})


@FORM
def test_calls_between_bare_words_are_read_and_written(source: str) -> None:
    fmt = ChatFormat.from_template(source)
    assert fmt.tools.has_marker
    one, two = write_calls(fmt.tools, [ASH]), write_calls(fmt.tools, [ASH, ASH])
    assert "TOOLCALL" in one
    assert "ENDCALL" in one
    assert calls_of(read(source, one)) == [LOOKED_UP]
    assert calls_of(read(source, two)) == [LOOKED_UP] * 2


@FORM
def test_text_before_a_bare_word_is_content(source: str) -> None:
    fmt = ChatFormat.from_template(source)
    parser = read(source, "Let me look.\n" + write_calls(fmt.tools, [ASH]))
    assert (calls_of(parser), parser.message.text.strip()) == ([LOOKED_UP], "Let me look.")


@FORM
@pytest.mark.parametrize("text", ["The word TOOLCALL begins a call.", "A TOOLCALL\nis none", "ENDCALL or TOOLCALLS, both."])
def test_a_bare_word_in_prose_stays_content(source: str, text: str) -> None:
    parser = read(source, text)
    assert (calls_of(parser), parser.message.text) == ([], text)


def test_a_thought_between_bare_words_is_read_where_the_template_writes_thoughts() -> None:
    source = FORMS["json"].replace(
        "{{ m.content or '' }}",
        "{% if m.reasoning_content %}{{ 'THINK\n' ~ m.reasoning_content ~ '\nENDTHINK\n' }}{% endif %}{{ m.content or '' }}",
    )
    fmt = ChatFormat.from_template(source)
    assert fmt.reasoning is not None
    assert (fmt.reasoning.start.strip(), fmt.reasoning.end.strip()) == ("THINK", "ENDTHINK")
    parser = read(source, "THINK\nWell, well.\nENDTHINK\nYes." + write_calls(fmt.tools, [ASH]))
    assert (parser.message.reasoning, parser.message.text.strip()) == ("Well, well.", "Yes.")
    assert calls_of(parser) == [LOOKED_UP]


def test_one_blank_around_a_value_is_the_templates() -> None:
    source = FORMS["tagged"]
    parser = read(source, "TOOLCALL\nlook_up\nKEY word VALUE  a  b  ENDKEY\nKEY n VALUE 3 ENDKEY\nENDCALL\n")
    assert calls_of(parser) == [("look_up", {"word": " a  b ", "n": 3})]
    assert calls_of(read(source, "TOOLCALL\nnow\nENDCALL\n")) == [("now", {})]
