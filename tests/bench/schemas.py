"""How long hostile JSON schemas take to be refused or used.

    python -m tests.bench.schemas [COUNT] [SEED]

In a child process, as the test does: for each of 500 random schemas and the known ones, the grammars of a tool's calls in three
syntaxes, of near misses and of an answer; the types; and the validation of nine values. It fails where a task takes ten
seconds.
"""

from __future__ import annotations

import statistics
import sys

from tests.schema.hostile_schemas import COUNT, GUARD, SEED, Hung, Outcome, run_child

from .common import Result, machine, report


def main(count: int = COUNT, seed: int = SEED) -> int:
    """Print and keep the largest, the 99th percentile and the median of the seconds, and name the slowest tasks."""
    try:
        outcomes = run_child(count, seed)
    except Hung as hung:
        print(f"hung: {hung}")
        return 1
    for name, chosen in (
        ("grammars", _grammars(outcomes)),
        ("validation", [o for o in outcomes if o.task.startswith("value")]),
    ):
        seconds = sorted(outcome.seconds * 1000 for outcome in chosen)
        for what, value in (
            ("max", seconds[-1]),
            ("p99", statistics.quantiles(seconds, n=100)[98]),
            ("p50", statistics.median(seconds)),
        ):
            report(Result(f"schemas: {name}, {what}", value, "ms", runs=len(seconds), machine=machine()))
        refused = sum(bool(outcome.refused) for outcome in chosen)
        slow = max(chosen, key=lambda outcome: outcome.seconds)
        print(
            f"   {refused} of {len(chosen)} refused by name; slowest: {slow.schema}, {slow.task}; seed {seed}, guard {GUARD} s"
        )
    return 0


def _grammars(outcomes: list[Outcome]) -> list[Outcome]:
    return [outcome for outcome in outcomes if not outcome.task.startswith("value")]


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:3])))
