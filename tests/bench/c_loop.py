"""The bare loop: nothing but the calls into llama.cpp that a greedy generation needs, in Python over ctypes.

This is the peer of the engine: the same file, batch, threads and context, one sequence, no text, no queue, no events. It is
written in Python so that it needs no compiler; against llama-bench it measures what ctypes itself costs.
"""

from __future__ import annotations

import ctypes
import time
from collections.abc import Sequence
from typing import Any

from llm_magics.engine.native.library import lib

from .common import GPU_LAYERS

_quiet = lib.llama_log_callback(lambda *_: None)


class BareLoop:
    """A model and a context of its own, driven by the C API alone."""

    def __init__(self, path: str, *, n_ctx: int, n_batch: int, n_threads: int) -> None:
        lib.llama_log_set(_quiet, None)
        params = lib.llama_model_default_params()
        params.n_gpu_layers = GPU_LAYERS if GPU_LAYERS >= 0 else 999
        self.model: Any = lib.llama_model_load_from_file(path.encode(), params)
        settings = lib.llama_context_default_params()
        settings.n_ctx, settings.n_batch, settings.n_ubatch = n_ctx, n_batch, n_batch
        settings.n_threads = settings.n_threads_batch = n_threads
        settings.flash_attn_type = 1  # on
        self.context: Any = lib.llama_init_from_model(self.model, settings)
        self.memory = lib.llama_get_memory(self.context)
        self.n_batch = n_batch
        self.sampler = lib.llama_sampler_init_greedy()
        self._evaluated: list[int] = []

    def generate(self, prompt: Sequence[int], n: int) -> tuple[list[int], float]:
        """Return ``n`` greedy tokens and the tokens per second of those after the first. A prompt that was the last one too is
        not evaluated again, but for its last token."""
        done = len(prompt) - 1 if list(prompt) == self._evaluated else 0
        self._evaluated = list(prompt)
        lib.llama_memory_seq_rm(self.memory, 0, done, -1)
        for start in range(done, len(prompt), self.n_batch):
            chunk = prompt[start : start + self.n_batch]
            held = (ctypes.c_int32 * len(chunk))(*chunk)  # the batch only points at it
            lib.llama_decode(self.context, lib.llama_batch_get_one(held, len(chunk)))
        one = (ctypes.c_int32 * 1)()
        tokens = [lib.llama_sampler_sample(self.sampler, self.context, -1)]
        begin = time.perf_counter()
        while len(tokens) < n:
            one[0] = tokens[-1]
            lib.llama_decode(self.context, lib.llama_batch_get_one(one, 1))
            tokens.append(lib.llama_sampler_sample(self.sampler, self.context, -1))
        return tokens, (n - 1) / (time.perf_counter() - begin)

    def close(self) -> None:
        """Free everything."""
        lib.llama_sampler_free(self.sampler)
        lib.llama_free(self.context)
        lib.llama_model_free(self.model)
