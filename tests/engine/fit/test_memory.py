"""The memory estimate: equal to what llama.cpp then reports, for each kind of buffer, whatever the architecture."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from llm_magics.engine.fit import memory
from llm_magics.engine.fit.gguf import Gguf
from llm_magics.engine.fit.gguf_check import read_model
from llm_magics.engine.fit.memory import Estimate, Estimator, estimate
from llm_magics.engine.hosts.local import LocalEngine
from llm_magics.engine.native import llama
from llm_magics.engine.native.diagnosis import Line
from llm_magics.engine.values import EngineConfig
from llm_magics.errors import EngineError
from tests.engine.tiny_architectures import ARCHITECTURES
from tests.engine.tiny_gguf import tiny_model

# llama.cpp rounds what it logs to 0.01 MiB; the first and last tensor of a mapping may be padded
ROUNDING = 16 << 10


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLM_MAGICS_CACHE", str(tmp_path / "cache"))


def reported(config: EngineConfig) -> Counter[tuple[str, str]]:
    engine = LocalEngine(config)
    try:
        return Counter({(device, kind): size for device, kind, size in engine.info.buffers})
    finally:
        engine.close()


def assert_equal(found: Estimate, real: Counter[tuple[str, str]]) -> None:
    guessed = Counter({(device, kind): size for device, kind, size in found.buffers})
    for buffer in guessed | real:
        assert guessed[buffer] == pytest.approx(real[buffer], rel=0.01, abs=ROUNDING), buffer


CONFIGS: list[dict[str, Any]] = [
    {"n_ctx": 4096},
    {"n_ctx": 1024, "kv_type": "q8_0", "n_batch": 256, "n_ubatch": 128},
    {"n_ctx": 8192, "flash_attention": "off"},
    {"n_ctx": 2048, "n_slots": 4, "use_mmap": False},
]


@pytest.mark.model
@pytest.mark.parametrize("options", CONFIGS, ids=lambda o: ",".join(f"{k}={v}" for k, v in o.items()))
@pytest.mark.parametrize("model", ["smollm", "qwen"])
def test_the_estimate_of_a_real_model_equals_what_llama_cpp_reports(
    model: str, options: dict[str, Any], request: pytest.FixtureRequest
) -> None:
    config = EngineConfig(str(request.getfixturevalue(model)), **options)
    assert_equal(estimate(read_model(config.path), config), reported(config))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_estimate_needs_no_formula_for_an_unusual_architecture(architecture: str, tmp_path: Path) -> None:
    path = ARCHITECTURES[architecture]().write(tmp_path / "tiny.gguf")
    config = EngineConfig(str(path), n_ctx=2048)
    found = estimate(read_model(path), config)
    assert_equal(found, reported(config))
    assert found.of("recurrent" if architecture == "recurrent" else "kv") > 0


def test_a_sliding_window_costs_less_than_the_whole_context(tmp_path: Path) -> None:
    path = ARCHITECTURES["sliding_window"]().write(tmp_path / "tiny.gguf")
    small, large = (estimate(read_model(path), EngineConfig(str(path), n_ctx=n, n_batch=32, n_ubatch=32)) for n in (1024, 8192))
    assert large.of("kv") < 8 * small.of("kv") * 0.8


def test_an_estimate_is_made_once_for_a_file_and_a_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tiny_model().write(tmp_path / "tiny.gguf")
    config = EngineConfig(str(path), n_ctx=256)
    first = estimate(read_model(path), config)
    monkeypatch.setattr(memory, "Child", lambda *_: pytest.fail("a child was started"))
    assert estimate(read_model(path), replace(config, n_threads=7)) == first
    with pytest.raises(pytest.fail.Exception, match="a child was started"):
        estimate(read_model(path), replace(config, n_ctx=512))


# --- GPUs, as llama.cpp's log would show them ------------------------------------------------------------------------------


class LoggedEstimator(Estimator):
    """Answers with a log in place of a child: two layers and the output on two GPUs, repacking on the CPU."""

    def _ask(self, config: EngineConfig, *, overridden: bool) -> list[Line]:
        cpu_types = [(t.name, "CPU_REPACK" if "ffn_up" in t.name else "CUDA_Host") for t in self._gguf.tensors]
        if overridden:
            cpu_types.append(("token_embd.weight", "CUDA_Host"))  # tied embeddings serve as the output, too
            return [(1, f"tensor {name} (0 MiB f32) buffer type overridden to {kind}") for name, kind in cpu_types]
        on_gpu = range(3) if config.n_gpu_layers < 0 else range(3 - config.n_gpu_layers, 3)
        place = {n: f"CUDA{n % 2}" if n in on_gpu else "CPU" for n in range(3)}
        text = [
            "llama_model_load_from_file_impl: using device CUDA0 (NVIDIA H200) (0000:17:00.0) - 142500 MiB free",
            "llama_model_load_from_file_impl: using device CUDA1 (NVIDIA H200) (0000:2a:00.0) - 1000 MiB free",
            *(f"load_tensors: layer {n:3} assigned to device {device}, is_swa = 0" for n, device in place.items()),
            *(f"llama_kv_cache: layer {n:3}: dev = {place[n]}" for n in range(2)),
            "llama_kv_cache:      CUDA0 KV buffer size =     0.00 MiB",
            "llama_kv_cache: size =   10.00 MiB (  4096 cells,   2 layers,  1/1 seqs), K (f16):  5.00 MiB, V (f16):  5.00 MiB",
            "sched_reserve:      CUDA0 compute buffer size =   300.00 MiB",
            "sched_reserve:  CUDA_Host compute buffer size =    16.00 MiB",
            "llama_context:  CUDA_Host  output buffer size =     0.50 MiB",
        ]
        return [(2, line) for line in text]


@pytest.fixture
def tiny(tmp_path: Path) -> Gguf:
    return read_model(tiny_model().write(tmp_path / "tiny.gguf"))


def bytes_of(gguf: Gguf, *parts: str) -> int:
    return sum(t.n_bytes for t in gguf.tensors if any(p in t.name for p in parts))


def test_layers_on_gpus_are_counted_where_they_go(tiny: Gguf) -> None:
    found = LoggedEstimator(tiny)(EngineConfig(str(tiny.paths[0]), n_gpu_layers=-1))
    mib = 1 << 20
    assert [(d.name, d.pci, d.free) for d in found.devices] == [
        ("CUDA0", "0000:17:00.0", 142500 * mib),
        ("CUDA1", "0000:2a:00.0", 1000 * mib),
    ]
    # layer 2, the output with its copy of the tied embeddings, is on CUDA0
    assert found.on("CUDA0", "model") == bytes_of(tiny, "blk.0.", "output_norm", "token_embd")
    assert found.on("CUDA1", "model") == bytes_of(tiny, "blk.1.")
    assert found.on("host", "model") == bytes_of(tiny, "token_embd")
    assert (found.on("CUDA0", "kv"), found.on("CUDA1", "kv")) == (5 * mib, 5 * mib)
    assert (found.on("CUDA0", "compute"), found.on("host", "compute")) == (300 * mib, 16 * mib)
    assert sum(size for *_, size in found.buffers) == found.on("CUDA0") + found.on("CUDA1") + found.on("host")


def test_what_stays_on_the_host_may_be_repacked_there(tiny: Gguf) -> None:
    found = LoggedEstimator(tiny)(EngineConfig(str(tiny.paths[0]), n_gpu_layers=1))
    buffers = {(device, kind): size for device, kind, size in found.buffers}
    assert buffers["CPU_REPACK", "model"] == bytes_of(tiny, "ffn_up")
    assert buffers["CUDA0", "model"] == bytes_of(tiny, "output_norm", "token_embd")
    # the mapping reaches over the repacked tensors in its middle, which are not read there any more
    assert found.unread > 0
    assert found.needs("host", "model") == bytes_of(tiny, "blk.", "token_embd")


def test_what_is_read_into_memory_that_a_gpu_can_copy_from_is_counted_there(tiny: Gguf) -> None:
    found = LoggedEstimator(tiny)(EngineConfig(str(tiny.paths[0]), n_gpu_layers=2, use_mmap=False))
    buffers = {(device, kind): size for device, kind, size in found.buffers}
    assert buffers["CPU_REPACK", "model"] == bytes_of(tiny, "blk.0.ffn_up")
    assert buffers["CUDA_Host", "model"] == bytes_of(tiny, "blk.0.", "token_embd") - bytes_of(tiny, "blk.0.ffn_up")
    assert found.unread == 0


# --- a log in other words ---------------------------------------------------------------------------------------------------


def test_the_log_that_is_read_is_the_installed_releases() -> None:
    assert llama.version() == memory._UNDERSTOOD


REWORDED = {
    "overridden to": "sent to",
    "KV buffer size": "cache room",
    "compute buffer size": "scratch room",
    "llama_kv_cache: size": "llama_kv_cache: room",
    "MiB (": "mebibytes (",
    "MiB": "MB",
    "tensor ": "weight ",
    "layer ": "block ",
}


class Rewording(Estimator):
    """Asks the child and changes a word in all that it logs."""

    word = ""

    def _ask(self, config: EngineConfig, *, overridden: bool) -> list[Line]:
        lines = super()._ask(config, overridden=overridden)
        return [(level, text.replace(self.word, REWORDED[self.word])) for level, text in lines]


@pytest.mark.parametrize("word", REWORDED)
def test_words_that_are_not_understood_never_make_a_model_smaller(tiny: Gguf, word: str) -> None:
    config = EngineConfig(str(tiny.paths[0]), n_ctx=256)
    right = estimate(tiny, replace(config, n_ctx=512)).of("kv") // 2
    with Rewording(tiny) as estimator:
        estimator.word = word
        try:
            found = estimator(config)
        except EngineError as error:
            refused = str(error)
        else:
            refused = ""
    if refused:
        assert "this build of llama.cpp does not show" in refused
        assert "pip install llama-cpp-python==" in refused
        return
    assert found.needs("host", "model") >= sum(t.n_bytes for t in tiny.tensors)
    assert found.needs("host", "kv") >= right
    assert found.of("compute") > 0


def test_weights_that_the_log_leaves_out_are_the_hosts(tiny: Gguf) -> None:
    class Forgetful(Estimator):
        def _ask(self, config: EngineConfig, *, overridden: bool) -> list[Line]:
            return [line for line in super()._ask(config, overridden=overridden) if "blk.1." not in line[1]]

    with Forgetful(tiny) as estimator:
        found = estimator(EngineConfig(str(tiny.paths[0]), n_ctx=256))
    assert found.needs("host", "model") >= sum(t.n_bytes for t in tiny.tensors)


@pytest.mark.parametrize("silent", ["assigned to device", "using device", "KV buffer size|llama_kv_cache", "compute buffer"])
def test_a_gpus_log_that_is_not_understood_is_refused(tiny: Gguf, silent: str) -> None:
    class Silent(LoggedEstimator):
        def _ask(self, config: EngineConfig, *, overridden: bool) -> list[Line]:
            lines = super()._ask(config, overridden=overridden)
            return [line for line in lines if not any(word in line[1] for word in silent.split("|"))]

    with pytest.raises(EngineError, match=r"this build of llama\.cpp does not show"):
        Silent(tiny)(EngineConfig(str(tiny.paths[0]), n_gpu_layers=-1))


def test_a_child_that_died_of_one_configuration_plans_the_next(tiny: Gguf) -> None:
    config = EngineConfig(str(tiny.paths[0]), n_ctx=256)
    with Estimator(tiny) as estimator:
        estimator(config)
        assert estimator._child is not None
        estimator._child._process.kill()
        with pytest.raises(EngineError, match="died"):
            estimator(replace(config, n_ctx=512))
        assert estimator(replace(config, n_ctx=512)).of("kv") > 0


@pytest.mark.gpu
@pytest.mark.model
@pytest.mark.parametrize("options", [{"n_ctx": 4096}, {"n_ctx": 16384, "kv_type": "q8_0"}, {"n_gpu_layers": 12}], ids=str)
def test_the_estimate_on_a_gpu_equals_what_llama_cpp_reports(qwen: Path, options: dict[str, Any]) -> None:
    config = EngineConfig(str(qwen), **{"n_gpu_layers": -1} | options)
    found, real = estimate(read_model(qwen), config), reported(config)
    for device in {d.name for d in found.devices}:
        for kind in ("model", "kv", "compute"):
            assert found.on(device, kind) == pytest.approx(real[device, kind], rel=0.1, abs=1 << 20)
