"""What a process of its own costs a model: each figure isolated over in the kernel, both loaded in this process tree at once.

    python -m tests.bench.isolated [MODEL] [PAIRS]

Tokens per second of one stream and of eight at once, drawn through the engine as a session does; the wait from a request to the
first delta of its answer, with rendering and tokenising; and the wait from an interrupt in mid-answer to the moment when the
next request has the only slot. Of the waits the median difference is told too, in milliseconds, with its quartiles.
"""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager

from llm_magics.engine.hosts import open_engine
from llm_magics.engine.values import Engine, GenerateRequest, Prefill, SamplerSettings, Tokens
from llm_magics.events import TextDelta
from llm_magics.messages import user
from llm_magics.models.base import Request, Sampling
from llm_magics.models.loading import load_model
from llm_magics.models.local import LocalModel

from .common import GPU_LAYERS, Result, arguments, compare, config, machine, quartiles, report
from .streams import ours, prompts, rate

REPEATS = 5  # waits in each half of a pair; their median counts
_number = itertools.count()


@contextmanager
def both(path: str, n_slots: int) -> Iterator[tuple[Engine, Engine]]:
    """The model in a process of its own, and in this one."""
    wanted = config(path, n_ctx=2048 + n_slots * 128, n_slots=n_slots)
    with closing(open_engine(wanted, isolated=True)) as apart, closing(open_engine(wanted)) as here:
        yield apart, here


def first_delta(model: LocalModel) -> float:
    """Seconds from a request to the first text of its answer."""

    def wait() -> float:
        question = f"Letter {next(_number)}: the bus was late again. What is it about?"
        begin = time.perf_counter()
        with closing(model.stream(Request((user(question),), sampling=Sampling(temperature=0), conversation="c"))) as events:
            next(event for event in events if isinstance(event, TextDelta))
            return time.perf_counter() - begin

    return statistics.median(wait() for _ in range(REPEATS))


def interrupt(engine: Engine) -> float:
    """Seconds from the end of an answer's consumer to the next request's turn. The engine has one slot."""
    ban = SamplerSettings(temperature=0, logit_bias=tuple((token, float("-inf")) for token in engine.info.eog))
    prompt = engine.tokenize("Once upon a time", special=False)

    def wait() -> float:
        running = engine.submit(GenerateRequest(prompt, ban))
        for _ in range(3):
            next(event for event in running if isinstance(event, Tokens))
        begin = time.perf_counter()
        running.close()
        with closing(engine.submit(GenerateRequest(prompt, ban, max_tokens=1))) as following:
            next(event for event in following if isinstance(event, Prefill))
            return time.perf_counter() - begin

    return statistics.median(wait() for _ in range(REPEATS))


def waits(name: str, apart: Callable[[], float], here: Callable[[], float], pairs: int) -> None:
    """Compare two waits; tell the ratio, and the difference in milliseconds."""
    differences: list[float] = []
    last: list[float] = []

    def noted(measure: Callable[[], float], sign: int) -> Callable[[], float]:
        def run() -> float:
            seconds = measure()
            last.append(sign * seconds)
            if len(last) == 2:
                differences.append(sum(last) * 1000)
                last.clear()
            return seconds

        return run

    report(compare(f"isolated_{name}", "s", noted(apart, 1), "in the kernel", noted(here, -1), pairs=pairs))
    more = differences[1:]  # the first pair warms up
    low, high = quartiles(more)
    report(Result(f"isolated_{name}_more", statistics.median(more), "ms", "", None, (low, high), pairs, machine()))
    print(f"{'':34} quartiles {low:.2f} to {high:.2f} ms more")


def streams(apart: Engine, here: Engine, n: int, pairs: int) -> None:
    def speed(engine: Engine) -> float:
        return rate(ours(engine), prompts(engine, n))

    own, kernel = (lambda: speed(apart)), (lambda: speed(here))
    report(compare(f"isolated_streams{n}", "tokens/s", own, "in the kernel", kernel, pairs=pairs))


def main() -> None:
    path, pairs = arguments()
    with both(path, 1) as (apart, here):
        streams(apart, here, 1, pairs)
        waits("interrupt", lambda: interrupt(apart), lambda: interrupt(here), pairs)
    with both(path, 8) as (apart, here):
        streams(apart, here, 8, pairs)
    settings = {"ctx": 2048, "gpu_layers": GPU_LAYERS, "flash_attn": "on"}
    with (
        closing(load_model(path, **settings, isolated=True)) as apart_model,
        closing(load_model(path, **settings, in_kernel=True)) as here_model,
    ):
        waits("first_token", lambda: first_delta(apart_model), lambda: first_delta(here_model), pairs)


if __name__ == "__main__":
    main()
