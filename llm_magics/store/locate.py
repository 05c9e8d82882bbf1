"""Finding a model's file on this machine by name, alias, path, hub file or another program's name for it.

Nothing is downloaded here; :func:`llm_magics.store.fetch.pull` does that.
"""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path

from llm_magics.errors import ModelFileError, ModelNotFoundError
from llm_magics.files import recall, sha256_of

from .catalog import SPLIT_NAME, CatalogEntry, HubFile, catalog, default_model, find, part_number, split_names
from .stores import StoredFile, stored_files

# Hashing takes about a second per GB. A larger file without a recorded hash is tried in a child process instead.
_HASH_AT_MOST = 4 << 30

# e.g. "https://huggingface.co/Qwen/Qwen3-4B-GGUF/resolve/main/Qwen3-4B-Q4_K_M.gguf": repository, file
_HUB_URL = re.compile(r"https?://(?:huggingface\.co|hf\.co)/([^/]+/[^/]+)/(?:resolve|blob|raw)/[^/]+/([^?#]+)(?:[?#].*)?")
# e.g. "Qwen/Qwen3-4B-GGUF:Qwen3-4B-Q4_K_M.gguf" or "hf.co/Qwen/Qwen3-4B-GGUF:Q4_K_M": repository, file or quantisation
_HUB_SPEC = re.compile(r"(?:hf\.co/|huggingface\.co/)?([\w.-]+/[\w.-]+):([^:\\]+)")


@dataclass(frozen=True, slots=True)
class ModelFile:
    """A model's file on this machine. ``path`` is the first of ``parts``, ``sha256`` its hash if known. ``entry`` is the
    catalogue's entry if there is one. ``source`` says where the file was found, e.g. "Ollama"."""

    path: Path
    parts: tuple[Path, ...]
    sha256: str | None = None
    entry: CatalogEntry | None = None
    source: str = "path"

    @property
    def name(self) -> str:
        """The default name of the model: the catalogue's name, or else the file's."""
        split = SPLIT_NAME.fullmatch(self.path.name)
        return self.entry.name if self.entry else split["stem"] if split else self.path.name.removesuffix(".gguf")

    @property
    def verified(self) -> bool:
        """Whether the file's hash is the catalogue's."""
        return self.entry is not None and self.entry.sha256 is not None and self.sha256 == self.entry.sha256

    @property
    def size(self) -> int:
        """Bytes of all parts."""
        return sum(p.stat().st_size for p in self.parts)


def locate(name_or_path: str | Path) -> ModelFile:
    """Find the file of a catalogue name or alias, a path, a hub ``repo:file`` or another program's model name.

    Raises ModelNotFoundError, which lists similar names, or says how to get a known model. Raises ModelFileError if parts of a
    split GGUF are missing.
    """
    name = meant(name_or_path)
    if not name:
        raise ModelNotFoundError("No model was named.", f"Try `{default_model()}`, or a path to a .gguf file.")
    if path := file_at(name):
        return _found(path, "path", _entry_for(path))
    if entry := find(name):
        return _of_entry(entry)
    if stored := _stored_under(name):
        return _found(stored.path, stored.store, _entry_for(stored.path))
    raise _not_found(name)


def meant(name: str | Path) -> str:
    """The name without surrounding space; "default" is replaced by the default model."""
    text = str(name).strip()
    return default_model() if text.lower() == "default" else text


def hub_file(name: str) -> HubFile | None:
    """Read a hub ``repo:file`` or a hub URL; None for anything else. The file may be a quantisation, e.g. ``Q4_K_M``."""
    match = _HUB_URL.fullmatch(name) or _HUB_SPEC.fullmatch(name)
    if not match or match[2].startswith("/") or {".", ".."} & set(match[1].split("/")):
        return None
    return HubFile(match[1], match[2])


def near_names(name: str, n: int = 5) -> list[str]:
    """Catalogue and stored names similar to this one, the nearest first; a part of a name counts ("qwen" finds all Qwens)."""
    known = {n.lower(): n for e in catalog() for n in e.names} | {n.lower(): n for f in stored_files() for n in f.names}
    wanted = name.lower()
    close = difflib.get_close_matches(wanted, known, n, cutoff=0.6)
    inside = [k for k in known if k not in close and len(wanted) > 2 and (wanted in k or k in wanted)]
    letters = "".join(takewhile(str.isalpha, wanted))  # e.g. "qwen" of "qwen2.5-coder"
    family = [k for k in known if k not in close + inside and letters and "".join(takewhile(str.isalpha, k)) == letters]
    return [known[k] for k in (close + inside + family)[:n]]


def whole(first: Path) -> tuple[Path, ...]:
    """All parts of the GGUF that begins with this file. Raises ModelFileError naming the missing ones."""
    if (number := part_number(first.name)) != 1:
        begin = split_names(first.name)[0]
        raise ModelFileError(f"{first.name} is part {number} of a split GGUF.", f"Name its first part, {begin}.")
    parts = tuple(first.with_name(n) for n in split_names(first.name))
    if missing := [p.name for p in parts if not p.is_file()]:
        listed = ", ".join(missing[:4]) + (", ..." if len(missing) > 4 else "")
        what = f"{first.name} is split into {len(parts)} files, and {len(missing)} of them are missing beside it: {listed}."
        raise ModelFileError(what, "Put all parts into one directory, or pull the model again.")
    return parts


def file_at(name: str) -> Path | None:
    """The file at this path; None if the name is not a file's path."""
    try:
        path = Path(name).expanduser()
        return path if path.is_file() else None
    except (OSError, ValueError, RuntimeError):  # e.g. too long, no permission, no such user
        return None


def _entry_for(path: Path) -> CatalogEntry | None:
    """The catalogue's entry with this file's name and size."""
    return next((e for e in catalog() if e.may_be(path)), None)


def _of_entry(entry: CatalogEntry) -> ModelFile:
    passed_over = []
    for stored in stored_files():
        if stored.path.name != entry.file and (entry.sha256 is None or stored.sha256 != entry.sha256):
            continue
        found = _found(stored.path, stored.store, entry)
        if entry.size is not None and found.path.stat().st_size != entry.size:
            passed_over.append(f"{found.path} has {found.path.stat().st_size:,} bytes, not {entry.size:,}")
        elif entry.sha256 is not None and found.sha256 not in (None, entry.sha256):
            passed_over.append(f"the sha256 of {found.path} is not the catalogue's")
        else:
            return found
    remarks = f" Skipped: {'; '.join(passed_over)}." if passed_over else ""
    raise ModelNotFoundError(
        f"{entry.name} is in the catalogue, but not on this machine.{remarks}", f"Get it with `llm-magics pull {entry.name}`."
    )


def _stored_under(name: str) -> StoredFile | None:
    hub = hub_file(name)
    wanted = {name.lower(), str(hub).lower() if hub else name.lower()}
    stored = list(stored_files())
    found = [f for f in stored if wanted & {n.lower() for n in f.names}]
    if not found and hub and not hub.file.endswith(".gguf"):  # a quantisation, e.g. "Qwen/Qwen3-4B-GGUF:Q4_K_M"
        repo, quantisation = hub.repo.lower(), hub.file.lower()
        found = [f for f in stored if f.names[0].lower().startswith(f"{repo}:") and quantisation in f.path.name.lower()]
    return found[0] if found else None


def _found(path: Path, source: str, entry: CatalogEntry | None) -> ModelFile:
    compared = entry is not None and entry.sha256 is not None and path.stat().st_size <= _HASH_AT_MOST
    sha256 = sha256_of(path) if compared else recall([path]).get("sha256")
    return ModelFile(path, whole(path), sha256, entry, source)


def _not_found(name: str) -> ModelNotFoundError:
    if hub := hub_file(name):
        return ModelNotFoundError(f"{hub} is not on this machine.", f"Get it with `llm-magics pull {hub}`.")
    if name.endswith(".gguf") or "/" in name or "\\" in name:
        advice = "Check the path; a hub file is written owner/repository:file.gguf."
        return ModelNotFoundError(f"There is no file {name}.", advice)
    near = f"Similar names: {', '.join(names)}. " if (names := near_names(name)) else ""
    advice = f"{near}%models (in a shell: llm-magics pull --list) shows the catalogue."
    return ModelNotFoundError(f"No model is called {name!r}.", advice)
