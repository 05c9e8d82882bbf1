"""How many tokens may be evaluated together so that each gets the very bits that it would have got alone.

Batches of different shapes go through different kernels, which add up in different orders; quantised activations make a whole
quantum of the last bit, and after some layers the logits differ in their second digit. Then a guess that is checked in a batch
is not checked against what plain decoding would have said, and what the batch leaves in the cache turns later near ties too.
Up to which shape the kernels agree depends on the weights' types, the cache's types, the build and the processor, and no rule
foresees it. So it is tried, once per file and configuration: a few tokens are evaluated one by one and then together, and both
their keys and values and their logits are compared bit by bit.

On the CPU, llama.cpp's attention goes one way for a single token behind more than 256 others and another way for several; only
with quantised keys and values (``kv_type`` "q8_0") it goes the same way for all.
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

_WIDTHS = (2, 3, 4, 7, 8, MAX_DRAFT + 1)  # rows that are tried; kernels change at such numbers
_BEHIND = 300  # tokens in front of them: more than 256, where kernels change too


def exact_rows(model: Model, context: Context, config: EngineConfig, check: Callable[[], None] = lambda: None) -> int:
    """How many rows a batch may have to be exact; 1 where only single tokens are. Found out once, then remembered.

    The context must be new; it is empty again afterwards. ``check`` is called now and then, and may raise to end the search.
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
    """Whether only single tokens can be exact, for the reason above, so that trying need not take its seconds."""
    return config.kv_type == "f16" and config.n_gpu_layers == 0


def _try(model: Model, context: Context, n: int, check: Callable[[], None] = lambda: None) -> int:
    """The widest batch that is exact behind ``n`` tokens, with all narrower ones."""
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
    """What tokens behind ``n`` others leave behind, keys, values and logits, when so many are evaluated at once."""
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
