"""The doctor's report: what it looks at, and that it names one next thing to do."""

from __future__ import annotations

import builtins
from pathlib import Path
from typing import Any

import pytest

from llm_magics.engine.free import FreeMemory, Gpu, GpuProcess
from llm_magics.models import doctor
from llm_magics.models.catalog import default_model, find
from llm_magics.models.stores import StoredFile


def findings(topic: str) -> list[doctor.Finding]:
    return [f for f in doctor.report() if f.topic == topic]


@pytest.fixture
def stored(monkeypatch: pytest.MonkeyPatch) -> list[StoredFile]:
    files: list[StoredFile] = []
    monkeypatch.setattr(doctor, "stored_files", lambda: iter(files))
    return files


def test_it_tells_the_software_the_cpu_and_the_memory(stored: list[StoredFile]) -> None:
    topics = {f.topic for f in doctor.report()}
    assert {"Python", "llama-cpp-python", "llama.cpp", "CPU", "CPU features", "memory", "disk", "model", "next"} <= topics
    assert "loads" in findings("llama.cpp")[0].found
    assert all(str(f).startswith(f.topic) for f in doctor.report())


def test_without_a_model_the_next_thing_is_to_pull_one(stored: list[StoredFile]) -> None:
    assert findings("next")[0].found == f"llm-magics pull {default_model()}"


def test_with_a_model_the_next_thing_is_to_talk_to_it(stored: list[StoredFile], tmp_path: Path) -> None:
    entry = find("smollm2-135m")
    assert entry is not None
    (tmp_path / entry.file).write_bytes(b"x")
    stored.append(StoredFile(tmp_path / entry.file, "llm_magics", (entry.file,)))
    assert "%load_model smollm2-135m" in findings("next")[0].found
    assert "smollm2-135m" in findings("model")[0].found
    assert findings("chat template"), "a file that is no GGUF is told, too"


@pytest.mark.model
def test_what_the_template_lacks_is_told(stored: list[StoredFile], smollm: Path) -> None:
    stored.append(StoredFile(smollm, "llm_magics", (smollm.name,)))
    assert "does not describe tools" in findings("chat template")[0].found


def test_a_missing_package_comes_first(stored: list[StoredFile], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_PACKAGES", ("no-such-package",))
    assert "pip install no-such-package" in findings("next")[0].found


def test_a_llama_cpp_that_does_not_load_is_a_finding_and_no_crash(
    stored: list[StoredFile], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = builtins.__import__

    def broken(name: str, package: Any = None, local: Any = None, names: Any = (), level: int = 0) -> Any:
        if level and "llama" in (names or ()):
            raise OSError("libcudart.so.13: cannot open shared object file")
        return real(name, package, local, names, level)

    monkeypatch.setattr(builtins, "__import__", broken)
    assert "libcudart" in findings("llama.cpp")[0].found
    assert "Reinstall" in findings("next")[0].found


def test_a_gpu_and_who_uses_it_are_told(stored: list[StoredFile], monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = Gpu("NVIDIA H200", "0000:17:00.0", 40 * 10**9, 141 * 10**9, (GpuProcess(4711, "python", 0),), "580.1")
    monkeypatch.setattr(doctor, "free_memory", lambda: FreeMemory(10**9, (gpu,)))
    assert findings("GPU")[0].found == "NVIDIA H200, driver 580.1, 40.0 GB of 141.0 GB free; in use by python (pid 4711)"
