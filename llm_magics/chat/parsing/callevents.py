"""The calls of one answer as events: their numbers, their ids, and their certain text."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from itertools import groupby

from llm_magics.chat.scan.reader import Malformed, decoded
from llm_magics.events import ModelEvent, ReasoningDelta, TextDelta, ToolCallDelta, ToolCallEnd, ToolCallStart
from llm_magics.messages import ToolCall


class Calls:
    """The calls of one answer, and where events go. ``open``: the index of the call that has begun and not ended.

    Events of an attempt that may fail are *set aside*, and then released or forgotten together.
    """

    def __init__(self, salt: str) -> None:
        self._salt = salt
        self._given: list[ModelEvent] = []
        self._aside: list[ModelEvent] | None = None
        self.started = 0
        self.finished = 0
        self.open: int | None = None

    def give(self, *events: ModelEvent) -> None:
        (self._given if self._aside is None else self._aside).extend(events)

    def collect(self) -> list[ModelEvent]:
        given, self._given = self._given, []
        return _joined(given)

    def set_aside(self) -> tuple[int, int]:
        """Keep events back from here on; return the counts for :meth:`forget`."""
        self._aside = []
        return self.started, self.finished

    def taken_back(self) -> list[ModelEvent]:
        """The events set aside; from here on events are given out again."""
        aside, self._aside = self._aside or [], None
        return aside

    def forget(self, counted: tuple[int, int]) -> None:
        """Number the next calls as if those set aside had not begun."""
        self.started, self.finished = counted
        self.open = None

    def new_id(self, index: int) -> str:
        """Nine letters and digits, which every template takes; the same for the same prompt and index."""
        digest = hashlib.sha256(f"{self._salt}\0{index}".encode(errors="surrogatepass")).digest()
        number, text = int.from_bytes(digest[:8], "big"), ""
        while len(text) < 9:
            number, digit = divmod(number, 36)
            text += "0123456789abcdefghijklmnopqrstuvwxyz"[digit]
        return text


def _joined(events: list[ModelEvent]) -> list[ModelEvent]:
    made: list[ModelEvent] = []
    for _, run in groupby(events, key=lambda e: (type(e), getattr(e, "index", -1))):
        first, *more = run
        if more and isinstance(first, TextDelta | ReasoningDelta | ToolCallDelta):
            first, more = replace(first, text=first.text + "".join(getattr(e, "text", "") for e in more)), []
        made += [first, *more]
    return made


class OneCall:
    """One call while it is read: its arguments wait until name and id are known, then stream."""

    def __init__(self, calls: Calls, name: str = "", *, waits_for_id: bool = False) -> None:
        self._calls = calls
        self._waits_for_id = waits_for_id
        self._pieces: list[str] = []
        self._index = -1
        self.name = name
        self.id = ""

    def start(self) -> None:
        """Give out the call's start, once its name is known and its id, if that is expected."""
        if self._index < 0 and self.name and (self.id or not self._waits_for_id):
            self._index = self._calls.started
            self._calls.started += 1
            self._calls.open = self._index
            self.id = self.id or self._calls.new_id(self._index)
            self._calls.give(ToolCallStart(self._index, self.id, self.name))
            if self._pieces:
                self._calls.give(ToolCallDelta(self._index, "".join(self._pieces)))

    def emit(self, piece: str) -> None:
        if not piece:
            return
        self._pieces.append(piece)
        if self._index >= 0:
            self._calls.give(ToolCallDelta(self._index, piece))

    def end(self) -> None:
        """Give out the call's end. Raises Malformed if its arguments are not a JSON object."""
        if not self._pieces:
            self.emit("{}")
        arguments = "".join(self._pieces)
        if not isinstance(decoded(arguments), dict):
            raise Malformed("the arguments are not a JSON object")
        self._waits_for_id = False
        self.start()
        self._calls.give(ToolCallEnd(self._index, ToolCall(self.name, arguments, self.id)))
        self._calls.finished += 1
        self._calls.open = None
