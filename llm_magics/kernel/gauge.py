"""What is loaded, told to the page after each cell where it changed: the status bar's model card is drawn from it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .context import parent_metadata
from .runtime import Resident, Runtime


def gauge(runtime: Runtime) -> list[dict[str, Any]]:
    """One object for each loaded model: name, whether it answers by default, tokens, speed, and bytes of memory by device."""
    return [_gauge_of(runtime, resident) for resident in runtime.residents.values()]


def start_gauge(runtime: Runtime) -> Callable[[], None]:
    """Begin to tell the page; gives what ends it."""
    told: list[Any] = [[]]

    def tell(*_: Any) -> None:
        link = runtime.link if parent_metadata(runtime.shell).get("cellId") else None
        now = gauge(runtime)
        if link is not None and now != told[0]:
            told[0] = now
            link.send("models", models=now)

    runtime.shell.events.register("post_run_cell", tell)
    return lambda: runtime.shell.events.unregister("post_run_cell", tell)


def _gauge_of(runtime: Runtime, resident: Resident) -> dict[str, Any]:
    info = getattr(getattr(resident.model, "engine", None), "info", None)
    memory: dict[str, int] = {}
    for device, _, size in info.buffers if info is not None else ():
        where = "host" if device.startswith("CPU") or device.endswith("_Host") else device  # e.g. CPU_Mapped, CUDA_Host, CUDA0
        memory[where] = memory.get(where, 0) + size
    usages = [
        thread.session.reply.usage
        for thread in runtime.threads.values()
        if thread.session.reply is not None and thread.session.reply.trace.model == resident.model.name
    ]
    return {
        "name": resident.name,
        "current": resident.name == runtime.current_model,
        "description": info.description if info is not None else type(resident.model).__name__,
        "context_size": resident.model.context_size,
        "context_used": max((usage.context_used for usage in usages), default=0),
        "tokens_per_second": usages[-1].tokens_per_second if usages else 0.0,
        "memory": memory,
    }
