"""How much memory is free, on the host and on each NVIDIA GPU, and how much a configuration takes there.

llama.cpp itself is asked. A child process (:mod:`.probe`) loads the model without its weights and plans the context without
allocating it. Its log says, for this architecture and this build, which device each layer goes to, which of the CPU's buffer
types each tensor goes to (some are repacked into a second copy), and how large the KV cache, recurrent states, compute and
output buffers are. The sizes of the weights come from the tensor table.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from llm_magics.engine.native.cpus import control_groups
from llm_magics.engine.native.diagnosis import Line
from llm_magics.engine.values import EngineConfig
from llm_magics.errors import EngineError, ModelError
from llm_magics.files import recall, remember

from .gguf import Gguf, TensorInfo
from .probe import Child, as_request

_MIB = 1 << 20
_UNDERSTOOD = "0.3.36"  # the release of llama-cpp-python whose log these patterns match
_PLAN_SECONDS = 120.0  # for a child to plan one configuration

# e.g. "load_tensors: layer   0 assigned to device CUDA0, is_swa = 0"; the last one is the output layer
_ASSIGNED = re.compile(r"layer +(\d+) assigned to device ([^,]+),")
# e.g. "tensor blk.0.ffn_up.weight (7 MiB q4_K) buffer type overridden to CPU_REPACK"
_OVERRIDDEN = re.compile(r"tensor (\S+) \(\d+ MiB \S+\) buffer type overridden to (\S+)")
# e.g. "llama_kv_cache: layer   0: dev = CPU", "llama_memory_recurrent, layer   3: dev = CUDA0"
_CACHED = re.compile(r"(llama_\w+)[:,] layer +\d+: dev = (\S+)")
# e.g. "llama_kv_cache: size =   90.00 MiB (  4096 cells,  30 layers,  1/1 seqs), K (f16): ..."
_CACHE_SIZE = re.compile(r"(llama_\w+): .*?\bsize = +([\d.]+) MiB \(")
# e.g. "using device CUDA0 (NVIDIA H200) (0000:17:00.0) - 142500 MiB free"
_DEVICE = re.compile(r"using device (\S+) \((.*?)\) \((.*?)\) - (\d+) MiB free")
_BLOCK = re.compile(r"(?:^|\.)blk\.(\d+)\.")
_INPUT = ("token_embd", "token_types", "position_embd", "per_layer_token_embd")  # always on the CPU


@dataclass(frozen=True, slots=True)
class GpuProcess:
    """A process that holds ``used`` bytes on a GPU; 0 if the driver does not say (containers, Windows)."""

    pid: int
    name: str
    used: int


@dataclass(frozen=True, slots=True)
class Gpu:
    """An NVIDIA GPU as its driver sees it; bytes. ``pci`` identifies the GPU to llama.cpp too, e.g. "0000:17:00.0".
    ``busy`` is its recent utilisation in percent; None if the driver does not say (MIG). ``exclusive``: one process at a time
    may use it."""

    name: str
    pci: str
    free: int
    total: int
    processes: tuple[GpuProcess, ...] = ()
    driver: str = ""
    busy: int | None = None
    exclusive: bool = False


@dataclass(frozen=True, slots=True)
class FreeMemory:
    """Bytes that a model may take, on the host and on each GPU."""

    host: int
    gpus: tuple[Gpu, ...] = ()

    def gpu(self, pci: str) -> Gpu | None:
        return next((g for g in self.gpus if g.pci == normal_pci(pci)), None)


def free_memory() -> FreeMemory:
    return FreeMemory(free_host_memory(), nvidia_gpus())


def free_host_memory(root: Path = Path("/")) -> int:
    """Bytes that this process could still take: the machine's available memory, or less if its container's limit is near."""
    import psutil

    rooms = [room for group in control_groups("memory", root) if (room := _room(group)) is not None]
    return min([int(psutil.virtual_memory().available), *rooms])


def _room(group: Path) -> int | None:
    """Bytes that one control group leaves: its limit, less the memory in use that is not cache; None if it sets no limit."""
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
    """The GPUs that NVIDIA's driver lists; empty without a driver, or if it fails (llama.cpp then reports that)."""
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
        return ()
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
    try:
        exclusive = pynvml.nvmlDeviceGetComputeMode(handle) == pynvml.NVML_COMPUTEMODE_EXCLUSIVE_PROCESS
    except pynvml.NVMLError:
        exclusive = False
    pci = normal_pci(_text(pynvml.nvmlDeviceGetPciInfo(handle).busId))
    name = _text(pynvml.nvmlDeviceGetName(handle))
    return Gpu(name, pci, int(memory.free), int(memory.total), processes, driver, busy, exclusive)


def normal_pci(address: str) -> str:
    """A PCI address with a domain of four digits, as CUDA writes it; NVML writes eight."""
    domain, _, rest = address.lower().partition(":")
    return f"{domain[-4:]}:{rest}" if rest else address.lower()


def _process_name(pid: int) -> str:
    import psutil

    try:
        return psutil.Process(pid).name()
    except psutil.Error:
        return "a process"  # in another container, or of another user


def _text(value: str | bytes) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value


@dataclass(frozen=True, slots=True)
class Device:
    """A GPU as llama.cpp names it; ``free`` in bytes, when the estimate was made."""

    name: str
    description: str
    pci: str
    free: int


@dataclass(frozen=True, slots=True)
class Estimate:
    """What one configuration would take.

    ``buffers`` are (device, kind, bytes), as in ``EngineInfo.buffers``. ``devices`` are the GPUs in use; all else is on the
    host. The system can reclaim ``unread`` bytes of the host's mapped weights, because a loaded model reads a repacked copy.
    """

    buffers: tuple[tuple[str, str, int], ...]
    devices: tuple[Device, ...] = ()
    unread: int = 0

    def on(self, device: str, kind: str = "") -> int:
        """Bytes on one of ``devices``, or on the "host"; of one kind, if given."""
        names = {d.name for d in self.devices}
        return sum(s for d, k, s in self.buffers if (d if d in names else "host") == device and kind in ("", k))

    def needs(self, device: str, kind: str = "") -> int:
        """Bytes :meth:`on` a device, or on the "host", that stay in use, and must be free there."""
        return self.on(device, kind) - (self.unread if device == "host" and kind in ("", "model") else 0)

    def of(self, kind: str) -> int:
        """Bytes of one kind on all devices: "model", "kv", "recurrent", "compute" or "output"."""
        return sum(size for _, k, size in self.buffers if k == kind)


def estimate(gguf: Gguf, config: EngineConfig) -> Estimate:
    """Estimate what ``config`` takes, without loading it. Raises the error of a load if llama.cpp refuses the model."""
    with Estimator(gguf) as estimator:
        return estimator(config)


class Estimator:
    """Estimates several configurations of one model, with one child process. Use as a context manager."""

    def __init__(self, gguf: Gguf) -> None:
        self._gguf = gguf
        self._child: Child | None = None
        self._types: list[tuple[str, str]] = []

    def __enter__(self) -> Estimator:
        return self

    def __exit__(self, *_: object) -> None:
        if self._child:
            self._child.__exit__()
            self._child = None

    def __call__(self, config: EngineConfig) -> Estimate:
        key = _key(config)
        if known := _from_json(recall(self._gguf.paths).get(key, "")):
            return known
        found = self._measure(config)
        if not found.devices:  # an estimate with devices holds their free memory, which changes
            remember(self._gguf.paths, **{key: json.dumps(asdict(found))})
        return found

    def _measure(self, config: EngineConfig) -> Estimate:
        config = replace(config, path=str(self._gguf.paths[0]))
        if config.n_gpu_layers == 0:  # every tensor is on the CPU, so one run logs everything
            lines = self._ask(config, overridden=True)
            types = _buffer_types(lines)
        else:
            self._types = self._types or _buffer_types(self._ask(config, overridden=True))
            types, lines = self._types, self._ask(config, overridden=False)
        _must_be_understood(types, lines, on_device=config.n_gpu_layers != 0)
        weights = _weights(self._gguf, types, lines)
        sizes = Counter(_caches(lines)) + Counter(_planned(lines))
        unread = 0
        if config.use_mmap:  # llama.cpp then maps the tensors of a pinned buffer, e.g. "CUDA_Host", too
            pinned = [buffer for buffer in weights if buffer.endswith("_Host")]
            weights["CPU"] = [t for buffer in ("CPU", *pinned) for t in weights.pop(buffer, [])]
        for buffer, tensors in weights.items():
            used = sum(t.n_bytes for t in tensors)
            if buffer == "CPU" and config.use_mmap:
                sizes["CPU_Mapped", "model"] = _span(tensors)
                unread = _span(tensors) - used
            else:
                sizes[buffer, "model"] = used
        buffers = tuple((device, kind, size) for (device, kind), size in sizes.items())
        return Estimate(buffers, tuple(_devices(lines)), unread)

    def _ask(self, config: EngineConfig, *, overridden: bool) -> list[Line]:
        if self._child is None:
            self._child = Child(self._gguf.paths[0], _PLAN_SECONDS)
        try:
            return self._child.ask(as_request(config, overridden=overridden))
        except ModelError:  # the child may have died of this configuration; the next one gets a new child
            self.__exit__()
            raise


_TAKES_NOTHING = ("path", "n_threads", "deterministic", "draft_gpu_layers", "park_memory", "park_disk", "park_directory")


def _key(config: EngineConfig) -> str:
    from llm_magics.engine.native.llama import version
    from llm_magics.version import __version__

    matters = {k: v for k, v in asdict(config).items() if k not in _TAKES_NOTHING} | {"draft": bool(config.draft)}
    return f"memory of {json.dumps(matters, sort_keys=True)} in llm_magics {__version__}, llama-cpp-python {version()}"


def _from_json(text: str) -> Estimate | None:
    """A remembered estimate; None if the text is not one, e.g. from another version of this package."""
    try:
        found = json.loads(text)
        buffers = tuple((device, kind, size) for device, kind, size in found["buffers"])
        return Estimate(buffers, tuple(Device(**d) for d in found["devices"]), found["unread"])
    except (ValueError, LookupError, TypeError):
        return None


def _must_be_understood(types: Sequence[tuple[str, str]], lines: Sequence[Line], *, on_device: bool) -> None:
    """Refuse a log that the patterns above do not match: a line that is not recognised would count as no memory."""
    for what, found in (
        ("where the weights go", bool(types)),
        ("which layers a device gets", not on_device or any(_ASSIGNED.search(text) for _, text in lines)),
        ("which device it uses", not on_device or bool(_devices(lines))),
        ("how large the KV cache or the state is", bool(_caches(lines))),
        ("how large the compute buffers are", any(kind == "compute" for _, kind in _planned(lines))),
    ):
        if not found:
            raise EngineError(
                f"The memory that this model needs is unknown: the log of this build of llama.cpp does not show {what}.",
                f"Install the release that this package supports: pip install llama-cpp-python=={_UNDERSTOOD}.",
            )


def _devices(lines: Iterable[Line]) -> list[Device]:
    matches = (_DEVICE.search(text) for _, text in lines)
    return [Device(m[1], m[2], m[3], int(m[4]) * _MIB) for m in matches if m]


def _buffer_types(lines: Iterable[Line]) -> list[tuple[str, str]]:
    """(tensor, CPU buffer type), in llama.cpp's order; a tensor with two uses (tied embeddings) comes twice."""
    return [(m[1], m[2]) for _, text in lines if (m := _OVERRIDDEN.search(text))]


def _weights(gguf: Gguf, types: Sequence[tuple[str, str]], lines: Iterable[Line]) -> dict[str, list[TensorInfo]]:
    assigned = {int(m[1]): m[2] for _, text in lines if (m := _ASSIGNED.search(text))}
    cpu, output = "CPU", assigned[max(assigned)] if assigned else "CPU"
    infos = {t.name: t for t in gguf.tensors}
    placed: dict[tuple[str, str], TensorInfo] = {}
    seen: set[str] = set()
    for name, cpu_type in types:
        if block := _BLOCK.search(name):
            device = assigned.get(int(block[1]), output)
        else:
            device = cpu if name.startswith(_INPUT) and name not in seen else output
        seen.add(name)
        if name in infos:
            placed[name, cpu_type if device == cpu else device] = infos[name]
    by_buffer: dict[str, list[TensorInfo]] = {cpu: [t for t in gguf.tensors if t.name not in seen]}  # the rest is the host's
    for (_, buffer), info in placed.items():
        by_buffer.setdefault(buffer, []).append(info)
    return by_buffer


def _span(tensors: list[TensorInfo]) -> int:
    """Bytes from the first to the last tensor in each part of the file, which llama.cpp counts as mapped."""
    parts = ([t for t in tensors if t.part == part] for part in {t.part for t in tensors})
    return sum(max(t.offset + t.n_bytes for t in part) - min(t.offset for t in part) for part in parts)


def _caches(lines: Iterable[Line]) -> dict[tuple[str, str], int]:
    """Bytes of KV caches and recurrent states by device; a cache's size is split over the devices of its layers."""
    sizes: Counter[tuple[str, str]] = Counter()
    layers: dict[str, Counter[str]] = {}
    for _, text in lines:
        if match := _CACHED.search(text):
            layers.setdefault(match[1], Counter())[match[2]] += 1
        elif match := _CACHE_SIZE.search(text):
            devices = layers.pop(match[1], Counter({"CPU": 1}))
            kind = "recurrent" if "recurrent" in match[1] else "kv"
            for device, count in devices.items():
                sizes[device, kind] += round(float(match[2]) * _MIB * count / devices.total())
    return dict(sizes)


def _planned(lines: Sequence[Line]) -> dict[tuple[str, str], int]:
    """Bytes of compute and output buffers, which llama.cpp logs even when it allocates nothing."""
    from llm_magics.engine.native.context import buffer_sizes

    return {(device, kind): size for device, kind, size in buffer_sizes(lines) if kind in ("compute", "output")}
