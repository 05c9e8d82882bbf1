"""Tells the page which models are loaded, after each cell that changed them, and the state of GPUs in use, every two seconds.

The status bar draws its model card from these messages. The gauge stops some time after the last cell: a server that ends idle
kernels takes each message for a sign of life, and would never free the GPU's memory.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from typing import Any

from llm_magics.kernel.page.request import parent_metadata

from .runtime import Resident, Runtime

SECONDS = 2.0  # between two looks at the GPUs
LISTENS = 60.0  # seconds after a cell's end in which somebody may look at the card


class Gauge:
    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._models: list[dict[str, Any]] = []
        self._told: tuple[Any, Any] = ([], [])
        self._until = 0.0  # on the monotonic clock: when to stop
        self._lock = threading.Lock()  # the main thread and the watching thread both send
        self._over = threading.Event()
        self._watch: threading.Thread | None = None

    def cell_begins(self, *_: Any) -> None:
        self._listen(math.inf)

    def cell_ended(self, *_: Any) -> None:
        """Send the changes, and watch the GPUs for some time if a model is on one."""
        if parent_metadata(self._runtime.shell).get("cellId") is not None:  # else no page can draw the card
            self._models = models(self._runtime)
            self._tell()
        self._listen(time.monotonic() + LISTENS)

    def stop(self) -> None:
        self._over.set()

    @property
    def _on_gpu(self) -> bool:
        return any(set(model["memory"]) - {"host"} for model in self._models)

    def _listen(self, until: float) -> None:
        with self._lock:
            self._until = until
            if self._on_gpu and self._watch is None and not self._over.is_set():
                self._watch = threading.Thread(target=self._look_on, name="llm-magics-gauge", daemon=True)
                self._watch.start()

    def _look_on(self) -> None:
        while not self._over.wait(SECONDS):
            with self._lock:
                last = time.monotonic() >= self._until
                self._watch = None if last else self._watch
            self._tell(last)
            if last:
                return

    def _tell(self, last: bool = False) -> None:
        """Send the changes. The ``last`` message does not say how busy a GPU is: that would soon be wrong."""
        gpus = gpu_figures() if self._on_gpu else []
        with self._lock:
            link, now = self._runtime.link, (self._models, [{**gpu, "busy": None} for gpu in gpus] if last else gpus)
            if link is not None and now != self._told:
                self._told = now
                link.tell("models", models=now[0], gpus=now[1])


def models(runtime: Runtime) -> list[dict[str, Any]]:
    """One object for each loaded model: name, whether it is current, tokens, tokens/s, and bytes of memory by device."""
    return [_model(runtime, resident) for resident in runtime.residents.values()]


def gpu_figures() -> list[dict[str, Any]]:
    """One object for each NVIDIA GPU: name, bytes used by all processes and in total, percent busy (None if unknown)."""
    from llm_magics.engine.fit.memory import nvidia_gpus

    return [{"name": gpu.name, "used": gpu.total - gpu.free, "total": gpu.total, "busy": gpu.busy} for gpu in nvidia_gpus()]


def start_gauge(runtime: Runtime) -> Callable[[], None]:
    """Start a gauge; return what ends it."""
    gauge, events = Gauge(runtime), runtime.shell.events
    events.register("pre_run_cell", gauge.cell_begins)
    events.register("post_run_cell", gauge.cell_ended)

    def end() -> None:
        events.unregister("pre_run_cell", gauge.cell_begins)
        events.unregister("post_run_cell", gauge.cell_ended)
        gauge.stop()

    return end


def _description(model: Any, info: Any) -> str:
    apart = ", in a process of its own" if getattr(model, "own_process", 0) else ""
    return f"{getattr(info or model, 'description', type(model).__name__)}{apart}"


def _model(runtime: Runtime, resident: Resident) -> dict[str, Any]:
    info = getattr(getattr(resident.model, "engine", None), "info", None)
    memory: dict[str, int] = {}
    for device, _, size in info.buffers if info is not None else ():
        where = "host" if device.startswith("CPU") or device.endswith("_Host") else device  # e.g. CPU_Mapped, CUDA_Host, CUDA0
        memory[where] = memory.get(where, 0) + size
    replies = [thread.session.reply for thread in runtime.threads.values()]
    usages = [reply.usage for reply in replies if reply is not None and reply.trace.model == resident.model.name]
    return {
        "name": resident.name,
        "current": resident.name == runtime.current_model,
        "description": _description(resident.model, info),
        "context_size": resident.model.context_size,
        "context_used": max((usage.context_used for usage in usages), default=0),
        "tokens_per_second": usages[-1].tokens_per_second if usages else 0.0,
        "memory": memory,
    }
