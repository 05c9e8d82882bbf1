"""How many tokens can be evaluated together so that each gets the same bits as alone.

Batches of different shapes use different kernels, which add in different orders. Quantised activations turn the last bit into a
whole quantum, and after some layers the logits differ in their second digit. Then a batch does not check a guess against plain
decoding, and the keys and values of the batch flip later near-ties too. The largest shape on which the kernels agree depends on
the types of the weights and the cache, the build and the processor; no rule predicts it. So it is tried, once per file and
configuration: a few tokens are evaluated one by one, then together, and their keys, values and logits are compared bit by bit.

On the CPU, llama.cpp's attention treats a single token behind more than 256 others differently from several; only with
quantised keys and values (``kv_type`` "q8_0") it treats all the same.
"""

from __future__ import annotations

import json
import platform
from collections.abc import Callable
from pathlib import Path

import numpy as np

from llm_magics.engine.native.context import Batch, Context
from llm_magics.engine.native.model import Model
from llm_magics.engine.values import MAX_DRAFT, EngineConfig
from llm_magics.files import recall, remember

_WIDTHS = (2, 3, 4, 7, 8, MAX_DRAFT + 1)  # rows to try; kernels change at such numbers
_BEHIND = 300  # tokens before them: kernels also change at 256


def exact_rows(model: Model, context: Context, config: EngineConfig, check: Callable[[], None] = lambda: None) -> int:
    """How many rows an exact batch may have; 1 if only single tokens are exact. Tried once, then remembered.

    The context must be new; it is empty again afterwards. ``check`` is called at times, and may raise to end the search.
    """
    if _hopeless(config):
        return 1
    paths, key = [Path(config.path)], _key(config)
    known = recall(paths).get(key, "")
    if known.isdecimal():
        return int(known)
    found = _try(model, context, max(0, min(_BEHIND, context.n_ctx - _WIDTHS[-1])), check)
    remember(paths, **{key: str(found)})
    return found


def _hopeless(config: EngineConfig) -> bool:
    """Whether only single tokens can be exact, for the reason above, so that no trial is needed."""
    return config.kv_type == "f16" and config.n_gpu_layers == 0


def _try(model: Model, context: Context, n: int, check: Callable[[], None] = lambda: None) -> int:
    """The widest batch that is exact behind ``n`` tokens, as are all narrower ones."""
    batch = Batch(max(context.n_batch, _WIDTHS[-1]))
    tokens = [(37 * i + 11) % model.n_vocab for i in range(n + _WIDTHS[-1])]
    best = 1
    try:
        for at in range(0, n, context.n_batch):
            check()
            batch.clear()
            batch.extend(tokens[at : min(n, at + context.n_batch)], at, 0, output_last=False)
            if context.decode(batch) != 0:
                return best
        for width in _WIDTHS:
            check()
            alone = _evaluate(context, batch, tokens[n : n + width], n, 1)
            together = _evaluate(context, batch, tokens[n : n + width], n, width)
            if alone is None or alone != together:
                break
            best = width
    finally:
        context.forget(0)
    return best


def _evaluate(context: Context, batch: Batch, tokens: list[int], n: int, at_once: int) -> bytes | None:
    """The keys, values and logits of tokens behind ``n`` others, ``at_once`` evaluated in one batch; None after a failure."""
    if len(tokens) > context.n_batch:
        return None
    found = []
    for i in range(0, len(tokens), at_once):
        batch.clear()
        rows = [batch.add(token, n + i + j, 0) for j, token in enumerate(tokens[i : i + at_once])]
        if context.decode(batch) != 0:
            return None
        found += [np.ascontiguousarray(context.logits(row)).tobytes() for row in rows]
    found.append(context.save(0, partial=False))
    context.cut(0, n)
    return b"".join(found)


def _key(config: EngineConfig) -> str:
    from llm_magics.engine.native.cpus import default_threads
    from llm_magics.engine.native.llama import version
    from llm_magics.version import __version__

    where = f"{platform.node()} {platform.machine()}"
    threads = config.n_threads or default_threads()
    how = [config.kv_type, config.flash_attention, config.n_gpu_layers, config.tensor_split, threads]
    return f"exact rows with {json.dumps(how)} on {where} in llm_magics {__version__}, llama-cpp-python {version()}"
