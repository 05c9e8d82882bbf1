"""One stream: the engine against the bare loop over the C API, behind a short prompt and behind a long one; the bare loop
against llama-bench; the engine against llama-cpp-python's own streaming chat.

    python -m tests.bench.single [MODEL] [PAIRS]

MODEL is a catalogue name or a path. Speeds are decode speeds: tokens after the first, per second.
"""

from __future__ import annotations

import json
import os
import subprocess
import time
from contextlib import closing
from typing import Any

from llm_magics.engine.hosts import open_engine
from llm_magics.engine.native.cpus import default_threads
from llm_magics.engine.values import Engine, GenerateRequest, SamplerSettings, Tokens

from .c_loop import BareLoop
from .common import GPU_LAYERS, arguments, compare, config, report

N_TOKENS = 64
TEXT = "The history of the lighthouse is a history of light, of stone and of the people who kept both. " * 4
ENDLESS = float("-inf")


def speed(engine: Engine, prompt: tuple[int, ...], n: int) -> tuple[tuple[int, ...], float]:
    """Return the greedy tokens, end tokens banned, and the tokens per second after the first."""
    ban = tuple((token, ENDLESS) for token in engine.info.eog)
    settings = SamplerSettings(temperature=0, logit_bias=ban)
    first = 0.0
    ids: list[int] = []
    with closing(engine.submit(GenerateRequest(prompt, settings, max_tokens=n))) as generation:
        for event in generation:
            if isinstance(event, Tokens):
                first = first or time.perf_counter()
                ids.extend(event.ids)
    return tuple(ids), (n - 1) / (time.perf_counter() - first)


def llama_bench(binary: str, path: str, n_threads: int) -> float:
    """Run llama-bench's generation test once; tokens per second."""
    command = [binary, "-m", path, "-p", "0", "-n", str(N_TOKENS), "-t", str(n_threads), "-r", "1", "-o", "json"]
    command += ["-fa", "on", "-ngl", str(GPU_LAYERS if GPU_LAYERS >= 0 else 999)]
    out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return float(json.loads(out)[0]["avg_ts"])


def against_the_loop(name: str, path: str, text: str, n_ctx: int, pairs: int) -> None:
    """Compare the engine with the bare loop on one prompt, which both evaluate once."""
    bare = BareLoop(path, n_ctx=n_ctx, n_batch=512, n_threads=default_threads())
    with closing(open_engine(config(path, n_ctx))) as engine:
        prompt = engine.tokenize(text, special=False)
        ours = lambda: speed(engine, prompt, N_TOKENS)[1]  # noqa: E731
        theirs = lambda: bare.generate(prompt, N_TOKENS)[1]  # noqa: E731
        report(compare(name, "tokens/s", ours, "bare loop in Python over ctypes", theirs, pairs=pairs))
    bare.close()


def the_loop_against_llama_bench(binary: str, path: str, pairs: int) -> None:
    """Compare the bare loop with llama-bench, which starts from an empty context."""
    bare = BareLoop(path, n_ctx=1024, n_batch=512, n_threads=default_threads())
    peer = lambda: llama_bench(binary, path, default_threads())  # noqa: E731
    empty = lambda: bare.generate([1], N_TOKENS)[1]  # noqa: E731
    report(compare("c_loop_vs_llama_bench", "tokens/s", empty, "llama-bench", peer, pairs=pairs))
    bare.close()


def against_llama_cpp_python(path: str, pairs: int) -> None:
    """Compare the engine with llama-cpp-python's own streaming chat completion, on one message."""
    import llama_cpp

    threads = default_threads()
    llama = llama_cpp.Llama(path, n_ctx=1024, n_threads=threads, n_gpu_layers=GPU_LAYERS, flash_attn=True, verbose=False)

    def theirs() -> float:
        asked: list[Any] = [{"role": "user", "content": TEXT}]
        times = [
            time.perf_counter()
            for chunk in llama.create_chat_completion(asked, temperature=0, max_tokens=N_TOKENS, stream=True)
            if chunk["choices"][0]["delta"].get("content")  # type: ignore[index,union-attr]
        ]
        return (len(times) - 1) / (times[-1] - times[0])

    with closing(open_engine(config(path, 1024))) as engine:
        prompt = engine.tokenize(f"<|im_start|>user\n{TEXT}<|im_end|>\n<|im_start|>assistant\n", special=True)
        ours = lambda: speed(engine, prompt, N_TOKENS)[1]  # noqa: E731
        report(compare("single_stream_vs_llama_cpp_python", "tokens/s", ours, "create_chat_completion", theirs, pairs=pairs))
    llama.close()


def main() -> None:
    path, pairs = arguments()
    against_the_loop("single_stream_vs_c_loop", path, TEXT, 1024, pairs)
    if binary := os.environ.get("LLAMA_BENCH"):
        the_loop_against_llama_bench(binary, path, pairs)
    else:
        print("LLAMA_BENCH is not set: the bare loop was not compared with llama-bench.")
    against_the_loop("single_stream_long_vs_c_loop", path, TEXT * 20, 4096, pairs)
    against_llama_cpp_python(path, pairs)


if __name__ == "__main__":
    main()
