"""Read a model's answer as it comes: text in, events out.

Theory of operation. The answer is read by a recursive-descent parser made of generators (:mod:`.reader`), suspended wherever
the text ends; so each character is looked at a bounded number of times, and whatever is certain is given out at once. There
are three phases (:mod:`.phases`): *content*, *reasoning* and *calls*. In the first two a hold-back trie (:mod:`.scanner`) looks
for the markers that can end them; all other text goes straight through. Where headers and not markers say what comes, the
answer is read block by block (:mod:`.blocks`).

When a marker opens a call, the call is attempted (:mod:`.callreader`): its start, its arguments and its end are given out as
they become certain. An attempt that fails turns into text again, from its first character, and the reason is kept as a note:
nothing is lost, and nothing is healed. A call that has begun and fails later gets no ToolCallEnd, so that nobody runs it.

A call inside reasoning is only a mention, unless the answer ends with it (some models forget to close their reasoning), or
begins with it: it is read on the side, and given out when the answer's end proves it.

Parsers pickle: what they keep is how they were made and what they were fed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from llm_magics.chat.encodings.syntax import ToolSyntax
from llm_magics.chat.scan.reader import Reader, Reading, Segment
from llm_magics.events import ModelEnd, ModelEvent, ToolCallDelta, ToolCallStart, assemble
from llm_magics.messages import FinishReason, Message, ToolCall

from .blocks import BlockReader
from .callevents import Calls
from .output import Output, Setting, TextSink
from .phases import PhaseReader


@dataclass(frozen=True, slots=True)
class CallsBegun:
    """Where the calls of an answer have begun.

    ``written`` is their text so far in ``syntax``, with the outer tags that the model left out. ``marker`` is the tag that says
    so, if they begin with their outermost in a line of their own; ``named`` says that a call's name has been read, too.
    """

    syntax: ToolSyntax
    written: str
    marker: str
    named: bool


class StreamParser:
    """Reads one answer. Feed it text in any pieces, then finish it; afterwards ``message`` is the answer.

    ``calls`` numbers the calls. ``sink``, if set before the first piece, sees all content on its way out.
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
    def syntax(self) -> ToolSyntax:
        """How calls are written."""
        return self.setting.syntax

    @property
    def sink(self) -> TextSink | None:
        """What content goes through on its way out."""
        return self._output.sink

    @sink.setter
    def sink(self, sink: TextSink | None) -> None:
        self._output.sink = sink

    def feed(self, text: str) -> list[ModelEvent]:
        """Take the next piece of the answer; give the events that are certain now."""
        if self.finish_reason is not None:
            raise ValueError("the parser is finished")
        self._fed.append(text)
        self._reader.feed(text)
        return self._advance()

    def finish(self, reason: FinishReason = "stop") -> list[ModelEvent]:
        """Take the end of the answer; the last event is its ModelEnd.

        Args:
            reason: "stop" where the model ended by itself; anything else means that it was cut off.
        """
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
        """Whether what comes next belongs to a thought."""
        return self._output.thinking

    @property
    def begun(self) -> CallsBegun | None:
        """The calls that have begun in the content."""
        begun = self._output.begun
        if begun is None:
            return None
        text = self._reader.consumed(begun.checkpoint) + self._reader.text[self._reader.at :]
        written = (begun.left_out + text.lstrip().removeprefix(begun.stray)).lstrip()
        return CallsBegun(begun.syntax, written, begun.marker, self._named)

    @property
    def notes(self) -> tuple[str, ...]:
        """Why things were decided as they were, e.g. why something is no call."""
        return tuple(self._output.notes)

    @property
    def segments(self) -> list[Segment]:
        """All text read so far, in order, each stretch with what it was taken for.

        Text and reasoning are as in the message, but for layout at their edges; the rest is calls, markers, or dropped.
        """
        return list(self._reader.segments)

    @property
    def unfinished(self) -> ToolCall | None:
        """The call that had begun when the answer was cut off, with the arguments so far."""
        begun = next((e for e in self._events if isinstance(e, ToolCallStart) and e.index == self.calls.open), None)
        if begun is None:
            return None
        pieces = [e.text for e in self._events if isinstance(e, ToolCallDelta) and e.index == begun.index]
        return ToolCall(begun.name, "".join(pieces), begun.id)

    def __getstate__(self) -> dict[str, Any]:
        return {"setting": self.setting, "sink": self.sink, "fed": "".join(self._fed), "reason": self.finish_reason}

    def __setstate__(self, state: dict[str, Any]) -> None:
        StreamParser.__init__(self, state["setting"], state["sink"])
        if state["fed"]:
            self.feed(state["fed"])
        if state["reason"] is not None:
            self.finish("stop" if state["reason"] == "tool_calls" else state["reason"])

    def _answer(self) -> Reading[None]:
        """Read the whole answer."""
        setting, output = self.setting, self._output
        output.recall(setting.prompt.reasoning_prefix, setting.prompt.content_prefix)
        if setting.syntax.blocks is not None:
            yield from BlockReader(setting, setting.syntax.blocks, self._reader, output).read()
        else:
            yield from PhaseReader(setting, self._reader, output).read()
        output.flush()

    def _advance(self) -> list[ModelEvent]:
        """Run the reading until it needs more text, and collect what it gave out."""
        next(self._running, None)
        return self._kept(self.calls.collect())

    def _kept(self, events: list[ModelEvent]) -> list[ModelEvent]:
        self._events += events
        for event in events:
            if isinstance(event, ToolCallStart) and not event.recovered:
                self._named = True
        return events
