"""llama.cpp's C API, made safe to call: its log, its callbacks, its errors, and what it can do on this machine.

Three facts about ctypes shape this file. A function from a ``CDLL`` lets go of the interpreter lock around every call, and
taking it back costs up to a switch interval (5 ms) when other Python threads are busy; so calls that take microseconds go
through a ``PyDLL``, which keeps the lock. An exception inside a callback is swallowed, so callbacks catch everything and
store it. A callback that is garbage-collected while llama.cpp still holds it crashes the process, so those that llama.cpp
keeps live as long as this module.
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

_LEVEL_WARN, _LEVEL_CONT = 3, 5
_KEPT_LINES = 4000  # a load of a large model logs about a thousand

_lines: deque[tuple[int, str]] = deque(maxlen=_KEPT_LINES)
_load_lock = threading.RLock()  # the log is one per process, so only one load at a time may read it
_started = False


def _on_log(level: int, text: bytes, _: object) -> None:
    try:
        piece = text.decode("utf-8", "replace")
        if level == _LEVEL_CONT and _lines:
            last_level, last = _lines.pop()
            _lines.append((last_level, last + piece))
        else:
            _lines.append((level, piece))
    except Exception as error:
        # Nothing may leave a callback; the line is lost, but that it was is not.
        _lines.append((_LEVEL_WARN, f"log line lost: {error!r}"))


_log_callback = lib.llama_log_callback(_on_log)


def start() -> None:
    """Initialise llama.cpp once per process and take over its log; nothing of it is printed."""
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
            _lines.clear()  # what is logged later belongs to what happens later


def recent_errors() -> str:
    """Return llama.cpp's latest error or warning lines, for an exception's message; empty where there are none."""
    return error_lines(list(_lines)[-50:])


class AbortFlag:
    """A flag that llama.cpp itself polls while it computes, once per graph node, some hundreds per token.

    A Python function would wait for the interpreter lock each time, so the callback is the C library's ``strlen`` and its
    argument these two bytes: the empty string means go on (0, false), a string of one character means stop (1, true).
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
    """Bind a call that takes microseconds, so that it keeps the interpreter lock."""
    function = getattr(_quick_library, name)
    function.argtypes = argtypes
    function.restype = restype
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
    """Let the C library return freed memory to the system. glibc keeps tens of megabytes of a freed model otherwise."""
    if sys.platform == "linux" and hasattr(_libc, "malloc_trim"):
        _libc.malloc_trim(0)


def supports_gpu() -> bool:
    """Say whether this build of llama.cpp can use a GPU that is here."""
    start()
    return bool(lib.llama_supports_gpu_offload())


def gpu_advice() -> str:
    """Return a warning with the command that mends it, if a machine with an NVIDIA GPU has a CPU-only llama.cpp; else ""."""
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
    """Return a pointer from the C API, or raise EngineError where it is NULL."""
    if not pointer:
        said = recent_errors()
        raise EngineError(f"llama.cpp could not {what}{': ' + said if said else ''}.", "Load the model again.")
    return pointer
