"""Shared by all downloads: progress, the check for disk space, and removing partial files."""

from __future__ import annotations

import shutil
import warnings
from pathlib import Path
from typing import Any, Protocol

from llm_magics.errors import DownloadError

_SPARE = 256 << 20  # bytes to leave free on the disk


class Progress(Protocol):
    """Receives progress: ``done`` of ``total`` bytes of ``what``; ``total`` is 0 if unknown."""

    def __call__(self, what: str, done: int, total: int, /) -> None: ...


def silent(what: str, done: int, total: int, /) -> None:
    """Ignore progress."""


def front_end_bar() -> Any:
    """The tqdm for the front end: a widget, or text without ipywidgets.

    Its first import warns if the optional ipywidgets is missing. Call this before importing a library that uses it.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="IProgress not found")
        from tqdm.auto import tqdm
    return tqdm


def need_disk(target: Path, needed: int) -> None:
    """Raise DownloadError unless the disk of ``target`` has ``needed`` bytes free and a reserve."""
    free = shutil.disk_usage(target.parent).free
    if needed > 0 and free < needed + _SPARE:
        what = f"{target.parent} has {free / 1e9:.1f} GB free; {needed / 1e9:.1f} GB and a reserve are needed."
        raise DownloadError(what, "Free some space, or set LLM_MAGICS_CACHE to a directory on another disk.")


def clear(partial: Path) -> None:
    """Delete the partial files that earlier pulls of this file left, from any source and of any version."""
    for left in partial.parent.glob(f"{partial.name}*"):
        if left.is_dir():
            shutil.rmtree(left)
        elif not left.name.endswith(".lock"):
            left.unlink()
