"""Read a model's answer while it is written: text in, events out.

Theory of operation. A recursive-descent parser made of generators (:mod:`llm_magics.chat.scan.reader`) reads the answer. It is
suspended when the text ends, so each character is looked at a bounded number of times, and certain text is given out at once.
There are three phases (:mod:`.phases`): *content*, *reasoning* and *calls*. In the first two a hold-back trie
(:mod:`llm_magics.chat.scan.scanner`) looks for the markers that can end them; all other text goes straight through. If a
template uses headers instead of markers, the answer is read block by block (:mod:`.blocks`).

When a marker opens a call, the call is attempted (:mod:`.call`): its start, its arguments and its end are given out as they
become certain. A failed attempt becomes text again, from its first character, with the reason in a note: nothing is lost, and
nothing is repaired. A call that fails after its start gets no ToolCallEnd, so it never runs.

A call inside reasoning is a mention, unless the answer ends with it (some models forget to close their reasoning) or begins
with it: it is set aside, and given out when the answer's end proves it.

Parsers pickle as their setting and their text.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from llm_magics.chat.encodings.syntax import ToolSyntax
from llm_magics.chat.scan.reader import Reader, Reading, Segment
from llm_magics.events import ModelEnd, ModelEvent, ToolCallStart, assemble
from llm_magics.messages import FinishReason, Message

from .blocks import BlockReader
from .callevents import Calls
from .output import Output, Setting, TextSink
from .phases import PhaseReader


@dataclass(frozen=True, slots=True)
class CallsBegun:
    """Where the calls of an answer have begun.

    ``written``: their text so far in ``syntax``, with the outer tags that the model left out. ``marker``: their outermost tag,
    if they begin with it on their own line. ``named``: a call's name has been read, too.
    """

    syntax: ToolSyntax
    written: str
    marker: str
    named: bool


class StreamParser:
    """Reads one answer. Feed it text in any pieces, then finish it; afterwards ``message`` is the answer.

    All content goes through ``sink``, if it is set before the first piece.
    """

    def __init__(self, setting: Setting, sink: TextSink | None = None) -> None:
        self.setting = setting
        self.calls = Calls(setting.prompt.text)
        self.message = Message("assistant")
        self.finish_reason: FinishReason | None = None
        opened = setting.reasoning.begun(setting.prompt.generation_prompt) is not None
        self._output = Output(self.calls, inline=setting.inline, thinking=opened, sink=sink)
        self._reader = Reader()
        self._running = self._answer()
        self._events: list[ModelEvent] = []
        self._fed: list[str] = []
        self._named = False  # a call in the template's own syntax has a name

    @property
    def sink(self) -> TextSink | None:
        return self._output.sink

    @sink.setter
    def sink(self, sink: TextSink | None) -> None:
        self._output.sink = sink

    def feed(self, text: str) -> list[ModelEvent]:
        """Take the next piece of the answer; return the events that are certain now."""
        if self.finish_reason is not None:
            raise ValueError("the parser is finished")
        self._fed.append(text)
        self._reader.feed(text)
        return self._advance()

    def finish(self, reason: FinishReason = "stop") -> list[ModelEvent]:
        """Take the answer's end, by "stop" if the model ended by itself, else cut off; the last event is its ModelEnd."""
        self._reader.closed = True
        self._reader.complete = reason == "stop"
        events = self._advance()
        if self.sink is not None:
            events += self._kept(self.sink.finish(self._reader.complete))
        if reason == "stop" and assemble(self._events).tool_calls:
            reason = "tool_calls"
        self.finish_reason = reason
        self.message = assemble(self._events, reason)
        return [*events, ModelEnd(self.message, reason, notes=self.notes)]

    @property
    def thinking(self) -> bool:
        return self._output.thinking

    @property
    def begun(self) -> CallsBegun | None:
        begun = self._output.begun
        if begun is None:
            return None
        text = self._reader.consumed(begun.checkpoint) + self._reader.text[self._reader.at :]
        written = (begun.left_out + text.lstrip().removeprefix(begun.stray)).lstrip()
        return CallsBegun(begun.syntax, written, begun.marker, self._named)

    @property
    def notes(self) -> tuple[str, ...]:
        """The reasons of decisions, e.g. why a text is not a call."""
        return tuple(self._output.notes)

    @property
    def segments(self) -> list[Segment]:
        """All text read so far, in order, each stretch with its kind. Text and reasoning keep the layout at their edges."""
        return list(self._reader.segments)

    def __getstate__(self) -> dict[str, Any]:
        return {"setting": self.setting, "sink": self.sink, "fed": "".join(self._fed), "reason": self.finish_reason}

    def __setstate__(self, state: dict[str, Any]) -> None:
        StreamParser.__init__(self, state["setting"], state["sink"])
        if state["fed"]:
            self.feed(state["fed"])
        if state["reason"] is not None:
            self.finish("stop" if state["reason"] == "tool_calls" else state["reason"])

    def _answer(self) -> Reading[None]:
        setting, output = self.setting, self._output
        output.recall(setting.prompt.reasoning_prefix, setting.prompt.content_prefix)
        if setting.syntax.blocks is not None:
            yield from BlockReader(setting, setting.syntax.blocks, self._reader, output).read()
        else:
            yield from PhaseReader(setting, self._reader, output).read()
        output.flush()

    def _advance(self) -> list[ModelEvent]:
        """Run the reading until it needs more text, and collect its events."""
        next(self._running, None)
        return self._kept(self.calls.collect())

    def _kept(self, events: list[ModelEvent]) -> list[ModelEvent]:
        self._events += events
        for event in events:
            if isinstance(event, ToolCallStart) and not event.recovered:
                self._named = True
        return events
