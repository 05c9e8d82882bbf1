"""The facts before an answer (:class:`Setting`), and what is given out of it (:class:`Output`)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol
from unicodedata import category

from llm_magics.chat.analysis.reasoning import ReasoningSyntax
from llm_magics.chat.encodings.syntax import ToolSyntax
from llm_magics.chat.scan.reader import Kind
from llm_magics.chat.syntax.syntax import TurnSyntax
from llm_magics.chat.template.template import Prompt
from llm_magics.events import ModelEvent, ReasoningDelta, TextDelta
from llm_magics.messages import ToolSpec

from .callevents import Calls

_QUOTING = frozenset("`'\"")


@dataclass(frozen=True, slots=True)
class Setting:
    """How to read an answer: the template's syntax, the tools, and the prompt before it.

    ``inline``: reasoning stays in the content. ``fenced``: the content is JSON, without the code fence around it.
    ``alternates``: further syntaxes of calls.
    """

    syntax: ToolSyntax
    reasoning: ReasoningSyntax
    turn: TurnSyntax
    tools: tuple[ToolSpec, ...]
    prompt: Prompt
    calls_allowed: bool = True
    inline: bool = False
    fenced: bool = False
    alternates: tuple[ToolSyntax, ...] = ()

    @property
    def thought(self) -> Kind:
        return "text" if self.inline else "reasoning"


@dataclass(frozen=True, slots=True)
class Begun:
    """Where calls have begun in the content.

    ``left_out``: the syntax's tags before the first one that the model wrote. ``checkpoint``: the place of that one in the
    reader. ``stray``: a tag before the calls that is not the syntax's. ``marker``: the syntax's first tag, if the calls begin
    with it on their own line.
    """

    syntax: ToolSyntax
    left_out: str
    checkpoint: int
    stray: str = ""
    marker: str = ""


class TextSink(Protocol):
    """Plain content goes through it on its way out; it looks for near misses, may hold text back, and may return calls.

    ``feed`` takes content that is not a call in the template's syntax. ``interrupt``: reasoning or a call comes next, so held
    text must go. ``finish``: the answer is over; ``complete`` if the model ended it.
    """

    def feed(self, text: str) -> list[ModelEvent]: ...

    def interrupt(self) -> list[ModelEvent]: ...

    def finish(self, complete: bool) -> list[ModelEvent]: ...


class Output:
    """Gives out an answer: content and reasoning, without the layout around markers; calls; notes.

    White space waits for the next text: before a marker it is layout, before anything else it is text. ``said``, ``thought``:
    whether content and reasoning have come. ``thinking``: whether the next text is in a thought.
    """

    def __init__(self, calls: Calls, *, inline: bool, thinking: bool, sink: TextSink | None) -> None:
        self.calls = calls
        self.sink = sink
        self.notes: list[str] = []
        self.begun: Begun | None = None
        self.said = False
        self.thought = False
        self.thinking = thinking
        self._inline = inline
        self._space: list[str] = []
        self._gap = ""
        self._after_marker = False
        self._last = " "  # character of the content
        self._unproven: list[str] | None = None

    def say(self, text: str) -> None:
        text = self._bare(text)
        if text and self._after_marker and not self.said:
            text = text.lstrip()
        if text:
            gap, self._gap = self._gap if self.said and not text[0].isspace() else "", ""
            self.said, self._after_marker = True, False
            self._send(gap + text)

    def think(self, text: str) -> None:
        """Give out reasoning; if inline, as content."""
        text = self._bare(text)
        if not text:
            return
        self.thought = True
        if self._unproven is not None:
            self._unproven.append(text)
        else:
            self.calls.give(TextDelta(text) if self._inline else ReasoningDelta(text))

    def recall(self, reasoning: str, content: str) -> None:
        """Give out the beginning of the answer that the prompt holds."""
        if reasoning and not self._inline:
            self.calls.give(ReasoningDelta(reasoning))
        self.say(content)

    def hold(self) -> None:
        """If inline, keep back a thought that the prompt has opened: only its end proves that its marker is content."""
        self._unproven = [] if self._inline else None

    def release(self, marker: str = "") -> None:
        """Give out a thought that was kept back, with its marker if it was closed."""
        held, self._unproven = self._unproven, None
        if held:
            self.calls.give(TextDelta(marker + "".join(held)))

    def layout(self) -> None:
        """A marker comes: the white space before it is layout. If inline, both are text."""
        if self._inline:
            self.flush()
        self.part("".join(self._space))
        self._space = []
        self._after_marker = True

    def part(self, space: str) -> None:
        """Keep the white space beside a marker, to separate the content before it from the content after it."""
        self._gap = max(self._gap, space, key=lambda text: (text.count("\n"), len(text)))

    def flush(self) -> None:
        space, self._space = "".join(self._space), []
        if space and self.said and not self._after_marker:
            self._send(space)

    def interrupt(self) -> None:
        if self.sink is not None:
            self.calls.give(*self.sink.interrupt())

    @property
    def in_sentence(self) -> bool:
        """Whether the next text is inside a sentence: after a blank, a quote or an opening bracket."""
        space = "".join(self._space)
        return self.said and (space.endswith(" ") if space else self._last in _QUOTING or category(self._last) in ("Ps", "Pi"))

    @property
    def behind_marker(self) -> bool:
        return self._after_marker

    @property
    def in_line(self) -> bool:
        """Whether content stands before the next text on the same line."""
        return self.said and "\n" not in "".join(self._space) and self._last != "\n"

    def _bare(self, text: str) -> str:
        """Text with the white space that waited before it, without its own at the end, which now waits."""
        bare = text.rstrip()
        space = text[len(bare) :]
        if not bare:
            self._space.append(space)
            return ""
        waited, self._space = self._space, [space] if space else []
        return "".join([*waited, bare])

    def _send(self, text: str) -> None:
        self._last = text[-1:]
        self.calls.give(*(self.sink.feed(text) if self.sink is not None else [TextDelta(text)]))
