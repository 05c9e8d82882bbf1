"""This checkout against another one, e.g. the commit before: the suites' own measures, in turn, in two processes that stay.

    python -m tests.bench.before CHECKOUT [--pairs 15] [--model NAME] [SUITE ...]

``CHECKOUT`` has an environment of its own in ``.venv``. Of each suite (host, single, streams, constrained and chat if none is
named) only our own side is measured; its peers are not run. A pair runs each checkout once, in an order that changes from pair
to pair; the first pair warms up. A ratio above 1 says that this checkout is faster.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO

from .common import DEFAULT_MODEL, quartiles

SUITES = ("host", "single", "streams", "constrained", "chat")
MORE = {"streams": ["8"]}  # arguments beside model and pairs
CHILD = """
import importlib, sys
name, model, pairs, *more = sys.argv[1:]
suite = importlib.import_module(f"tests.bench.{name}")
def serve(figure, unit, ours, *_, **__):
    print("@@", figure, unit, flush=True)
    for line in sys.stdin:
        if line.strip() == "next":
            break
        print("@@", ours(), flush=True)
suite.report = lambda result: None
suite.compare = serve
sys.argv = [name, model, pairs, *more]
if name == "host":
    for n in (1, 8):
        serve(f"host_us_per_token_{n}", "us", lambda: suite.microseconds(n, 151_936))
else:
    suite.main()
"""


class Side:
    """One checkout's process, which measures when it is told to."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self._in: IO[str] = process.stdin
        self._out: IO[str] = process.stdout

    def figure(self) -> list[str]:
        """The name and unit of what is measured next; empty at the end."""
        return next(self._told(), [])

    def measure(self) -> float:
        self._in.write("again\n")
        self._in.flush()
        return float(next(self._told())[0])

    def done(self) -> None:
        self._in.write("next\n")
        self._in.flush()

    def _told(self) -> Iterator[list[str]]:
        return (line.split()[1:] for line in self._out if line.startswith("@@"))


@contextmanager
def side(checkout: Path, suite: str, model: str, pairs: int) -> Iterator[Side]:
    """Start a checkout's process for one suite; it ends with the block."""
    python = next((p for name in ("bin/python", "Scripts/python.exe") if (p := checkout / ".venv" / name).exists()), None)
    if python is None:  # another environment's kernels would import another checkout
        raise SystemExit(f"{checkout} has no environment in .venv. Make it there: make .venv/.test")
    command = [str(python), "-c", CHILD, suite, model, str(pairs), *MORE.get(suite, [])]
    process = subprocess.Popen(command, cwd=checkout, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        yield Side(process)
    finally:
        process.kill()
        process.wait()


def compare(suite: str, before: Path, model: str, pairs: int) -> None:
    """Print one line per figure of a suite."""
    with ExitStack() as stack:
        ours, theirs = (stack.enter_context(side(tree, suite, model, pairs)) for tree in (Path.cwd(), before))
        while figure := ours.figure():
            if theirs.figure() != figure:
                raise SystemExit(f"{suite}: the checkouts measure different things.")
            found: dict[Side, list[float]] = {ours: [], theirs: []}
            for i in range(pairs + 1):
                for one in (ours, theirs) if i % 2 else (theirs, ours):
                    found[one].append(one.measure())
            new, old = found[ours][1:], found[theirs][1:]
            if figure[1] in ("us", "s"):  # smaller is better
                new, old = old, new
            ratios = [a / b for a, b in zip(new, old, strict=True)]
            low, high = quartiles(ratios)
            ratio = statistics.median(new) / statistics.median(old)
            print(f"{figure[0]:34} {ratio:.3f} of before (quartiles {low:.3f} to {high:.3f}, {pairs} pairs)", flush=True)
            ours.done()
            theirs.done()


def main() -> None:
    asked = argparse.ArgumentParser(prog="python -m tests.bench.before", description="Compare this checkout with another one.")
    asked.add_argument("checkout", type=Path)
    asked.add_argument("suites", nargs="*", metavar="SUITE", default=SUITES)
    asked.add_argument("--pairs", type=int, default=15)
    asked.add_argument("--model", default=DEFAULT_MODEL)
    given = asked.parse_args()
    for suite in given.suites:
        compare(suite, given.checkout.resolve(), given.model, given.pairs)


if __name__ == "__main__":
    main()
