"""Answers side by side: safe, static, and marked where their words differ."""

from __future__ import annotations

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from llm_magics.segments import ReasoningSegment, TextSegment
from llm_magics.transcript import Transcript
from llm_magics.views.columns import MIME_TYPE, Column, _body, columns_bundle, shared_words
from llm_magics.views.html import transcript_html
from tests.payloads import PAYLOADS

from .test_safety import check

DIFFERS = re.compile(r'<u class="lm-differs">(.*?)</u>')


def column(text: str, heading: str = "one", **more: str) -> Column:
    return Column(heading, Transcript(state="stop", segments=(TextSegment(text, 0),)), **more)


def html_of(*texts: str) -> str:
    return str(columns_bundle([column(text) for text in texts])["text/html"])


def test_two_columns_mark_what_each_has_alone() -> None:
    html = html_of("a cat sat *here* today", "a dog sat here today")
    assert DIFFERS.findall(html) == ["cat", "dog"]


def test_json_is_shown_as_json_in_columns_too() -> None:
    html = html_of('{"name": "Mia", "legs": 4}', '{"name": "Rex", "legs": 4}')
    assert html.count('<details class="lm-json" open><summary>JSON, 2 members</summary>') == 2
    assert DIFFERS.findall(html) == ['"Mia"', '"Rex"']


def test_more_columns_are_marked_against_the_first() -> None:
    html = html_of("a b c", "a b c", "a x c")
    assert DIFFERS.findall(html) == ["x"]
    assert (html.count("the same words"), html.count("67% of the words are the same")) == (1, 1)


def test_the_other_forms_say_what_differs_too() -> None:
    bundle = columns_bundle([column("a b c d e f"), column("a x y d e f", "two")], note="All with seed 1.")
    assert "a {+x y+} d" in bundle["text/plain"]
    assert "#### two · 67% of the words are the same" in bundle["text/markdown"]
    assert bundle["text/plain"].endswith("[All with seed 1.]")


def test_answers_of_quite_other_words_are_not_marked_all_over() -> None:
    bundle = columns_bundle([column("one two three four"), column("one, he said, and went away", "two")])
    assert DIFFERS.findall(bundle["text/html"]) == []
    assert "{+" not in bundle["text/plain"]
    assert "% of the words are the same" in bundle["text/html"]


@pytest.mark.parametrize("text", ["see $a b$ now", "price \\(x y\\) is", "$$\\frac a b$$"])
def test_formulas_are_not_cut_into(text: str) -> None:
    html = html_of(f"{'much alike ' * 9}{text}", f"{'much alike ' * 9}quite another text")
    assert len(DIFFERS.findall(html)) > 2
    for formula in re.findall(r"tex2jax_process[^>]*>(.*?)</", html, re.DOTALL):
        assert "lm-differs" not in formula


def test_reasoning_and_speeds_are_not_compared() -> None:
    columns = [
        Column(name, Transcript(state="stop", segments=(ReasoningSegment(name * 3, 0), TextSegment("same", 0))))
        for name in ("one", "two")
    ]
    assert DIFFERS.findall(columns_bundle(columns)["text/html"]) == []


@pytest.mark.parametrize("payload", PAYLOADS)
def test_nothing_a_model_wrote_comes_out_of_its_column(payload: str) -> None:
    html = html_of(f"before {payload} after", payload)
    check(html)
    assert html.count("<div") == html.count("</div>")
    check(str(columns_bundle([column("x", payload, error=payload), column("y")], note=payload)["text/html"]))


@given(st.text(max_size=60), st.text(max_size=60))
@example("", "{}")  # an answer in JSON is drawn as such
def test_marks_change_nothing_but_what_they_wrap(first: str, second: str) -> None:
    html = html_of(first, second)
    check(html)
    plain = DIFFERS.sub(r"\1", html)
    for text in (first, second):
        assert _body(transcript_html(column(text).transcript)) in plain


def test_what_looks_like_a_secret_is_masked_in_every_form() -> None:
    bundle = columns_bundle([column("key ghp_" + "a" * 30), column("no")])
    assert all("ghp_aaaa" not in str(bundle[form]) for form in ("text/html", "text/markdown", "text/plain", MIME_TYPE))


def test_long_answers_are_not_compared_word_by_word() -> None:
    assert shared_words("a " * 4000, "b") is None
    assert DIFFERS.findall(html_of("a " * 4000, "b")) == []
