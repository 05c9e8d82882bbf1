"""Whether a model's file may be loaded into this process: read in Python and, where unknown, tried in a child process first."""

from __future__ import annotations

from llm_magics.engine.fit.gguf import Gguf
from llm_magics.engine.fit.gguf_check import read_model
from llm_magics.engine.fit.probe import try_model

from .locate import ModelFile


def vet(file: ModelFile) -> Gguf:
    """Return the file's header, read and checked. Raises ModelFileError or UnsupportedModelError naming what is wrong, or what
    :func:`~llm_magics.engine.fit.probe.try_model` raises where a trial fails for another reason.

    A file that is not the catalogue's, byte for byte, is loaded once by a child process; the outcome is remembered.
    """
    gguf = read_model(file.path)
    if not file.verified:
        try_model(gguf.paths)
    return gguf
