"""A greedy or seeded prompt that is asked again in its conversation gives the same numbers, to the last bit."""

from __future__ import annotations

import random
from contextlib import closing
from pathlib import Path

import pytest

from llm_magics.engine.hosts import open_engine
from llm_magics.engine.run.slots import Slot
from llm_magics.engine.values import Engine, GenerateRequest, SamplerSettings, TokenLogprob, Tokens

from .test_reuse import config, file

__all__ = ["file"]

GREEDY = SamplerSettings(temperature=0)
WORDS = range(3, 280)


Numbers = list[TokenLogprob]


def numbers(engine: Engine, prompt: tuple[int, ...], conversation: str, sampler: SamplerSettings = GREEDY) -> Numbers:
    request = GenerateRequest(prompt, sampler, max_tokens=8, logprobs=3, conversation=conversation)
    return [one for event in engine.submit(request) if isinstance(event, Tokens) for one in event.logprobs]


def words(n: int, seed: int) -> tuple[int, ...]:
    return tuple(random.Random(seed).choices(WORDS, k=n))


@pytest.mark.parametrize("sampler", [GREEDY, SamplerSettings(seed=3)], ids=["greedy", "seeded"])
def test_each_turn_of_a_conversation_that_is_asked_again_gives_the_same_numbers(file: Path, sampler: SamplerSettings) -> None:
    with closing(open_engine(config(file))) as engine:
        prompts, answers, history = [], [], ()
        for turn, length in enumerate((37, 90, 5, 61)):
            prompts.append(history + words(length, turn))
            answers.append(numbers(engine, prompts[-1], "main", sampler))
            history = prompts[-1] + tuple(one.token for one in answers[-1])
        for _ in range(2):
            assert numbers(engine, prompts[-1], "main", sampler) == answers[-1]
        for at in range(4):  # the first cell again, then those behind it
            assert numbers(engine, prompts[at], "main", sampler) == answers[at]
            assert numbers(engine, prompts[at], "main", sampler) == answers[at]


def test_what_other_conversations_asked_before_changes_nothing(file: Path) -> None:
    shared = words(50, 1)
    with closing(open_engine(config(file))) as engine:
        alone = numbers(engine, shared + words(20, 2), "a")
    with closing(open_engine(config(file))) as engine:
        numbers(engine, shared + words(33, 3), "b")
        numbers(engine, shared + words(7, 4), "c")
        assert numbers(engine, shared + words(20, 2), "a") == alone


def test_a_parked_conversation_comes_back_in_the_same_batches(file: Path, request: pytest.FixtureRequest) -> None:
    with closing(open_engine(config(file, n_slots=1, park_memory=2**26))) as engine:
        first = words(150, 1)
        answer = numbers(engine, first, "a")
        second = first + tuple(one.token for one in answer) + words(40, 2)
        again = numbers(engine, second, "a")
        numbers(engine, words(200, 3), "b")
        back = numbers(engine, second, "a")
        if "sliding" not in request.node.name:  # its memory cannot be cut back that far: it is evaluated afresh
            assert back == again
        assert numbers(engine, second, "a") == back


def test_only_what_must_be_is_evaluated_again(tmp_path: Path) -> None:
    asked = GenerateRequest((1, 2), GREEDY, conversation="main")
    assert asked.same_again
    assert not GenerateRequest((1, 2), SamplerSettings(), conversation="main").same_again
    assert not GenerateRequest((1, 2), GREEDY).same_again
    assert not GenerateRequest((1, 2), GREEDY, conversation="main", priority=10).same_again
    slot = Slot(0, cached=list(range(45)), starts=[0, 16, 32, 40, 41, 42, 43, 44])
    assert [slot.start_before(n) for n in (0, 15, 16, 39, 40, 43, 45)] == [0, 0, 16, 32, 40, 43, 45]


