"""Several sequences at once: right answers, shared prefixes, parked conversations, priorities, and too small a memory."""

from __future__ import annotations

import random
import threading
from contextlib import closing
from pathlib import Path

import pytest

from llm_magics.engine.hosts import open_engine
from llm_magics.engine.values import Engine, Finished, GenerateRequest, SamplerSettings
from tests.engine.tiny_gguf import tiny_model

from .test_reuse import GREEDY, MEMORIES, ask, assert_same, config

WORDS = range(3, 280)


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    return tiny_model(context=1024).write(tmp_path / "plain.gguf")


def prompts(n: int, shared: int, own: int, seed: int = 0) -> list[tuple[int, ...]]:
    draw = random.Random(seed)
    beginning = tuple(draw.choices(WORDS, k=shared))
    return [beginning + tuple(draw.choices(WORDS, k=own)) for _ in range(n)]


def together(engine: Engine, requests: list[GenerateRequest]) -> list[Finished]:
    """Submit all at once, collect each in a thread of its own, and return their ends in order."""
    ends: dict[int, Finished] = {}

    def collect(i: int, generation: object) -> None:
        ends[i] = list(generation)[-1]  # type: ignore[call-overload]

    running = [engine.submit(request) for request in requests]
    threads = [threading.Thread(target=collect, args=pair) for pair in enumerate(running)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    return [ends[i] for i in range(len(requests))]


@pytest.mark.parametrize("kind", MEMORIES)
def test_each_of_many_gets_the_answer_it_would_get_alone(kind: str, tmp_path: Path) -> None:
    file = MEMORIES[kind]().write(tmp_path / "tiny.gguf")
    asked = prompts(12, shared=40, own=25)
    alone, shared = config(file, deterministic=True), config(file, n_slots=4)
    with closing(open_engine(shared)) as engine, closing(open_engine(alone)) as cold:
        for _ in range(2):
            ends = together(engine, [GenerateRequest(prompt, GREEDY, max_tokens=8) for prompt in asked])
            for prompt, end in zip(asked, ends, strict=True):
                expected, _ = ask(cold, prompt, 8)
                close_calls = [item.top[0][1] - item.top[1][1] < 0.01 for item in expected]
                sure = close_calls.index(True) if True in close_calls else len(expected)
                assert end.ids[:sure] == tuple(item.token for item in expected)[:sure]
                assert len(end.ids) == 8 or end.reason == "stop"


def test_a_prefix_that_all_share_is_evaluated_once(plain: Path) -> None:
    asked = prompts(4, shared=200, own=10)
    with closing(open_engine(config(plain, n_ctx=1024, n_slots=4))) as engine:
        ends = together(engine, [GenerateRequest(prompt, GREEDY, max_tokens=4) for prompt in asked])
    assert sorted(end.n_evaluated for end in ends) == [10, 10, 10, 210]


def test_a_prefix_in_another_slots_cache_is_shared(plain: Path) -> None:
    first, second = prompts(2, shared=100, own=10)
    with closing(open_engine(config(plain, n_slots=2))) as engine:
        ask(engine, first, conversation="one")
        _, end = ask(engine, second, conversation="two")
        assert end.n_evaluated == 46  # greedy is to give the same again: whole batches, here of 64 tokens, are shared
        _, end = ask(engine, (*first, 5), conversation="one")
        assert end.n_evaluated <= 7  # its own slot was left alone


def test_a_draw_without_a_seed_shares_every_token_of_a_prefix(plain: Path) -> None:
    first, second = prompts(2, shared=100, own=10)
    with closing(open_engine(config(plain, n_slots=2))) as engine:
        ask(engine, first, conversation="one")
        drawn = GenerateRequest(second, SamplerSettings(), max_tokens=2, conversation="two")
        assert together(engine, [drawn])[0].n_evaluated == 10


def test_a_conversation_that_lost_its_slot_is_taken_back_without_a_prefill(plain: Path) -> None:
    first, second = prompts(1, 0, 150, seed=1)[0], prompts(1, 0, 150, seed=2)[0]
    with closing(open_engine(config(plain))) as engine, closing(open_engine(config(plain, deterministic=True))) as cold:
        _, one = ask(engine, first, conversation="one")
        _, two = ask(engine, second, conversation="two")
        for _ in range(2):
            first += (*one.ids, 9)
            found, one = ask(engine, first, conversation="one")
            assert one.n_evaluated == 2  # the last sampled token and the new one
            assert_same(found, ask(cold, first)[0])
            second += (*two.ids, 9)
            found, two = ask(engine, second, conversation="two")
            assert two.n_evaluated == 2
            assert_same(found, ask(cold, second)[0])


def test_the_important_go_first_and_the_others_still_get_their_answers(plain: Path) -> None:
    ban = SamplerSettings(temperature=0, logit_bias=((2, float("-inf")),))
    background = [GenerateRequest(prompt, ban, max_tokens=300, priority=5) for prompt in prompts(2, 0, 100)]
    with closing(open_engine(config(plain, n_ctx=1024, n_slots=1))) as engine:
        running = [engine.submit(request) for request in background]
        while type(next(running[0])).__name__ != "Tokens":
            pass
        cell = list(engine.submit(GenerateRequest((5, 6, 7), ban, max_tokens=4)))[-1]
        assert isinstance(cell, Finished)
        assert running[0]._channel.queue.qsize() < 300  # type: ignore[attr-defined]  # it did not run to its end first
        ends = [list(generation)[-1] for generation in running]
        assert [len(end.ids) for end in ends if isinstance(end, Finished)] == [300, 300]
        alone = list(engine.submit(background[0]))[-1]
        assert isinstance(alone, Finished)
        assert isinstance(ends[0], Finished)
        assert ends[0].ids == alone.ids


def test_a_memory_too_small_for_all_serves_them_one_after_another(plain: Path) -> None:
    ban = SamplerSettings(temperature=0, logit_bias=((2, float("-inf")),))
    asked = [GenerateRequest(prompt, ban, max_tokens=100) for prompt in prompts(5, 0, 120)]
    with closing(open_engine(config(plain, n_ctx=512, n_slots=5))) as engine:  # five times 220 do not fit into 512
        ends = together(engine, asked)
    assert [(end.reason, len(end.ids)) for end in ends] == [("length", 100)] * 5


def test_many_that_come_and_go_at_random_never_get_each_others_answers(plain: Path) -> None:
    """Each client's logit bias lets it write one token only, its own; a cache mixed up would show at once in the counts."""
    draw = random.Random(7)
    wrong: list[str] = []

    def client(engine: Engine, number: int, seed: int) -> None:
        mine = random.Random(seed)
        for _ in range(25):
            prompt = tuple(mine.choices(WORDS, k=mine.randint(1, 60)))
            own = SamplerSettings(temperature=0, logit_bias=((3 + number, 1000.0),))
            generation = engine.submit(GenerateRequest(prompt, own, max_tokens=mine.randint(1, 12), priority=number % 2))
            if mine.random() < 0.3:
                for _ in range(mine.randint(0, 3)):
                    next(generation)
                generation.close()
                continue
            end = list(generation)[-1]
            assert isinstance(end, Finished)
            if set(end.ids) != {3 + number} or end.n_prompt != len(prompt):
                wrong.append(f"{number}: {end}")

    with closing(open_engine(config(plain, n_ctx=256, n_slots=3))) as engine:
        threads = [threading.Thread(target=client, args=(engine, i, draw.random())) for i in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(120)
    assert wrong == []


def test_prompt_lookup_changes_nothing_but_the_number_of_steps(plain: Path) -> None:
    prompt = ((5,) * 30 + (6,)) * 3
    few = ((5, 42.0), (6, 40.0))  # text of two words, one of them rare, repeats itself and surprises
    for settings in (SamplerSettings(temperature=0, logit_bias=few), SamplerSettings(temperature=1, seed=5, logit_bias=few)):
        request = GenerateRequest(prompt, settings, max_tokens=120)
        with closing(open_engine(config(plain))) as engine:
            expected = list(engine.submit(request))[-1]
        with closing(open_engine(config(plain, speculation="lookup"))) as engine:
            found = list(engine.submit(request))[-1]
            again = list(engine.submit(request))[-1]
        assert isinstance(expected, Finished)
        assert isinstance(found, Finished)
        assert isinstance(again, Finished)
        assert found.ids == again.ids == expected.ids
        assert 0 < found.accepted <= found.drafted
        assert expected.drafted == 0


def test_a_full_queue_refuses(plain: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from llm_magics.engine.hosts import local
    from llm_magics.errors import EngineError

    monkeypatch.setattr(local, "MAX_WAITING", 2)
    with closing(open_engine(config(plain))) as engine:
        held = engine.submit(GenerateRequest((5,) * 100, SamplerSettings(temperature=0, logit_bias=((2, float("-inf")),))))
        next(held)  # it has its slot
        waiting = [engine.submit(GenerateRequest((5, 6), GREEDY)) for _ in range(2)]
        with pytest.raises(EngineError, match="waiting"):
            engine.submit(GenerateRequest((5, 6), GREEDY))
        held.close()
        assert all(isinstance(list(generation)[-1], Finished) for generation in waiting)


