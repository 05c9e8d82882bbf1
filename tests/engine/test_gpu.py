"""On an NVIDIA GPU: the weights are really there, take what was estimated, and are given back."""

from __future__ import annotations

import os
from contextlib import closing
from pathlib import Path

import pytest

from llm_magics.engine.fit.gguf_check import read_model
from llm_magics.engine.fit.memory import estimate, nvidia_gpus
from llm_magics.engine.hosts import open_engine
from llm_magics.engine.native.context import Batch, Context
from llm_magics.engine.values import EngineConfig, Finished, GenerateRequest, SamplerSettings
from llm_magics.models.loading import load_model

pytestmark = [pytest.mark.gpu, pytest.mark.model]
MB = 1 << 20


def free_bytes() -> int:
    """Free on all GPUs together, by the driver's own count."""
    return sum(gpu.free for gpu in nvidia_gpus())


def generate(engine, n: int = 8) -> Finished:  # type: ignore[no-untyped-def]
    prompt = engine.tokenize("The capital of France is", special=False)
    events = list(engine.submit(GenerateRequest(prompt, SamplerSettings(temperature=0), max_tokens=n)))
    assert isinstance(events[-1], Finished)
    return events[-1]


@pytest.fixture(scope="module")
def warm(qwen: Path) -> None:
    """This process' CUDA context and its libraries take memory once, and keep it: let them."""
    engine = open_engine(EngineConfig(str(qwen), n_gpu_layers=-1))
    generate(engine)
    engine.close()


def test_all_layers_are_on_the_device(qwen: Path, warm: None) -> None:
    engine = open_engine(EngineConfig(str(qwen), n_gpu_layers=-1))
    try:
        on_device = sum(size for device, kind, size in engine.info.buffers if device.startswith("CUDA") and kind == "model")
        assert engine.info.n_gpu_layers == engine.info.n_layers + 1
        assert on_device > 0.8 * os.stat(qwen).st_size
    finally:
        engine.close()


def test_the_device_counts_what_was_estimated(qwen: Path, warm: None) -> None:
    config = EngineConfig(str(qwen), n_ctx=32768, n_gpu_layers=-1)
    expected = estimate(read_model(qwen), config)
    on_devices = sum(expected.on(d.name) for d in expected.devices)
    before = free_bytes()
    engine = open_engine(config)
    try:
        generate(engine)
        assert before - free_bytes() == pytest.approx(on_devices, rel=0.1, abs=32 * MB)
    finally:
        engine.close()


def test_tokens_drawn_on_the_device_are_those_the_host_would_draw(qwen: Path, warm: None) -> None:
    ids = []
    for device_sampling in (False, True):
        engine = open_engine(EngineConfig(str(qwen), n_gpu_layers=-1, n_slots=4, device_sampling=device_sampling))
        try:
            prompt = engine.tokenize("The capital of France is", special=False)
            greedy = SamplerSettings(temperature=0)
            running = [engine.submit(GenerateRequest((*prompt, 10 + i), greedy, max_tokens=8)) for i in range(4)]
            ids.append([list(generation)[-1].ids for generation in running])  # type: ignore[union-attr]
        finally:
            engine.close()
    assert ids[0] == ids[1]


def test_several_streams_cost_less_than_one_after_the_other(qwen: Path, warm: None) -> None:
    """One batch of eight rows is evaluated in far fewer steps than eight streams alone: counted, not timed."""
    engine = open_engine(EngineConfig(str(qwen), n_gpu_layers=-1, n_slots=8))
    steps = 0
    decode = Context.decode

    def counted(self: Context, batch: Batch) -> int:
        nonlocal steps
        steps += 1
        return decode(self, batch)

    try:
        prompt = engine.tokenize("The capital of France is", special=False)
        ban = SamplerSettings(temperature=0, logit_bias=tuple((token, float("-inf")) for token in engine.info.eog))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Context, "decode", counted)
            running = [engine.submit(GenerateRequest((*prompt, 10 + i), ban, max_tokens=32)) for i in range(8)]
            ends = [list(generation)[-1] for generation in running]
        assert [len(end.ids) for end in ends] == [32] * 8  # type: ignore[union-attr]
        assert steps < 3 * 32
    finally:
        engine.close()


def test_five_loads_give_the_devices_memory_back(qwen: Path, warm: None) -> None:
    before = free_bytes()
    for _ in range(5):
        engine = open_engine(EngineConfig(str(qwen), n_gpu_layers=-1))
        generate(engine)
        engine.close()
    assert before - free_bytes() < 32 * MB


def test_a_model_with_layers_here_has_its_own_process_and_gives_all_memory_back(qwen: Path) -> None:
    before = free_bytes()
    with closing(load_model(qwen, ctx=2048)) as model:
        assert model.own_process
        assert before - free_bytes() > os.stat(qwen).st_size // 2
        generate(model.engine)
    assert before - free_bytes() < 8 * MB
    with closing(load_model(qwen, ctx=2048, in_kernel=True)) as model:
        assert not model.own_process
