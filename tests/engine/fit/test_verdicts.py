"""A file is called damaged for good only if it itself makes llama.cpp fail; an error names the cause, not a word in it."""

from __future__ import annotations

import os
import signal
import struct
import sys
from pathlib import Path
from typing import Any

import pytest

from llm_magics.engine.fit import probe
from llm_magics.engine.fit.probe import Child, DeviceError, TrialError, try_model
from llm_magics.engine.native.diagnosis import load_error
from llm_magics.engine.native.library import lib
from llm_magics.engine.native.model import ProgressRelay, model_params
from llm_magics.engine.values import EngineConfig
from llm_magics.errors import LLMMagicsError, MemoryFitError, ModelFileError, OptionError, UnsupportedModelError
from llm_magics.files import recall
from tests.engine.tiny_gguf import STRING, U32, tiny_model

POSIX = pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals")


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLM_MAGICS_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tiny_model().write(tmp_path / "tiny.gguf")


def assert_not_held_against(file: Path) -> None:
    """Nothing is remembered of the file, and a trial under good conditions passes."""
    assert not any("trial" in key for key in recall([file]))
    try_model([file])


# --- what a trial that fails for another reason says ------------------------------------------------------------------------

DYING = """
import os, signal, sys
sys.stdin.readline()
os.write(2, {log!r})
{end}
"""
ABORT, SEGV, REFUSE = "os.abort()", "os.kill(os.getpid(), signal.SIGSEGV)", 'print(\'{"ok": false, "why": ""}\', flush=True)'
CASES: dict[str, tuple[bytes, str, type[LLMMagicsError]]] = {
    "a disk that cannot be read": (
        b"<4>llama_model_load: error loading model: read error: Input/output error\n<4>llama_model_load_from_file_impl: failed "
        b"to load model\n",
        REFUSE,
        ModelFileError,
    ),
    "no memory for the weights": (
        b"<4>ggml_backend_cpu_buffer_type_alloc_buffer: failed to allocate buffer of size 4096\n"
        b"<4>llama_model_load: error loading model: unable to allocate CPU buffer\n",
        REFUSE,
        MemoryFitError,
    ),
    "no memory, and an assertion because of it": (
        b"<4>ggml_aligned_malloc: insufficient memory (attempted to allocate   1.00 MB)\n"
        b"/build/ggml/src/ggml.c:1585: GGML_ASSERT(ctx->mem_buffer != NULL) failed\n",
        ABORT,
        MemoryFitError,
    ),
    "no memory for an object": (
        b"terminate called after throwing an instance of 'std::bad_alloc'\n  what():  std::bad_alloc\n",
        ABORT,
        MemoryFitError,
    ),
    "a driver's error": (
        b"CUDA error: unspecified launch failure\n  current device: 0, in function x at y.cu:1\n/build/y.cu:1: CUDA error\n",
        ABORT,
        DeviceError,
    ),
    "a crash": (b"", SEGV, ModelFileError),
    "an exit": (b"", "os._exit(3)", ModelFileError),
    "a broken installation": (
        b"Traceback (most recent call last):\nOSError: libgomp.so.1: cannot open\n",
        "os._exit(1)",
        TrialError,
    ),
}


@POSIX
@pytest.mark.parametrize("case", CASES)
def test_what_is_no_fault_of_the_file_is_not_remembered(case: str, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log, end, kind = CASES[case]
    with monkeypatch.context() as patch:
        patch.setattr(Child, "command", (sys.executable, "-c", DYING.format(log=log, end=end)))
        with pytest.raises(kind, match=r"tiny\.gguf") as raised:
            try_model([file])
    assert raised.value.next_action
    assert "is damaged" not in str(raised.value)
    assert_not_held_against(file)


@POSIX
def test_a_child_that_the_system_kills_says_nothing_of_the_file(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ask = Child.ask

    def killed(self: Child, request: dict[str, Any]) -> Any:
        os.kill(self._process.pid, signal.SIGKILL)
        return ask(self, request)

    with monkeypatch.context() as patch:
        patch.setattr(Child, "ask", killed)
        with pytest.raises(TrialError, match="SIGKILL"):
            try_model([file])
    assert_not_held_against(file)


@POSIX
def test_a_child_that_is_interrupted_says_nothing_of_the_file(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ask = Child.ask

    def interrupted(self: Child, request: dict[str, Any]) -> Any:
        os.kill(self._process.pid, signal.SIGINT)  # a kernel's interrupt reaches its whole group
        return ask(self, request)

    with monkeypatch.context() as patch:
        patch.setattr(Child, "ask", interrupted)
        with pytest.raises((TrialError, ModelFileError)):
            try_model([file])
    assert_not_held_against(file)


def test_a_library_that_is_missing_says_nothing_of_the_file(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setenv("LLAMA_CPP_LIB_PATH", str(tmp_path))
        with pytest.raises(TrialError, match="install it again"):
            try_model([file])
    assert_not_held_against(file)


@pytest.mark.skipif(sys.platform != "linux", reason="needs prlimit")
def test_a_child_without_memory_says_nothing_of_the_file(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import resource

    ask = Child.ask

    def poor(self: Child, request: dict[str, Any]) -> Any:
        resource.prlimit(self._process.pid, resource.RLIMIT_AS, (64 << 20, 64 << 20))
        return ask(self, request)

    with monkeypatch.context() as patch:
        patch.setattr(Child, "ask", poor)
        with pytest.raises(LLMMagicsError):
            try_model([file])
    assert_not_held_against(file)


def test_a_file_that_vanishes_says_nothing_of_the_next_one(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = file.read_bytes()
    ask = Child.ask

    def gone(self: Child, request: dict[str, Any]) -> Any:
        file.unlink()
        return ask(self, request)

    with monkeypatch.context() as patch:
        patch.setattr(Child, "ask", gone)
        with pytest.raises(ModelFileError, match="failed to open"):
            try_model([file])
    file.write_bytes(data)
    assert_not_held_against(file)


def test_what_an_assertion_says_of_a_file_is_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = tiny_model()
    broken.metadata["llama.expert_count"] = (U32, 4)  # four experts and none used: an assertion in llama.cpp
    path = broken.write(tmp_path / "tiny.gguf")
    with pytest.raises(ModelFileError, match="GGML_ASSERT"):
        try_model([path])
    monkeypatch.setattr(probe, "Child", None)  # nobody may be asked again
    with pytest.raises(ModelFileError, match="GGML_ASSERT"):
        try_model([path])


def test_without_layers_on_a_gpu_no_device_is_opened() -> None:
    for config in (EngineConfig("x"), EngineConfig("x", tensor_split=(1, 1)), EngineConfig("x", main_gpu=1)):
        params = model_params(config, ProgressRelay(None))
        assert (params.n_gpu_layers, params.split_mode, params.main_gpu) == (0, lib.LLAMA_SPLIT_MODE_NONE, -1)
    params = model_params(EngineConfig("x", n_gpu_layers=5), ProgressRelay(None))
    assert (params.n_gpu_layers, params.split_mode, params.main_gpu) == (5, lib.LLAMA_SPLIT_MODE_LAYER, 0)


def test_the_trial_opens_no_device(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    real = lib.llama_model_load_from_file

    def load(path: bytes, params: Any) -> Any:
        seen.append((params.n_gpu_layers, params.split_mode, params.main_gpu))
        return real(path, params)

    monkeypatch.setattr(lib, "llama_model_load_from_file", load)
    assert probe._evaluate(lib, str(file)) is None  # what the child does, here
    assert seen == [(0, lib.LLAMA_SPLIT_MODE_NONE, -1)]


# --- words in names are no causes -------------------------------------------------------------------------------------------

NAMES = (
    "out of memory",
    "unsupported",
    "invalid ggml type 7",
    "cache type q8_0",
    "failed to allocate",
    "bad_alloc",
    "CUDA error",
    "not supported",
)


@pytest.mark.parametrize("name", NAMES)
def test_an_architecture_may_be_named_like_any_cause(name: str, tmp_path: Path) -> None:
    file = tiny_model()
    file.metadata = {
        "general.architecture": (STRING, name),
        **{k.replace("llama.", f"{name}."): v for k, v in file.metadata.items() if k != "general.architecture"},
    }
    with pytest.raises(UnsupportedModelError, match=f"unknown model architecture: '{name}'"):
        try_model([file.write(tmp_path / "tiny.gguf")])


@pytest.mark.parametrize("name", NAMES)
def test_an_error_that_mentions_a_name_is_about_the_file(name: str) -> None:
    lines = [
        (3, f"load: special token {name} is not supported, cannot allocate it: out of memory"),
        (2, "llama_model_loader: - kv 0: general.name str = unknown model architecture: 'x'"),
        (4, f"llama_model_load: error loading model: missing tensor '{name}'"),
        (4, "llama_model_load_from_file_impl: failed to load model"),
    ]
    error = load_error("some/tiny.gguf", lines)
    assert type(error) is ModelFileError
    assert name in error.what


def test_each_kind_of_cause_has_its_error() -> None:
    def kind(text: str) -> type:
        return type(load_error("tiny.gguf", [(3, "a warning"), (4, text), (4, "llama_init: failed to load model")]))

    assert kind("llama_model_load: error loading model: unable to allocate CUDA0 buffer") is MemoryFitError
    assert (
        kind("llama_init_from_model: failed to initialize the context: failed to allocate compute pp buffers") is MemoryFitError
    )
    assert (
        kind("ggml_backend_cuda_buffer_type_alloc_buffer: allocating 9.00 MiB on device 0: cudaMalloc failed") is MemoryFitError
    )
    cut = "llama_model_load: error loading model: error loading model vocabulary: unknown pre-tokenizer type: 'x'"
    assert kind(cut) is UnsupportedModelError
    assert kind("llama_init_from_model: quantized V cache requires flash_attn to be enabled") is OptionError
    assert kind("gguf_init_from_file: failed to open GGUF file 'x' (Permission denied)") is ModelFileError
    assert kind("llama_model_load: error loading model: tensor 'a' data is not within the file bounds") is ModelFileError


def test_weights_that_are_no_numbers_are_remembered_as_damage(tmp_path: Path) -> None:
    file = tiny_model()
    next(t for t in file.tensors if t.name == "output_norm.weight").data = struct.pack("<f", float("nan")) * 32
    path = file.write(tmp_path / "tiny.gguf")
    with pytest.raises(ModelFileError, match="is damaged"):
        try_model([path])
    assert any("is damaged" in fact for fact in recall([path]).values())
