"""Decide how to load a model into the memory that is free: what "auto" means, and what to say when it does not fit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from llm_magics.engine.values import EngineConfig
from llm_magics.errors import LLMMagicsError, MemoryFitError

from .gguf import Gguf
from .gguf_check import trained_context
from .memory import Device, Estimate, Estimator, FreeMemory, free_memory, normal_pci
from .probe import DeviceError

AUTO_CONTEXT = 16384  # tokens that "auto" asks for at most: a long conversation, and not yet gigabytes of cache
_LEAST_CONTEXT = 512
_GOOD_CONTEXT = 4096  # "auto" rather leaves layers on the CPU than have less than this

# Left free: on the host for everybody else; on a GPU for the libraries' own buffers, and for the driver's context of this
# process (which the child that made the estimate had already taken when it looked).
_HOST_RESERVE, _GPU_RESERVE, _GPU_CONTEXT = 256 << 20, 256 << 20, 512 << 20
_KINDS = {"model": "weights", "kv": "KV cache", "recurrent": "recurrent state", "compute": "compute buffers"}

Fits = Callable[[EngineConfig], bool]


@dataclass(frozen=True, slots=True)
class Plan:
    """A configuration that fits: what it takes, and what was free before (bytes)."""

    config: EngineConfig
    estimate: Estimate
    free: FreeMemory

    @property
    def rest(self) -> FreeMemory:
        taken = {normal_pci(d.pci): self.estimate.needs(d.name) for d in self.estimate.devices}
        gpus = tuple(replace(gpu, free=max(0, gpu.free - taken.get(normal_pci(gpu.pci), 0))) for gpu in self.free.gpus)
        return FreeMemory(max(0, self.free.host - self.estimate.needs("host")), gpus)


def plan(
    gguf: Gguf,
    config: EngineConfig,
    free: FreeMemory | None = None,
    *,
    auto_context: bool = False,
    auto_layers: bool = False,
    gpu: bool | None = None,
) -> Plan:
    """Fill in what was left to us and check that it fits.

    Args:
        gguf: the model's header, read and checked.
        config: as asked; ``n_ctx`` is not read with ``auto_context``, nor ``n_gpu_layers`` with ``auto_layers``.
        free: what may be taken; None looks now.
        auto_context: choose the largest context that fits, at most ``AUTO_CONTEXT`` and what the model was trained for.
        auto_layers: put as many layers as fit onto the GPU, if this build of llama.cpp can use one.
        gpu: whether it can; None asks it.

    Raises MemoryFitError naming what is missing where, who holds it, and which options would fit.
    """
    if auto_layers and gpu is None:
        from llm_magics.engine.native.llama import supports_gpu

        gpu = supports_gpu()
    with Estimator(gguf) as estimator:
        return _Planner(gguf, free or free_memory(), estimator).plan(config, auto_context, auto_layers and bool(gpu))


class _Planner:
    def __init__(self, gguf: Gguf, free: FreeMemory, estimator: Estimator) -> None:
        self.gguf, self.free, self.estimator = gguf, free, estimator
        self.all_layers = int(gguf.arch("block_count", 1)) + 1  # the output layer counts as one

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
        """The same of a configuration that nobody asked for: one that cannot be had at all does not fit."""
        try:
            return self.fits(config)
        except LLMMagicsError:
            return False

    def missing(self, estimate: Estimate) -> dict[str, tuple[int, int]]:
        """Where it does not fit: device -> (bytes needed, bytes to be had)."""
        room = {d.name: self.gpu_room(d) for d in estimate.devices}
        room["host"] = max(0, self.free.host - _HOST_RESERVE)
        return {d: (estimate.needs(d), has) for d, has in room.items() if estimate.needs(d) > has}

    def gpu_room(self, device: Device) -> int:
        """What the driver says, and llama.cpp for itself: it may see a part of the GPU only (MIG)."""
        gpu = self.free.gpu(device.pci)
        rooms = [device.free - _GPU_RESERVE, *([gpu.free - _GPU_RESERVE - _GPU_CONTEXT] if gpu else [])]
        return max(0, min(rooms))

    def refusal(self, config: EngineConfig, auto_layers: bool) -> MemoryFitError:
        try:
            estimate = self.estimator(config)
        except DeviceError:
            if not auto_layers:
                raise
            config = replace(config, n_gpu_layers=0)  # what was tried last
            estimate = self.estimator(config)
        problems = [self.problem(estimate, d, *sizes) for d, sizes in self.missing(estimate).items()]
        return MemoryFitError(f"{self.gguf.paths[0].name} does not fit: {'; '.join(problems)}.", self.advice(config, estimate))

    def problem(self, estimate: Estimate, device: str, needed: int, has: int) -> str:
        name = "the computer's memory" if device == "host" else device
        parts = ", ".join(f"{what} {_gb(size)}" for kind, what in _KINDS.items() if (size := estimate.needs(device, kind)))
        holders = [g for d in estimate.devices if d.name == device and (g := self.free.gpu(d.pci))]
        held = "".join(f"; {p.name} (pid {p.pid}) holds {_gb(p.used)} there" for g in holders for p in g.processes if p.used)
        return f"it needs {_gb(needed)} of {name} ({parts}), and {_gb(has)} are to be had{held}"

    def advice(self, config: EngineConfig, estimate: Estimate) -> str:
        """The options that would fit, each tried."""
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
        return "Free some memory, or choose a smaller model or a stronger quantisation: no option makes this one fit."


def _halves(n: int) -> list[int]:
    """Smaller contexts to offer: powers of two below ``n``."""
    powers = [1 << bit for bit in range(30) if _LEAST_CONTEXT <= 1 << bit < n]
    return powers[::-1]


def _most(least: int, most: int, fits: Callable[[int], bool]) -> int | None:
    """The largest number in the range that fits, given that smaller ones fit if it does; None where not even the least does."""
    if most < least or not fits(least):
        return None
    while least < most:
        middle = (least + most + 1) // 2
        if fits(middle):
            least = middle
        else:
            most = middle - 1
    return least


def _gb(n: int) -> str:
    return f"{n / 1e9:.2f} GB" if n >= 1e7 else f"{n / 1e6:.1f} MB"
