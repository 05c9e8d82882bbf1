"""Strings that remember where they came from keep it through what templates do to strings."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_magics.chat.syntax.origin import mark, runs_of
from llm_magics.chat.template.template import ChatTemplate, prompt_of


def outside(template: str, **variables: str) -> list[tuple[str, str]]:
    """The outside stretches of a rendered template, each with its origin."""
    text, spans = prompt_of(ChatTemplate(template).render({k: mark(v, "user") for k, v in variables.items()}))
    return [(text[s.start : s.end], s.origin) for s in spans]


@pytest.mark.parametrize(
    ("template", "kept"),
    [
        ("<a>{{ x }}</a>", " b c "),
        ("<a>{{ x | trim }}</a>", "b c"),
        ("<a>{{ x.strip() + '</a>' }}", "b c"),
        ("{{ '<a>' ~ x ~ '</a>' }}", " b c "),
        ("{{ '<a>%s</a>' % x }}", " b c "),
        ("{{ '<a>{}</a>'.format(x) }}", " b c "),
        ("{{ '<a>' ~ (x | upper) }}", " B C "),
        ("{{ ['<a>', x, '</a>'] | join('|') }}", " b c "),
        ("{% set y %}<a>{{ x }}</a>{% endset %}{{ y }}", " b c "),
        ("{% macro m(v) %}<a>{{ v }}</a>{% endmacro %}{{ m(x) }}", " b c "),
        ("{{ '<a>' ~ x.split('b')[1] }}", " c "),
        ("{{ x[1:2] ~ '<a>' }}", "b"),
        ("{{ '<a>X</a>' | replace('X', x) }}", " b c "),
        ("<a>{{ {'k': x} | tojson }}</a>", '{"k": " b c "}'),
        ("<a>{{ [x] }}</a>", "[' b c ']"),
        ("{{ '<a>' ~ x | indent(2) }}", " b c "),
    ],
)
def test_what_came_from_outside_is_still_outside(template: str, kept: str) -> None:
    assert outside(template, x=" b c ") == [(kept, "user")]


def test_an_operation_that_loses_track_makes_all_of_its_result_outside() -> None:
    assert outside("{{ ('<a>' ~ x) | title }}", x="bc") == [("<A>bc", "user")]


def test_the_templates_own_text_is_never_outside() -> None:
    assert outside("<a>{{ 'b' | upper }}</a>") == []


@given(st.text(max_size=8), st.text(max_size=8), st.text(max_size=3))
def test_string_methods_give_the_same_text_as_on_plain_strings(a: str, b: str, c: str) -> None:
    marked = mark(a, "user") + b
    plain = a + b
    assert marked == plain
    assert marked.strip() == plain.strip()
    assert marked.lstrip(c or None) == plain.lstrip(c or None)
    assert marked.split() == plain.split()
    assert marked.splitlines(True) == plain.splitlines(True)
    assert marked[1:] == plain[1:]
    assert marked[::-1] == plain[::-1]
    assert list(marked) == list(plain)
    assert marked.replace(c, "x") == plain.replace(c, "x")
    assert marked.upper() == plain.upper()
    if c:
        assert marked.split(c) == plain.split(c)
        assert marked.rpartition(c) == plain.rpartition(c)
    for text in (marked, marked.strip(), marked[1:], marked.replace(c, "yy"), marked.upper()):
        assert all(0 <= start < end <= len(text) for start, end, _ in runs_of(text))
