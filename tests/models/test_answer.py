"""The answer says why its JSON was brought to its end, and what allows more."""

from __future__ import annotations

import pytest

from llm_magics.engine.values import Finished, Hurry
from llm_magics.messages import user
from llm_magics.models.answer import why_ended
from llm_magics.models.base import Request


def said(ended: Hurry, **asked: object) -> str:
    done = Finished("stop", (), "[]", 5, 0, 5, 1, 0.1, 0.1, 0.1, 7, 2048, hurried=ended)
    return why_ended(done, Request((user("?"),), **asked))  # type: ignore[arg-type]  # whatever the case gives


@pytest.mark.parametrize(
    ("ended", "asked", "words"),
    [
        ("soft", {"max_tokens": 16_000}, "without --max-tokens (max_tokens in Python) it has 500 tokens"),
        ("soft", {"max_tokens": 900, "soft_limit": 90}, "within 90 tokens; a larger --max-tokens"),
        ("limit", {"max_tokens": 90, "soft_limit": 90}, "within 90 tokens; a larger --max-tokens (max_tokens in Python)"),
        ("limit", {"max_tokens": 50, "soft_limit": 90}, "within the turn's limit of tokens"),
        ("limit", {"max_tokens": 90}, "within the turn's limit of tokens"),
        ("context", {}, "before the context of 2,048 tokens ends; load the model with a larger context (ctx)"),
        ("repeats", {"max_tokens": 90}, "it repeated itself"),
    ],
)
def test_the_real_cause_is_named(ended: Hurry, asked: dict[str, object], words: str) -> None:
    assert words in said(ended, **asked)


def test_nothing_is_said_of_an_answer_that_ended_by_itself() -> None:
    assert said("") == ""
