"""How long a cell waits for its first token while a map of 200 rows runs, against a quiet engine.

    python -m tests.bench.interactive [MODEL] [CELLS]

All share a prefix of about 500 tokens. The map's rows have a lower priority and fill every slot; a cell takes a slot from one
of them, and the row goes on later from its saved state. Printed are the 95th percentiles; the ratio is quiet over busy, so
that larger is better, and 0.5 means twice the wait.
"""

from __future__ import annotations

import itertools
import statistics
import sys
import threading
import time
from contextlib import closing

from llm_magics.engine import open_engine
from llm_magics.engine.values import Engine, EngineConfig, Finished, GenerateRequest, SamplerSettings
from llm_magics.models.locate import locate

from .common import Result, machine, report

N_SLOTS, N_ROWS, N_TOKENS = 8, 200, 24
PREFIX = "You sort letters to the editor by subject, tone and length. " * 40
_number = itertools.count()


def first_token_seconds(engine: Engine, prefix: tuple[int, ...]) -> float:
    """Ask one new question as a cell would; seconds until its first token."""
    question = engine.tokenize(f"Letter {next(_number)}: the bus was late again. Subject:", special=False)
    greedy = SamplerSettings(temperature=0)
    with closing(engine.submit(GenerateRequest((*prefix, *question), greedy, max_tokens=4, conversation="cell"))) as generation:
        *_, end = generation
    assert isinstance(end, Finished)
    return end.time_to_first_token


def run_map(engine: Engine, prefix: tuple[int, ...], stop: threading.Event) -> None:
    """Submit rows, all slots full, until told to stop."""
    ban = SamplerSettings(temperature=0, logit_bias=tuple((token, float("-inf")) for token in engine.info.eog))
    rows = []
    for i in range(N_ROWS):
        row = engine.tokenize(f"Row {i}: the park needs new benches. Subject:", special=False)
        rows.append(engine.submit(GenerateRequest((*prefix, *row), ban, max_tokens=N_TOKENS, priority=5)))
    for generation in rows:
        if stop.is_set():
            generation.close()
        else:
            list(generation)


def p95(values: list[float]) -> float:
    return statistics.quantiles(values, n=20)[-1]


def main() -> None:
    path = str(locate(sys.argv[1] if len(sys.argv) > 1 else "qwen2.5-coder-0.5b").path)
    cells = int(sys.argv[2]) if len(sys.argv) > 2 else 20
    with closing(open_engine(EngineConfig(path, n_ctx=4096, n_slots=N_SLOTS))) as engine:
        prefix = engine.tokenize(PREFIX, special=False)
        first_token_seconds(engine, prefix)
        quiet = [first_token_seconds(engine, prefix) for _ in range(cells)]
        stop = threading.Event()
        rows = threading.Thread(target=run_map, args=(engine, prefix, stop))
        rows.start()
        time.sleep(2)
        busy = []
        for _ in range(cells):
            busy.append(first_token_seconds(engine, prefix))
            time.sleep(0.3)
        assert rows.is_alive(), "the map ended before the cells did: nothing was measured"
        stop.set()
        rows.join()
    ratio = p95(quiet) / p95(busy)
    spread = (min(quiet) / max(busy), max(quiet) / min(busy))
    report(Result("first_token_beside_a_map", p95(busy), "s", "a quiet engine", ratio, spread, cells, machine()))


if __name__ == "__main__":
    main()
