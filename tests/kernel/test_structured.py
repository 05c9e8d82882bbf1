"""``%%chat --schema`` with a real model in a real kernel: the JSON is complete and valid, with a limit of tokens or none."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from llm_magics.segments import NoticeSegment
from tests.structured import QUESTIONS, SETUP

from .notebook import Notebook, notebook

pytestmark = [pytest.mark.kernel, pytest.mark.model]


@pytest.fixture(scope="module")
def asked(qwen: Path) -> Iterator[Notebook]:
    with notebook() as opened:
        assert opened.run(f"%load_model {qwen} --as qwen --ctx 2048").ok
        assert opened.run(SETUP).ok
        yield opened


@pytest.mark.parametrize("name", QUESTIONS)
@pytest.mark.parametrize("limit", ["", "--max-tokens 90"], ids=["no limit", "90 tokens"])
def test_the_json_is_complete_and_valid(name: str, limit: str, asked: Notebook) -> None:
    ran = asked.run(f"%%chat reply --schema {name} --seed 3 --thread new-{name} {limit}\n{QUESTIONS[name]}")
    assert ran.ok
    read = asked.run("print(type(reply.value).__name__, reply.finish_reason, reply.usage.completion_tokens <= 500)")
    assert read.ok
    assert read.printed.split()[1:] == ["stop", "True"]
    if limit:
        assert asked.run("assert reply.usage.completion_tokens <= 90").ok
    assert 'class="lm-json"' in ran.bundles[-1]["text/html"]


def test_a_story_that_is_ended_says_by_which_limit(asked: Notebook) -> None:
    ran = asked.must(f"%%chat reply --schema Story --temp 0 --max-tokens 60 --thread long\n{QUESTIONS['Story']}")
    (notice,) = [segment.text for segment in ran.transcript.segments if isinstance(segment, NoticeSegment)]
    assert "within 60 tokens; a larger --max-tokens" in notice


def test_a_limit_below_the_shortest_answer_is_refused_with_the_reason(asked: Notebook) -> None:
    ran = asked.run("%%chat --schema Customer --max-tokens 8 --thread short\nA customer.")
    assert not ran.ok
    assert "8 are allowed" in ran.reply["evalue"]
