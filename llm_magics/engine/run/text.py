"""From token bytes to text that is certain: incremental UTF-8, and stop strings held back across tokens."""

from __future__ import annotations

import codecs
from collections.abc import Sequence


class TextStream:
    """Turns the bytes of one token after another into text that may be shown.

    Text is held back while it is the start of a UTF-8 character or of a stop string. Bytes that can become no character are
    replaced by U+FFFD, as Python's decoder does.
    """

    def __init__(self, stops: Sequence[str] = ()) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._stops = tuple(stop for stop in stops if stop)
        self._held = ""
        self.stopped = False

    def push(self, data: bytes) -> str:
        """Take one token's bytes and return the text that became certain; sets ``stopped`` where a stop string is complete."""
        text = self._decoder.decode(data)
        return self._release(text) if self._stops else text

    def flush(self) -> str:
        """Return what is still held back, at an end that no stop string caused."""
        if self.stopped:
            return ""
        return self._release(self._decoder.decode(b"", True), final=True)

    def held(self) -> bytes:
        """The bytes taken in but not yet given out."""
        return self._held.encode() + self._decoder.getstate()[0]

    def _release(self, text: str, *, final: bool = False) -> str:
        text = self._held + text
        found = [(at, stop) for stop in self._stops if (at := text.find(stop)) >= 0]
        if found:
            self.stopped = True
            self._held = ""
            return text[: min(found)[0]]
        keep = 0 if final else max(_overlap(text, stop) for stop in self._stops)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]


def _overlap(text: str, stop: str) -> int:
    """The length of the longest end of ``text`` that begins ``stop``."""
    for length in range(min(len(text), len(stop) - 1), 0, -1):
        if stop.startswith(text[-length:]):
            return length
    return 0
