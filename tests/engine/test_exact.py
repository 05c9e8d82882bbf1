"""Guesses are checked in batches that round as single tokens do, as far as there are such batches."""

from __future__ import annotations

import platform
from contextlib import closing
from pathlib import Path

import pytest

from llm_magics.engine import exact, local, open_engine
from llm_magics.engine.context import Context
from llm_magics.engine.exact import Exactness, exactness
from llm_magics.engine.lookup import MAX_DRAFT, Lookup
from llm_magics.engine.model import Model
from llm_magics.engine.values import EngineConfig, Finished, GenerateRequest, SamplerSettings

from .test_reuse import config
from .tiny_gguf import tiny_model

ANY = MAX_DRAFT + 1


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LLM_MAGICS_CACHE", str(tmp_path / "cache"))
    return tiny_model(context=512).write(tmp_path / "tiny.gguf")


@pytest.mark.parametrize(
    ("found", "cached", "rows"),
    [
        (Exactness(7, 7), 20, 7),
        (Exactness(7, 7), 5000, 7),
        (Exactness(7, 3), 20, 3),
        (Exactness(7, 1), 20, 7),
        (Exactness(7, 1), 257, ANY),  # nothing is exact here, so nothing is given up for it
        (Exactness(1, 1), 20, ANY),
    ],
)
def test_a_batch_is_as_wide_as_it_is_exact(found: Exactness, cached: int, rows: int) -> None:
    assert found.rows(cached) == rows


def test_what_was_found_is_remembered_for_the_file_and_the_configuration(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[int] = []
    monkeypatch.setattr(exact, "_try", lambda model, context, n: tried.append(n) or 5)
    for changes, tries in (({}, 2), ({}, 0), ({"n_threads": 2}, 2), ({}, 0)):
        with closing(open_engine(config(tiny, speculation="lookup", **changes))):
            assert len(tried) == tries
        tried.clear()


def test_trying_leaves_nothing_behind(tiny: Path) -> None:
    chosen = config(tiny, speculation="lookup")
    model = Model(chosen)
    context = Context(model, chosen)
    before = context.save(0, partial=False)
    exactness(model, context, chosen)
    assert context.save(0, partial=False) == before
    context.free()
    model.free()


@pytest.mark.parametrize("rows", [2, 3])
def test_no_guess_is_longer_than_a_batch_is_exact(tiny: Path, rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    lengths: list[int] = []
    learn = Lookup.learn
    monkeypatch.setattr(local, "exactness", lambda *_: Exactness(rows, rows))
    monkeypatch.setattr(Lookup, "learn", lambda self, n, accepted: lengths.append(n) or learn(self, n, accepted))
    prompt = tuple(range(10, 40)) * 4
    with closing(open_engine(config(tiny, speculation="lookup"))) as engine:
        request = GenerateRequest(prompt, SamplerSettings(temperature=0, logit_bias=((2, float("-inf")),)), max_tokens=60)
        assert isinstance(list(engine.submit(request))[-1], Finished)
    assert lengths
    assert max(lengths) == rows - 1


@pytest.mark.model
def test_copied_text_is_that_of_plain_decoding_at_any_length(qwen: Path) -> None:
    """With a quantised cache every batch that is tried is exact, in front of many tokens as in front of few."""
    listed = "\n".join(f"{i}; lamp {i % 3}; wind {i * 7 % 12}; the keeper saw {i % 5} ships" for i in range(14))
    text = f"<|im_start|>user\nRepeat this list and change nothing:\n\n{listed}<|im_end|>\n<|im_start|>assistant\n"
    plain = EngineConfig(str(qwen), n_ctx=1024, kv_type="q8_0")
    ends = []
    for speculation in ("off", "lookup"):
        with closing(open_engine(EngineConfig(str(qwen), n_ctx=1024, kv_type="q8_0", speculation=speculation))) as engine:
            prompt = engine.tokenize(text, special=True)
            request = GenerateRequest(prompt, SamplerSettings(temperature=0), max_tokens=80, logprobs=2)
            ends.append(list(engine.submit(request)))
    assert len(prompt) > 256
    plainly, guessing = (events[-1] for events in ends)
    assert plainly.ids == guessing.ids
    assert guessing.accepted > 40
    logprobs = [[item for event in events for item in getattr(event, "logprobs", ())] for events in ends]
    assert logprobs[0] == logprobs[1]  # to the last bit
    model = Model(plain)
    context = Context(model, EngineConfig(str(qwen), n_ctx=1024, kv_type="q8_0", speculation="lookup"))
    assert min(exact._try(model, context, n) for n in (8, 300)) > 1
    context.free()
    model.free()


@pytest.mark.model
@pytest.mark.skipif(platform.machine().lower() not in ("x86_64", "amd64"), reason="elsewhere all weights are repacked")
def test_weights_are_repacked_where_they_are_many(qwen: Path, qwen_large: Path) -> None:
    buffers = []
    for path in (qwen, qwen_large):
        with closing(open_engine(EngineConfig(str(path), n_ctx=64))) as engine:
            buffers.append({device for device, kind, _ in engine.info.buffers if kind == "model"})
    assert "CPU_REPACK" not in buffers[0]
    assert "CPU_REPACK" in buffers[1]
