"""Whatever a memory can or cannot do, a reused cache gives what a cold one gives: tiny models of every kind of memory."""

from __future__ import annotations

import random
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from llm_magics.engine.hosts import open_engine
from llm_magics.engine.values import Engine, EngineConfig, Finished, GenerateRequest, SamplerSettings, TokenLogprob, Tokens
from tests.engine.tiny_architectures import recurrent, sliding_window
from tests.engine.tiny_gguf import File, tiny_model

GREEDY = SamplerSettings(temperature=0)
MEMORIES: dict[str, Callable[[], File]] = {
    "attention": lambda: tiny_model(context=512),
    "sliding window": sliding_window,
    "recurrent": recurrent,
}


@pytest.fixture(params=MEMORIES)
def file(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return MEMORIES[request.param]().write(tmp_path / "tiny.gguf")


def ask(engine: Engine, prompt: tuple[int, ...], n: int = 6, conversation: str = "") -> tuple[list[TokenLogprob], Finished]:
    request = GenerateRequest(prompt, GREEDY, max_tokens=n, logprobs=3, conversation=conversation)
    events = list(engine.submit(request))
    end = events[-1]
    assert isinstance(end, Finished)
    return [item for event in events if isinstance(event, Tokens) for item in event.logprobs], end


def assert_same(found: list[TokenLogprob], expected: list[TokenLogprob]) -> None:
    """The same distribution at every step, as far as both go the same way."""
    for a, b in zip(found, expected, strict=False):
        assert a.logprob == pytest.approx(b.logprob, abs=2e-3)
        if a.token != b.token:
            break  # a tie between two tokens, decided by rounding
    else:
        assert len(found) == len(expected)


def config(file: Path, **changes: object) -> EngineConfig:
    return EngineConfig(str(file), **{"n_ctx": 512, "n_batch": 64, "n_ubatch": 64, "n_threads": 1} | changes)  # type: ignore[arg-type]


def test_a_conversation_that_grows_and_is_edited_stays_right(file: Path) -> None:
    draw = random.Random(4)
    words = tuple(range(3, 280))
    with closing(open_engine(config(file))) as engine, closing(open_engine(config(file, deterministic=True))) as cold:
        history: tuple[int, ...] = ()
        reused = 0
        for turn in range(24):
            if turn % 3 == 2:  # the reader edits an earlier turn, or runs a cell again
                history = history[: draw.randint(0, len(history))]
            prompt = history + tuple(draw.choices(words, k=draw.randint(1, 60)))
            if len(prompt) > 450:
                prompt = prompt[-50:]
            found, end = ask(engine, prompt)
            expected, cold_end = ask(cold, prompt)
            assert cold_end.n_cached == 0
            assert_same(found, expected)
            reused += end.n_cached
            history = prompt + end.ids
        assert reused > 0


def test_going_on_evaluates_only_what_is_new(file: Path) -> None:
    with closing(open_engine(config(file))) as engine:
        _, first = ask(engine, tuple(range(3, 150)))
        following = tuple(range(3, 150)) + first.ids + (7, 8, 9)
        _, second = ask(engine, following)
        assert second.n_evaluated == 4  # the last sampled token and the three new ones
        assert second.losses == ()


def test_running_a_cell_again_costs_one_token_where_the_state_was_saved(file: Path) -> None:
    prompt = tuple(range(3, 150))
    with closing(open_engine(config(file))) as engine:
        expected, _ = ask(engine, prompt)
        for _ in range(3):
            found, end = ask(engine, prompt)
            assert end.n_evaluated == 1
            assert_same(found, expected)


def test_an_edit_before_any_saved_state_is_evaluated_anew_and_named(tmp_path: Path) -> None:
    file = recurrent().write(tmp_path / "tiny.gguf")
    with closing(open_engine(config(file))) as engine:
        ask(engine, tuple(range(3, 150)))
        _, end = ask(engine, (*range(3, 100), 5, 5))
        assert end.n_cached == 0
        assert "97 tokens" in end.losses[0]


def test_cancelling_midway_keeps_the_cache_right(file: Path) -> None:
    prompt = tuple(random.Random(1).choices(range(3, 280), k=400))
    with closing(open_engine(config(file))) as engine, closing(open_engine(config(file, deterministic=True))) as cold:
        for n_events in (1, 2, 4, 7):
            generation = engine.submit(GenerateRequest(prompt, GREEDY))
            for _ in range(n_events):
                next(generation)
            generation.close()
            shorter = prompt[: 60 * n_events]
            assert_same(ask(engine, shorter)[0], ask(cold, shorter)[0])
