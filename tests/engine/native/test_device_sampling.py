"""llama.cpp draws where the logits are, and the host draws what cannot be drawn there. The CPU is a device for this too."""

from __future__ import annotations

from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from llm_magics.engine.fit.gguf_check import read_model
from llm_magics.engine.fit.memory import estimate
from llm_magics.engine.hosts import open_engine
from llm_magics.engine.native import llama
from llm_magics.engine.native.context import Context
from llm_magics.engine.values import Engine, Finished, GenerateRequest, SamplerSettings
from llm_magics.errors import OptionError
from tests.engine.guess.test_draft import PROMPT, peaked
from tests.engine.guides import AfterMarker, FromStart
from tests.engine.run.test_reuse import GREEDY, config
from tests.engine.run.test_slots import prompts, together

SAMPLED = SamplerSettings(temperature=1.0, seed=3)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return peaked(100).write(tmp_path / "tiny.gguf")


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Counts the rows whose token came from the device, and those whose logits were read."""
    counts: Counter[str] = Counter()
    sampled, logits = Context.sampled, Context.logits

    def counted(self: Context, row: int) -> int:
        token = sampled(self, row)
        counts["device"] += token >= 0
        return token

    def read(self: Context, row: int) -> Any:
        counts["host"] += 1
        return logits(self, row)

    monkeypatch.setattr(Context, "sampled", counted)
    monkeypatch.setattr(Context, "logits", read)
    return counts


def run(engine: Engine, settings: SamplerSettings, n: int = 20, **request: Any) -> Finished:
    end = list(engine.submit(GenerateRequest(PROMPT, settings, max_tokens=n, **request)))[-1]
    assert isinstance(end, Finished)
    return end


def test_greedy_is_what_the_host_would_draw_and_no_logits_are_read(file: Path, drawn: Counter[str]) -> None:
    with closing(open_engine(config(file))) as engine:
        expected = run(engine, GREEDY)
    drawn.clear()
    with closing(open_engine(config(file, device_sampling=True))) as engine:
        assert [run(engine, GREEDY).ids for _ in range(3)] == [expected.ids] * 3
    assert drawn["host"] == 0
    assert drawn["device"] == 3 * (len(expected.ids) + (expected.reason == "stop"))


def test_a_seed_gives_the_same_draw_and_others_others(file: Path, drawn: Counter[str]) -> None:
    with closing(open_engine(config(file, device_sampling=True))) as engine:
        found = [run(engine, SamplerSettings(20.0, 5, 1.0, 0.0, seed=seed)).ids for seed in (3, 3, 4, 5)]
    assert found[0] == found[1]
    assert len(set(found)) > 1
    assert drawn["host"] == 0


@pytest.mark.parametrize(
    ("settings", "request_"),
    [
        (GREEDY, {"logprobs": 2}),
        (SamplerSettings(temperature=0, logit_bias=((70, 5.0),)), {}),
        (SamplerSettings(temperature=1.0, seed=1, repeat_penalty=1.3), {}),
        (GREEDY, {"guide": FromStart(grammar="start: /[a-z]{3,9}/")}),
    ],
    ids=["log-probabilities", "bias", "penalties", "grammar"],
)
def test_what_needs_the_logits_is_drawn_on_the_host(
    file: Path, drawn: Counter[str], settings: SamplerSettings, request_: dict[str, Any]
) -> None:
    with closing(open_engine(config(file))) as engine:
        expected = run(engine, settings, **request_)
    with closing(open_engine(config(file, device_sampling=True))) as engine:
        assert run(engine, settings, **request_).ids == expected.ids
        assert drawn["device"] == 0
        run(engine, GREEDY)
    assert drawn["device"] > 0


def test_a_grammar_armed_midway_takes_the_rest_to_the_host(file: Path, drawn: Counter[str]) -> None:
    with closing(open_engine(config(file))) as engine:
        text = run(engine, GREEDY).text
        guide = {"marker": text[1:3], "grammar": 'start: /(.|\\n)*/ "END"'}
        expected = run(engine, GREEDY, 40, guide=AfterMarker(**guide))
    drawn.clear()
    with closing(open_engine(config(file, device_sampling=True))) as engine:
        found = run(engine, GREEDY, 40, guide=AfterMarker(**guide))
    assert found.ids == expected.ids
    assert drawn["device"] > 0
    assert drawn["host"] > 0


def test_many_that_come_and_go_and_lose_their_slots_are_served(file: Path, drawn: Counter[str]) -> None:
    asked = prompts(12, shared=30, own=20)
    kinds = [{}, {"logprobs": 1}, {"priority": 5}]
    requests = [GenerateRequest(p, GREEDY, 15, **kinds[i % 3]) for i, p in enumerate(asked)]  # type: ignore[arg-type]
    with closing(open_engine(config(file, n_slots=3))) as engine:
        expected = together(engine, requests)
    drawn.clear()
    with closing(open_engine(config(file, n_slots=3, device_sampling=True))) as engine:
        for _ in range(3):
            early = engine.submit(GenerateRequest(asked[0], SAMPLED))
            next(early)
            found = together(engine, requests)
            early.close()
            assert [end.ids for end in found] == [end.ids for end in expected]
    assert drawn["device"] > 0
    assert drawn["host"] > 0


def test_it_does_not_go_with_speculation(file: Path) -> None:
    with pytest.raises(OptionError, match="excludes device sampling"):
        open_engine(config(file, device_sampling=True, speculation="lookup"))


# --- what it costs ----------------------------------------------------------------------------------------------------------


def plans() -> int:
    """How often llama.cpp has planned its graphs anew since a model was loaded. A failed allocation there ends the process."""
    return sum("sched_reserve: reserving ..." in line for _, line in llama._lines)


def test_requests_that_differ_in_the_seed_draw_by_the_chain_that_is_there(file: Path) -> None:
    with closing(open_engine(config(file, n_slots=2, device_sampling=True))) as engine:
        for seed in range(6):
            list(engine.submit(GenerateRequest(PROMPT, SamplerSettings(seed=seed), max_tokens=3, conversation=str(seed))))
        assert plans() == 0
        for _ in range(3):
            run(engine, GREEDY, conversation="greedy")
        assert plans() == 1


def test_a_kept_chain_draws_what_a_new_one_would(file: Path) -> None:
    settings = [SamplerSettings(20.0, 5, 1.0, 0.0, seed=seed) for seed in (3, 4, 3)]
    with closing(open_engine(config(file, device_sampling=True))) as engine:
        after_others = [run(engine, s).ids for s in settings]
    with closing(open_engine(config(file, device_sampling=True))) as engine:
        alone = run(engine, settings[2]).ids
    assert after_others[0] == after_others[2] == alone
    assert after_others[1] != alone


def test_the_memory_plan_counts_what_drawing_on_the_device_takes(file: Path) -> None:
    plain, drawing = (estimate(read_model(file), config(file, n_slots=4, device_sampling=on)) for on in (False, True))
    assert drawing.of("output") > 3.9 * plain.of("output")  # logits, filtered logits, probabilities, candidates
    with closing(open_engine(config(file, n_slots=4, device_sampling=True))) as engine:
        reported = sum(size for _, kind, size in engine.info.buffers if kind == "output")
    assert drawing.of("output") == reported
