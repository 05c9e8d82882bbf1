"""Server-sent events, as services send completions: bytes in, JSON values out.

Libraries for this format (httpx-sse, sseclient-py) read lines of any length into memory, and wait for a blank line that some
servers do not send. This reader bounds both, and takes a ``data`` line that is JSON by itself at once. Comments keep a
connection alive and are dropped; ``error`` as a field's name, which older llama-servers write, counts as data.

Source: https://html.spec.whatwg.org/multipage/server-sent-events.html
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from llm_magics.errors import ServerError

MAX_LINE = 4 * 2**20
MAX_REPLY = 128 * 2**20
_MOST_LINES = 64  # of one value, which is tried at each
DONE = "[DONE]"
"""What ends a stream, after its last value."""


@dataclass(slots=True)
class EventStream:
    """Reads one stream. ``feed`` and ``finish`` return JSON values, or :data:`DONE`, and raise ServerError."""

    _line: bytearray = field(default_factory=bytearray)
    _after_cr: bool = False
    _data: str = ""
    _error: bool = False  # the event that is being read is an error
    _n_bytes: int = 0
    _done: bool = False  # whatever comes behind the end is not read

    def feed(self, piece: bytes) -> list[Any]:
        self._n_bytes += len(piece)
        if self._n_bytes > MAX_REPLY:
            what = f"The server's answer is longer than {MAX_REPLY // 2**20} MiB."
            raise ServerError(what, "Ask for less, with --max-tokens.")
        if self._after_cr and piece[:1] == b"\n":
            piece = piece[1:]
        self._after_cr = piece[-1:] == b"\r" if piece else self._after_cr
        *whole, rest = piece.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
        found: list[Any] = []
        for line in [] if self._done else whole:
            self._grow(line)
            found += self._take(self._line.decode("utf-8", "replace"))
            self._line.clear()
            if self._done:
                return found
        self._grow(rest)
        return found

    def finish(self) -> list[Any]:
        """The stream has ended, perhaps without the end of its last line."""
        found = self._take(self._line.decode("utf-8", "replace"))
        self._line.clear()
        return found

    def _grow(self, part: bytes) -> None:
        if len(self._line) + len(part) + len(self._data) > MAX_LINE:
            raise ServerError(f"The server sent a line of more than {MAX_LINE // 2**20} MiB.", "Is it a completions service?")
        self._line += part

    def _take(self, line: str) -> list[Any]:
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        match name:
            case "":
                return [] if line else self._dispatch()
            case "data" | "error":
                self._error = self._error or name == "error"
                self._data += ("\n" if self._data else "") + value
                if self._data.count("\n") > _MOST_LINES:
                    raise ServerError("The server sent data on too many lines.", "Is it a completions service?")
                return self._complete()
            case "event":
                self._error = value == "error"
        return []

    def _complete(self) -> list[Any]:
        """What the data are, if they are whole by now."""
        text = self._data.strip()
        if text == DONE:
            self._data, self._done = "", True
            return [DONE]
        try:
            value = json.loads(text)
        except (ValueError, RecursionError):
            return []
        self._data = ""
        return [{"error": value} if self._error and not (isinstance(value, dict) and "error" in value) else value]

    def _dispatch(self) -> list[Any]:
        """A blank line: data that are no JSON by now never will be."""
        text, error = self._data.strip(), self._error
        self._data, self._error = "", False
        if not text:
            return []
        if error:
            return [{"error": text}]
        raise ServerError(f"The server sent data that are not JSON: {text[:80]!r}.", "Is it a completions service?")
