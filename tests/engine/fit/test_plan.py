"""What "auto" chooses, and what is said when a model does not fit. The estimator is a formula here."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from llm_magics.engine.fit import plan as planning
from llm_magics.engine.fit.gguf import Gguf
from llm_magics.engine.fit.gguf_check import read_model
from llm_magics.engine.fit.memory import Device, Estimate, FreeMemory, Gpu, GpuProcess
from llm_magics.engine.fit.plan import plan
from llm_magics.engine.fit.probe import DeviceError
from llm_magics.engine.native.library import lib
from llm_magics.engine.native.model import ProgressRelay, model_params
from llm_magics.engine.values import EngineConfig
from llm_magics.errors import MemoryFitError, OptionError
from tests.engine.tiny_gguf import tiny_model

MB, GB = 10**6, 10**9
LAYERS = 4  # and the output
PCI = "0000:17:00.0"


class FormulaEstimator:
    """A GB of weights per layer, 100 kB of cache per token, half with q8_0; what is on the GPU is not on the host."""

    slice_free = 99 * GB  # what llama.cpp itself says is free

    def __init__(self, gguf: Gguf) -> None:
        self.gguf = gguf

    def __enter__(self) -> FormulaEstimator:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def __call__(self, config: EngineConfig) -> Estimate:
        on_gpu = LAYERS + 1 if config.n_gpu_layers < 0 else config.n_gpu_layers
        cache = config.n_ctx * 100_000 // (2 if config.kv_type == "q8_0" else 1)
        cpu = [("CPU", "model", (LAYERS + 1 - on_gpu) * GB), ("CPU", "kv", cache * (LAYERS + 1 - on_gpu) // (LAYERS + 1))]
        gpu = [("CUDA0", "model", on_gpu * GB), ("CUDA0", "kv", cache * on_gpu // (LAYERS + 1))]
        devices = (Device("CUDA0", "NVIDIA H200", PCI, self.slice_free),) if on_gpu else ()
        return Estimate(tuple(cpu + (gpu if on_gpu else [])), devices)


@pytest.fixture
def planned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    gguf = read_model(tiny_model(layers=LAYERS, context=16384).write(tmp_path / "tiny.gguf"))
    monkeypatch.setattr(planning, "Estimator", FormulaEstimator)

    def run(host: float, gpu: float | None = None, processes: tuple[GpuProcess, ...] = (), **options: Any) -> EngineConfig:
        auto = {k: options.pop(k) for k in ("auto_context", "auto_layers") if k in options}
        gpus = () if gpu is None else (Gpu("NVIDIA H200", PCI, int(gpu * GB), 141 * GB, processes),)
        config = EngineConfig(str(gguf.paths[0]), **options)
        return plan(gguf, config, FreeMemory(int(host * GB), gpus), gpu=gpu is not None, **auto).config

    return run


def test_what_fits_is_left_as_it_was_asked(planned: Any) -> None:
    config = planned(host=9, n_ctx=8192, kv_type="q8_0")
    assert (config.n_ctx, config.kv_type, config.n_gpu_layers) == (8192, "q8_0", 0)


def test_an_automatic_context_is_the_largest_that_fits(planned: Any) -> None:
    assert planned(host=9, auto_context=True).n_ctx == 16384
    assert planned(host=6.3, auto_context=True).n_ctx == 8192
    assert planned(host=5.4, auto_context=True).n_ctx == 1024


def test_automatic_layers_without_a_gpu_stay_on_the_host(planned: Any) -> None:
    assert planned(host=9, auto_layers=True).n_gpu_layers == 0


def test_automatic_layers_all_go_to_a_gpu_that_holds_them(planned: Any) -> None:
    assert planned(host=9, gpu=9, auto_layers=True, n_ctx=4096).n_gpu_layers == -1


def test_automatic_layers_are_as_many_as_fit(planned: Any) -> None:
    # 1.08 GB a layer with its share of the cache; 0.8 GB are kept free
    assert planned(host=9, gpu=4.3, auto_layers=True, n_ctx=4096).n_gpu_layers == 3


def test_a_slice_of_a_gpu_is_not_taken_for_the_whole(planned: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FormulaEstimator, "slice_free", 4 * GB)
    assert planned(host=9, gpu=99, auto_layers=True, n_ctx=4096).n_gpu_layers == 3


def test_both_automatic_rather_shrink_the_context_than_leave_layers_behind(planned: Any) -> None:
    config = planned(host=9, gpu=6.9, auto_layers=True, auto_context=True)
    assert (config.n_gpu_layers, config.n_ctx) == (-1, 8192)
    config = planned(host=9, gpu=5.0, auto_layers=True, auto_context=True)
    assert (config.n_gpu_layers, config.n_ctx) == (3, 4096)


def refusal(planned: Any, **options: Any) -> MemoryFitError:
    with pytest.raises(MemoryFitError) as refused:
        planned(**options)
    return refused.value


def test_a_refusal_tells_what_is_missing_and_offers_what_would_fit(planned: Any) -> None:
    error = refusal(planned, host=6.4, n_ctx=16384)
    assert "tiny.gguf" in error.what
    assert "weights 5.00 GB" in error.what
    assert "KV cache 1.64 GB" in error.what
    assert error.next_action == "This would fit: --ctx 8192, or --kv q8_0; or a smaller model."


@pytest.mark.parametrize("option", ["--ctx", "--kv", "--gpu-layers"])
def test_every_option_that_is_offered_does_fit(option: str, planned: Any) -> None:
    situation: dict[str, Any] = {"host": 30, "gpu": 6.9, "n_ctx": 16384, "n_gpu_layers": -1}
    offered = re.search(rf"{option} (\S+?)[,;]", refusal(planned, **situation).next_action)
    assert offered is not None
    value: Any = offered[1] if option == "--kv" else int(offered[1])
    changed = {"--ctx": "n_ctx", "--kv": "kv_type", "--gpu-layers": "n_gpu_layers"}[option]
    assert getattr(planned(**situation | {changed: value}), changed) == value


def test_other_processes_on_the_same_gpu_are_named(planned: Any) -> None:
    other = GpuProcess(4711, "python", 130 * GB)
    error = refusal(planned, host=30, gpu=2, processes=(other,), n_ctx=4096, n_gpu_layers=-1)
    assert "CUDA0" in error.what
    assert "python (pid 4711) holds 130.00 GB there" in error.what


def test_where_no_option_helps_that_is_said(planned: Any) -> None:
    assert "no option makes this model fit" in refusal(planned, host=2, n_ctx=4096).next_action


# --- a device that is full or in trouble ------------------------------------------------------------------------------------


class OpeningEstimator(FormulaEstimator):
    """Opens devices as llama.cpp does: where the load's own parameters let it, also with no layer there, and takes a buffer."""

    trouble = False

    def __call__(self, config: EngineConfig) -> Estimate:
        params = model_params(config, ProgressRelay(None))
        if params.split_mode == lib.LLAMA_SPLIT_MODE_NONE and params.main_gpu < 0:
            return super().__call__(config)
        if self.trouble:
            raise DeviceError("A trial load died; its last log line: CUDA error: out of memory", "Load with --gpu-layers 0.")
        found = super().__call__(config)
        device = Device("CUDA0", "NVIDIA H200", PCI, self.slice_free)
        return Estimate((*found.buffers, ("CUDA0", "compute", 300 * MB)), (device,))


@pytest.mark.parametrize("trouble", [False, True], ids=["full", "in trouble"])
def test_a_full_gpu_leaves_the_model_to_the_host(planned: Any, trouble: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planning, "Estimator", OpeningEstimator)
    monkeypatch.setattr(OpeningEstimator, "trouble", trouble)
    config = planned(host=9, gpu=0.1, auto_layers=True, n_ctx=4096)
    assert (config.n_gpu_layers, config.n_ctx) == (0, 4096)
    config = planned(host=5.5, gpu=0.1, auto_layers=True, auto_context=True)
    assert (config.n_gpu_layers, config.n_ctx) == (0, 2048)
    assert planned(host=9, gpu=0.1, n_gpu_layers=0, n_ctx=4096).n_gpu_layers == 0


def test_who_asked_for_a_full_gpu_is_offered_the_host(planned: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planning, "Estimator", OpeningEstimator)
    assert "--gpu-layers 0" in refusal(planned, host=9, gpu=0.1, n_gpu_layers=-1, n_ctx=4096).next_action


def test_a_gpu_in_trouble_is_named_where_it_was_asked_for(planned: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planning, "Estimator", OpeningEstimator)
    monkeypatch.setattr(OpeningEstimator, "trouble", True)
    with pytest.raises(DeviceError, match="CUDA error"):
        planned(host=9, gpu=0.1, n_gpu_layers=-1, n_ctx=4096)
    assert "no option" in refusal(planned, host=2, gpu=0.1, auto_layers=True, n_ctx=4096).next_action


class NoQuantisedCache(FormulaEstimator):
    def __call__(self, config: EngineConfig) -> Estimate:
        if config.kv_type == "q8_0":
            raise OptionError("tiny.gguf does not support this KV cache.", "Load it with another KV type (--kv f16).")
        return super().__call__(config)


def test_advice_about_an_option_that_nobody_chose_does_not_replace_the_error(
    planned: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(planning, "Estimator", NoQuantisedCache)
    error = refusal(planned, host=6.4, n_ctx=16384)
    assert error.next_action == "This would fit: --ctx 8192; or a smaller model."
    assert "no option makes this model fit" in refusal(planned, host=2, n_ctx=4096).next_action
    with pytest.raises(OptionError, match="does not support this KV cache"):
        planned(host=2, n_ctx=4096, kv_type="q8_0")  # who chose it is told


@pytest.mark.gpu
@pytest.mark.model
def test_what_does_not_fit_on_a_gpu_is_refused_before_it_is_loaded(qwen: Path) -> None:
    from llm_magics.engine.fit.memory import free_memory

    free = free_memory()
    largest = max(g.free for g in free.gpus)
    n_ctx = largest // (24 * 2 * 64 * 2 * 2)  # the cache alone takes about all of it
    with pytest.raises(MemoryFitError, match="CUDA"):
        plan(read_model(qwen), EngineConfig(str(qwen), n_ctx=n_ctx, n_gpu_layers=-1), free)
    assert [abs(a.free - b.free) < 64 * MB for a, b in zip(free.gpus, free_memory().gpus, strict=True)]
