"""Answers that are JSON: laid out without a character changed, and told apart from prose."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_magics.segments import TextSegment
from llm_magics.transcript import Transcript
from llm_magics.views.html import transcript_html
from llm_magics.views.markup.json_text import json_lines, json_summary
from llm_magics.views.text.plain import transcript_markdown, transcript_plain

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=12,
)
RECIPE = '{"title": "Pancakes", "ingredients": ["flour", "eggs"], "steps": [{"text": "Mix {all}."}, {}]}'


def one(text: str) -> Transcript:
    return Transcript(state="stop", segments=(TextSegment(text),))


def test_members_stand_on_lines_of_their_own_and_short_lists_on_one() -> None:
    assert json_lines(RECIPE) == (
        '{\n  "title": "Pancakes",\n  "ingredients": ["flour", "eggs"],\n  "steps": [\n    {\n'
        '      "text": "Mix {all}."\n    },\n    {}\n  ]\n}'
    )


@given(VALUES.filter(lambda value: isinstance(value, (dict, list))))
def test_the_layout_of_a_value_is_the_same_value(value: object) -> None:
    lines = json_lines(json.dumps(value))
    assert lines is not None
    assert json.loads(lines) == value


@given(VALUES.filter(lambda value: isinstance(value, (dict, list))), st.data())
def test_the_beginning_of_json_is_json_too_and_only_white_space_changes(value: object, data: st.DataObject) -> None:
    text = json.dumps(value)
    begun = text[: data.draw(st.integers(0, len(text)))]
    lines = json_lines(begun)
    if lines is not None:
        assert "".join(lines.split()) == "".join(begun.split())
    else:
        assert len(begun) < 2 or begun[1] == "N"  # NaN is no JSON


def test_digits_and_repeated_keys_stay_as_they_were_written() -> None:
    assert json_lines('{"a": 1.50, "a": 1e400}') == '{\n  "a": 1.50,\n  "a": 1e400\n}'


@pytest.mark.parametrize(
    "text",
    [
        "Pancakes.",
        "[a link](https://example.org)",
        '{"a": 1} is the answer',
        "{x}",
        '["a"] and ["b"]',
        "[x] done",
        "",
        "```json\n{}\n```",
    ],
)
def test_prose_is_prose(text: str) -> None:
    assert json_lines(text) is None


def test_json_is_highlighted_and_folds_in_html_and_is_a_code_block_in_markdown() -> None:
    html = transcript_html(one(RECIPE))
    assert '<details class="lm-json" open><summary>JSON, 3 members</summary><pre data-language="json">' in html
    assert transcript_markdown(one(RECIPE)).startswith('```json\n{\n  "title": "Pancakes",\n')
    assert transcript_plain(one(RECIPE)).startswith(RECIPE)


def test_json_that_was_cut_off_is_shown_as_far_as_it_came() -> None:
    assert json_summary('{"title": "Pan') == "JSON"
    assert '"title": "Pan' in transcript_markdown(one('{"title": "Pan'))


def test_markup_in_json_stays_text() -> None:
    assert "<script>" not in transcript_html(one('{"a": "<script>alert(1)</script>"}'))
