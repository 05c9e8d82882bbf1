"""Notebook files: reads the conversations in their outputs, and removes the records from them.

A file may come from anybody, so it is read whole and checked first. A new file is written beside the old one and replaces it in
one step, so that a crash or a full disk leaves the old one. nbformat only writes: it would update what it reads, and a strip
must change nothing but our records.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llm_magics.views.columns import MIME_TYPE as COLUMNS_TYPE
from llm_magics.views.pictures import resolved

from .errors import OptionError, TranscriptError
from .plural import counted
from .transcript import MIME_TYPE, Transcript

_FORMAT = 4
_TRIES = 5  # on Windows, a file that another program reads at this moment cannot be replaced
_PAUSE = 0.2  # seconds between two tries
_NAME_ONE = "Name an .ipynb file."


def read_notebook(path: Path) -> dict[str, Any]:
    """Read a notebook of format 4 as it is in its file; raises OptionError that says what is wrong."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise OptionError(f"{path} cannot be read: {error.strerror or error}.", "Check the path.") from error
    except (ValueError, RecursionError) as error:
        raise OptionError(f"{path} is not a notebook: it is not JSON ({error}).", _NAME_ONE) from error
    version = data.get("nbformat") if isinstance(data, dict) else None
    if type(version) is not int:
        raise OptionError(f"{path} is not a notebook: it does not name its notebook format.", _NAME_ONE)
    if version != _FORMAT:
        hint = "Open it in Jupyter and save it, to convert it." if version < _FORMAT else "Update llm_magics."
        raise OptionError(f"{path} has notebook format {version}; llm_magics reads format {_FORMAT}.", hint)
    cells = data.get("cells")
    if not isinstance(cells, list) or not all(isinstance(cell, dict) for cell in cells):
        raise OptionError(f"{path} is damaged: it has no list of cells.", "Restore an earlier version of the file.")
    return dict(data)


def transcript_holders(notebook: Mapping[str, Any]) -> Iterator[tuple[dict[str, Any], str, bool]]:
    """The transcripts in a notebook's outputs: an object, its key there, and whether the conversation continues with it."""
    outputs = (output for cell in notebook["cells"] for output in _listed(cell.get("outputs")))
    for data in (output.get("data") for output in outputs if isinstance(output, dict)):
        if not isinstance(data, dict):
            continue
        if MIME_TYPE in data:
            yield data, MIME_TYPE, True
        several = data.get(COLUMNS_TYPE)
        if isinstance(several, dict):
            for at, column in enumerate(_listed(several.get("columns"))):
                if isinstance(column, dict) and "transcript" in column:
                    yield column, "transcript", several.get("chosen") == at


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def saved_transcripts(notebook: Mapping[str, Any]) -> list[Transcript]:
    """The transcripts of a notebook's conversations, in the order of its cells: without those that were asked aside, or that
    failed before the model said anything."""
    holders = [(holder, key) for holder, key, chosen in transcript_holders(notebook) if chosen]
    traces = [Transcript.from_json(resolved(holder[key], holder.get("text/html"))) for holder, key in holders]
    silent = [trace.state == "error" and len(trace.messages()) < 2 for trace in traces]
    return [trace for trace, failed in zip(traces, silent, strict=True) if not failed and not trace.settings.get("aside")]


@dataclass(slots=True)
class Stripped:
    """What was removed from a notebook: the records of so many ``turns`` and ``steps``, and ``unreadable`` transcripts."""

    name: str
    turns: int = 0
    steps: int = 0
    recorded: int = 0
    unreadable: int = 0
    n_bytes: int = 0

    def __str__(self) -> str:
        if not (self.turns or self.unreadable):
            return f"{self.name} holds no record of a conversation. The file was not changed."
        parts = [f"the messages as they were sent and the settings of {counted(self.turns, 'turn')}"]
        parts += [f"hashes and notes of {counted(self.steps, 'step')}"] if self.steps else []
        parts += [f"what --record kept of {counted(self.recorded, 'turn')}"] if self.recorded else []
        parts += [f"{counted(self.unreadable, 'record')} that cannot be read"] if self.unreadable else []
        taken = f"Removed from {self.name}: {', '.join(parts)} ({self.n_bytes:,} bytes)."
        return f"{taken} Cells, answers and tool rows stay. If the notebook is open, reload it from disk before you save it."


def strip(path: Path) -> Stripped:
    """Remove the records from a notebook's file; all that the reader sees stays. After an OptionError, the file is as before.

    The file is written only if it holds a record.
    """
    import nbformat

    path = path.resolve()  # a link stays a link
    before = _stat(path)
    data = read_notebook(path)
    _check(data, path)
    notebook = nbformat.v4.rwbase.rejoin_lines(nbformat.from_dict(data))
    found = Stripped(path.name)
    for holder, key, _ in transcript_holders(notebook):
        _strip_one(holder, key, found)
    if found.turns or found.unreadable:
        written = nbformat.writes(notebook, version=nbformat.NO_CONVERT).rstrip("\n") + "\n"
        _replace(path, written.encode(), before)
        found.n_bytes = before.st_size - len(written.encode())
    return found


def _strip_one(holder: dict[str, Any], key: str, found: Stripped) -> None:
    try:
        trace = Transcript.from_json(holder[key])
    except TranscriptError:
        del holder[key]  # an unreadable record may hold anything
        found.unreadable += 1
        return
    if holder[key].get("prompt") or holder[key].keys() & {"settings", "steps"}:
        found.turns += 1
        found.steps += len(trace.steps)
        found.recorded += trace.recorded
        holder[key] = trace.to_json(record=False) | {"prompt": "", "recorded": False}


def _check(notebook: dict[str, Any], path: Path) -> None:
    """Raise OptionError unless the notebook is valid: an invalid one cannot be written again unchanged."""
    from jsonschema.exceptions import best_match
    from nbformat.validator import iter_validate

    minor = notebook.get("nbformat_minor")
    errors = iter_validate(notebook, version=_FORMAT, version_minor=minor if type(minor) is int else 0)
    error = best_match(errors)
    if error is not None:
        place = "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in error.absolute_path).lstrip(".")
        said = error.message if len(error.message) < 200 else f"…{error.message[-150:]}"
        what = f"{path} is not a valid notebook: {place or 'its top level'}: {said}."
        raise OptionError(what, "Open the notebook in Jupyter and save it, then strip it again.")


def _stat(path: Path) -> os.stat_result:
    try:
        found = path.stat()
    except OSError as error:
        raise OptionError(f"{path} cannot be read: {error.strerror or error}.", "Check the path.") from error
    if not found.st_mode & 0o222:
        raise OptionError(f"{path} is write-protected.", "Make it writable, or strip a copy.")
    return found


def _replace(path: Path, content: bytes, before: os.stat_result) -> None:
    """Replace the file in one step; its permissions stay."""
    temporary = ""
    try:
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp", delete=False) as file:
            temporary = file.name
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        shutil.copymode(path, temporary)
        if hasattr(os, "chown"):
            with suppress(PermissionError):
                os.chown(temporary, before.st_uid, before.st_gid)
        now = path.stat()
        if (now.st_mtime_ns, now.st_size) != (before.st_mtime_ns, before.st_size):
            raise OptionError(f"Another program has just written {path}.", "Strip it again.")
        _put(temporary, path)
        temporary = ""
    except OSError as error:
        what = f"{path} cannot be replaced: {error.strerror or error}. It is unchanged."
        raise OptionError(what, "Close other programs that have it open, and check that its folder is writable.") from error
    finally:
        if temporary:
            with suppress(OSError):
                os.unlink(temporary)


def _put(temporary: str, path: Path) -> None:
    """Rename over the file; try again if another program holds it for a moment (Windows)."""
    for attempt in range(1, _TRIES + 1):
        try:
            os.replace(temporary, path)
            break
        except PermissionError:
            if attempt == _TRIES:
                raise
            time.sleep(_PAUSE)
    with suppress(OSError):  # the rename itself lasts once its folder is on disk; Windows cannot open folders
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
