"""A map over rows under a schema: the package's own ``model.map`` against llama-server given the same requests at once.

    python -m tests.bench.map [MODEL] [PAIRS]

All rows share a system prompt of about 1,000 tokens, which both keep from round to round; rows are new in every round. Both
render the messages by the model's own template and hold the answer to the same schema, greedily, with 8 slots. 40 rows are
compared; 200 rows are run alone. Figures are rows per second until the last answer.
"""

from __future__ import annotations

import itertools
import json
import os
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any

from llm_magics.engine.native.cpus import default_threads
from llm_magics.models.loading import load_model
from llm_magics.models.local import LocalModel

from .common import GPU_LAYERS, Result, arguments, compare, machine, quartiles, report
from .server import Post, llama_server

N_SLOTS, MAX_TOKENS = 8, 48
RULE = "Rule {}: a letter about {} belongs to the desk of that name, and is urgent if somebody waits for an answer. "
DESKS = ("roads", "parks", "schools", "taxes", "noise", "water")
SYSTEM = "You sort letters to the town hall. " + "".join(RULE.format(i, DESKS[i % 6]) for i in range(1, 37))
SCHEMA = {
    "type": "object",
    "properties": {"desk": {"enum": list(DESKS)}, "urgent": {"type": "boolean"}},
    "required": ["desk", "urgent"],
    "additionalProperties": False,
}
_number = itertools.count()


def letters(n: int) -> list[str]:
    """``n`` letters that nobody has seen."""
    return [f"Letter {(i := next(_number))}: please see to the {DESKS[i % 6]} in street {i}." for _ in range(n)]


def ours(model: LocalModel, rows: list[str]) -> float:
    """Map; rows per second. Every row must have its value."""
    begin = time.perf_counter()
    result = model.map(rows, system=SYSTEM, schema=SCHEMA, temperature=0, max_tokens=MAX_TOKENS, progress=False)
    seconds = time.perf_counter() - begin
    assert not result.errors, result.errors
    return len(rows) / seconds


def theirs(post: Post, rows: list[str]) -> float:
    """Send all rows at once; rows per second."""

    def ask(row: str) -> Any:
        messages = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": row}]
        schema = {"type": "json_schema", "json_schema": {"name": "letter", "schema": SCHEMA}}
        body = {"messages": messages, "response_format": schema, "temperature": 0, "max_tokens": MAX_TOKENS}
        return json.loads(post("/v1/chat/completions", {**body, "cache_prompt": True})["choices"][0]["message"]["content"])

    begin = time.perf_counter()
    with ThreadPoolExecutor(len(rows)) as threads:
        values = list(threads.map(ask, rows))
    seconds = time.perf_counter() - begin
    assert all(value["desk"] in DESKS for value in values)
    return len(rows) / seconds


def main() -> None:
    path, pairs = arguments()
    settings: dict[str, Any] = {"threads": default_threads(), "gpu_layers": GPU_LAYERS, "flash_attn": "on"}
    with closing(load_model(path, ctx=4096, slots=N_SLOTS, **settings)) as model:
        forty: Callable[[], float] = lambda: ours(model, letters(40))  # noqa: E731
        if binary := os.environ.get("LLAMA_SERVER"):
            with llama_server(binary, path, N_SLOTS) as post:
                report(
                    compare(
                        "map40_vs_llama_server", "rows/s", forty, "llama-server", lambda: theirs(post, letters(40)), pairs=pairs
                    )
                )
        else:
            print("LLAMA_SERVER is not set: the map was not compared with llama-server.")
            forty()
        runs = [ours(model, letters(200)) for _ in range(max(1, min(3, pairs // 5)))]
        report(Result("map200", statistics.median(runs), "rows/s", "", None, quartiles(runs), len(runs), machine()))


if __name__ == "__main__":
    main()
