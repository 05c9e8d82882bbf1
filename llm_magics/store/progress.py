"""What every way of fetching shares: telling how far it is, room on the disk, and what a pull leaves half done."""

from __future__ import annotations

import shutil
import warnings
from pathlib import Path
from typing import Any, Protocol

from llm_magics.errors import DownloadError

_SPARE = 256 << 20  # bytes to leave free on the disk


class Progress(Protocol):
    """Told how far something is: ``done`` of ``total`` bytes of ``what``; ``total`` 0 where unknown."""

    def __call__(self, what: str, done: int, total: int, /) -> None: ...


def silent(what: str, done: int, total: int, /) -> None:
    """Tell nobody."""


def front_end_bar() -> Any:
    """Return the tqdm that suits the front end: a widget, or text if there is no ipywidgets.

    The first import of it in a kernel warns of ipywidgets that is missing, from ours or from a library that uses it: ask here
    before such a library is imported. Nothing is missing: ipywidgets is optional.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="IProgress not found")
        from tqdm.auto import tqdm
    return tqdm


def need_disk(target: Path, needed: int) -> None:
    """Raise DownloadError unless the disk of ``target``'s directory has ``needed`` bytes free, and some to spare."""
    free = shutil.disk_usage(target.parent).free
    if needed > 0 and free < needed + _SPARE:
        raise DownloadError(
            f"{target.parent} has {free / 1e9:.1f} GB free; {needed / 1e9:.1f} GB are needed, and some to spare.",
            "Free some space, or set LLM_MAGICS_CACHE to a directory on another disk.",
        )


def clear(partial: Path) -> None:
    """Throw away whatever earlier pulls left half done of this file, from any source and of any version."""
    for left in partial.parent.glob(f"{partial.name}*"):
        if left.is_dir():
            shutil.rmtree(left)
        elif not left.name.endswith(".lock"):
            left.unlink()
