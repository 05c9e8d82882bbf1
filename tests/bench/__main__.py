"""All benchmarks, one after the other, each in a process of its own: ``make bench``.

    python -m tests.bench [--pairs N] [--model NAME|PATH] [SUITE ...]

Each prints its figures as ratios to a peer that ran in turn with it, and keeps them in ``bench.json``; the table of all comes
last. How they are made comparable, and the environment that they read, stands in :mod:`tests.bench.common`. An hour and a
quarter on two cores with the default of 15 pairs; ``--pairs 1`` shows in minutes that everything runs. On a machine with a GPU,
set ``BENCH_GPU_LAYERS=-1``, and name a model of a size that is worth it, e.g. ``--model 7b.gguf single streams chat20``; where
none can be fetched, random weights of that shape will do for speeds.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time

from .common import DEFAULT_MODEL, line, results

# Suites that take [MODEL] [PAIRS], and those that measure something of their own.
PAIRED = (
    "single", "chat20", "streams", "map", "lookup", "constrained", "chat", "load", "interactive", "hog", "shared", "isolated"
)  # fmt: skip
OTHER = {
    "host": [], "transcript": [], "records": [], "wire": ["200"], "templates": ["tests/chat/templates"],
    "greedy": [], "structured": [], "forced": [], "identity": [], "schemas": [],
}  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description="Measure against peers.")
    parser.add_argument("suites", nargs="*", metavar="SUITE", help=f"of {', '.join((*PAIRED, *OTHER))}; all if none is named")
    parser.add_argument("--pairs", type=int, default=15)
    parser.add_argument("--model", default=DEFAULT_MODEL)
    given = parser.parse_args()
    failed = []
    for name in given.suites or (*PAIRED, *OTHER):
        print(f"\n== {name}", flush=True)
        arguments = OTHER.get(name, [given.model, str(given.pairs)])
        begin = time.perf_counter()
        if subprocess.run([sys.executable, "-m", f"tests.bench.{name}", *arguments], check=False).returncode:
            failed.append(name)
        print(f"   ({time.perf_counter() - begin:.0f} s)", flush=True)
    print("\n== all figures kept", *map(line, results()), sep="\n")
    if failed:
        print(f"\nfailed: {', '.join(failed)}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
