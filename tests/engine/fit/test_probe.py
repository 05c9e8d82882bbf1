"""Trying a model in a child process: its outcome, its last log line when it dies, and that it is tried once."""

from __future__ import annotations

import struct
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from llm_magics.engine.fit import probe
from llm_magics.engine.fit.probe import Child, as_request, try_model
from llm_magics.engine.values import EngineConfig
from llm_magics.errors import EngineError, ModelFileError, UnsupportedModelError
from tests.engine.tiny_gguf import STRING, Tensor, tiny_model


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLM_MAGICS_CACHE", str(tmp_path / "cache"))


class NoChild:
    def __init__(self, *_: object) -> None:
        raise AssertionError("a child was started")


def test_a_sound_model_passes_and_is_tried_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tiny_model().write(tmp_path / "tiny.gguf")
    try_model([path])
    monkeypatch.setattr(probe, "Child", NoChild)
    try_model([path])
    path.write_bytes(path.read_bytes() + b"\0")
    with pytest.raises(AssertionError, match="a child was started"):
        try_model([path])


def test_an_unknown_architecture_is_named_in_llama_cpps_own_words(tmp_path: Path) -> None:
    file = tiny_model()
    file.metadata = {
        "general.architecture": (STRING, "nosuch"),
        **{k.replace("llama.", "nosuch."): v for k, v in file.metadata.items() if k != "general.architecture"},
    }
    with pytest.raises(UnsupportedModelError, match="unknown model architecture: 'nosuch'"):
        try_model([file.write(tmp_path / "tiny.gguf")])


def test_weights_that_are_no_numbers_are_refused_now_and_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tiny_model()
    norm = next(t for t in file.tensors if t.name == "output_norm.weight")
    norm.data = struct.pack("<f", float("nan")) * 32
    path = file.write(tmp_path / "tiny.gguf")
    with pytest.raises(ModelFileError, match="not numbers"):
        try_model([path])
    monkeypatch.setattr(probe, "Child", NoChild)
    with pytest.raises(ModelFileError, match="not numbers"):
        try_model([path])


def test_a_tensor_too_many_is_llama_cpps_to_refuse(tmp_path: Path) -> None:
    file = tiny_model()
    file.tensors.append(Tensor("surprise.weight", (32,), b"\0" * 128))
    with pytest.raises(ModelFileError, match="wrong number of tensors"):
        try_model([file.write(tmp_path / "tiny.gguf")])


def test_a_child_that_dies_is_a_named_error_with_its_last_words(tmp_path: Path) -> None:
    file = tiny_model()
    file.metadata["llama.expert_count"] = (4, 4)  # four experts and none used: an assertion in llama.cpp
    path = file.write(tmp_path / "tiny.gguf")
    died = r"tiny\.gguf in a child process died \(SIGABRT\); its last log line: .*GGML_ASSERT"
    with pytest.raises(ModelFileError, match=died):
        try_model([path])


def test_a_child_that_does_not_come_back_is_ended(tmp_path: Path) -> None:
    path = tiny_model().write(tmp_path / "tiny.gguf")
    with pytest.raises(EngineError, match="did not answer within"):
        try_model([path], timeout=0.001)
    try_model([path])  # and it is not held against the file


def test_a_module_beside_the_notebook_does_not_shadow_the_childs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "json.py").write_text("raise SystemExit('shadowed')")
    monkeypatch.chdir(tmp_path)
    try_model([tiny_model().write(tmp_path / "tiny.gguf")])


def test_one_child_answers_several_requests(tmp_path: Path) -> None:
    path = tiny_model().write(tmp_path / "tiny.gguf")
    with Child(path, 60) as child:
        for context in (64, 128):
            lines = child.ask(as_request(EngineConfig(str(path), n_ctx=context), overridden=True))
            assert any("KV" in text or "llama_kv_cache" in text for _, text in lines)


STARTS_A_CHILD = """
import subprocess, sys, time
code = "import time; from llm_magics.engine.fit.probe import end_with_parent as end; end(); print(flush=True); time.sleep(900)"
child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
child.stdout.readline()
print(child.pid, flush=True)
time.sleep(900)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows does not tell a process that its parent has ended")
def test_a_child_that_is_busy_ends_with_the_kernel() -> None:
    kernel = subprocess.Popen([sys.executable, "-c", STARTS_A_CHILD], stdout=subprocess.PIPE, text=True)
    assert kernel.stdout is not None
    child = psutil.Process(int(kernel.stdout.readline()))
    kernel.kill()
    kernel.communicate()
    psutil.wait_procs([child], timeout=60)
    assert not child.is_running() or child.status() == psutil.STATUS_ZOMBIE
