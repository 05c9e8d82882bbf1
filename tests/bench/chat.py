"""What ``%%chat`` itself costs: its tokens per second against the bare loop over the C API, and ``%load_ext``.

    python -m tests.bench.chat [MODEL] [PAIRS]

The cell runs in a real kernel as JupyterLab would run it, every display update sent and read; the bare loop runs in this
process, alternately, on the same prompt and with as many threads. Speeds are decode speeds: tokens after the first.
"""

from __future__ import annotations

import statistics
import subprocess
import sys

from llm_magics.engine.native.cpus import default_threads
from llm_magics.store.locate import locate
from llm_magics.transcript import Transcript
from tests.kernel.notebook import Notebook, notebook

from .c_loop import BareLoop
from .common import GPU_LAYERS, Result, compare, machine, report

N_TOKENS = 64
QUESTION = "Write a long story about a lighthouse, its keeper and the sea, with many details."
LOAD_EXT = """
import time
from IPython.core.interactiveshell import InteractiveShell
shell = InteractiveShell.instance()
began = time.perf_counter()
shell.run_line_magic("load_ext", "llm_magics")
print(time.perf_counter() - began)
"""


def load_ext_seconds() -> float:
    """Run ``%load_ext llm_magics`` in a fresh process; the seconds it took there."""
    ran = subprocess.run([sys.executable, "-c", LOAD_EXT], capture_output=True, text=True, check=True)
    return float(ran.stdout.splitlines()[-1])


def ask(book: Notebook, more: str = "") -> Transcript:
    """One streamed answer."""
    answer = book.must(f"%%chat --no-history --temp 0 --max-tokens {N_TOKENS} -t none{more}\n{QUESTION}").transcript
    assert answer.usage.completion_tokens == N_TOKENS, "the answer was too short to measure"
    return answer


def chat_speed(book: Notebook) -> float:
    """Tokens per second of one streamed answer, after the first."""
    return (N_TOKENS - 1) / ask(book).usage.completion_seconds


def main() -> None:
    name = sys.argv[1] if len(sys.argv) > 1 else "qwen2.5-coder-0.5b"
    pairs = int(sys.argv[2]) if len(sys.argv) > 2 else 15
    loads = [load_ext_seconds() for _ in range(9)]
    report(Result("load_ext", statistics.median(loads), "s", runs=len(loads), machine=machine()))
    n_threads = default_threads()
    bare = BareLoop(str(locate(name).path), n_ctx=1024, n_batch=512, n_threads=n_threads)
    load = f"%load_model {name} --ctx 1024 --threads {n_threads} --gpu-layers {GPU_LAYERS} --flash-attn on --as measured"
    with notebook(load) as book:
        prompt = ask(book, " --record").steps[0].recording["prompt_token_ids"]
        ours = lambda: chat_speed(book)  # noqa: E731
        theirs = lambda: bare.generate(prompt, N_TOKENS)[1]  # noqa: E731
        report(compare("chat_cell_vs_c_loop", "tokens/s", ours, "bare loop in Python over ctypes", theirs, pairs=pairs))
    bare.close()


if __name__ == "__main__":
    main()
