"""How much memory is free: containers' limits, and what NVIDIA's driver says."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import psutil
import pynvml
import pytest

from llm_magics.engine.fit.memory import FreeMemory, Gpu, GpuProcess, free_host_memory, normal_pci, nvidia_gpus

GB = 10**9
MOUNTS = """29 22 0:26 / /cgroup rw,relatime shared:9 - cgroup2 cgroup2 rw,nsdelegate
35 31 0:32 / /cgroup/memory rw,relatime shared:12 - cgroup cgroup rw,memory
"""


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=100 * GB))


def group(directory: Path, limit: str, usage: int, cache: int, *, version: int = 2) -> None:
    limit_file, usage_file, key = [
        ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
        ("memory.max", "memory.current", "inactive_file"),
    ][version - 1]
    directory.mkdir(parents=True, exist_ok=True)
    (directory / limit_file).write_text(f"{limit}\n")
    (directory / usage_file).write_text(f"{usage}\n")
    (directory / "memory.stat").write_text(f"anon 1\n{key} {cache}\n")


def free_under(tmp_path: Path, membership: str) -> int:
    own = tmp_path / "proc" / "self"
    own.mkdir(parents=True, exist_ok=True)
    (own / "cgroup").write_text(membership)
    (own / "mountinfo").write_text(MOUNTS)
    return free_host_memory(tmp_path)


def test_without_limits_it_is_what_the_machine_has(tmp_path: Path) -> None:
    assert free_under(tmp_path, "0::/user.slice\n") == 100 * GB
    group(tmp_path / "cgroup" / "user.slice", "max", 5 * GB, 0)
    assert free_under(tmp_path, "0::/user.slice\n") == 100 * GB


def test_a_containers_limit_counts_less_what_it_uses_and_can_give_back(tmp_path: Path) -> None:
    group(tmp_path / "cgroup", str(2 * GB), GB, GB // 2)
    assert free_under(tmp_path, "0::/\n") == 3 * GB // 2


def test_the_strictest_of_nested_groups_counts(tmp_path: Path) -> None:
    group(tmp_path / "cgroup" / "pod", str(4 * GB), GB, 0)
    group(tmp_path / "cgroup" / "pod" / "container", str(8 * GB), GB, 0)
    assert free_under(tmp_path, "0::/pod/container\n") == 3 * GB


def test_the_older_layout_is_read_too(tmp_path: Path) -> None:
    group(tmp_path / "cgroup" / "memory" / "docker" / "abc", str(6 * GB), 2 * GB, 0, version=1)
    assert free_under(tmp_path, "9:cpu:/docker/abc\n7:memory:/docker/abc\n") == 4 * GB


def test_more_used_than_allowed_is_nothing_free(tmp_path: Path) -> None:
    group(tmp_path / "cgroup", str(GB), 2 * GB, 0)
    assert free_under(tmp_path, "0::/\n") == 0


def refuse(code: int) -> Callable[..., None]:
    def call(*_: object) -> None:
        raise pynvml.NVMLError(code)

    return call


def test_no_driver_is_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pynvml, "nvmlInit", refuse(pynvml.NVML_ERROR_LIBRARY_NOT_FOUND))
    assert nvidia_gpus() == ()


def test_a_gpu_and_who_uses_it_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    own = psutil.Process()
    answers = {
        "nvmlInit": None,
        "nvmlShutdown": None,
        "nvmlSystemGetDriverVersion": b"580.1",
        "nvmlDeviceGetCount": 1,
        "nvmlDeviceGetHandleByIndex": 0,
        "nvmlDeviceGetName": "NVIDIA H200",
        "nvmlDeviceGetMemoryInfo": SimpleNamespace(free=40 * GB, total=141 * GB),
        "nvmlDeviceGetPciInfo": SimpleNamespace(busId=b"00000000:17:00.0"),
        "nvmlDeviceGetUtilizationRates": SimpleNamespace(gpu=63, memory=20),
        "nvmlDeviceGetComputeMode": pynvml.NVML_COMPUTEMODE_EXCLUSIVE_PROCESS,
        "nvmlDeviceGetComputeRunningProcesses": [SimpleNamespace(pid=own.pid, usedGpuMemory=100 * GB)],
    }
    for name, answer in answers.items():
        monkeypatch.setattr(pynvml, name, lambda *_, answer=answer: answer)
    gpu = Gpu("NVIDIA H200", "0000:17:00.0", 40 * GB, 141 * GB, (GpuProcess(own.pid, own.name(), 100 * GB),), "580.1", 63, True)
    assert nvidia_gpus() == (gpu,)
    monkeypatch.setattr(pynvml, "nvmlDeviceGetUtilizationRates", refuse(pynvml.NVML_ERROR_NOT_SUPPORTED))
    monkeypatch.setattr(pynvml, "nvmlDeviceGetComputeMode", refuse(pynvml.NVML_ERROR_NOT_SUPPORTED))
    assert (nvidia_gpus()[0].busy, nvidia_gpus()[0].exclusive) == (None, False)
    assert FreeMemory(0, (gpu,)).gpu("0000:17:00.0") is gpu


@pytest.mark.parametrize(
    ("written", "normal"), [("00000000:3B:00.0", "0000:3b:00.0"), ("0000:3b:00.0", "0000:3b:00.0"), ("?", "?")]
)
def test_a_pci_address_has_one_spelling(written: str, normal: str) -> None:
    assert normal_pci(written) == normal
