"""Decoding beside another thread that computes in pure Python and never lets go by itself, against a quiet interpreter.

    python -m tests.bench.hog [MODEL] [PAIRS]

The other thread takes a core too: with two cores and two decoding threads, part of the loss is the machine's, not the lock's.
For the lock alone the engine decodes on one thread fewer than there are cores.
"""

from __future__ import annotations

import sys
import threading
from contextlib import closing

from llm_magics.engine.hosts import open_engine
from llm_magics.engine.native.cpus import default_threads
from llm_magics.engine.values import Engine, EngineConfig, Finished, GenerateRequest, SamplerSettings
from llm_magics.store.locate import locate

from .common import compare, report

N_TOKENS = 128


def speed(engine: Engine) -> float:
    """Tokens per second after the first."""
    ban = SamplerSettings(temperature=0, logit_bias=tuple((token, float("-inf")) for token in engine.info.eog))
    prompt = engine.tokenize("Once upon a time", special=False)
    with closing(engine.submit(GenerateRequest(prompt, ban, max_tokens=N_TOKENS))) as generation:
        *_, end = generation
    assert isinstance(end, Finished)
    return (len(end.ids) - 1) / end.decode_seconds


def beside_a_hog(engine: Engine) -> float:
    """The same while this thread's interpreter lock is always wanted."""
    over = threading.Event()

    def spin() -> None:
        n = 0
        while not over.is_set():
            for _ in range(10_000):
                n += 1

    hog = threading.Thread(target=spin)
    hog.start()
    try:
        return speed(engine)
    finally:
        over.set()
        hog.join()


def main() -> None:
    path = str(locate(sys.argv[1] if len(sys.argv) > 1 else "smollm2-135m").path)
    pairs = int(sys.argv[2]) if len(sys.argv) > 2 else 15
    threads = max(1, default_threads() - 1)
    with closing(open_engine(EngineConfig(path, n_ctx=512, n_threads=threads))) as engine:
        report(
            compare(
                "decode_beside_a_hog", "tokens/s", lambda: beside_a_hog(engine), "quiet", lambda: speed(engine), pairs=pairs
            )
        )


if __name__ == "__main__":
    main()
