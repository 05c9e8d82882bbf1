"""A llama_context and the batches that it evaluates. Both belong to one thread.

Sequences and positions in a sequence count from 0. llama.cpp aborts the process on a batch that is too long or a token that
does not exist, so callers check sizes and ids first.
"""

from __future__ import annotations

import ctypes
import re
from collections import Counter
from collections.abc import Sequence
from enum import IntEnum
from typing import Any

import numpy as np

from llm_magics.engine.values import MAX_DRAFT, EngineConfig

from . import llama
from .chains import Attached, DeviceChain
from .cpus import default_threads
from .diagnosis import load_error
from .library import lib
from .model import Model


class Outcome(IntEnum):
    """What llama_decode returns; a negative number means failure."""

    DONE = 0
    NO_ROOM = 1
    ABORTED = 2


_F16, _Q8_0 = 1, 8  # ggml_type
_FLASH = {"auto": -1, "off": 0, "on": 1}
_STATE_PARTIAL = 1  # only the state that cannot be cut back: recurrent states, sliding windows


class Batch:
    """At most ``capacity`` tokens for one llama_decode call."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.tokens = (ctypes.c_int32 * capacity)()
        self.positions = (ctypes.c_int32 * capacity)()
        self.sequences = (ctypes.c_int32 * capacity)()
        self.outputs = (ctypes.c_int8 * capacity)()
        self._ones = (ctypes.c_int32 * capacity)(*([1] * capacity))
        first, cast = ctypes.addressof(self.sequences), ctypes.cast
        ints = ctypes.POINTER(ctypes.c_int32)
        self._rows = (ints * capacity)(*(cast(first + 4 * i, ints) for i in range(capacity)))
        counts, rows = cast(self._ones, ints), cast(self._rows, ctypes.POINTER(ints))
        outputs = cast(self.outputs, ctypes.POINTER(ctypes.c_int8))
        self.raw = lib.llama_batch(0, cast(self.tokens, ints), None, cast(self.positions, ints), counts, rows, outputs)
        self.n = 0

    def clear(self) -> None:
        self.n = 0

    def add(self, token: int, position: int, sequence: int) -> int:
        """Add one token whose logits are wanted; return its row."""
        i = self.n
        self.tokens[i] = token
        self.positions[i] = position
        self.sequences[i] = sequence
        self.outputs[i] = 1
        self.n = i + 1
        return i

    def extend(self, tokens: Sequence[int], position: int, sequence: int, *, output_last: bool) -> int:
        """Add consecutive tokens; return the row of the last one, whose logits are wanted if ``output_last``."""
        i, n = self.n, len(tokens)
        j = i + n
        self.tokens[i:j] = list(tokens)
        self.positions[i:j] = list(range(position, position + n))
        self.sequences[i:j] = [sequence] * n
        self.outputs[i:j] = [0] * n
        self.outputs[j - 1] = output_last
        self.n = j
        return j - 1


class Context:
    """A llama_context: evaluates batches and remembers sequences. One thread at a time."""

    def __init__(self, model: Model, config: EngineConfig) -> None:
        self._model = model
        self.abort = llama.AbortFlag()
        self.pointer: Any = None
        params = context_params(model.pointer, config, self.abort)
        self._attached = Attached(config.n_slots) if config.device_sampling else None
        if self._attached is not None:
            self._attached.write_to(params)
        self._rows: dict[int, np.ndarray[Any, np.dtype[np.float32]]] = {}
        self.on_gpu = config.n_gpu_layers != 0
        try:
            with llama.captured_log() as self.log:
                self.pointer = lib.llama_init_from_model(model.pointer, params)
            if not self.pointer:
                raise load_error(config.path, self.log)
            self._read_sizes()
        except BaseException:
            self.free()
            raise

    def _read_sizes(self) -> None:
        self.memory = llama.must(lib.llama_get_memory(self.pointer), "make a memory for this model")
        self.n_ctx = int(lib.llama_n_ctx(self.pointer))
        self.n_batch = int(lib.llama_n_batch(self.pointer))
        self.can_shift = bool(lib.llama_memory_can_shift(self.memory))

    def decode(self, batch: Batch) -> int:
        """Evaluate a batch; return an :class:`Outcome`, or a negative number if it failed."""
        batch.raw.n_tokens = batch.n
        code = int(lib.llama_decode(self.pointer, batch.raw))
        if self.on_gpu and code == 0:
            lib.llama_synchronize(self.pointer)  # here without the interpreter lock; reading the logits would wait with it
        return code

    def logits(self, row: int) -> np.ndarray[Any, np.dtype[np.float32]]:
        """Return the logits of a batch row: a view that may be read and written until the next decode."""
        address = llama.must(llama.get_logits_ith(self.pointer, row), "return logits")
        view = self._rows.get(address)
        if view is None:
            if len(self._rows) > 64:  # llama.cpp has moved its buffer: drop the old views
                self._rows.clear()
            view = np.ctypeslib.as_array((ctypes.c_float * self._model.n_vocab).from_address(address))
            self._rows[address] = view
        return view

    def sample_with(self, sequence: int, chain: DeviceChain | None) -> None:
        """Let llama.cpp draw a sequence's tokens by this chain on the device; with None, the host draws."""
        if self._attached is not None:
            self._attached.draw_by(self.pointer, sequence, chain)

    def sampled(self, row: int) -> int:
        """The token that llama.cpp has drawn from a batch row on the device; negative if it has not."""
        return int(llama.get_sampled_token_ith(self.pointer, row))

    def device_logits(self, row: int) -> np.ndarray[Any, np.dtype[np.float32]]:
        """The logits of a batch row that the filters left when llama.cpp drew on the device; empty if unknown."""
        n = int(llama.get_sampled_logits_count_ith(self.pointer, row))
        address = llama.get_sampled_logits_ith(self.pointer, row) if n else None
        if not address:
            return np.empty(0, np.float32)
        return np.ctypeslib.as_array((ctypes.c_float * n).from_address(address))

    def cut(self, sequence: int, position: int) -> bool:
        """Forget a sequence from ``position`` on; False, and no change, if this memory cannot be cut there."""
        return bool(llama.memory_seq_rm(self.memory, sequence, position, -1))

    def close_up(self, sequence: int, start: int, end: int) -> None:
        """Forget the positions from ``start`` to ``end`` and move later ones forward; only if ``can_shift``."""
        llama.memory_seq_rm(self.memory, sequence, start, end)
        llama.memory_seq_add(self.memory, sequence, end, -1, start - end)

    def forget(self, sequence: int) -> None:
        """Forget a whole sequence; always possible."""
        llama.memory_seq_rm(self.memory, sequence, -1, -1)

    def wipe(self) -> None:
        """Forget every sequence and zero the memory."""
        lib.llama_memory_clear(self.memory, True)

    def copy(self, source: int, target: int, end: int) -> None:
        """Let ``target``, which must be empty, share the first ``end`` positions of ``source``."""
        llama.memory_seq_cp(self.memory, source, target, 0, end)

    def first_position(self, sequence: int) -> int:
        """The first position in the memory (more than 0 behind a sliding window), or -1 for an empty sequence."""
        return int(llama.memory_seq_pos_min(self.memory, sequence))

    def state_size(self, sequence: int) -> int:
        """Bytes of a sequence's whole state."""
        return int(lib.llama_state_seq_get_size_ext(self.pointer, sequence, 0))

    def save(self, sequence: int, *, partial: bool) -> bytes:
        """Return a sequence's state; ``partial``: only what cannot be cut back."""
        flags = _STATE_PARTIAL if partial else 0
        size = lib.llama_state_seq_get_size_ext(self.pointer, sequence, flags)
        buffer = (ctypes.c_uint8 * size)()
        written = lib.llama_state_seq_get_data_ext(self.pointer, buffer, size, sequence, flags)
        return bytes(memoryview(buffer)[:written])

    def restore(self, sequence: int, state: bytes, *, partial: bool) -> bool:
        """Put a saved state back; False if llama.cpp refuses it (then forget the sequence)."""
        buffer = (ctypes.c_uint8 * len(state)).from_buffer_copy(state)
        flags = _STATE_PARTIAL if partial else 0
        return bool(lib.llama_state_seq_set_data_ext(self.pointer, buffer, len(state), sequence, flags))

    def free(self) -> None:
        pointer, self.pointer = self.pointer, None
        self._rows.clear()
        if pointer:
            lib.llama_free(pointer)
        if self._attached is not None:
            self._attached.free()


def context_params(model: Any, config: EngineConfig, abort: llama.AbortFlag) -> Any:
    """Return llama.cpp's parameters for a context of ``config``; ``abort`` must live as long as the context."""
    params = lib.llama_context_default_params()
    params.n_ctx = config.n_ctx or int(lib.llama_model_n_ctx_train(model))
    params.n_batch = min(config.n_batch, params.n_ctx)
    params.n_ubatch = min(config.n_ubatch, params.n_batch)
    params.n_seq_max = config.n_slots
    # One row of logits per sequence: one per token of the batch would be most of the compute buffer.
    params.n_outputs_max = config.n_slots + (MAX_DRAFT if config.speculation != "off" or config.draft else 0)
    params.kv_unified = True
    params.swa_full = False
    params.n_threads = params.n_threads_batch = config.n_threads or default_threads()
    params.type_k = params.type_v = _Q8_0 if config.kv_type == "q8_0" else _F16
    params.flash_attn_type = _FLASH[config.flash_attention]
    params.abort_callback = llama.abort_callback
    params.abort_callback_data = abort.address
    params.no_perf = True
    return params


# e.g. "load_tensors:   CPU_Mapped model buffer size =   462.96 MiB", "llama_context: CPU  output buffer size =     0.58 MiB"
_BUFFER_LINE = re.compile(r"(\S+)\s+(model|KV|RS|compute|output) buffer size\s*=\s*([\d.]+) MiB")
_KINDS = {"model": "model", "KV": "kv", "RS": "recurrent", "compute": "compute", "output": "output"}


def buffer_sizes(lines: Sequence[tuple[int, str]]) -> tuple[tuple[str, str, int], ...]:
    """Read (device, kind, bytes) from llama.cpp's log, summed per device and kind."""
    sizes: Counter[tuple[str, str]] = Counter()
    for _, line in lines:
        for device, kind, mib in _BUFFER_LINE.findall(line):
            sizes[device, _KINDS[kind]] += round(float(mib) * 2**20)
    return tuple((device, kind, size) for (device, kind), size in sizes.items())
