"""A Python process beside this one that runs llama.cpp: how it is started, how its log is read, how it ends."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import IO, Any

from .diagnosis import Line

_SOURCE_FILE = re.compile(r"\S*/(?=[\w.-]+:\d+: )")  # the directories of e.g. "/tmp/build/ggml.c:4014: GGML_ASSERT(...)"
_LEVEL_LINE = re.compile(r"<(\d)>(.*)")  # e.g. "<4>llama_model_load: error loading model: ..."


def python_command(module: str) -> tuple[str, ...]:
    """-P: do not import e.g. a random.py beside the notebook."""
    return (sys.executable, "-P", "-m", module)


def start_child(command: tuple[str, ...], stderr: int | IO[bytes], **options: Any) -> subprocess.Popen[Any]:
    """Start a child that imports this same package, with pipes as its standard input and output."""
    root = str(Path(__file__).parents[3])
    paths = [root, *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths), "GGML_NO_BACKTRACE": "1"}
    return subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=stderr, env=environment, **options
    )  # fmt: skip


def end_with_parent() -> None:
    """In a child: end this process when its parent ends, even during a load. (Not on Windows, where the parent's id stays the
    same.)"""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def parse_log(text: str) -> list[Line]:
    """Lines with their level; lines from outside the log (an assertion, a Python traceback) count as errors."""
    lines = ((_LEVEL_LINE.match(line), line) for line in text.splitlines())
    return [(int(match[1]), match[2]) if match else (4, line) for match, line in lines]


def last_line(lines: list[Line]) -> str:
    """The last line that says something, without the directories of the machine that compiled llama.cpp; may be empty."""
    said = [text.strip() for _, text in lines if text.strip()]
    return _SOURCE_FILE.sub("", said[-1]) if said else ""


def status_text(status: int) -> str:
    """E.g. ``SIGABRT`` for -6, ``exit status 1``."""
    try:
        return signal.Signals(-status).name if status < 0 else f"exit status {status}"
    except ValueError:
        return f"signal {-status}"
