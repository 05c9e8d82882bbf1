"""Turns that would outgrow a small context, with a real model and ten tools: each ends with an answer, whatever it calls."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from llm_magics import Session, load_model
from llm_magics.errors import ContextFullError
from llm_magics.models.base import Sampling
from llm_magics.models.local import LocalModel
from llm_magics.segments import NoticeSegment
from llm_magics.tools.define.tool import Tool, make_tool
from tests.history_checks import broken_calls, broken_order

pytestmark = pytest.mark.model

TOPICS = ["rivers", "lakes", "hills", "roads", "birds", "fish", "trees", "towns", "farms", "ports"]


def lookup(topic: str) -> Tool:
    def read(place: str) -> str:
        return "\n".join(f"{topic} of {place}: entry {n}, {n * n} km, seen in {1900 + n}" for n in range(60))

    return make_tool(read, name=f"list_{topic}", description=f"List the {topic} of a place, with lengths and years.")


@pytest.fixture
def model(qwen: Path) -> Iterator[LocalModel]:
    with closing(load_model(qwen, ctx=1536)) as loaded:
        yield loaded


@pytest.fixture
def small(smollm: Path) -> Iterator[LocalModel]:
    with closing(load_model(smollm, ctx=256)) as loaded:
        yield loaded


def test_one_question_with_ten_tools_ends_with_an_answer_in_a_small_context(model: LocalModel) -> None:
    session = Session(model, [lookup(topic) for topic in TOPICS], sampling=Sampling(temperature=0.8, seed=0))
    question = f"List the {', the '.join(TOPICS[:-1])} and the {TOPICS[-1]} of Norway, each with its own tool."
    reply = session.ask(question, tool_choice="required", parallel_tool_calls=False, max_tokens=200)
    assert [run for run in reply.trace.tools if run.state == "done"]
    assert reply.finish_reason in ("stop", "length")
    assert reply.text.strip()
    assert reply.usage.context_used <= reply.usage.context_size == 1536
    assert broken_calls(session.history) + broken_order(session.history) == []
    told = [segment.text for segment in reply.trace.segments if isinstance(segment, NoticeSegment)]
    assert any("nearly full" in text for text in told)


def test_an_answer_that_fills_the_context_says_no_more_than_there_is(small: LocalModel) -> None:
    never_end = tuple((token, -1000.0) for token in small.engine.info.eog)
    reply = Session(small, sampling=Sampling(temperature=0, logit_bias=never_end)).ask("Tell a long story.")
    assert reply.finish_reason == "length"
    assert reply.usage.context_used == reply.usage.context_size == 256


def test_a_conversation_that_is_too_long_is_refused_and_stays(small: LocalModel) -> None:
    session = Session(small)
    session.ask("Say hello.", max_tokens=8)
    with pytest.raises(ContextFullError):
        session.ask("word " * 300)
    assert len(session.turns) == 1
    assert session.ask("Say hello again.", max_tokens=8).text
