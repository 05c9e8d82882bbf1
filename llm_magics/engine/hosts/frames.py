"""Pickled messages over a pair of pipes. Each frame is eight bytes of length, then that many bytes."""

from __future__ import annotations

import pickle
from contextlib import suppress
from typing import IO, Any

from llm_magics.errors import EngineError, LLMMagicsError


def read_frame(pipe: IO[bytes]) -> bytes:
    """Wait for the next frame. Raises EOFError if the other end has gone."""
    return _exactly(pipe, int.from_bytes(_exactly(pipe, 8), "big"))


def _exactly(pipe: IO[bytes], size: int) -> bytes:
    data = pipe.read(size)
    if len(data) < size:
        raise EOFError
    return data


def write_frame(pipe: IO[bytes], data: bytes) -> None:
    """Raises OSError if the other end has gone."""
    pipe.write(len(data).to_bytes(8, "big") + data)
    pipe.flush()


def sendable(error: Exception) -> Exception:
    """The exception if it is one of ours and pickles, else an EngineError with its text."""
    with suppress(Exception):
        pickle.loads(pickle.dumps(error))
        if isinstance(error, LLMMagicsError):
            return error
    return EngineError(f"{type(error).__name__}: {error}.")


def value_of(item: Any) -> Any:
    if isinstance(item, Exception):
        raise item
    return item
