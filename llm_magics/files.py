"""Remembers facts about files, so that no file is hashed or tried twice.

A fact (a sha256, the outcome of a trial load) holds while path, size, modification time and inode stay the same. The facts of
each path are in one JSON file under :func:`cache_dir`. If it cannot be read or written, only time is lost.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

_CHUNK = 1 << 22


def cache_dir() -> Path:
    """The directory of models and facts: ``$LLM_MAGICS_CACHE``, else the platform's cache directory. It may not exist."""
    if given := os.environ.get("LLM_MAGICS_CACHE"):
        return Path(given).expanduser()
    from platformdirs import user_cache_path

    return user_cache_path("llm_magics", appauthor=False)


def recall(files: Sequence[Path]) -> dict[str, str]:
    """The facts about these files (the parts of one model), empty if one of them has changed."""
    with suppress(OSError, ValueError, AttributeError):
        stored = json.loads(_fact_file(files).read_text(encoding="utf-8"))
        if isinstance(stored, dict) and stored.get("identity") == _identity(files):
            return {str(k): str(v) for k, v in stored.get("facts", {}).items()}
    return {}


def remember(files: Sequence[Path], **facts: str) -> None:
    """Add facts about these files; drop facts about an earlier content."""
    with suppress(OSError):  # a read-only home: the fact is found again next time
        target = _fact_file(files)
        target.parent.mkdir(parents=True, exist_ok=True)
        content = {"files": [str(f) for f in files], "identity": _identity(files), "facts": recall(files) | facts}
        with tempfile.NamedTemporaryFile("w", dir=target.parent, suffix=".tmp", delete=False, encoding="utf-8") as out:
            json.dump(content, out, indent=1)
        os.replace(out.name, target)


def sha256_of(path: Path, progress: Callable[[int], object] | None = None) -> str:
    """The file's sha256 in hex, computed once per content. ``progress`` gets the number of bytes of each chunk."""
    if known := recall([path]).get("sha256"):
        return known
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
            if progress:
                progress(len(chunk))
    remember([path], sha256=digest.hexdigest())
    return digest.hexdigest()


def _identity(files: Sequence[Path]) -> list[list[int]]:
    stats = [f.stat() for f in files]
    return [[s.st_size, s.st_mtime_ns, s.st_ino, s.st_dev] for s in stats]


def _fact_file(files: Sequence[Path]) -> Path:
    key = "\0".join(str(f.resolve()) for f in files)
    return cache_dir() / "facts" / f"{hashlib.sha256(key.encode()).hexdigest()[:24]}.json"
