"""The places of GGUF files on this machine: our own cache, and those of Ollama, LM Studio, llama.cpp and the hub.

Each store is read in its owner's layout and never written to. A missing store yields nothing.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from llm_magics.files import cache_dir

from .catalog import CatalogEntry, part_number


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A model's (first) file in a store. ``names`` are those that the store's users know; ``sha256`` is the store's claim."""

    path: Path
    store: str
    names: tuple[str, ...]
    sha256: str | None = None


def models_dir() -> Path:
    """The directory of pulled models."""
    return cache_dir() / "models"


def stored_files() -> Iterator[StoredFile]:
    """Every GGUF model in every store, the user's own directories first."""
    for directory in os.environ.get("LLM_MAGICS_MODELS", "").split(os.pathsep):
        if directory:
            yield from _flat(Path(directory).expanduser(), "LLM_MAGICS_MODELS")
    yield from _flat(models_dir(), "llm_magics")
    yield from _by_repository(models_dir(), "llm_magics")
    yield from _hub(_hub_cache(), "Hugging Face")
    yield from _flat(_llama_cpp_cache(), "llama.cpp")  # older releases; newer ones use the hub's layout
    yield from _hub(_llama_cpp_cache(), "llama.cpp")
    for root in (Path.home() / ".lmstudio" / "models", Path.home() / ".cache" / "lm-studio" / "models"):
        yield from _by_repository(root, "LM Studio")
    for root in _ollama_roots():
        yield from _ollama(root)


def on_disk(entry: CatalogEntry, stored: Iterable[StoredFile]) -> bool:
    """Whether one of the files is the entry's, by name and size or by the store's hash."""
    return any(entry.may_be(file.path) or (entry.sha256 is not None and file.sha256 == entry.sha256) for file in stored)


def _file_names(name: str) -> tuple[str, ...]:
    return (name, name.removesuffix(".gguf"))


def _ggufs(root: Path, pattern: str) -> list[Path]:
    """The models' files: of a split one the first part, without vision projectors."""
    try:
        named = (p for p in root.glob(pattern) if p.suffix == ".gguf" and not p.name.startswith("mmproj"))
        return sorted(p for p in named if part_number(p.name) == 1 and p.is_file())
    except OSError:  # e.g. another user's directory
        return []


def _flat(root: Path, store: str) -> Iterator[StoredFile]:
    for path in _ggufs(root, "*.gguf"):
        yield StoredFile(path, store, _file_names(path.name))


def _hub_cache() -> Path:
    home = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    hub = Path(os.environ.get("HF_HOME") or Path(home) / "huggingface") / "hub"
    return Path(os.environ.get("HF_HUB_CACHE") or os.environ.get("HUGGINGFACE_HUB_CACHE") or hub).expanduser()


def _hub(root: Path, store: str) -> Iterator[StoredFile]:
    """``models--OWNER--REPO/snapshots/COMMIT/FILE``, links into ``blobs/SHA256``; the commit named in ``refs/main`` first."""
    for repo_dir in sorted(root.glob("models--*--*")):
        repo = repo_dir.name.removeprefix("models--").replace("--", "/", 1)
        snapshots = sorted((repo_dir / "snapshots").glob("*"), key=lambda p: p.name != _main_commit(repo_dir))
        seen: set[str] = set()
        for snapshot in snapshots:
            for path in _ggufs(snapshot, "**/*.gguf"):
                inside = path.relative_to(snapshot).as_posix()
                if inside not in seen:
                    seen.add(inside)
                    names = (f"{repo}:{inside}", *_file_names(path.name))
                    yield StoredFile(path, store, names, _sha256_name(path.resolve().name))


def _main_commit(repo_dir: Path) -> str:
    try:
        return (repo_dir / "refs" / "main").read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        return ""


def _sha256_name(name: str) -> str | None:
    return name if re.fullmatch(r"[0-9a-f]{64}", name) else None


def _llama_cpp_cache() -> Path:
    if given := os.environ.get("LLAMA_CACHE"):
        return Path(given).expanduser()
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local") / "llama.cpp"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "llama.cpp"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "llama.cpp"


def _by_repository(root: Path, store: str) -> Iterator[StoredFile]:
    """``OWNER/REPO/FILE``: the layout of LM Studio, and ours for models outside the catalogue."""
    for path in _ggufs(root, "*/*/*.gguf"):
        repo = f"{path.parent.parent.name}/{path.parent.name}"
        yield StoredFile(path, store, (f"{repo}:{path.name}", *_file_names(path.name)))


def _ollama_roots() -> tuple[Path, ...]:
    if given := os.environ.get("OLLAMA_MODELS"):
        return (Path(given).expanduser(),)
    return (Path.home() / ".ollama" / "models", Path("/usr/share/ollama/.ollama/models"))


def _ollama(root: Path) -> Iterator[StoredFile]:
    """``manifests/HOST/OWNER/NAME/TAG`` is JSON that names the blob ``blobs/sha256-...`` with the weights."""
    for manifest in sorted((root / "manifests").glob("*/*/*/*")):
        digest = _ollama_weights(manifest)
        blob = root / "blobs" / f"sha256-{digest}"
        if digest and blob.is_file():
            owner, name, tag = manifest.parts[-3:]
            full = name if owner == "library" else f"{owner}/{name}"
            names = (f"{full}:{tag}", *((full,) if tag == "latest" else ()))
            yield StoredFile(blob, "Ollama", names, digest)


def _ollama_weights(manifest: Path) -> str | None:
    try:
        layers = json.loads(manifest.read_text(encoding="utf-8"))["layers"]
        digests = [x["digest"] for x in layers if x["mediaType"] == "application/vnd.ollama.image.model"]
        return _sha256_name(digests[0].removeprefix("sha256:"))
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return None  # not a manifest, or an unknown kind of manifest
