"""llama.cpp's C API, safe to call: its log, its callbacks, its errors, and its support of this machine's GPU.

Three facts about ctypes matter. A function of a ``CDLL`` releases the interpreter lock, and getting it back takes up to a
switch interval (5 ms) when other Python threads are busy; so calls of microseconds use a ``PyDLL``, which keeps the lock. An
exception in a callback is swallowed, so callbacks catch and store every exception. A callback that is collected while llama.cpp
holds it crashes the process, so such callbacks live as long as this module.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import sys
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from llm_magics.errors import EngineError

from .diagnosis import error_lines
from .library import lib

_LEVEL_WARN, _LEVEL_ERROR, _LEVEL_CONT = 3, 4, 5
_KEPT_LINES = 4000  # a load of a large model logs about a thousand

_lines: deque[tuple[int, str]] = deque(maxlen=_KEPT_LINES)
_load_lock = threading.RLock()  # the process has one log, so only one load at a time may read it
_started = False
echo: int | None = None  # a file descriptor that gets errors at once: a crash loses what is only kept


def _on_log(level: int, text: bytes, _: object) -> None:
    try:
        if echo is not None and level == _LEVEL_ERROR:
            os.write(echo, b"<%d>%b" % (level, text))
        piece = text.decode("utf-8", "replace")
        if level == _LEVEL_CONT and _lines:
            last_level, last = _lines.pop()
            _lines.append((last_level, last + piece))
        else:
            _lines.append((level, piece))
    except Exception as error:  # no exception may leave a callback
        _lines.append((_LEVEL_WARN, f"log line lost: {error!r}"))


_log_callback = lib.llama_log_callback(_on_log)


def start() -> None:
    """Initialise llama.cpp once per process and collect its log, unprinted."""
    global _started
    lib.llama_log_set(_log_callback, None)  # each time: importing llama_cpp elsewhere installs its own
    if not _started:
        lib.llama_backend_init()
        _started = True


@contextmanager
def captured_log() -> Iterator[list[tuple[int, str]]]:
    """Collect llama.cpp's log lines while a model or context is made. One at a time per process."""
    with _load_lock:
        start()
        _lines.clear()
        seen: list[tuple[int, str]] = []
        try:
            yield seen
        finally:
            seen.extend((level, line.strip()) for level, line in _lines)
            _lines.clear()


def recent_errors() -> str:
    """llama.cpp's latest error or warning lines, for an exception's message; may be empty."""
    return error_lines(list(_lines)[-50:])


class AbortFlag:
    """A flag that llama.cpp polls while it computes, at each graph node, some hundreds per token.

    A Python callback would wait for the interpreter lock each time. So the callback is the C library's ``strlen``, and these
    two bytes are its argument: the empty string means continue (0, false), a string of one character stop (1, true).
    """

    def __init__(self) -> None:
        self._bytes = ctypes.create_string_buffer(2)
        self.address = ctypes.addressof(self._bytes)

    def set(self) -> None:
        self._bytes[0] = b"\x01"

    def clear(self) -> None:
        self._bytes[0] = b"\x00"


_libc = ctypes.CDLL("ucrtbase" if sys.platform == "win32" else None)
abort_callback = ctypes.cast(_libc.strlen, lib.ggml_abort_callback)


def _quick(name: str, argtypes: list[Any], restype: Any) -> Any:
    """Bind a call of microseconds, so that it keeps the interpreter lock."""
    function = getattr(_quick_library, name)
    function.argtypes, function.restype = argtypes, restype
    return function


_quick_library = ctypes.PyDLL(lib._lib._name, handle=lib._lib._handle)
_ptr, _i32 = ctypes.c_void_p, ctypes.c_int32
get_logits_ith = _quick("llama_get_logits_ith", [_ptr, _i32], _ptr)
get_sampled_token_ith = _quick("llama_get_sampled_token_ith", [_ptr, _i32], _i32)
get_sampled_logits_ith = _quick("llama_get_sampled_logits_ith", [_ptr, _i32], _ptr)
get_sampled_logits_count_ith = _quick("llama_get_sampled_logits_count_ith", [_ptr, _i32], ctypes.c_uint32)
sampler_sample = _quick("llama_sampler_sample", [_ptr, _ptr, _i32], _i32)
sampler_accept = _quick("llama_sampler_accept", [_ptr, _i32], None)
sampler_copy = _quick("llama_sampler_copy", [_ptr, _ptr], None)
token_to_piece = _quick("llama_token_to_piece", [_ptr, _i32, ctypes.c_char_p, _i32, _i32, ctypes.c_bool], _i32)
vocab_get_attr = _quick("llama_vocab_get_attr", [_ptr, _i32], ctypes.c_int)
vocab_is_eog = _quick("llama_vocab_is_eog", [_ptr, _i32], ctypes.c_bool)
memory_seq_rm = _quick("llama_memory_seq_rm", [_ptr, _i32, _i32, _i32], ctypes.c_bool)
memory_seq_cp = _quick("llama_memory_seq_cp", [_ptr, _i32, _i32, _i32, _i32], None)
memory_seq_add = _quick("llama_memory_seq_add", [_ptr, _i32, _i32, _i32, _i32], None)
memory_seq_pos_min = _quick("llama_memory_seq_pos_min", [_ptr, _i32], _i32)


def give_memory_back() -> None:
    """Let the C library return freed memory to the system: glibc keeps tens of megabytes of a freed model."""
    if sys.platform == "linux" and hasattr(_libc, "malloc_trim"):
        _libc.malloc_trim(0)


def supports_gpu() -> bool:
    """Whether this build of llama.cpp can use a GPU of this machine."""
    start()
    return bool(lib.llama_supports_gpu_offload())


def gpu_advice() -> str:
    """A warning and the command that fixes it, if this machine has an NVIDIA GPU but llama.cpp is CPU-only; else ""."""
    has_gpu = os.path.exists("/proc/driver/nvidia/version") or shutil.which("nvidia-smi") is not None
    if not has_gpu or supports_gpu():
        return ""
    return (
        "This machine has an NVIDIA GPU, but llama-cpp-python was built without CUDA, so the model runs on the CPU. "
        'Rebuild it with: CMAKE_ARGS="-DGGML_CUDA=on" pip install --force-reinstall --no-cache-dir '
        f"--no-binary llama-cpp-python llama-cpp-python=={version()}"
    )


def version() -> str:
    from importlib.metadata import version as installed

    return installed("llama-cpp-python")


def must(pointer: Any, what: str) -> Any:
    """Return a pointer from the C API; raise EngineError if it is NULL."""
    if not pointer:
        said = recent_errors()
        raise EngineError(f"llama.cpp could not {what}{': ' + said if said else ''}.", "Load the model again.")
    return pointer
