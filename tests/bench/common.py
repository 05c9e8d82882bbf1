"""What the benchmarks share: alternating pairs, medians with their spread, and one list of results.

A figure is always a ratio to a peer that ran alternately in the same process tree, because a machine's speed drifts by more
than the differences that matter. ``python -m tests.bench.NAME`` runs one benchmark and prints its table; results are kept
in ``bench.json`` (a list of name, value, unit, peer, ratio, spread, runs, machine), one entry per name.

**Fairness.** Both sides of a pair have the same file, threads, context, batch, KV type (f16), flash attention (on for both) and
layers on the GPU, draw greedily, and write as many tokens. Peers keep their own caches: a prefix that stays the same is not
evaluated again on either side. A pair runs each side once, in an order that changes from pair to pair; the first pair warms up.

The environment: ``BENCH_GPU_LAYERS`` (-1 is all; 0 if unset), ``BENCH_RESULTS`` (another file than ``bench.json``),
``LLAMA_SERVER`` and ``LLAMA_BENCH`` (llama.cpp's own binaries; what needs one is left out without it).
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from llm_magics.engine.native.cpus import default_threads
from llm_magics.engine.native.library import lib as lib  # before a peer imports llama_cpp: both sides wait as the engine does
from llm_magics.engine.values import EngineConfig
from llm_magics.store.locate import locate

RESULTS = Path(os.environ.get("BENCH_RESULTS", "bench.json"))
GPU_LAYERS = int(os.environ.get("BENCH_GPU_LAYERS", "0"))
DEFAULT_MODEL = "qwen2.5-coder-0.5b"
Measure = Callable[[], float]


def arguments(model: str = DEFAULT_MODEL, pairs: int = 15) -> tuple[str, int]:
    """The command line ``[MODEL] [PAIRS]``: the model's file and how many pairs to run."""
    given = dict(enumerate(sys.argv[1:]))
    return str(locate(given.get(0, model)).path), int(given.get(1, pairs))


def config(path: str, n_ctx: int, **more: Any) -> EngineConfig:
    """How the engine is loaded in every comparison."""
    threads = default_threads()
    return EngineConfig(path, n_ctx=n_ctx, n_threads=threads, n_gpu_layers=GPU_LAYERS, flash_attention="on", **more)


@dataclass(frozen=True)
class Result:
    """One figure. ``ratio`` is ours over the peer's: larger is better for speeds, smaller for seconds. ``spread`` are the
    quartiles of the pairs' ratios."""

    name: str
    value: float
    unit: str
    peer: str = ""
    ratio: float | None = None
    spread: tuple[float, float] | None = None
    runs: int = 1
    machine: str = ""


def machine() -> str:
    """Name the processor, the cores this process may use, and the system."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [line.split(":", 1)[1].strip() for line in cpuinfo.read_text().splitlines() if line.startswith("model name")]
        model = names[0] if names else model
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{model}, {cores} cores, {platform.system()}"


def quartiles(values: list[float]) -> tuple[float, float]:
    """The first and third quartile."""
    if len(values) < 2:
        return (values[0], values[0])
    low, _, high = statistics.quantiles(values, n=4)
    return (low, high)


def compare(name: str, unit: str, ours: Measure, peer: str, theirs: Measure, *, pairs: int = 15) -> Result:
    """Run both alternately, swapping who goes first. The first pair warms up and does not count."""
    a: list[float] = []
    b: list[float] = []
    for i in range(pairs + 1):
        order = ((ours, a), (theirs, b)) if i % 2 else ((theirs, b), (ours, a))
        for measure, into in order:
            into.append(measure())
    a, b = a[1:], b[1:]
    ratios = [x / y for x, y in zip(a, b, strict=True)]
    ratio = statistics.median(a) / statistics.median(b)
    return Result(name, statistics.median(a), unit, peer, ratio, quartiles(ratios), pairs, machine())


def report(result: Result) -> None:
    """Print a result and keep it in ``bench.json``, replacing an earlier one of the same name."""
    print(line(result), flush=True)
    kept = json.loads(RESULTS.read_text()) if RESULTS.exists() else []
    kept = [entry for entry in kept if entry["name"] != result.name]
    RESULTS.write_text(json.dumps([*kept, asdict(result)], indent=1) + "\n")


def line(result: Result) -> str:
    """One line of the table."""
    said = f"{result.name:34} {result.value:10.2f} {result.unit}"
    if result.ratio is not None and result.spread is not None:
        low, high = result.spread
        said += f"   {result.ratio:.3f} of {result.peer} (quartiles {low:.3f} to {high:.3f}, {result.runs} pairs)"
    return said


def results() -> list[Result]:
    """All that was kept, one per name."""
    return [Result(**entry) for entry in json.loads(RESULTS.read_text())] if RESULTS.exists() else []
