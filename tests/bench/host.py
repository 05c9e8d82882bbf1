"""What the engine itself costs per token: everything but llama.cpp, in CPU time of the engine's thread.

    python -m tests.bench.host [N_VOCAB]

A stub stands in llama.cpp's place: a model whose tokens are numbers and a context that evaluates nothing and likes a different
token each time. Scheduler, sampler, text, guide, events and queue are the real ones. Nothing of llama.cpp is called, so the
time is that of the engine's thread, not of a clock; consumers run in threads of their own.
"""

from __future__ import annotations

import sys
import threading
import time
from dataclasses import dataclass
from typing import Any

import numpy as np

from llm_magics.engine.native.constraint import ConstraintEngine
from llm_magics.engine.native.context import Batch
from llm_magics.engine.run.scheduler import Scheduler
from llm_magics.engine.run.sequence import Sequence
from llm_magics.engine.values import Finished, GenerateRequest, GuideStep, SamplerSettings

from .common import Result, machine, report

N_TOKENS = 2000


class StubModel:
    """A vocabulary of numbers, without an end token."""

    def __init__(self, n_vocab: int) -> None:
        self.n_vocab = n_vocab
        self.eog = ()
        self.control_tokens = ()
        self.recurrent = False
        self.n_swa = 0
        self.cuttable = True
        self._pieces = [f" {token}".encode() for token in range(n_vocab)]

    def piece(self, token: int) -> bytes:
        return self._pieces[token]


class StubContext:
    """Evaluates nothing; the likeliest token moves on with every batch."""

    n_batch = 512
    abort = type("Flag", (), {"set": lambda self: None, "clear": lambda self: None})()

    def __init__(self, n_vocab: int) -> None:
        self._row = np.zeros(n_vocab, dtype=np.float32)
        self._n = 0

    def decode(self, batch: Batch) -> int:
        self._row[self._n % len(self._row)] = 0
        self._n += 97
        self._row[self._n % len(self._row)] = 1
        return 0

    def logits(self, row: int) -> np.ndarray[Any, Any]:
        return self._row

    def cut(self, sequence: int, position: int) -> bool:
        return True

    def sample_with(self, sequence: int, chain: Any) -> None:
        pass

    def forget(self, sequence: int) -> None:
        pass


@dataclass
class Silent:
    """A guide that says nothing."""

    def start(self) -> GuideStep:
        return GuideStep()

    def feed(self, text: str) -> GuideStep:
        return _NOTHING

    def finish(self, reason: str) -> GuideStep:
        return _NOTHING


_NOTHING = GuideStep()


def drain(sequence: Sequence) -> None:
    """Consume one sequence's events, as a view would."""
    while not isinstance(sequence.channel.queue.get(), Finished):
        pass


def microseconds(n_streams: int, n_vocab: int, n_tokens: int = N_TOKENS) -> float:
    """CPU time of the engine's thread per token, with ``n_streams`` at once."""
    model: Any = StubModel(n_vocab)
    context: Any = StubContext(n_vocab)
    n_ctx = n_streams * (n_tokens + 100)
    scheduler = Scheduler(model, context, n_slots=n_streams, n_ctx=n_ctx, reuse=True)
    greedy = SamplerSettings(temperature=0)
    sequences = []
    for i in range(n_streams):
        request = GenerateRequest((i, 2, 3), greedy, max_tokens=n_tokens, stop=("stop",), guide=Silent())
        sequences.append(Sequence(request, model, ConstraintEngine(model), n_ctx))
    consumers = [threading.Thread(target=drain, args=(sequence,), daemon=True) for sequence in sequences]
    for sequence, consumer in zip(sequences, consumers, strict=True):
        consumer.start()
        scheduler.add(sequence)
    before = time.thread_time()
    while any(consumer.is_alive() for consumer in consumers):
        if not scheduler.step():
            time.sleep(0.0005)  # all consumers are behind; the engine would wait on its inbox
    return (time.thread_time() - before) / (n_streams * n_tokens) * 1e6


def main() -> None:
    n_vocab = int(sys.argv[1]) if len(sys.argv) > 1 else 151_936
    microseconds(1, n_vocab, 200)  # warm up
    for n_streams in (1, 8):
        runs = sorted(microseconds(n_streams, n_vocab) for _ in range(7))
        result = Result(f"host_us_per_token_{n_streams}", runs[3], "us", spread=(runs[1], runs[5]), runs=7, machine=machine())
        report(result)


if __name__ == "__main__":
    main()
