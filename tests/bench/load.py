"""How long a model takes to load: the whole of ``load_model``, and llama-cpp-python's ``Llama`` on the same file and context.

    python -m tests.bench.load [MODEL] [PAIRS]

Ours finds the file, checks it, plans its memory, loads it, reads its template; theirs loads it and makes its chat format. The
file is in the page cache for both. ``value`` is our time, the ratio that time over theirs: smaller is better.
"""

from __future__ import annotations

import time

from llm_magics.engine.native.cpus import default_threads
from llm_magics.models.loading import load_model

from .common import GPU_LAYERS, arguments, compare, report


def ours(path: str) -> float:
    """Seconds for one load."""
    begin = time.perf_counter()
    model = load_model(path, ctx=2048, threads=default_threads(), gpu_layers=GPU_LAYERS, flash_attn="on")
    seconds = time.perf_counter() - begin
    model.close()
    return seconds


def theirs(path: str) -> float:
    import llama_cpp

    begin = time.perf_counter()
    llama = llama_cpp.Llama(
        path, n_ctx=2048, n_threads=default_threads(), n_gpu_layers=GPU_LAYERS, flash_attn=True, verbose=False
    )
    seconds = time.perf_counter() - begin
    llama.close()
    return seconds


def main() -> None:
    path, pairs = arguments()
    report(
        compare("load_vs_llama_cpp_python", "s", lambda: ours(path), "llama_cpp.Llama", lambda: theirs(path), pairs=pairs)
    )


if __name__ == "__main__":
    main()
