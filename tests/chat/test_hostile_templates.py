"""Hostile templates: no hang, no escape, no crash; every refusal is a TemplateError."""

from __future__ import annotations

import re

import pytest

from llm_magics.chat.budget import Budget, LimitError, Limits, spending
from llm_magics.chat.format import ChatFormat
from llm_magics.chat.template import ChatTemplate
from llm_magics.errors import TemplateError
from llm_magics.messages import user

from .hostile import hostile_templates


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
