"""What a tool turn costs: behind a tool result only what differs is evaluated, by the engine's own count."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from llm_magics import Session, load_model
from llm_magics.engine.prefix import common_prefix
from llm_magics.models.base import Sampling
from llm_magics.models.local import LocalModel

pytestmark = pytest.mark.model


@pytest.fixture
def model(qwen: Path) -> Iterator[LocalModel]:
    with closing(load_model(qwen, ctx=4096)) as loaded:
        yield loaded


def get_weather(city: str) -> dict[str, object]:
    """Get the current weather of a city.

    Args:
        city: name of the city, e.g. "Oslo".
    """
    return {"city": city, "temperature": 14, "sky": "rain"}


@pytest.mark.parametrize("choice", ["auto", "required"])
def test_behind_a_tool_result_only_what_differs_is_evaluated(model: LocalModel, choice: str) -> None:
    session = Session(model, [get_weather], thread=choice, sampling=Sampling(temperature=0), record=True)
    steps = []
    for question in ("What is the weather in London and Paris?", "And in Rome?"):
        reply = session.ask(question, tool_choice=choice, max_tokens=300)
        steps += reply.trace.steps
    assert len(steps) >= 4
    assert any(run.state == "done" for turn in session.turns for run in turn.trace.tools)
    cache: tuple[int, ...] = ()
    sequence: tuple[int, ...] = ()
    for step in steps:
        prompt: tuple[int, ...] = (*sequence[: step.recording["prompt_kept"]], *step.recording["prompt_token_ids"])
        sequence = (*prompt, *step.token_ids)
        shared: int = min(common_prefix(list(cache), list(prompt)), len(prompt) - 1)
        if cache:
            assert step.usage.evaluated_tokens == len(prompt) - shared
            assert step.usage.cached_tokens == shared
        # The last sampled token ended the step: it was never evaluated itself.
        cache = (*prompt, *step.token_ids)[: step.usage.context_used]
