"""A parser whose failure loses no text.

No text of a model should make a parser raise. If one does, :class:`SafeParser` keeps the events so far, gives out the rest as
content, and ends the answer with finish reason "error" and a note that names the failure. An open call stays without an end, so
it never runs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from llm_magics.events import ModelEnd, ModelEvent, ReasoningDelta, TextDelta, ToolCallEnd, assemble
from llm_magics.messages import FinishReason


class Parser(Protocol):
    """Reads an answer: text in, events out, the last one a ModelEnd."""

    def feed(self, text: str) -> list[ModelEvent]: ...

    def finish(self, reason: FinishReason = "stop") -> list[ModelEvent]: ...


class SafeParser:
    def __init__(self, parser: Parser) -> None:
        self._parser = parser
        self._raw: list[str] = []
        self._given: list[ModelEvent] = []
        self._failure = ""

    def feed(self, text: str) -> list[ModelEvent]:
        self._raw.append(text)
        if self._failure:
            return self._kept([TextDelta(text)] if text else [])
        return self._try(lambda: self._parser.feed(text))

    def finish(self, reason: FinishReason = "stop") -> list[ModelEvent]:
        events = [] if self._failure else self._try(lambda: self._parser.finish(reason))
        if not self._failure:
            return events
        ended: FinishReason = "error" if reason in ("stop", "tool_calls") else reason
        return [*events, ModelEnd(assemble(self._given, ended), ended, notes=(self._failure,))]

    def _try(self, read: Callable[[], list[ModelEvent]]) -> list[ModelEvent]:
        try:
            return self._kept(read())
        except Exception as error:  # the fault is the parser's, and the text is the user's
            self._failure = f"The answer could not be read ({type(error).__name__}: {error}), so it stays as it was written."
            rest = self._unread()
            return self._kept([TextDelta(rest)] if rest else [])

    def _kept(self, events: list[ModelEvent]) -> list[ModelEvent]:
        self._given += events
        return events

    def _unread(self) -> str:
        """The text after all that was given out. A finished call whose arguments are spelt differently in it comes again."""
        raw, at = "".join(self._raw), 0
        for event in self._given:
            piece = event.call.arguments if isinstance(event, ToolCallEnd) else ""
            piece = event.text if isinstance(event, TextDelta | ReasoningDelta) else piece
            found = raw.find(piece, at) if piece else -1
            at = found + len(piece) if found >= 0 else at
        return raw[at:]
