"""Guesses are checked in batches that round as single tokens do, as far as there are such batches."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from llm_magics.engine.guess import exact, speculation
from llm_magics.engine.guess.lookup import Lookup
from llm_magics.engine.hosts import open_engine
from llm_magics.engine.native.context import Context
from llm_magics.engine.native.model import Model
from llm_magics.engine.values import EngineConfig, Finished, GenerateRequest, SamplerSettings, Tokens
from tests.engine.run.test_reuse import config
from tests.engine.tiny_gguf import tiny_model

from .test_draft import peaked


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LLM_MAGICS_CACHE", str(tmp_path / "cache"))
    return tiny_model(context=512).write(tmp_path / "tiny.gguf")


def test_what_was_found_is_remembered_for_the_file_and_the_configuration(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert exact._hopeless(config(tiny))
    monkeypatch.setattr(exact, "_hopeless", lambda _: False)  # this file cannot have another kind of cache
    tried: list[int] = []
    monkeypatch.setattr(exact, "_try", lambda model, context, n, check: tried.append(n) or 5)
    for changes, tries in (({}, 1), ({}, 0), ({"n_threads": 2}, 1), ({}, 0)):
        with closing(open_engine(config(tiny, speculation="lookup", **changes))):
            assert len(tried) == tries
        tried.clear()


def test_nothing_is_tried_where_it_is_known_that_only_single_tokens_are_exact(
    tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exact, "_try", lambda *_: pytest.fail("it was tried"))
    with closing(open_engine(config(tiny, speculation="lookup"))) as engine:
        assert engine.info.n_ctx


def test_trying_leaves_nothing_behind(tiny: Path) -> None:
    chosen = config(tiny, speculation="lookup")
    model = Model(chosen)
    context = Context(model, chosen)
    before = context.save(0, partial=False)
    exact._try(model, context, 300)
    assert context.save(0, partial=False) == before
    context.free()
    model.free()


@pytest.mark.parametrize("rows", [2, 3])
def test_no_guess_is_longer_than_a_batch_is_exact(tiny: Path, rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    lengths: list[int] = []
    learn = Lookup.learn
    monkeypatch.setattr(speculation, "exact_rows", lambda *_: rows)
    monkeypatch.setattr(Lookup, "learn", lambda self, n, accepted: lengths.append(n) or learn(self, n, accepted))
    prompt = tuple(range(10, 40)) * 4
    with closing(open_engine(config(tiny, speculation="lookup"))) as engine:
        request = GenerateRequest(prompt, SamplerSettings(temperature=0, logit_bias=((2, float("-inf")),)), max_tokens=60)
        assert isinstance(list(engine.submit(request))[-1], Finished)
    assert lengths
    assert max(lengths) == rows - 1


@pytest.mark.parametrize("draft", [False, True], ids=["lookup", "a draft"])
def test_what_rounding_could_turn_is_drawn_again_from_single_tokens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, draft: bool
) -> None:
    """Where every choice counts as a near tie, every one is made by the bits of plain decoding, whatever was guessed."""
    sure = peaked().write(tmp_path / "sure.gguf")
    monkeypatch.setattr(speculation, "exact_rows", lambda *_: 1)
    monkeypatch.setattr(speculation, "_NEAR", float("inf"))
    prompt = tuple(range(10, 40)) * 4
    request = GenerateRequest(
        prompt, SamplerSettings(temperature=0, logit_bias=((2, float("-inf")),)), max_tokens=60, logprobs=2
    )
    found = []
    for changes in ({}, {"draft": str(sure)} if draft else {"speculation": "lookup"}):
        with closing(open_engine(config(sure, **changes))) as engine:
            events = list(engine.submit(request))
        found.append([item for event in events if isinstance(event, Tokens) for item in event.logprobs])
    assert isinstance(events[-1], Finished)
    assert events[-1].drafted > 0
    assert found[0] == found[1]


@pytest.mark.model
def test_greedy_code_is_that_of_plain_decoding(qwen: Path) -> None:
    """Two copies, guessed rightly and wrongly, both longer than the context in which batches round as single tokens do."""
    from tests.bench.identity import prompts
    from tests.bench.lookup import generate

    chosen = EngineConfig(str(qwen), n_ctx=1024)
    with closing(open_engine(chosen)) as plain, closing(open_engine(replace(chosen, speculation="lookup"))) as guessing:
        for prompt in (prompts()[8], prompts()[18]):
            expected, _ = generate(plain, prompt, 96)
            found, _ = generate(guessing, prompt, 96)
            assert found.ids == expected.ids
            assert found.drafted > 0


@pytest.mark.model
def test_copied_text_is_that_of_plain_decoding_at_any_length(qwen: Path) -> None:
    """With a quantised cache every batch that is tried is exact, in front of many tokens as in front of few."""
    listed = "\n".join(f"{i}; lamp {i % 3}; wind {i * 7 % 12}; the keeper saw {i % 5} ships" for i in range(14))
    text = f"<|im_start|>user\nRepeat this list and change nothing:\n\n{listed}<|im_end|>\n<|im_start|>assistant\n"
    plain = EngineConfig(str(qwen), n_ctx=1024, kv_type="q8_0")
    ends = []
    for how in ("off", "lookup"):
        with closing(open_engine(EngineConfig(str(qwen), n_ctx=1024, kv_type="q8_0", speculation=how))) as engine:
            prompt = engine.tokenize(text, special=True)
            request = GenerateRequest(prompt, SamplerSettings(temperature=0), max_tokens=160, logprobs=2)
            ends.append(list(engine.submit(request)))
    assert len(prompt) > 256
    plainly, guessing = (events[-1] for events in ends)
    assert plainly.ids == guessing.ids
    assert guessing.accepted > 20
    logprobs = [[item for event in events for item in getattr(event, "logprobs", ())] for events in ends]
    assert logprobs[0] == logprobs[1]  # to the last bit
    model = Model(plain)
    context = Context(model, EngineConfig(str(qwen), n_ctx=1024, kv_type="q8_0", speculation="lookup"))
    assert min(exact._try(model, context, n) for n in (0, 8, 300)) > 1
    context.free()
    model.free()
