"""Run one Python script of a declared folder in a child process: without a shell, inside the folder, within limits."""

from __future__ import annotations

import codecs
import os
import queue
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO

from llm_magics.errors import ToolError

MAX_ARGUMENTS = 100
_LOOK = 0.5  # seconds between checks whether a silent process has ended
# The variables that a script needs to start. Others may hold keys, and the script's output goes to a model.
_PASSED_ON = ("PATH", "HOME", "USER", "LANG", "LC_ALL", "TZ", "TMPDIR", "TEMP", "TMP", "SYSTEMROOT", "USERPROFILE", "APPDATA")


def inside(folder: Path, name: str, what: str) -> Path:
    """Resolve a name to an existing regular file of ``folder``, links followed; raises ToolError for anything else."""
    if "\0" in name or not name.strip():
        raise ToolError(f"{name!r} is not the name of {what}.", "Give a plain file name.")
    root = folder.resolve()
    try:
        path = (root / name).resolve()
        allowed = path.is_relative_to(root) and not Path(name).is_absolute() and not Path(name).drive
        found = allowed and path.is_file()
    except (OSError, ValueError, RuntimeError) as error:  # e.g. too long, a loop of links, not encodable
        raise ToolError(f"{name[:100]!r} is not the name of {what}: {error}.", "Give a plain file name.") from error
    if not allowed:
        raise ToolError(f"{name[:100]!r} lies outside the folder that was opened for this tool.", "Give a name inside it.")
    if not found:
        near = ", ".join(sorted(entry.name for entry in root.iterdir() if entry.is_file())[:20])
        raise ToolError(f"There is no {what} {name[:100]!r}.", f"There are: {near or 'none'}.")
    return path


def split(arguments: str) -> list[str]:
    """Split an argument line as a shell does; nothing in it is expanded or run."""
    if "\0" in arguments:
        raise ToolError("The arguments contain a NUL character.", "Leave it out.")
    try:
        words = shlex.split(arguments)
    except ValueError as error:
        raise ToolError(f"The arguments cannot be split: {error}.", "Close every quotation mark.") from error
    if len(words) > MAX_ARGUMENTS:
        raise ToolError(f"{len(words)} arguments are too many.", f"Give at most {MAX_ARGUMENTS}.")
    return words


def interpreter(venv: str, allowed: Iterable[Path]) -> str:
    """The Python of an allowed virtual environment, given by path or name; "" is the running Python."""
    if not venv:
        return sys.executable
    for environment in allowed:
        if venv in (str(environment), environment.name):
            places = (environment / "bin" / "python", environment / "Scripts" / "python.exe")
            if python := next(filter(Path.is_file, places), None):
                return str(python)
            raise ToolError(f"{environment} contains no Python.", "Make it with python -m venv.")
    known = ", ".join(str(environment) for environment in allowed) or "none"
    raise ToolError(f"The virtual environment {venv[:100]!r} is not allowed.", f"Allowed: {known}.")


def run(command: list[str], folder: Path, timeout: float, max_bytes: int) -> Iterator[str | int]:
    """Run a command; yields its output (both streams) as it comes, and finally its exit code.

    Raises ToolError if it runs longer than ``timeout`` seconds or writes more than ``max_bytes``. The command and its children
    are killed then, and also when the generator is closed.
    """
    environment = {name: value for name, value in os.environ.items() if name in _PASSED_ON}
    process = subprocess.Popen(
        command,
        cwd=folder,
        env={**environment, "PYTHONIOENCODING": "utf-8", "PYTHONUNBUFFERED": "1"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        yield from _follow(process, time.monotonic() + timeout, max_bytes)
    finally:
        _kill(process)
    yield process.returncode


def _follow(process: subprocess.Popen[bytes], ends: float, max_bytes: int) -> Iterator[str]:
    """Yield what the process writes until it has ended, even if its own child still holds the pipe."""
    chunks: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    threading.Thread(target=_pump, args=(process.stdout, chunks, max_bytes), daemon=True).start()
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    read = 0
    while True:
        left = ends - time.monotonic()
        if left <= 0:
            raise ToolError("The script did not end in time and was stopped.", "Give it less to do.")
        try:
            chunk = chunks.get(timeout=min(left, _LOOK))
        except queue.Empty:
            if process.poll() is not None:
                return
            continue
        if not chunk:
            process.wait(max(ends - time.monotonic(), _LOOK))
            return
        read += len(chunk)
        if read > max_bytes:
            raise ToolError(f"The script wrote more than {max_bytes:,} bytes and was stopped.", "Let it print less.")
        text = decoder.decode(chunk)
        if text:
            yield text


def _pump(stream: IO[bytes], chunks: queue.SimpleQueue[bytes], max_bytes: int) -> None:
    """Read a pipe to its end, or until it has given more than ``max_bytes``."""
    read = 0
    with stream:
        while read <= max_bytes:
            chunk = os.read(stream.fileno(), 65_536)
            chunks.put(chunk)
            read += len(chunk)
            if not chunk:
                return


def _kill(process: subprocess.Popen[bytes]) -> None:
    """Kill the process and its group, so that no child outlives it."""
    if hasattr(os, "killpg"):
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            pass  # the whole group has ended
    else:
        process.kill()
    process.wait()
