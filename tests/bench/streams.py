"""Many streams at once: the engine against itself with one stream, and against llama-server with as many slots.

    python -m tests.bench.streams [MODEL] [PAIRS] [N_STREAMS ...]

All streams share a prefix of about 1,000 tokens and have a question of their own, new in every round; they are sent at once
and each generates the same number of greedy tokens. A figure is tokens generated per second of wall clock, prefill included.
The prefix stays in both caches from round to round, as a class's system prompt would. LLAMA_SERVER names the binary.
"""

from __future__ import annotations

import itertools
import os
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

from llm_magics.engine.hosts import open_engine
from llm_magics.engine.values import Engine, Finished, GenerateRequest, SamplerSettings

from .common import arguments, compare, config, report
from .server import Post, llama_server

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


def theirs(post: Post) -> Callable[[Prompt], int]:
    """Ask llama-server; returns how many tokens came."""

    def ask(prompt: Prompt) -> int:
        body = {"prompt": list(prompt), "n_predict": N_TOKENS, "temperature": 0, "ignore_eos": True, "cache_prompt": True}
        return int(post("/completion", {**body, "samplers": ["temperature"]})["tokens_predicted"])

    return ask


def measure(path: str, n: int, pairs: int) -> None:
    """Compare ``n`` streams with one, and with llama-server."""
    with closing(open_engine(config(path, n_ctx=2048 + n * 128, n_slots=n))) as engine:
        ask = ours(engine)
        many = lambda: rate(ask, prompts(engine, n))  # noqa: E731
        one = lambda: rate(ask, prompts(engine, 1))  # noqa: E731
        report(compare(f"streams{n}_vs_streams1", "tokens/s", many, "one stream", one, pairs=pairs))
        if binary := os.environ.get("LLAMA_SERVER"):
            with llama_server(binary, path, n) as post:
                ask_server = theirs(post)
                peer = lambda: rate(ask_server, prompts(engine, n))  # noqa: E731
                report(compare(f"streams{n}_vs_llama_server", "tokens/s", many, "llama-server", peer, pairs=pairs))
        else:
            print("LLAMA_SERVER is not set: the engine was not compared with llama-server.")


def main() -> None:
    path, pairs = arguments()
    named = [int(word) for word in sys.argv[3:]]
    for n in named or (8, 4, 2):
        measure(path, n, pairs)
    for n in () if named else (16, 32):  # no target is set for these: a few pairs show how it goes on
        measure(path, n, max(1, pairs // 5))


if __name__ == "__main__":
    main()
