"""The doctor's report: what it looks at, and that it names one next thing to do."""

from __future__ import annotations

import builtins
import sys
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import Any

import pytest

from llm_magics import __version__
from llm_magics.doctor import report as doctor
from llm_magics.doctor.report import Finding
from llm_magics.engine.fit.memory import FreeMemory, Gpu, GpuProcess
from llm_magics.engine.hosts.process import EngineProcess, try_process
from llm_magics.engine.native.cpus import Cpus
from llm_magics.engine.native.openmp import Waiting
from llm_magics.store.catalog import default_model, find
from llm_magics.store.stores import StoredFile


def findings(topic: str) -> list[doctor.Finding]:
    return [f for f in doctor.report() if f.topic == topic]


@pytest.fixture(autouse=True)
def _no_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the tests of isolation start the engine's process, which takes most of a second."""
    monkeypatch.setattr(doctor, "try_process", lambda: "")


def test_the_engine_s_process_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "try_process", try_process)
    found = "a model can have a process of its own"
    assert findings("isolation") == [Finding("isolation", found)]
    assert doctor.report(own={"tiny": 4711})[-1].topic == "next"
    assert Finding("isolation", "tiny in its own process (pid 4711)") in doctor.report(own={"tiny": 4711})
    monkeypatch.setattr(EngineProcess, "command", (sys.executable, "-c", "raise SystemExit('no llama_cpp here')"))
    (broken,) = findings("isolation")
    assert "exit status 1): no llama_cpp here" in broken.found
    assert "--in-kernel" in broken.advice
    monkeypatch.setattr(EngineProcess, "command", ("/nowhere/python",))
    assert "cannot be started" in findings("isolation")[0].found


def test_a_gpu_in_exclusive_mode_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = Gpu("NVIDIA H200", "0000:17:00.0", 40 * 10**9, 141 * 10**9, exclusive=True)
    monkeypatch.setattr(doctor, "free_memory", lambda: FreeMemory(10**9, (gpu,)))
    assert "--in-kernel" in findings("isolation")[1].advice


@pytest.fixture
def stored(monkeypatch: pytest.MonkeyPatch) -> list[StoredFile]:
    files: list[StoredFile] = []
    monkeypatch.setattr(doctor, "stored_files", lambda: iter(files))
    return files


def test_it_tells_the_software_the_cpu_and_the_memory(stored: list[StoredFile]) -> None:
    topics = {f.topic for f in doctor.report()}
    assert {"Python", "llama-cpp-python", "llama.cpp", "CPU", "CPU features", "memory", "disk", "model", "next"} <= topics
    assert {"JupyterLab", "ipywidgets", "extension", "OpenMP"} <= topics
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


def test_what_is_optional_is_never_the_next_thing_to_do(stored: list[StoredFile], monkeypatch: pytest.MonkeyPatch) -> None:
    real = doctor.version

    def without(package: str) -> str:
        if package in ("jupyterlab", "ipywidgets"):
            raise PackageNotFoundError(package)
        return real(package)

    monkeypatch.setattr(doctor, "version", without)
    assert "llm_magics[lab]" in findings("JupyterLab")[0].advice
    assert "or a prompt asks" in findings("ipywidgets")[0].found
    assert findings("next")[0].found == f"llm-magics pull {default_model()}"


def bundle(directory: Path, version: str) -> Path:
    directory.mkdir(parents=True)
    (directory / "package.json").write_text(f'{{"name": "llm-magics", "version": "{version}"}}')
    return directory


@pytest.fixture
def jupyter(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The only place where JupyterLab looks for extensions, empty."""
    place = tmp_path / "labextensions"
    monkeypatch.setattr("jupyter_core.paths.jupyter_path", lambda *_: [str(tmp_path / "nowhere"), str(place)])
    return place


def test_the_extension_is_found_where_jupyterlab_finds_it(stored: list[StoredFile], jupyter: Path) -> None:
    place = bundle(jupyter / "llm-magics", __version__)
    assert findings("extension") == [doctor.Finding("extension", f"llm-magics {__version__} in {place}")]


def test_an_extension_of_another_version_is_told(stored: list[StoredFile], jupyter: Path) -> None:
    bundle(jupyter / "llm-magics", "0.0.1")
    (found,) = findings("extension")
    assert f"has version 0.0.1, but llm_magics is {__version__}" in found.found
    assert "Install llm_magics again" in found.advice


def test_a_package_that_was_built_without_node_says_so(
    stored: list[StoredFile], jupyter: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "_bundle", lambda: None)
    (found,) = findings("extension")
    assert found.found.startswith("missing: this llm_magics was built without Node")
    assert "Install Node" in found.advice


def test_an_extension_that_no_jupyterlab_of_this_environment_finds_is_told(
    stored: list[StoredFile], jupyter: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "_bundle", lambda: jupyter)
    (found,) = findings("extension")
    assert found.found.startswith("not among this environment's JupyterLab extensions")
    assert "JupyterLab's own environment" in found.advice


@pytest.mark.parametrize(
    ("waiting", "said", "advice"),
    [
        (Waiting("libgomp", ("GOMP_SPINCOUNT=300",), "us"), "soon sleep (GOMP_SPINCOUNT=300)", ""),
        (Waiting("libgomp", ("OMP_WAIT_POLICY=passive",), "user"), "your setting OMP_WAIT_POLICY=passive", ""),
        (Waiting("libgomp", earlier="/usr/lib/libgomp.so.1"), "loaded /usr/lib/libgomp.so.1 before", "GOMP_SPINCOUNT=300"),
        (Waiting("libgomp"), "spin", "GOMP_SPINCOUNT=300"),
        (Waiting("libomp"), "spin", "KMP_BLOCKTIME=0"),
        (Waiting("vcomp"), "no setting changes that", "--threads 2"),
        (Waiting(""), "does not use it", ""),
    ],
)
def test_how_threads_wait_is_told_for_every_openmp(
    stored: list[StoredFile], monkeypatch: pytest.MonkeyPatch, waiting: Waiting, said: str, advice: str
) -> None:
    monkeypatch.setattr("llm_magics.engine.native.openmp.waiting", lambda _: waiting)
    (found,) = findings("OpenMP")
    assert said in found.found
    assert advice in found.advice
    assert bool(advice) == bool(found.advice)


def test_a_quota_and_the_threads_that_it_leaves_are_told(stored: list[StoredFile], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "cpus", lambda: Cpus(physical=64, allowed=128, quota=2.0))
    said = findings("CPU")[0].found
    assert "64 cores; 2 threads compute (this process may run on 128 processors" in said
    assert "allows the time of 2 CPUs" in said


def test_a_llama_cpp_that_does_not_load_is_a_finding_and_no_crash(
    stored: list[StoredFile], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = builtins.__import__

    def broken(name: str, package: Any = None, local: Any = None, names: Any = (), level: int = 0) -> Any:
        if "llama" in (names or ()):
            raise OSError("libcudart.so.13: cannot open shared object file")
        return real(name, package, local, names, level)

    monkeypatch.setattr(builtins, "__import__", broken)
    assert "libcudart" in findings("llama.cpp")[0].found
    assert "Reinstall" in findings("next")[0].found


def test_a_gpu_and_who_uses_it_are_told(stored: list[StoredFile], monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = Gpu("NVIDIA H200", "0000:17:00.0", 40 * 10**9, 141 * 10**9, (GpuProcess(4711, "python", 0),), "580.1")
    monkeypatch.setattr(doctor, "free_memory", lambda: FreeMemory(10**9, (gpu,)))
    assert findings("GPU")[0].found == "NVIDIA H200, driver 580.1, 40.0 GB of 141.0 GB free; in use by python (pid 4711)"
