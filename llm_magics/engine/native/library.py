"""The only import of llama_cpp, inside the settings that its libraries read when they are loaded."""

from __future__ import annotations

import os
from pathlib import Path

from . import openmp

with openmp.short_spins():
    import llama_cpp.llama_cpp as lib

__all__ = ["cpu_library", "lib"]


def cpu_library() -> Path:
    """The file with llama.cpp's CPU code: one of its own beside libllama, or libllama itself."""
    whole = Path(os.path.abspath(lib._lib._name))
    return next(iter(sorted(whole.parent.glob("*ggml-cpu*"))), whole)
