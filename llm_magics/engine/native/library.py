"""The one place that imports llama_cpp: what must be set before its libraries are loaded is set here."""

from __future__ import annotations

import os
from pathlib import Path

from . import openmp

with openmp.short_spins():
    import llama_cpp.llama_cpp as lib

__all__ = ["cpu_library", "lib"]


def cpu_library() -> Path:
    """Return the file with llama.cpp's CPU code: beside llama.cpp's own, or that one if all is in it."""
    whole = Path(os.path.abspath(lib._lib._name))
    return next(iter(sorted(whole.parent.glob("*ggml-cpu*"))), whole)
