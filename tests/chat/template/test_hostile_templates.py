"""Hostile templates: no hang, no escape, no crash; every refusal is a TemplateError."""

from __future__ import annotations

import functools
import itertools
import re

import pytest

from llm_magics.chat.format import ChatFormat
from llm_magics.chat.template.budget import Budget, LimitError, Limits, spending
from llm_magics.chat.template.template import ChatTemplate
from llm_magics.errors import TemplateError
from llm_magics.messages import user
from tests.chat.hostile import hostile_templates


@pytest.mark.parametrize("first", range(0, 220, 20))
@pytest.mark.timeout(300)
def test_hostile_templates_are_harmless(first: int) -> None:
    refused = 0
    for name, source in list(hostile_templates(220))[first : first + 20]:
        try:
            text = ChatFormat.from_template(source).render([user("hi")]).text
        except TemplateError as error:
            refused += bool(str(error))
        else:
            assert not re.search("OUT:.*(<|class|built|module)", text), name
    assert refused > 5


@pytest.mark.parametrize(
    "expression",
    [
        "messages.__class__",
        "''|attr('__class__')",
        "messages[0]['__class__']",
        "namespace.__init__.__globals__",
        "'{0.__class__}'.format(1)",
    ],
)
def test_nothing_internal_can_be_reached(expression: str) -> None:
    source = "{{ " + expression + " }}{% for m in messages %}{{ m.content }}{% endfor %}"
    try:
        text = ChatTemplate(source).render({"messages": [{"role": "user", "content": "k"}]})
    except TemplateError:
        return
    assert text == "k"


def test_what_a_template_made_is_paid_before_it_is_made() -> None:
    with spending(Budget(Limits(characters=1000))), pytest.raises(LimitError, match="made too much"):
        ChatTemplate("{{ 'a' * 100000000000 }}").render({})


_MANY_STEPS = "{% for i in range(900) %}{{ i }}{% endfor %}"


def _render(monkeypatch: pytest.MonkeyPatch, *, work: float, wall: float) -> str:
    """Render with clocks that go on by so many seconds each time that somebody looks."""
    clocks = (itertools.count(0, work), itertools.count(0, wall))
    timed = functools.partial(Budget, work=clocks[0].__next__, wall=clocks[1].__next__)
    monkeypatch.setattr("llm_magics.chat.template.template.Budget", timed)
    return ChatTemplate(_MANY_STEPS).render({}, limits=Limits(seconds=3.0))


def test_time_in_which_others_had_the_processor_is_no_work_of_the_template(monkeypatch: pytest.MonkeyPatch) -> None:
    assert _render(monkeypatch, work=0.001, wall=1.0).endswith("899")


def test_a_template_that_works_too_long_is_stopped_by_its_own_work(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(LimitError, match="3 seconds of processor time"):
        _render(monkeypatch, work=1.0, wall=0.001)


def test_a_template_that_takes_very_long_without_work_is_stopped_too(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(LimitError, match="longer than 60 seconds; the machine may be very busy"):
        _render(monkeypatch, work=0.001, wall=100.0)


def test_a_long_conversation_is_no_attack() -> None:
    source = "{% for m in messages %}{% set before = messages[:loop.index0] %}{{ m.content | trim }}{% endfor %}"
    turns = [user("word " * 200)] * 400
    assert len(ChatFormat.from_template(source).render(turns).text) > 300_000


@pytest.mark.parametrize(
    ("source", "why"),
    [("{% for %}", "not valid"), ("{{ raise_exception('no') }}", "refused: no"), ("{{ 1/0 }}", "ZeroDivision")],
)
def test_a_broken_template_says_what_is_wrong(source: str, why: str) -> None:
    with pytest.raises(TemplateError, match=why):
        ChatFormat.from_template(source)
