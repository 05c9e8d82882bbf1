"""How long a cell waits for its first token while a map of 200 rows runs, against a quiet engine.

    python -m tests.bench.interactive [MODEL] [PAIRS]

All share a prefix of about 500 tokens. The map's rows have a lower priority and fill every slot; a cell takes a slot from one
of them, and the row goes on later. In each pair the same engine is asked with the map running, a random moment after its
start, and with the map gone. Printed is the 95th percentile of the wait; the ratio is quiet over busy, so that larger is
better, and 0.5 means twice the wait.
"""

from __future__ import annotations

import itertools
import random
import statistics
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager

from llm_magics.engine.hosts import open_engine
from llm_magics.engine.values import Engine, EngineConfig, Finished, GenerateRequest, SamplerSettings
from llm_magics.store.locate import locate

from .common import Result, machine, quartiles, report

N_SLOTS, N_ROWS, N_TOKENS = 8, 200, 24
CELLS = 2  # asked in each half of a pair
PREFIX = "You sort letters to the editor by subject, tone and length. " * 40
_number = itertools.count()
_moments = random.Random(6)


def first_token_seconds(engine: Engine, prefix: tuple[int, ...]) -> float:
    """Ask one new question as a cell would; seconds until its first token."""
    question = engine.tokenize(f"Letter {next(_number)}: the bus was late again. Subject:", special=False)
    greedy = SamplerSettings(temperature=0)
    with closing(engine.submit(GenerateRequest((*prefix, *question), greedy, max_tokens=4, conversation="cell"))) as generation:
        *_, end = generation
    assert isinstance(end, Finished)
    return end.time_to_first_token


@contextmanager
def a_map(engine: Engine, prefix: tuple[int, ...]) -> Iterator[None]:
    """Run a map's rows, all submitted at once, until the block is left; they must not have ended before."""
    ban = SamplerSettings(temperature=0, logit_bias=tuple((token, float("-inf")) for token in engine.info.eog))
    rows = []
    for _ in range(N_ROWS):
        row = engine.tokenize(f"Row {next(_number)}: the park needs new benches. Subject:", special=False)
        rows.append(engine.submit(GenerateRequest((*prefix, *row), ban, max_tokens=N_TOKENS, priority=5)))
    stop = threading.Event()

    def collect() -> None:
        for generation in rows:
            for _ in generation:
                if stop.is_set():
                    return

    collector = threading.Thread(target=collect)
    collector.start()
    try:
        time.sleep(_moments.uniform(0.5, 3))
        yield
        assert collector.is_alive(), "the map ended before the cells did: nothing was measured"
    finally:
        stop.set()
        for generation in rows:
            generation.close()
        collector.join()


def p95(values: list[float]) -> float:
    """The 95th percentile, no value beyond the largest."""
    return statistics.quantiles(values, n=20, method="inclusive")[-1]


def main() -> None:
    path = str(locate(sys.argv[1] if len(sys.argv) > 1 else "qwen2.5-coder-0.5b").path)
    pairs = int(sys.argv[2]) if len(sys.argv) > 2 else 15
    quiet: list[float] = []
    busy: list[float] = []
    with closing(open_engine(EngineConfig(path, n_ctx=4096, n_slots=N_SLOTS))) as engine:
        prefix = engine.tokenize(PREFIX, special=False)
        first_token_seconds(engine, prefix)
        for _ in range(pairs):
            with a_map(engine, prefix):
                busy += [first_token_seconds(engine, prefix) for _ in range(CELLS)]
            quiet += [first_token_seconds(engine, prefix) for _ in range(CELLS)]
    for name, values in (("quiet", quiet), ("beside a map", busy)):
        print(f"{name}: median {statistics.median(values):.3f} s, p95 {p95(values):.3f} s, worst {max(values):.3f} s")
    spread = quartiles([q / b for q, b in zip(quiet, busy, strict=True)])
    ratio = p95(quiet) / p95(busy)
    report(Result("first_token_beside_a_map", p95(busy), "s", "a quiet engine", ratio, spread, pairs, machine()))


if __name__ == "__main__":
    main()
