"""Read a model's answer as it comes: text in, events out.

Theory of operation. The answer is read by a recursive-descent parser made of generators (:mod:`.reader`), suspended wherever
the text ends; so each character is looked at a bounded number of times, and whatever is certain is given out at once. There
are three phases: *content*, *reasoning* and *calls*. In the first two a hold-back trie (:mod:`.scanner`) looks for the markers
that can end them; all other text goes straight through. When a marker opens a call, the call is attempted (:mod:`.callreader`):
its start, its arguments and its end are given out as they become certain. An attempt that fails turns into text again, from its
first character, and the reason is kept as a note: nothing is lost, and nothing is healed. A call that has begun and fails later
gets no ToolCallEnd, so that nobody runs it.

A call inside reasoning is only a mention, unless the answer ends with it (some models forget to close their reasoning): it is
read on the side, and given out when the answer's end proves it.

Parsers pickle: what they keep is how they were made and what they were fed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from ..events import ModelEnd, ModelEvent, ReasoningDelta, TextDelta, ToolCallDelta, ToolCallStart, assemble
from ..messages import FinishReason, JsonSchema, Message, ToolCall, ToolChoice, ToolSpec
from .blocks import BlockReader
from .callreader import CallReader, Calls
from .reader import Kind, Malformed, Reader, Reading, Segment, Truncated
from .scanner import Scanner
from .syntax import ReasoningSyntax, ToolSyntax, TurnSyntax
from .template import Prompt

_RETRY = 4096
_FENCE = "```"


class TextSink(Protocol):
    """What plain content goes through on its way out; the place to look for near misses.

    A sink may hold text back and may answer with other events than it was given; ``take_index`` numbers a new call.
    """

    def feed(self, text: str) -> list[ModelEvent]:
        """Take content that is certain to be no call in the template's syntax."""
        ...

    def interrupt(self) -> list[ModelEvent]:
        """Reasoning or a call comes next: let go of what is held back."""
        ...

    def finish(self, complete: bool) -> list[ModelEvent]:
        """The answer is over; ``complete`` says that the model ended it."""
        ...


class StreamParser:
    """Reads one answer. Feed it text in any pieces, then finish it; afterwards ``message`` is the answer.

    ``segments`` is all text that was fed, in order, each stretch with what it was taken for: text and reasoning (as in the
    message, but for layout at their edges), calls, markers, or dropped. ``unfinished`` is a call that was cut off.
    """

    def __init__(
        self,
        syntax: ToolSyntax,
        reasoning: ReasoningSyntax | None,
        turn: TurnSyntax,
        tools: tuple[ToolSpec, ...],
        prompt: Prompt,
        *,
        tool_choice: ToolChoice = "auto",
        parallel_tool_calls: bool = True,
        inline: bool = False,
        response_format: JsonSchema | None = None,
        alternates: tuple[ToolSyntax, ...] = (),
        sink: TextSink | None = None,
    ) -> None:
        self._made_with = (syntax, reasoning, turn, tools, prompt)
        self._options: dict[str, Any] = {
            "tool_choice": tool_choice,
            "parallel_tool_calls": parallel_tool_calls,
            "inline": inline,
            "response_format": response_format,
            "alternates": alternates,
            "sink": sink,
        }
        self.syntax, self.reasoning, self.turn, self.tools, self.prompt = self._made_with
        self.inline = inline
        self.fenced = response_format is not None
        self.alternates = alternates
        self.sink = sink
        self.reader = Reader()
        self.calls = Calls(prompt.text)
        self.calls_allowed = bool(tools) and tool_choice != "none"
        self.notes: list[str] = []
        self.events: list[ModelEvent] = []
        self.message = Message("assistant")
        self.finish_reason: FinishReason | None = None
        self._space: list[str] = []
        self.unproven: list[str] | None = None
        self._said_text = False
        self._thought = False
        self._begun = False
        self._fed: list[str] = []
        self._running: Reading[None] | None = None

    # --- the two calls from outside -----------------------------------------------------------------------------------------

    def feed(self, text: str) -> list[ModelEvent]:
        """Take the next piece of the answer; give the events that are certain now."""
        if self.finish_reason is not None:
            raise ValueError("the parser is finished")
        self._fed.append(text)
        self.reader.feed(text)
        return self._advance()

    def finish(self, reason: FinishReason = "stop") -> list[ModelEvent]:
        """Take the end of the answer; the last event is its ModelEnd.

        Args:
            reason: "stop" where the model ended by itself; anything else means that it was cut off.
        """
        self.reader.closed = True
        self.reader.complete = reason == "stop"
        events = self._advance()
        if self.sink is not None:
            events += self._kept(self.sink.finish(self.reader.complete))
        if reason == "stop" and any(self.message_calls()):
            reason = "tool_calls"
        self.finish_reason = reason
        self.message = assemble(self.events, reason)
        end = ModelEnd(self.message, reason, notes=tuple(self.notes))
        self.events.append(end)
        return [*events, end]

    def message_calls(self) -> tuple[ToolCall, ...]:
        """The calls that are complete so far."""
        return assemble(self.events).tool_calls

    @property
    def segments(self) -> list[Segment]:
        """All text consumed so far, in order, with what it was taken for."""
        return list(self.reader.segments)

    @property
    def unfinished(self) -> ToolCall | None:
        """The call that had begun and was not completed, with the arguments so far."""
        begun = next((e for e in self.events if isinstance(e, ToolCallStart) and e.index == self.calls.open), None)
        if begun is None:
            return None
        pieces = [e.text for e in self.events if isinstance(e, ToolCallDelta) and e.index == begun.index]
        return ToolCall(begun.name, "".join(pieces), begun.id)

    def __getstate__(self) -> dict[str, Any]:
        return {"made": self._made_with, "options": self._options, "fed": "".join(self._fed), "reason": self.finish_reason}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(*state["made"], **state["options"])  # type: ignore[misc]
        if state["fed"]:
            self.feed(state["fed"])
        if state["reason"] is not None:
            self.finish("stop" if state["reason"] == "tool_calls" else state["reason"])

    def _advance(self) -> list[ModelEvent]:
        """Run the reading until it needs more text, and collect what it gave out."""
        if self._running is None:
            self._running = self._answer()
        try:
            next(self._running)
        except StopIteration:
            pass
        return self._kept(self.calls.collect())

    def _kept(self, events: list[ModelEvent]) -> list[ModelEvent]:
        self.events += events
        return events

    # --- giving out ---------------------------------------------------------------------------------------------------------

    def say(self, text: str) -> None:
        """Give out content; white space waits for what follows, because before a marker it is layout."""
        kept = self._without_trailing_space(text)
        if not kept:
            return
        if not self._said_text and self._begun:
            kept = kept.lstrip()
        self._said_text = True
        self._say(kept)

    def _without_trailing_space(self, text: str) -> str:
        """Text with the white space that waited before it, and without what now waits behind it."""
        bare = text.rstrip()
        space = text[len(bare) :]
        if not bare:
            self._space.append(space)
            return ""
        kept = "".join([*self._space, bare])
        self._space = [space] if space else []
        return kept

    def _say(self, text: str) -> None:
        self.calls.give(*(self.sink.feed(text) if self.sink is not None else [TextDelta(text)]))

    def think(self, text: str) -> None:
        """Give out reasoning."""
        kept = self._without_trailing_space(text)
        if not kept:
            return
        if self.unproven is not None:
            self.unproven.append(kept)
            self._thought = True
        else:
            self.calls.give(TextDelta(kept) if self.inline else ReasoningDelta(kept))
            self._thought = True

    def prove(self, marker: str = "") -> None:
        """Give out a thought that the prompt opened and that was kept back; with its marker, if it was closed.

        Only inline: there the marker belongs to the content if the model did think, and nothing but the end shows that.
        """
        held, self.unproven = self.unproven, None
        if held:
            self.calls.give(TextDelta(marker + "".join(held)))

    def layout(self) -> None:
        """Forget white space that turned out to stand before a marker."""
        if self.inline:
            self.flush()
        self._space = []
        self._begun = True

    def flush(self) -> None:
        """Give out white space that turned out to be text."""
        space, self._space = "".join(self._space), []
        if space and self._said_text:
            self._say(space)

    def interrupt(self) -> None:
        """Tell the sink that something other than content comes."""
        if self.sink is not None:
            self.calls.give(*self.sink.interrupt())

    def note(self, text: str) -> None:
        """Keep a remark on a decision."""
        self.notes.append(text)

    # --- the answer ---------------------------------------------------------------------------------------------------------

    def _answer(self) -> Reading[None]:
        self._say_prefix()
        if self.syntax.blocks is not None:
            yield from BlockReader(self, self.syntax.blocks).read()
        else:
            yield from _Phases(self).read()
        if self.reader.complete or self._said_text:
            self.flush()

    def _say_prefix(self) -> None:
        """What is gone on with belongs to the answer."""
        prompt = self.prompt
        if prompt.reasoning_prefix and not self.inline:
            self.calls.give(ReasoningDelta(prompt.reasoning_prefix))
        if prompt.content_prefix:
            kept = prompt.content_prefix.rstrip()
            self._said_text = bool(kept)
            self._space = [prompt.content_prefix[len(kept) :]]
            if kept:
                self._say(kept)


class _Phases:
    """The phases of an answer in which markers, not headers, say what comes."""

    def __init__(self, parser: StreamParser) -> None:
        self._p = parser
        self._in = parser.reader
        self._readers = [
            CallReader(parser.reader, syntax, parser.tools, parser.calls) for syntax in (parser.syntax, *parser.alternates)
        ]
        self._calls = self._readers[0]
        self._openings = {tag: reader for reader in reversed(self._readers) for tag in reader.openings}
        self._content = self._content_scanner()
        self._reasoning = self._reasoning_scanner()

    def read(self) -> Reading[None]:
        """Read the whole answer."""
        opening = self._p.prompt.generation_prompt
        if self._opened(opening):
            self._say_opened(opening)
            yield from self._in_reasoning("")
        elif not self._p.prompt.continued and self._p.calls_allowed and not self._p.syntax.has_marker:
            yield from self._unmarked_call()
        while True:
            found = yield from self._in.until(self._content, "text", self._p.say)
            if found is None:
                return
            yield from self._marker(str(found.value), found.end)

    def _opened(self, opening: str) -> bool:
        """Whether the generation prompt has opened a thought and not closed it."""
        reasoning = self._p.reasoning
        if reasoning is None or not reasoning.start.strip():
            return False
        before, marker, behind = opening.rpartition(reasoning.start.strip())
        return bool(marker) and reasoning.end.strip() not in behind

    def _say_opened(self, opening: str) -> None:
        """What the generation prompt has written of the thought belongs to it."""
        parser, start = self._p, self._p.reasoning.start if self._p.reasoning else ""
        if parser.inline:
            parser.unproven = []
        if not parser.prompt.continued:
            begun = opening.rpartition(start.strip())[2].lstrip()
            if begun.strip():
                parser.think(begun)
                parser._thought = False

    # --- which markers count where ------------------------------------------------------------------------------------------

    def _content_scanner(self) -> Scanner[str]:
        """Markers in content, each with what it means. Earlier entries win where two are spelt alike."""
        parser, markers = self._p, dict[str, str]()
        if parser.calls_allowed:
            for tag in self._openings:
                markers.setdefault(tag, "call")
        if parser.reasoning is not None:
            start, end = parser.reasoning.start.strip(), parser.reasoning.end.strip()
            markers.setdefault(start, "think")
            lead = start.partition(">")[0] + ">"
            if lead != start and start.startswith(lead):
                markers.setdefault(lead + start, "think")  # models stutter: "<|channel><|channel>thought"
            markers.setdefault(end, "unthink")
        for text, meaning in ((parser.turn.content_start, "frame"), (parser.turn.content_end, "frame")):
            if text.strip():
                markers.setdefault(text.strip(), meaning)
        for end in (parser.turn.end, *parser.turn.extra_ends):
            for text in _whole_tag_prefixes(end.strip()):
                markers.setdefault(text, "end")
        for text in _reopenings(parser.turn.generation_prompt):
            markers.setdefault(text, "opener")
        if parser.fenced:
            markers.setdefault(_FENCE, "fence")
        return Scanner(markers)

    def _reasoning_scanner(self) -> Scanner[str]:
        parser, markers = self._p, dict[str, str]()
        if parser.reasoning is not None:
            markers[parser.reasoning.end.strip()] = "unthink"
        if parser.turn.content_start.strip():
            markers.setdefault(parser.turn.content_start.strip(), "frame")
        if parser.calls_allowed:
            for tag in self._openings:
                markers.setdefault(tag, "call")
        return Scanner(markers)

    def _marker(self, meaning: str, size: int) -> Reading[None]:
        """A marker stands next in content."""
        if meaning == "call":
            yield from self._call_in_content(size)
        elif meaning == "think":
            yield from self._thought_in_content(size)
        elif meaning == "fence":
            yield from self._fence()
        elif meaning in ("frame", "opener") and not (meaning == "opener" and self._p._said_text):
            self._p.layout()
            self._in.take(size, "marker")
        else:
            yield from self._stray(size)

    def _stray(self, size: int) -> Reading[None]:
        """A closing marker that closes nothing is dropped at the answer's edges; in between it is a mention."""
        text = self._in.text[self._in.at : self._in.at + size]
        if not self._p._said_text:
            self._p.layout()
            self._in.take(size, "marker")
            return
        ahead = size
        while (char := (yield from self._in.peek(ahead))).isspace():
            ahead += 1
        following = (yield from self._in.which(self._content, ahead)) if char else None
        if not char or (following is not None and following.value in ("unthink", "end", "think", "opener", "frame")):
            self._p.layout()
            self._in.take(size, "marker")
            return
        self._in.take(size, "text")
        self._p.say(text)

    def _fence(self) -> Reading[None]:
        """A code fence around content that must be JSON: its line is no content."""
        self._p.layout()
        self._in.take(len(_FENCE), "marker")
        while (char := (yield from self._in.peek())) and char.isalpha():
            self._in.take(1, "marker")
        yield from self._in.space()

    # --- reasoning ----------------------------------------------------------------------------------------------------------

    def _thought_in_content(self, size: int) -> Reading[None]:
        """A thought begins; but inside a sentence its marker is only mentioned."""
        if self._p._said_text and "".join(self._p._space).endswith(" "):
            self._p.say(self._in.take(size, "text"))
            return
        marker = self._in.text[self._in.at : self._in.at + size]
        self._p.layout()
        self._p.interrupt()
        self._in.take(size, "text" if self._p.inline else "marker")
        yield from self._in_reasoning(marker)

    def _in_reasoning(self, marker: str) -> Reading[None]:
        """Read a thought to its end; ``marker`` is what opened it, if that was in the answer."""
        parser = self._p
        kind: Kind = "text" if parser.inline else "reasoning"
        if parser.inline and marker:
            parser.think(marker)
            parser._thought = False
        elif not parser.prompt.reasoning_prefix or marker:
            yield from self._in.space()
        while True:
            found = yield from self._in.until(self._reasoning, kind, parser.think)
            if found is None:
                parser.prove()
                return
            if found.value == "call" and not parser._thought:
                parser.prove()
                return  # nothing was thought: the call is not mentioned in a sentence
            if found.value == "call":
                if (yield from self._call_in_reasoning(found.end)):
                    return
                continue
            break
        if parser.inline and found.value == "unthink" and (marker or parser._thought):
            parser.prove(parser.reasoning.start if parser.reasoning else "")
            parser.think(self._in.take(found.end, "text"))
            parser._said_text = True
            return
        parser.prove()
        parser.layout()
        self._in.take(found.end, "marker")
        yield from self._in.space()

    def _call_in_reasoning(self, size: int) -> Reading[bool]:
        """Read what looks like a call; it is one if and only if the answer ends with it."""
        parser, kind = self._p, _kind(self._p.inline)
        opening = self._in.text[self._in.at : self._in.at + size]
        checkpoint = self._in.checkpoint()
        counted = parser.calls.set_aside()
        real = False
        try:
            self._calls = self._openings[opening]
            yield from self._calls.section(self._calls.openings[opening])
            yield from self._in.space()
            following = yield from self._in.which(self._content)
            real = not (yield from self._in.peek()) or (following is not None and following.value == "end")
            real = real and (self._in.complete or following is not None)
        except Malformed:
            pass
        found = parser.calls.taken_back()
        if real:
            parser.prove()
            parser.layout()
            parser.interrupt()
            parser.calls.give(*found)
            parser.note("a tool call ended the reasoning, which was not closed")
            return True
        parser.calls.forget(counted)
        raw = self._in.consumed(checkpoint)
        self._in.give_back(checkpoint)
        self._in.take(size if len(raw) < _RETRY else len(raw), kind)
        parser.think(opening if len(raw) < _RETRY else raw)
        return False

    # --- calls --------------------------------------------------------------------------------------------------------------

    def _call_in_content(self, size: int) -> Reading[None]:
        """A call may begin: read it, or give its text back."""
        opening = self._in.text[self._in.at : self._in.at + size]
        outside = self._in.checkpoint()
        finished = self._p.calls.finished
        try:
            self._calls = self._openings[opening]
            yield from self._calls.section(self._calls.openings[opening])
            self._ended_calls()
        except Malformed as error:
            yield from self._failed(error, outside, size, finished)

    def _ended_calls(self) -> None:
        self._p.layout()
        self._p._said_text = True

    def _failed(self, error: Malformed, outside: int, size: int, finished: int) -> Reading[None]:
        """An attempt came to nothing: from the last finished call on, its text is text."""
        parser = self._p
        under_way = parser.calls.open is not None or self._calls.entered
        if isinstance(error, Truncated) and not self._in.complete and under_way:
            self._in.take(self._in.rest, "call")
            parser.note(f"a call was cut off: {error}")
            return
        began, parser.calls.open = parser.calls.open is not None, None
        again = self._calls.resume_at if parser.calls.finished > finished else outside
        raw = self._in.consumed(again)
        self._in.give_back(again)
        if raw.strip():
            parser.note(f"not a tool call: {error}")
        if began or len(raw) >= _RETRY:
            parser.say(self._in.take(len(raw), "text"))
        elif again == outside and not (yield from self._is_frame(size)):
            parser.say(self._in.take(size, "text"))

    def _is_frame(self, size: int) -> Reading[bool]:
        """A call's first tag may also be what ends a turn, e.g. GigaChat's separator of messages."""
        text = self._in.text[self._in.at : self._in.at + size]
        if text not in [t for e in (self._p.turn.end, *self._p.turn.extra_ends) for t in _whole_tag_prefixes(e.strip())]:
            return False
        yield from self._stray(size)
        return True

    def _unmarked_call(self) -> Reading[None]:
        """A call that nothing announces can only be the answer's beginning, with a tool's name in it."""
        outside = self._in.checkpoint()
        yield from self._in.space()
        if (yield from self._in.peek()) != "{":
            self._in.give_back(outside)
            return
        finished = self._p.calls.finished
        self._calls = self._readers[0]
        try:
            yield from self._calls.section()
            self._ended_calls()
        except Malformed as error:
            yield from self._failed(error, outside, 1, finished)


def _kind(inline: bool) -> Kind:
    return "text" if inline else "reasoning"


def _whole_tag_prefixes(end: str) -> list[str]:
    """A turn's end, and its beginnings that are whole tags: the last tag is often a token that never becomes text."""
    import re

    cuts = [m.end() for m in re.finditer(r"[>\]](?=[<\[\s]|$)", end)]
    return list(dict.fromkeys([end, *(end[:c] for c in cuts)])) if end else []


def _reopenings(generation_prompt: str) -> list[str]:
    """The generation prompt and its last tags: models repeat it at the start of an answer."""
    import re

    text = generation_prompt.strip()
    starts = [m.start() for m in re.finditer(r"[<\[]", text)]
    return [text[s:] for s in dict.fromkeys([0, *starts]) if len(text[s:]) >= 4 and re.search(r"[<\[]", text[s:])]


Emit = Callable[[str], None]
