"""A turn in a terminal: the answer as rich text, tool calls as rows, a quiet last line.

A terminal cannot redraw what has scrolled away, so a block of markdown is drawn once it is complete; until then its last lines
are shown below. A call is printed when it runs or needs approval; calls that do not run are printed together before the next
output. A file or a pipe gets plain text.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from llm_magics import events
from llm_magics.messages import FinishReason
from llm_magics.segments import ToolSegment
from llm_magics.transcript import Transcript
from llm_magics.views.folding import NotRun, did_not_run, folded
from llm_magics.views.html import ShowReasoning
from llm_magics.views.markup.markdown import parse, printable, settled
from llm_magics.views.markup.remark import markdown_markdown
from llm_magics.views.secrets.secrets import masked_segment, masked_text

from .lines import call_line, state_line, status_line

if TYPE_CHECKING:
    from rich.console import Console
    from rich.live import Live

_LEVELS = {"info": "dim", "warning": "yellow", "error": "red"}
_SILENT = (events.ModelEnd, events.PromptProgress, events.ToolCallStart, events.ToolCallDelta, events.ToolCallEnd)
_TAIL = 8  # lines of an unfinished block


class Prose:
    """One growing text: its finished blocks, and below them the end of the unfinished one."""

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
        self._draw(self._rest)
        self._rest = ""

    def _draw(self, markdown: str) -> None:
        from rich.markdown import Markdown

        if self._live is not None:
            self._live.stop()
            self._live = None
        if markdown.strip():
            # canonical markdown, so that HTML is text; no hyperlinks, which would hide their targets
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
    def __init__(self, console: Console | None = None, *, reasoning: ShowReasoning = "fold") -> None:
        from rich.console import Console

        self.transcript = Transcript()
        self._console = console or Console(highlight=False)
        self._reasoning = reasoning
        self._open = False
        self._unrun = False  # some calls that did not run are not printed yet
        self._blank = ""  # blank text behind them
        self._told: set[tuple[int, int]] = set()  # step and index of the calls that are printed
        self._prose = Prose(self._console) if self._console.is_terminal else None

    def handle(self, trace: Transcript, event: events.Event) -> None:
        """Print what ``event`` adds to a turn; ``trace`` is the turn after the event."""
        self.transcript = trace
        if self._prose is not None and not isinstance(event, events.TextDelta):
            self._prose.end()
        if self._unrun and not isinstance(event, (*_SILENT, events.ToolEnd)):
            if isinstance(event, events.TextDelta) and not event.text.strip():
                self._blank += event.text
                return
            self._tell_unrun()
        match event:
            case events.TextDelta(text) if self._prose is not None:
                self._line("")
                self._prose.add(text)
            case events.TextDelta(text):
                self._write(text)
            case events.ReasoningDelta(text) if self._reasoning != "hide":
                self._write(text, "dim italic")
            case events.ToolProgress(text=text) if text:
                self._write(masked_text(text), "dim")
            case events.Notice(text, level):
                self._line(text, _LEVELS[level])
            case events.ToolStart(index=index):
                self._call(index)
            case events.ToolAsk(index=index):
                self._call(index)
                self._line("waits for approval", "yellow")  # the asker shows what would run, unmasked
            case events.ToolEnd(index=index) if did_not_run(self._segment(index)):
                self._unrun = True
            case events.ToolEnd(index=index, result=result):
                self._tell_unrun()
                segment = self._call(index)
                style = {"done": "dim", "refused": "yellow"}.get(segment.state, "red")
                self._line(f"  {state_line(segment)}", style)
                self._line(masked_text(result.content), "dim")

    def close(self, transcript: Transcript, reason: FinishReason = "interrupted") -> None:
        """Print the last line; ``reason`` is why a turn without a TurnEnd ended."""
        self.transcript = transcript.finish(reason)
        if self._prose is not None:
            self._prose.end()
        self._tell_unrun()
        self._line(status_line(self.transcript), "dim")

    def _segment(self, index: int) -> ToolSegment:
        return next(segment for segment in reversed(self.transcript.tools) if segment.index == index)

    def _call(self, index: int) -> ToolSegment:
        segment = self._segment(index)
        if (segment.step, index) not in self._told:
            self._told.add((segment.step, index))
            self._line(f"→ {call_line(masked_segment(segment))}", "cyan")
        return segment

    def _tell_unrun(self) -> None:
        if self._unrun:
            self._unrun = False
            unrun = [item for item in folded(self.transcript.segments) if isinstance(item, NotRun)]
            self._line(f"  {unrun[-1].line}", "dim")
            blank, self._blank = self._blank, ""
            if blank:
                self._write(blank)

    def _write(self, text: str, style: str = "") -> None:
        self._console.print(printable(text), style=style or None, end="", markup=False, highlight=False, soft_wrap=True)
        self._open = not text.endswith("\n")

    def _line(self, text: str, style: str = "") -> None:
        if self._open:
            self._write("\n")
        if text:
            self._write(text + "\n", style)
