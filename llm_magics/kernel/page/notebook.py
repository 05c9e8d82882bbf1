"""A turn in a notebook: one display, updated while the turn runs, complete and static at its end.

Pages with the extension follow the turn by deltas (:mod:`.live`). Others get the whole HTML again, at most 18 times a second
and less often as it grows. The last update, written whatever ended the turn, holds every form of the transcript.
"""

from __future__ import annotations

import uuid
from dataclasses import replace
from typing import Any

from llm_magics.events import Event, PromptProgress, ReasoningDelta, TextDelta, ToolAsk, ToolCallDelta, ToolProgress
from llm_magics.messages import FinishReason
from llm_magics.segments import NoticeSegment
from llm_magics.transcript import MIME_TYPE, Transcript
from llm_magics.views.html import GrowingHtml, ShowReasoning, transcript_html
from llm_magics.views.pace import Pace, Publish
from llm_magics.views.pictures import pointing
from llm_magics.views.secrets.secrets import Masking, masked
from llm_magics.views.text.plain import transcript_markdown, transcript_plain

from .live import LiveTurn, running_json

_MANY = (TextDelta, ReasoningDelta, ToolCallDelta, ToolProgress, PromptProgress)
_SMALL = 2_000  # characters of HTML up to which an update carries the transcript too, for an extension that answers late


class NotebookView:
    """Draws the trace of one turn. Call :meth:`handle` for each event, and :meth:`close` at the end, always. ``live`` is the
    turn's stream to pages with the extension. Without ``updates`` (for front ends that have none), only the end is drawn."""

    def __init__(
        self, publish: Publish, *, reasoning: ShowReasoning = "fold", live: LiveTurn | None = None, updates: bool = True,
        pace: Pace | None = None,
    ) -> None:  # fmt: skip
        self.transcript = Transcript()
        self._publish, self._reasoning, self._live, self._updates = publish, reasoning, live, updates
        self._pace = pace or Pace()
        self._growing = GrowingHtml(reasoning)
        self._masking = Masking()
        self._display_id = uuid.uuid4().hex
        self._shown = self._watched = False

    def handle(self, trace: Transcript, event: Event) -> None:
        """Take the turn after ``event``; draw it if an update is due, or if something began or ended."""
        self.transcript = trace
        if self._live is not None and isinstance(event, ToolAsk):
            self._live.meet()  # only a page with the extension draws the buttons
        if self._updates and (not isinstance(event, _MANY) or self._pace.due()):
            self.draw()

    def draw(self) -> None:
        """Send the turn so far to the pages that follow it, or as HTML."""
        began = self._pace.now()
        shown = self._masking(self.transcript)
        watched = self._live is not None and self._live.update(shown)
        if watched and self._watched and self._shown:
            self._pace.spent(began, 0)
            return
        self._watched = watched
        html = self._growing.html(shown)
        data: dict[str, Any] = {"text/html": html, "text/plain": ""}
        if watched or not self._shown or len(html) < _SMALL:
            data[MIME_TYPE] = running_json(shown, self._reasoning)
        self._display(data)
        self._pace.spent(began, len(html) * (2 if MIME_TYPE in data else 1))

    def forget(self) -> None:
        """Note that the cell's outputs were cleared: the next drawing is a new display."""
        self._shown = self._watched = False

    def close(self, transcript: Transcript, reason: FinishReason = "interrupted") -> None:
        """Write the final bundle of the whole ``transcript``; ``reason`` is why a turn without a TurnEnd ended."""
        self.transcript = transcript.finish(reason)
        if self._live is not None:
            self._live.update(self._masking(self.transcript))
        bundle = bundle_of(self.transcript, self._reasoning)
        self._display(bundle)
        if self._live is not None:
            self._live.finish(bundle)

    def add(self, remark: str) -> None:
        """Write a remark behind a finished turn, in the cell that shows it."""
        if not self._updates:
            return  # this front end cannot change a display
        notice = NoticeSegment(remark, "warning")
        self.transcript = replace(self.transcript, segments=(*self.transcript.segments, notice))
        bundle = bundle_of(self.transcript, self._reasoning)
        self._display(bundle)
        if self._live is not None:
            self._live.renew(bundle)

    def _display(self, data: dict[str, Any]) -> None:
        transient = {"display_id": self._display_id} if self._updates else {}
        self._publish(data, transient=transient, update=self._shown)
        self._shown = True


def bundle_of(transcript: Transcript, reasoning: ShowReasoning = "fold") -> dict[str, Any]:
    """Every form of a transcript, by MIME type, with secrets masked: what a saved notebook keeps."""
    transcript = masked(transcript)
    html = transcript_html(transcript, reasoning)
    return {
        "text/html": html,
        "text/markdown": transcript_markdown(transcript, reasoning),
        "text/plain": transcript_plain(transcript, reasoning),
        MIME_TYPE: pointing(transcript.to_json(), html),
    }
