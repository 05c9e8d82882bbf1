"""Many streams at once: the engine against itself with one stream, and against llama-server with as many slots.

    python -m tests.bench.streams [MODEL] [PAIRS] [N_STREAMS]

All streams share a prefix of about 1,000 tokens and have a question of their own, new in every round; they are sent at once
and each generates the same number of greedy tokens. A figure is tokens generated per second of wall clock, prefill included.
The prefix stays in both caches from round to round, as a class's system prompt would. LLAMA_SERVER names the binary.
"""

from __future__ import annotations

import itertools
import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager

from llm_magics.engine import open_engine
from llm_magics.engine.context import default_threads
from llm_magics.engine.values import Engine, EngineConfig, Finished, GenerateRequest, SamplerSettings
from llm_magics.models.locate import locate

from .common import compare, report

N_TOKENS = 32
SENTENCE = "Item {}: the lighthouse keeper wrote down wind, tide and every ship that passed before the lamp was lit. "
_round = itertools.count()

Prompt = tuple[int, ...]


def prompts(engine: Engine, n: int) -> list[Prompt]:
    """``n`` prompts with a common beginning of about 1,000 tokens, none of them seen before."""
    shared = engine.tokenize("".join(SENTENCE.format(i) for i in range(44)), special=False)[:1000]
    number = next(_round)
    return [(*shared, *engine.tokenize(f"Question {number}.{i}: what was item {i}?", special=False)) for i in range(n)]


def rate(ask: Callable[[Prompt], int], asked: list[Prompt]) -> float:
    """Ask all at once; tokens per second until the last answer."""
    with ThreadPoolExecutor(len(asked)) as threads:
        begin = time.perf_counter()
        n = sum(threads.map(ask, asked))
        return n / (time.perf_counter() - begin)


def ours(engine: Engine) -> Callable[[Prompt], int]:
    """Ask the engine; returns how many tokens came."""
    ban = tuple((token, float("-inf")) for token in engine.info.eog)

    def ask(prompt: Prompt) -> int:
        request = GenerateRequest(prompt, SamplerSettings(temperature=0, logit_bias=ban), max_tokens=N_TOKENS)
        with closing(engine.submit(request)) as generation:
            *_, end = generation
        assert isinstance(end, Finished)
        return len(end.ids)

    return ask


@contextmanager
def llama_server(binary: str, path: str, n_slots: int) -> Iterator[Callable[[Prompt], int]]:
    """Run llama-server with as many slots over one cache, and give a function that asks it. Its cache has room for the prefix
    in each slot, because it does not share it between them."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    size = ["-c", str(n_slots * 1280), "-np", str(n_slots), "-kvu", "-b", "512", "-ub", "512", "-t", str(default_threads())]
    process = subprocess.Popen(
        [binary, "-m", path, "--port", str(port), *size], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )

    def post(where: str, body: dict[str, object] | None) -> dict[str, object]:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"http://127.0.0.1:{port}{where}", data, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request) as answer:
            return dict(json.load(answer))

    def ask(prompt: Prompt) -> int:
        body = {"prompt": list(prompt), "n_predict": N_TOKENS, "temperature": 0, "ignore_eos": True, "cache_prompt": True}
        return int(str(post("/completion", body)["tokens_predicted"]))

    try:
        for _ in range(300):
            try:
                post("/health", None)
                break
            except OSError:
                time.sleep(0.2)
        yield ask
    finally:
        process.terminate()
        process.wait()


def main() -> None:
    path = str(locate(sys.argv[1] if len(sys.argv) > 1 else "qwen2.5-coder-0.5b").path)
    pairs = int(sys.argv[2]) if len(sys.argv) > 2 else 15
    n = int(sys.argv[3]) if len(sys.argv) > 3 else 8
    n_ctx = 2048 + n * 128
    with closing(open_engine(EngineConfig(path, n_ctx=n_ctx, n_slots=n))) as engine:
        ask = ours(engine)
        many = lambda: rate(ask, prompts(engine, n))  # noqa: E731
        one = lambda: rate(ask, prompts(engine, 1))  # noqa: E731
        report(compare(f"streams{n}_vs_streams1", "tokens/s", many, "one stream", one, pairs=pairs))
        if binary := os.environ.get("LLAMA_SERVER"):
            with llama_server(binary, path, n) as ask_server:
                theirs = lambda: rate(ask_server, prompts(engine, n))  # noqa: E731
                report(compare(f"streams{n}_vs_llama_server", "tokens/s", many, "llama-server", theirs, pairs=pairs))
        else:
            print("LLAMA_SERVER is not set: the engine was not compared with llama-server.")


if __name__ == "__main__":
    main()
