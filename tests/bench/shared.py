"""Kernels that share a machine: one alone, two and four at once, each a process of its own with a model of its own.

    python -m tests.bench.shared [MODEL] [PAIRS]

A figure is the tokens per second of the *slowest* of the processes that ran at once, as a ratio to one alone in the same pair.
The last figure is one alone against one alone whose OpenMP threads spin as the library does by itself: what sharing costs those
who do not share. Targets on two cores: at least 0.35 for each of two, 0.22 for each of four, and at least 0.96 alone.

All models are loaded before the first pair. Whoever has written its tokens goes on until all have, so that the last one is not
measured on a machine that grows quiet. OMP_WAIT_POLICY is taken out of the environment: what is measured is the default. To try
another number of spins, set GOMP_SPINCOUNT.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager

from llm_magics.engine.hosts import open_engine
from llm_magics.engine.native.openmp import SETTING
from llm_magics.engine.values import Engine, Finished, GenerateRequest, SamplerSettings

N_TOKENS = 96
TEXT = "The history of the lighthouse is a history of light, of stone and of the people who kept both."
_WORK = "from tests.bench.shared import work; work()"


class Kernel:
    """A process with a model of its own. ``spinning``: another package loaded the OpenMP library first."""

    def __init__(self, path: str, *, spinning: bool = False) -> None:
        taken = ("OMP_WAIT_POLICY", SETTING) if spinning else ("OMP_WAIT_POLICY",)
        environment = {name: value for name, value in os.environ.items() if name not in taken}
        code = f"import llama_cpp; {_WORK}" if spinning else _WORK
        pipe = subprocess.PIPE
        command = [sys.executable, "-c", code, path]
        self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=environment)
        self.settings = self._hear()
        assert bool(self.settings) != spinning

    def begin(self) -> None:
        """Have it write, until :meth:`end`."""
        self._say("begin")

    def rate(self) -> float:
        """Its tokens per second after the first, once it has written them all."""
        return float(self._hear())

    def end(self) -> None:
        """Have it stop; returns when it computes nothing more."""
        self._say("end")
        self._hear()

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()

    def _say(self, word: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{word}\n")
        self._process.stdin.flush()

    def _hear(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"a kernel ended with status {self._process.wait()}")
        return line.strip()


def slowest(kernels: list[Kernel]) -> float:
    """Let them all write at once; the rate of the slowest."""
    for kernel in kernels:
        kernel.begin()
    rates = [kernel.rate() for kernel in kernels]
    for kernel in kernels:
        kernel.end()
    return min(rates)


@contextmanager
def kernels(path: str, n: int, *, spinning: bool = False) -> Iterator[list[Kernel]]:
    """Start that many and end them."""
    with ExitStack() as stack:
        yield [stack.enter_context(closing(Kernel(path, spinning=spinning))) for _ in range(n)]


# --- in the child ------------------------------------------------------------------------------------------------------------


def work() -> None:
    """Load the model named by the first argument, then write whenever told to."""
    from llm_magics.engine.native.library import cpu_library
    from llm_magics.engine.native.openmp import waiting

    from .common import config

    with closing(open_engine(config(sys.argv[1], n_ctx=256))) as engine:
        print(*waiting(cpu_library()).settings, flush=True)
        for word in sys.stdin:
            assert word == "begin\n"
            over = threading.Event()
            others = threading.Thread(target=_until, args=(engine, over))
            print(_write(engine), flush=True)
            others.start()
            assert sys.stdin.readline() == "end\n"
            over.set()
            others.join()
            print("ended", flush=True)


def _write(engine: Engine) -> float:
    with closing(engine.submit(_request(engine))) as generation:
        *_, end = generation
    assert isinstance(end, Finished)
    return (len(end.ids) - 1) / end.decode_seconds


def _until(engine: Engine, over: threading.Event) -> None:
    """Go on writing, so that those that are still measured are not alone."""
    while not over.is_set():
        with closing(engine.submit(_request(engine))) as generation:
            for _ in generation:
                if over.is_set():
                    break


def _request(engine: Engine) -> GenerateRequest:
    ban = tuple((token, float("-inf")) for token in engine.info.eog)
    return GenerateRequest(
        engine.tokenize(TEXT, special=False), SamplerSettings(temperature=0, logit_bias=ban), max_tokens=N_TOKENS
    )


def main() -> None:
    from .common import arguments, compare, report

    path, pairs = arguments()
    with kernels(path, 4) as four:
        print(f"With {four[0].settings}:")
        alone = lambda: slowest(four[:1])  # noqa: E731
        for n in (2, 4):
            many = lambda n=n: slowest(four[:n])  # noqa: E731
            report(compare(f"shared_by_{n}", "tokens/s each", many, "alone", alone, pairs=pairs))
        with kernels(path, 1, spinning=True) as spinning:
            before = lambda: slowest(spinning)  # noqa: E731
            report(compare("shared_alone", "tokens/s", alone, "alone, spinning", before, pairs=pairs))


if __name__ == "__main__":
    main()
