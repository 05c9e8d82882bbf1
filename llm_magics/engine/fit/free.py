"""How much memory is free, on the host (its container's limits included) and on each NVIDIA GPU, and who holds the rest."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

_CGROUPS = Path("/sys/fs/cgroup")


@dataclass(frozen=True, slots=True)
class GpuProcess:
    """A process that holds memory on a GPU; ``used`` is 0 where the driver does not tell (containers, Windows)."""

    pid: int
    name: str
    used: int


@dataclass(frozen=True, slots=True)
class Gpu:
    """An NVIDIA GPU as its driver sees it; bytes. ``pci`` identifies it to llama.cpp as well, e.g. "0000:17:00.0".
    ``busy`` is how much of the last moments something ran on it, in percent; None where the driver does not tell (MIG)."""

    name: str
    pci: str
    free: int
    total: int
    processes: tuple[GpuProcess, ...] = ()
    driver: str = ""
    busy: int | None = None


@dataclass(frozen=True, slots=True)
class FreeMemory:
    """Bytes that a model may take: ``host``, and what each GPU has."""

    host: int
    gpus: tuple[Gpu, ...] = ()

    def gpu(self, pci: str) -> Gpu | None:
        return next((g for g in self.gpus if g.pci == normal_pci(pci)), None)


def free_memory() -> FreeMemory:
    """Look now."""
    return FreeMemory(free_host_memory(), nvidia_gpus())


def free_host_memory(cgroups: Path = _CGROUPS, membership: Path = Path("/proc/self/cgroup")) -> int:
    """Bytes that this process could still take: what the machine has available, and what its container leaves of that."""
    import psutil

    available = int(psutil.virtual_memory().available)
    rooms = [_room(directory) for directory in _own_cgroups(cgroups, membership)]
    return min([available, *(room for room in rooms if room is not None)])


def _own_cgroups(cgroups: Path, membership: Path) -> list[Path]:
    """The control groups that this process is in, and theirs: each may set a limit."""
    found = [cgroups, cgroups / "memory"]  # in a container the own group is often mounted as the root; v1 has one per resource
    try:
        lines = membership.read_text(encoding="ascii").splitlines()
    except (OSError, ValueError):
        return found
    for line in lines:  # e.g. "0::/user.slice/session.scope" (v2) or "7:memory:/docker/1f..." (v1)
        _, controllers, path = line.split(":", 2)
        if controllers in ("", "memory"):
            base = cgroups / controllers
            group = base / path.lstrip("/")
            found += [group, *(p for p in group.parents if p.is_relative_to(base) and p != base)]
    return found


def _room(group: Path) -> int | None:
    """What one control group leaves: its limit, less what it uses and cannot give back; None where it sets no limit."""
    for limit_file, usage_file, cache in (
        ("memory.max", "memory.current", "inactive_file"),
        ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    ):
        try:
            limit = int((group / limit_file).read_text())
            usage = int((group / usage_file).read_text())
            stats = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
        except (OSError, ValueError):  # absent, or "max"
            continue
        return max(0, limit - usage + int(stats.get(cache, 0)))
    return None


def nvidia_gpus() -> tuple[Gpu, ...]:
    """The GPUs that NVIDIA's driver lists; empty where there is no such driver."""
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return ()
    try:
        driver = _text(pynvml.nvmlSystemGetDriverVersion())
        handles = [pynvml.nvmlDeviceGetHandleByIndex(i) for i in range(pynvml.nvmlDeviceGetCount())]
        return tuple(_gpu(pynvml, handle, driver) for handle in handles)
    except pynvml.NVMLError:
        return ()  # a driver in trouble: llama.cpp will say what it can use
    finally:
        pynvml.nvmlShutdown()


def _gpu(pynvml: Any, handle: Any, driver: str) -> Gpu:
    memory = pynvml.nvmlDeviceGetMemoryInfo(handle)
    try:
        running = pynvml.nvmlDeviceGetComputeRunningProcesses(handle)
    except pynvml.NVMLError:
        running = []
    processes = tuple(GpuProcess(p.pid, _process_name(p.pid), int(p.usedGpuMemory or 0)) for p in running)
    try:
        busy = int(pynvml.nvmlDeviceGetUtilizationRates(handle).gpu)
    except pynvml.NVMLError:
        busy = None
    pci = normal_pci(_text(pynvml.nvmlDeviceGetPciInfo(handle).busId))
    name = _text(pynvml.nvmlDeviceGetName(handle))
    return Gpu(name, pci, int(memory.free), int(memory.total), processes, driver, busy)


def normal_pci(address: str) -> str:
    """A PCI address in one spelling: NVML writes the domain with eight digits, CUDA with four."""
    domain, _, rest = address.lower().partition(":")
    return f"{domain[-4:]}:{rest}" if rest else address.lower()


def _process_name(pid: int) -> str:
    import psutil

    try:
        return psutil.Process(pid).name()
    except psutil.Error:
        return "a process"  # of another container or user


def _text(value: str | bytes) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value
