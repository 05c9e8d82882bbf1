"""Download a file from the Hugging Face hub, resumable, and checked against the hub's hash.

``hf_hub_download`` discards an interrupted download; the same library's ``http_get``, which is used here, continues it.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from llm_magics.errors import DownloadError, ModelNotFoundError
from llm_magics.files import sha256_of

from .catalog import HubFile, part_number
from .progress import Progress, front_end_bar, need_disk

_PATIENCE = 5.0  # seconds to wait for metadata, so that an unreachable hub does not delay the next source


@dataclass(frozen=True, slots=True)
class HubMetadata:
    """The hub's description of a file: ``etag`` is its sha256 (large files) or its git blob hash (small ones)."""

    url: str
    etag: str
    size: int
    headers: dict[str, str]


def metadata(file: HubFile) -> HubMetadata:
    """Ask the hub about a file. Raises DownloadError with the reason (gated, absent, unreachable)."""
    front_end_bar()  # huggingface_hub imports it
    from huggingface_hub import get_hf_file_metadata, hf_hub_url
    from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]  # public, but missing in its __all__

    with _explaining(file):
        asked = hf_hub_url(file.repo, file.file, endpoint=os.environ.get("HF_ENDPOINT"))
        found = get_hf_file_metadata(asked, timeout=_PATIENCE)
    if found.etag is None or found.size is None:
        raise DownloadError(f"The hub gives no hash or no size for {file}, so it cannot be verified.")
    headers = dict(build_hf_headers())
    if urlsplit(found.location).netloc != urlsplit(asked).netloc:
        headers.pop("authorization", None)  # a signed URL on another host must not receive our token
    return HubMetadata(found.location, found.etag, found.size, headers)


def download(file: HubFile, partial: Path, progress: Progress, sha256: str | None = None) -> str:
    """Fetch ``file`` into ``partial``, continuing an earlier try; return its sha256.

    Raises DownloadError; the part that arrived is kept, unless its hash is not the hub's or the caller's ``sha256``.
    """
    about = metadata(file)
    is_sha256 = re.fullmatch(r"[0-9a-f]{64}", about.etag) is not None
    if sha256 and is_sha256 and about.etag != sha256:
        raise DownloadError(f"{file} on the hub is not the catalogue's file: its sha256 is {about.etag[:12]}...")
    half = partial.with_name(f"{partial.name}.{about.etag[:12]}")  # another version of the file starts from the beginning
    have = half.stat().st_size if half.is_file() else 0
    if have > about.size:
        half.unlink()
        have = 0
    need_disk(half, about.size - have)
    _get(file, about, half, have, progress)
    found = sha256_of(half)
    got = found if is_sha256 else _git_hash(half)
    if got != about.etag or found != (sha256 or found):
        half.unlink()
        raise DownloadError(f"{file} did not arrive intact: its hash is {got[:12]}..., not {about.etag[:12]}...")
    half.replace(partial)
    return found


def resolve(file: HubFile) -> HubFile:
    """Turn a quantisation into a file, e.g. ``Qwen/Qwen3-4B-GGUF:Q4_K_M``; a ``.gguf`` file stays as it is.

    Raises ModelNotFoundError, listing the repository's files, unless exactly one model fits.
    """
    if file.file.endswith(".gguf"):
        return file
    front_end_bar()
    from huggingface_hub import HfApi

    with _explaining(file):
        siblings = HfApi(endpoint=os.environ.get("HF_ENDPOINT")).model_info(file.repo, timeout=_PATIENCE).siblings or []
    names = [s.rfilename for s in siblings if s.rfilename.endswith(".gguf") and "mmproj" not in s.rfilename]
    firsts = [n for n in names if part_number(n) == 1]
    fitting = [n for n in firsts if file.file.lower() in n.lower()]
    if len(fitting) != 1:
        listed = ", ".join((fitting or firsts)[:12]) or "no GGUF at all"
        problem = f"{len(fitting)} files of {file.repo} fit {file.file!r}." if firsts else f"{file.repo} has no GGUF file."
        raise ModelNotFoundError(problem, f"It has: {listed}.")
    return HubFile(file.repo, fitting[0], file.gated)


def _get(file: HubFile, about: HubMetadata, partial: Path, have: int, progress: Progress) -> None:
    from huggingface_hub.file_download import http_get

    bar = _bar(progress, file.file, have, about.size)
    with partial.open("ab") as out, _explaining(file):
        http_get(about.url, out, resume_size=have, headers=about.headers, expected_size=about.size, tqdm_class=bar)


def _bar(progress: Progress, what: str, have: int, total: int) -> type[Any]:
    """A tqdm that reports to ``progress`` instead of showing a bar."""
    from tqdm import tqdm

    class Bar(tqdm):  # type: ignore[type-arg]  # generic only in its stub
        done = have

        def __init__(self, *args: Any, **options: Any) -> None:
            options.pop("name", None)
            super().__init__(*args, **options | {"disable": True})

        def update(self, n: float | None = 1) -> bool | None:
            Bar.done += int(n or 0)
            progress(what, Bar.done, total)
            return None

    return Bar


def _git_hash(path: Path) -> str:
    begun = hashlib.sha1(f"blob {path.stat().st_size}\0".encode(), usedforsecurity=False)
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: begun).hexdigest()


@contextmanager
def _explaining(file: HubFile) -> Iterator[None]:
    """Turn any exception of any HTTP library into a DownloadError, so that the next source is tried."""
    try:
        yield
    except Exception as error:
        raise _explained(file, error) from error


def _explained(file: HubFile, error: Exception) -> DownloadError:
    from huggingface_hub import errors

    page = f"https://huggingface.co/{file.repo}"
    if isinstance(error, errors.GatedRepoError):
        advice = f"Accept its licence at {page}, then `hf auth login` or set HF_TOKEN."
        return DownloadError(f"{file.repo} is gated: the hub serves it only with a token of yours.", advice)
    if isinstance(error, errors.RepositoryNotFoundError):
        advice = "Check the spelling; a private repository needs a token (`hf auth login` or HF_TOKEN)."
        return DownloadError(f"The hub has no repository {file.repo}, or does not show it to you.", advice)
    if isinstance(error, errors.EntryNotFoundError):
        return DownloadError(f"The hub's repository {file.repo} has no file {file.file}.", f"See {page}/tree/main.")
    if isinstance(error, errors.OfflineModeIsEnabled):
        return DownloadError("Access to the hub is switched off (HF_HUB_OFFLINE is set).")
    reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    return DownloadError(f"The hub did not serve {file} ({type(error).__name__}: {reason}).")
