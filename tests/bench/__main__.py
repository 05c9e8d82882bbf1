"""All benchmarks, one after the other, each in a process of its own: ``make bench``.

Each prints its figures as ratios to a peer that ran in turn with it, and adds them to ``bench.json``. ``LLAMA_BENCH`` and
``LLAMA_SERVER`` name llama.cpp's own binaries; figures that need one are left out without it. Give names to run some only.
"""

from __future__ import annotations

import subprocess
import sys

SUITES = ("single", "greedy", "chat", "constrained", "lookup", "streams", "interactive", "host", "templates", "wire")


def main(names: list[str]) -> int:
    failed = []
    for name in names or SUITES:
        print(f"\n== {name}", flush=True)
        if subprocess.run([sys.executable, "-m", f"tests.bench.{name}"], check=False).returncode:
            failed.append(name)
    if failed:
        print(f"\nfailed: {', '.join(failed)}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
