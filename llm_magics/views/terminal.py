"""A turn in a terminal: the answer as rich text, tool calls as rows, a quiet last line.

A terminal cannot redraw what has scrolled away. So a block of markdown is drawn once it is complete; while it is being written
its last lines stand below as the model writes them. What is no terminal, a file or a pipe, gets the plain text.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..events import Event, Notice, ReasoningDelta, TextDelta, ToolAsk, ToolCallEnd, ToolEnd, ToolProgress
from ..messages import FinishReason
from ..transcript import Transcript
from .html import ShowReasoning
from .lines import call_line, state_line, status_line
from .markdown import parse, printable, settled
from .remark import markdown_markdown
from .secrets import masked_segment, masked_text

if TYPE_CHECKING:
    from rich.console import Console
    from rich.live import Live

_LEVELS = {"info": "dim", "warning": "yellow", "error": "red"}
_TAIL = 8  # lines of an unfinished block


class Prose:
    """One text that grows in a terminal: its finished blocks drawn, the end of the unfinished one below them."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._rest = ""
        self._live: Live | None = None

    def add(self, text: str) -> None:
        self._rest += printable(text)
        if "\n" in text:
            _, n_characters = settled(parse(self._rest), self._rest)
            if n_characters:
                self._draw(self._rest[:n_characters])
                self._rest = self._rest[n_characters:]
        self._show_tail()

    def end(self) -> None:
        """Draw what is left; nothing follows it."""
        self._draw(self._rest)
        self._rest = ""

    def _draw(self, markdown: str) -> None:
        from rich.markdown import Markdown

        if self._live is not None:
            self._live.stop()
            self._live = None
        if markdown.strip():
            # Written anew, so that HTML is text; and with no hyperlinks, which would hide where they lead.
            self._console.print(Markdown(markdown_markdown(markdown), code_theme="ansi_dark", hyperlinks=False))
            self._console.print()

    def _show_tail(self) -> None:
        from rich.live import Live
        from rich.text import Text

        tail = Text("\n".join(self._rest.split("\n")[-_TAIL:]), style="dim")
        if self._live is None:
            self._live = Live(
                tail, console=self._console, transient=True, refresh_per_second=12, redirect_stdout=False, redirect_stderr=False
            )
            self._live.start()
        self._live.update(tail)


class TerminalView:
    """Prints the events of one turn with rich."""

    def __init__(self, console: Console | None = None, *, reasoning: ShowReasoning = "fold") -> None:
        from rich.console import Console

        self.transcript = Transcript()
        self._console = console or Console(highlight=False)
        self._reasoning = reasoning
        self._open = False
        self._prose = Prose(self._console) if self._console.is_terminal else None

    def handle(self, event: Event) -> None:
        """Print what the event adds."""
        self.transcript = self.transcript.fold(event)
        if self._prose is not None and not isinstance(event, TextDelta):
            self._prose.end()
        match event:
            case TextDelta(text) if self._prose is not None:
                self._line("")
                self._prose.add(text)
            case TextDelta(text):
                self._write(text)
            case ReasoningDelta(text) if self._reasoning != "hide":
                self._write(text, "dim italic")
            case ToolProgress(text=text) if text:
                self._write(masked_text(text), "dim")
            case Notice(text, level):
                self._line(text, _LEVELS[level])
            case ToolCallEnd():
                self._line(f"→ {call_line(masked_segment(self.transcript.tools[-1]))}", "cyan")
            case ToolAsk():
                self._line("waits for approval", "yellow")  # whoever asks shows what would run, as it is
            case ToolEnd(index=index, result=result):
                segment = next(s for s in reversed(self.transcript.tools) if s.index == index)
                self._line(f"  {state_line(segment)}", "dim" if segment.state == "done" else "red")
                self._line(masked_text(result.content), "dim")

    def close(self, transcript: Transcript, reason: FinishReason = "interrupted") -> None:
        """Print the last line; ``reason`` is why a turn without a TurnEnd ended."""
        self.transcript = transcript.finish(reason)
        if self._prose is not None:
            self._prose.end()
        self._line(status_line(self.transcript), "dim")

    def _write(self, text: str, style: str = "") -> None:
        self._console.print(printable(text), style=style or None, end="", markup=False, highlight=False, soft_wrap=True)
        self._open = not text.endswith("\n")

    def _line(self, text: str, style: str = "") -> None:
        if self._open:
            self._write("\n")
        if text:
            self._write(text + "\n", style)
