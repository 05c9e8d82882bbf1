"""The sampler against the distribution it should follow, over logits of our own."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import numpy as np
import pytest

pytest.importorskip("llama_cpp")  # the sampler chain is llama.cpp's

from llm_magics.engine.native.sampling import Sampler, logprobs
from llm_magics.engine.values import SamplerSettings

LOGITS = [2.0, 1.0, 0.5, 0.0, -1.0, -3.0]
PLAIN = {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0}


class Row:
    """Stands for a context with one row of logits; draws from it through the chain that llama_sampler_sample would run."""

    def __init__(self, values: list[float]) -> None:
        self.values = np.array(values, dtype=np.float32)
        self.pointer = self

    def logits(self, row: int) -> Any:
        return self.values


@pytest.fixture(autouse=True)
def _chain_over_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    import ctypes

    import llama_cpp.llama_cpp as lib

    from llm_magics.engine.native import llama

    def sample(chain: Any, row: Row, index: int) -> int:
        data = (lib.llama_token_data * len(row.values))(*((i, float(v), 0.0) for i, v in enumerate(row.values)))
        candidates = lib.llama_token_data_array(data, len(row.values), -1, False)
        lib.llama_sampler_apply(chain, ctypes.byref(candidates))
        token = candidates.data[candidates.selected].id
        lib.llama_sampler_accept(chain, token)
        return int(token)

    monkeypatch.setattr(llama, "sampler_sample", sample)


def sampler(**settings: Any) -> Sampler:
    return Sampler(SamplerSettings(**{**PLAIN, "seed": 11, **settings}), len(LOGITS), ())


def frequencies(draw: Any, n: int = 4000) -> list[float]:
    counts = Counter(draw() for _ in range(n))
    return [counts[token] / n for token in range(len(LOGITS))]


def softmax(values: list[float]) -> list[float]:
    weights = [math.exp(v) for v in values]
    return [w / sum(weights) for w in weights]


def close_to(expected: list[float]) -> Any:
    return pytest.approx(expected, abs=0.03)  # four standard deviations of 4,000 draws


def test_draws_follow_the_softmax() -> None:
    s = sampler()
    assert frequencies(lambda: s.sample(Row(LOGITS), 0)) == close_to(softmax(LOGITS))


def test_temperature_divides_the_logits() -> None:
    s = sampler(temperature=0.5)
    assert frequencies(lambda: s.sample(Row(LOGITS), 0)) == close_to(softmax([2 * v for v in LOGITS]))


def test_bias_is_added_to_the_logits() -> None:
    s = sampler(logit_bias=((3, 1.5), (0, -math.inf)))
    expected = softmax([-math.inf, 1.0, 0.5, 1.5, -1.0, -3.0])
    assert frequencies(lambda: s.sample(Row(LOGITS), 0)) == close_to(expected)


@pytest.mark.parametrize(
    ("settings", "kept"),
    [({"top_k": 2}, {0, 1}), ({"top_p": 0.7}, {0, 1}), ({"min_p": 0.3}, {0, 1}), ({"top_k": 4, "min_p": 0.2}, {0, 1, 2})],
)
def test_truncation_keeps_the_likeliest(settings: dict[str, Any], kept: set[int]) -> None:
    s = sampler(**settings)
    assert {s.sample(Row(LOGITS), 0) for _ in range(600)} == kept


def test_a_refused_draw_is_made_again_from_the_allowed_tokens_alone() -> None:
    """Draw, and where a grammar refuses draw again: together this must be the distribution restricted to what it allows."""
    s = sampler()
    allowed = np.array([False, True, True, False, True, True])

    def draw() -> int:
        row = Row(LOGITS)
        token = s.sample(row, 0)
        return token if allowed[token] else s.sample_again(row, 0, allowed)

    expected = softmax([v if ok else -math.inf for v, ok in zip(LOGITS, allowed, strict=True)])
    assert frequencies(draw) == close_to(expected)


def test_a_refused_draw_leaves_no_penalty_behind() -> None:
    settings = {"temperature": 0.0, "presence_penalty": 100.0}
    allowed = np.array([False, True, True, True, True, True])
    s = sampler(**settings)
    row = Row(LOGITS)
    assert s.sample(row, 0) == 0
    assert s.sample_again(row, 0, allowed) == 1
    assert s.sample(Row(LOGITS), 0) == 0  # token 0 was refused, so it was never written; token 1 was


def test_forced_tokens_are_penalised_like_drawn_ones() -> None:
    s = sampler(temperature=0.0, presence_penalty=100.0)
    s.force(0)
    assert s.sample(Row(LOGITS), 0) == 1


def test_the_prompt_counts_for_penalties_as_far_as_they_look_back() -> None:
    settings = SamplerSettings(temperature=0.0, presence_penalty=100.0, penalty_last_n=2)
    s = Sampler(settings, len(LOGITS), (0, 1, 2))
    assert s.sample(Row(LOGITS), 0) == 0  # only 1 and 2 are within the last two


@pytest.mark.parametrize("seed", [0, 1, -1, 2**31, 2**32 - 1, 2**40 + 3])
def test_any_integer_is_a_seed(seed: int) -> None:
    draws = [[s.sample(Row(LOGITS), 0) for _ in range(30)] for s in (sampler(seed=seed), sampler(seed=seed))]
    assert draws[0] == draws[1]
    assert len(set(draws[0])) > 1


def test_logprobs_sum_to_one_and_are_ordered() -> None:
    found = logprobs(np.array(LOGITS, dtype=np.float32), 3, len(LOGITS))
    assert sum(math.exp(value) for _, value in found.top) == pytest.approx(1)
    assert [token for token, _ in found.top] == [0, 1, 2, 3, 4, 5]
    assert found.logprob == dict(found.top)[3]
