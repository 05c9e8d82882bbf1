"""One stream: the engine against the bare loop over the C API, the bare loop against llama-bench, and what Python costs.

    python -m tests.bench.single [MODEL] [PAIRS]

MODEL is a catalogue name or a path. LLAMA_BENCH names llama.cpp's own llama-bench, where there is one.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from contextlib import closing

from llm_magics.engine import open_engine
from llm_magics.engine.context import default_threads
from llm_magics.engine.values import Engine, EngineConfig, GenerateRequest, SamplerSettings, Tokens
from llm_magics.models.locate import locate

from .c_loop import BareLoop
from .common import Result, compare, machine, report

N_TOKENS = 64
TEXT = "The history of the lighthouse is a history of light, of stone and of the people who kept both. " * 4
ENDLESS = float("-inf")


def speed(engine: Engine, prompt: tuple[int, ...], n: int) -> tuple[tuple[int, ...], float]:
    """Return the greedy tokens, end tokens banned, and the tokens per second after the first."""
    ban = tuple((token, ENDLESS) for token in engine.info.eog)
    settings = SamplerSettings(temperature=0, logit_bias=ban)
    first, ids = 0.0, []
    with closing(engine.submit(GenerateRequest(prompt, settings, max_tokens=n))) as generation:
        for event in generation:
            if isinstance(event, Tokens):
                first = first or time.perf_counter()
                ids.extend(event.ids)
    return tuple(ids), (n - 1) / (time.perf_counter() - first)


def llama_bench(binary: str, path: str, n_threads: int) -> float:
    """Run llama-bench's generation test once; tokens per second."""
    command = [binary, "-m", path, "-p", "0", "-n", str(N_TOKENS), "-t", str(n_threads), "-r", "1", "-o", "json"]
    out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return float(json.loads(out)[0]["avg_ts"])


def main() -> None:
    path = str(locate(sys.argv[1] if len(sys.argv) > 1 else "qwen2.5-coder-0.5b").path)
    pairs = int(sys.argv[2]) if len(sys.argv) > 2 else 15
    n_threads = default_threads()
    bare = BareLoop(path, n_ctx=1024, n_batch=512, n_threads=n_threads)
    with closing(open_engine(EngineConfig(path, n_ctx=1024, n_threads=n_threads))) as engine:
        prompt = engine.tokenize(TEXT, special=False)
        ours = lambda: speed(engine, prompt, N_TOKENS)[1]  # noqa: E731
        theirs = lambda: bare.generate(prompt, N_TOKENS)[1]  # noqa: E731
        report(compare("single_stream_vs_c_loop", "tokens/s", ours, "bare loop in Python over ctypes", theirs, pairs=pairs))
    if binary := os.environ.get("LLAMA_BENCH"):
        peer = lambda: llama_bench(binary, path, n_threads)  # noqa: E731
        empty = lambda: bare.generate(prompt[:1], N_TOKENS)[1]  # noqa: E731  # llama-bench starts from an empty context
        report(compare("c_loop_vs_llama_bench", "tokens/s", empty, "llama-bench", peer, pairs=pairs))
    else:
        print("LLAMA_BENCH is not set: the bare loop was not compared with llama-bench.")
    bare.close()
    report(Result("machine", float(os.cpu_count() or 0), "cores", machine=machine()))


if __name__ == "__main__":
    main()
