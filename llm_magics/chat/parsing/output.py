"""What is known before an answer comes (:class:`Setting`), and what is given out of it (:class:`Output`)."""

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
    """How an answer is to be read: the template's syntax, the tools, and what the answer follows.

    ``calls_allowed``: whether anything may be a call. ``inline``: reasoning stays in the content. ``fenced``: the content is
    JSON, and a code fence around it is none of it. ``alternates``: further syntaxes that calls may be in.
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
        """What reasoning counts as in the segments."""
        return "text" if self.inline else "reasoning"


@dataclass(frozen=True, slots=True)
class Begun:
    """Where calls have begun in the content.

    ``syntax`` is what they are written in, ``left_out`` the tags before the first that the model wrote, ``checkpoint`` the
    place of that one in the reader, ``stray`` a tag in front of them that is none of the syntax. ``marker`` is the syntax's
    first tag, if they begin with it in a line of their own.
    """

    syntax: ToolSyntax
    left_out: str
    checkpoint: int
    stray: str = ""
    marker: str = ""


class TextSink(Protocol):
    """What plain content goes through on its way out; the place to look for near misses.

    A sink may hold text back, and may answer with other events than it was given.
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


class Output:
    """What is given out of an answer: content and reasoning, without the layout around markers; calls; notes.

    White space waits for what follows it: before a marker it is layout, before anything else it is text. ``said`` and
    ``thought`` say whether any content and any reasoning have come, ``thinking`` whether what comes next is in a thought.
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
        self._last = " "  # of what was said
        self._unproven: list[str] | None = None

    def say(self, text: str) -> None:
        """Give out content."""
        text = self._bare(text)
        if text and self._after_marker and not self.said:
            text = text.lstrip()
        if text:
            gap, self._gap = self._gap if self.said and not text[0].isspace() else "", ""
            self.said, self._after_marker = True, False
            self._send(gap + text)

    def think(self, text: str) -> None:
        """Give out reasoning; inline, as content."""
        text = self._bare(text)
        if not text:
            return
        self.thought = True
        if self._unproven is not None:
            self._unproven.append(text)
        else:
            self.calls.give(TextDelta(text) if self._inline else ReasoningDelta(text))

    def recall(self, reasoning: str, content: str) -> None:
        """Give out what the prompt goes on with, which belongs to the answer."""
        if reasoning and not self._inline:
            self.calls.give(ReasoningDelta(reasoning))
        self.say(content)

    def hold(self) -> None:
        """Keep a thought back that the prompt has opened. Only inline, where its marker belongs to the content if the model
        did think, and nothing but the thought's end shows that."""
        self._unproven = [] if self._inline else None

    def release(self, marker: str = "") -> None:
        """Give out a thought that was kept back; with its marker, if it was closed."""
        held, self._unproven = self._unproven, None
        if held:
            self.calls.give(TextDelta(marker + "".join(held)))

    def layout(self) -> None:
        """A marker comes: the white space before it is layout. Inline, markers are text, and so is the space."""
        if self._inline:
            self.flush()
        self.part("".join(self._space))
        self._space = []
        self._after_marker = True

    def part(self, space: str) -> None:
        """White space beside a marker in the middle of the content: it parts what stands before from what comes behind."""
        self._gap = max(self._gap, space, key=lambda text: (text.count("\n"), len(text)))

    def flush(self) -> None:
        """Give out white space that turned out to be text."""
        space, self._space = "".join(self._space), []
        if space and self.said and not self._after_marker:
            self._send(space)

    def interrupt(self) -> None:
        """Tell the sink that something other than content comes."""
        if self.sink is not None:
            self.calls.give(*self.sink.interrupt())

    @property
    def in_sentence(self) -> bool:
        """Whether what comes next stands inside a sentence: behind a blank, or right behind a quote or an opening bracket."""
        space = "".join(self._space)
        return self.said and (space.endswith(" ") if space else self._last in _QUOTING or category(self._last) in ("Ps", "Pi"))

    @property
    def behind_marker(self) -> bool:
        """Whether nothing was said since the last marker."""
        return self._after_marker

    @property
    def in_line(self) -> bool:
        """Whether content stands in the same line before what comes next."""
        return self.said and "\n" not in "".join(self._space) and self._last != "\n"

    def _bare(self, text: str) -> str:
        """Text with the white space that waited before it, without what now waits behind it."""
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
