"""Decide how to load a model into the free memory: what "auto" means, and which options to offer if nothing fits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from llm_magics.engine.values import EngineConfig
from llm_magics.errors import LLMMagicsError, MemoryFitError

from .gguf import Gguf
from .gguf_check import trained_context
from .memory import Device, Estimate, Estimator, FreeMemory, free_memory, normal_pci
from .probe import DeviceError

AUTO_CONTEXT = 16384  # most tokens of "auto": a long conversation, but not gigabytes of cache
_LEAST_CONTEXT = 512
_GOOD_CONTEXT = 4096  # for a context of this size, "auto" leaves layers on the CPU

# Left free: on the host for other programs; on a GPU for the libraries' buffers, and for the driver's context of this process
# (the child that made the estimate already had its own).
_HOST_RESERVE, _GPU_RESERVE, _GPU_CONTEXT = 256 << 20, 256 << 20, 512 << 20
_KINDS = {"model": "weights", "kv": "KV cache", "recurrent": "recurrent state", "compute": "compute buffers"}

Fits = Callable[[EngineConfig], bool]


@dataclass(frozen=True, slots=True)
class Plan:
    """A configuration that fits, its estimate, and the memory that was free before."""

    config: EngineConfig
    estimate: Estimate
    free: FreeMemory

    @property
    def rest(self) -> FreeMemory:
        taken = {normal_pci(d.pci): self.estimate.needs(d.name) for d in self.estimate.devices}
        gpus = tuple(replace(gpu, free=max(0, gpu.free - taken.get(normal_pci(gpu.pci), 0))) for gpu in self.free.gpus)
        return FreeMemory(max(0, self.free.host - self.estimate.needs("host")), gpus)


def plan(
    gguf: Gguf, config: EngineConfig, free: FreeMemory | None = None, *,
    auto_context: bool = False, auto_layers: bool = False, gpu: bool | None = None,
) -> Plan:  # fmt: skip
    """Choose the automatic options and check that the configuration fits.

    Args:
        gguf: the model's header, read and checked.
        config: as asked; ``n_ctx`` is ignored with ``auto_context``, ``n_gpu_layers`` with ``auto_layers``.
        free: the memory that may be taken; None looks now.
        auto_context: choose the largest context that fits, at most ``AUTO_CONTEXT`` and the model's trained context.
        auto_layers: put as many layers as fit onto the GPU.
        gpu: whether this build of llama.cpp can use a GPU; None asks llama.cpp.

    Raises MemoryFitError that names the missing memory, the processes that hold it, and options that would fit.
    """
    if auto_layers and gpu is None:
        from llm_magics.engine.native.llama import supports_gpu

        gpu = supports_gpu()
    with Estimator(gguf) as estimator:
        return _Planner(gguf, free or free_memory(), estimator).plan(config, auto_context, auto_layers and bool(gpu))


class _Planner:
    def __init__(self, gguf: Gguf, free: FreeMemory, estimator: Estimator) -> None:
        self.gguf, self.free, self.estimator = gguf, free, estimator
        self.all_layers = int(gguf.arch("block_count", 1)) + 1  # with the output layer

    def plan(self, config: EngineConfig, auto_context: bool, auto_layers: bool) -> Plan:
        contexts = self.contexts(config.n_ctx, auto_context)
        config = replace(config, n_ctx=contexts[0], n_gpu_layers=-1 if auto_layers else config.n_gpu_layers)
        enough = [n for n in contexts if n >= min(_GOOD_CONTEXT, contexts[0])]
        fits = self.would_fit if auto_layers else self.fits
        for wanted in (replace(config, n_ctx=n) for n in (enough if auto_layers else contexts)):
            if fits(wanted):
                return self.done(wanted)
        if auto_layers:
            wanted = replace(config, n_ctx=enough[-1])
            layers = _most(0, self.all_layers, lambda n: self.would_fit(replace(wanted, n_gpu_layers=n)))
            if layers is not None:
                return self.done(replace(wanted, n_gpu_layers=layers))
            for wanted in (replace(config, n_ctx=n, n_gpu_layers=0) for n in contexts if n < enough[-1]):
                if self.fits(wanted):
                    return self.done(wanted)
        raise self.refusal(config, auto_layers)

    def contexts(self, asked: int, auto: bool) -> list[int]:
        if not auto:
            return [asked]
        largest = min(AUTO_CONTEXT, trained_context(self.gguf) or AUTO_CONTEXT)
        return [largest, *(n for n in _halves(largest) if n < largest)]

    def done(self, config: EngineConfig) -> Plan:
        return Plan(config, self.estimator(config), self.free)

    def fits(self, config: EngineConfig) -> bool:
        return not self.missing(self.estimator(config))

    def would_fit(self, config: EngineConfig) -> bool:
        """Whether a configuration that the user did not ask for fits; False if it is impossible."""
        try:
            return self.fits(config)
        except LLMMagicsError:
            return False

    def missing(self, estimate: Estimate) -> dict[str, tuple[int, int]]:
        """The devices with too little memory: device -> (bytes needed, bytes available)."""
        room = {d.name: self.gpu_room(d) for d in estimate.devices}
        room["host"] = max(0, self.free.host - _HOST_RESERVE)
        return {d: (estimate.needs(d), has) for d, has in room.items() if estimate.needs(d) > has}

    def gpu_room(self, device: Device) -> int:
        """The less of the driver's and llama.cpp's figures: llama.cpp may see only a part of the GPU (MIG)."""
        gpu = self.free.gpu(device.pci)
        rooms = [device.free - _GPU_RESERVE, *([gpu.free - _GPU_RESERVE - _GPU_CONTEXT] if gpu else [])]
        return max(0, min(rooms))

    def refusal(self, config: EngineConfig, auto_layers: bool) -> MemoryFitError:
        try:
            estimate = self.estimator(config)
        except DeviceError:
            if not auto_layers:
                raise
            config = replace(config, n_gpu_layers=0)  # the last configuration tried
            estimate = self.estimator(config)
        problems = [self.problem(estimate, d, *sizes) for d, sizes in self.missing(estimate).items()]
        return MemoryFitError(f"{self.gguf.paths[0].name} does not fit: {'; '.join(problems)}.", self.advice(config, estimate))

    def problem(self, estimate: Estimate, device: str, needed: int, has: int) -> str:
        name = "the computer's memory" if device == "host" else device
        parts = ", ".join(f"{what} {_gb(size)}" for kind, what in _KINDS.items() if (size := estimate.needs(device, kind)))
        holders = [g for d in estimate.devices if d.name == device and (g := self.free.gpu(d.pci))]
        held = "".join(f"; {p.name} (pid {p.pid}) holds {_gb(p.used)} there" for g in holders for p in g.processes if p.used)
        return f"it needs {_gb(needed)} of {name} ({parts}), but {_gb(has)} are available{held}"

    def advice(self, config: EngineConfig, estimate: Estimate) -> str:
        """The options that would fit, each of them tried."""
        options = []
        smaller = next((n for n in _halves(config.n_ctx) if self.would_fit(replace(config, n_ctx=n))), None)
        if smaller:
            options.append(f"--ctx {smaller}")
        if config.kv_type == "f16" and config.flash_attention != "off" and self.would_fit(replace(config, kv_type="q8_0")):
            options.append("--kv q8_0")
        if estimate.devices:
            most = self.all_layers if config.n_gpu_layers < 0 else config.n_gpu_layers
            layers = _most(0, most - 1, lambda n: self.would_fit(replace(config, n_gpu_layers=n)))
            if layers is not None:
                options.append(f"--gpu-layers {layers}")
        if not options:
            least = replace(config, n_ctx=_LEAST_CONTEXT, kv_type="f16" if config.flash_attention == "off" else "q8_0")
            if self.would_fit(least):
                options.append(f"--ctx {_LEAST_CONTEXT} --kv {least.kv_type}")
        if options:
            return f"This would fit: {', or '.join(options)}; or a smaller model."
        return "Free some memory, or choose a smaller model or a smaller quantisation: no option makes this model fit."


def _halves(n: int) -> list[int]:
    """The powers of two below ``n``, from the largest down to the least context."""
    return [1 << bit for bit in reversed(range(30)) if _LEAST_CONTEXT <= 1 << bit < n]


def _most(least: int, most: int, fits: Callable[[int], bool]) -> int | None:
    """The largest number in the range that fits, given that all smaller ones then fit; None if the least does not fit."""
    if most < least or not fits(least):
        return None
    while least < most:
        middle = (least + most + 1) // 2
        least, most = (middle, most) if fits(middle) else (least, middle - 1)
    return least


def _gb(n: int) -> str:
    return f"{n / 1e9:.2f} GB" if n >= 1e7 else f"{n / 1e6:.1f} MB"
