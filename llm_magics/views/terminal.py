"""A turn in a terminal: the answer line by line as it comes, tool calls as rows, a quiet last line."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..events import Event, Notice, ReasoningDelta, TextDelta, ToolAsk, ToolCallEnd, ToolEnd, ToolProgress
from ..messages import FinishReason
from ..transcript import Transcript
from .html import ShowReasoning
from .lines import call_line, state_line, status_line
from .markdown import printable
from .secrets import masked_text

if TYPE_CHECKING:
    from rich.console import Console

_LEVELS = {"info": "dim", "warning": "yellow", "error": "red"}


class TerminalView:
    """Prints the events of one turn with rich: text as the model wrote it, because lines once printed cannot be drawn again."""

    def __init__(self, console: Console | None = None, *, reasoning: ShowReasoning = "fold") -> None:
        from rich.console import Console

        self.transcript = Transcript()
        self._console = console or Console(highlight=False)
        self._reasoning = reasoning
        self._open = False

    def handle(self, event: Event) -> None:
        """Print what the event adds."""
        self.transcript = self.transcript.fold(event)
        match event:
            case TextDelta(text):
                self._write(text)
            case ReasoningDelta(text) if self._reasoning != "hide":
                self._write(text, "dim italic")
            case ToolProgress(text=text) if text:
                self._write(masked_text(text), "dim")
            case Notice(text, level):
                self._line(text, _LEVELS[level])
            case ToolCallEnd():
                self._line(masked_text(f"→ {call_line(self.transcript.tools[-1])}"), "cyan")
            case ToolAsk(shown=shown, reason=reason):
                self._line(masked_text(f"waits for approval {reason}\n{shown}"), "yellow")
            case ToolEnd(index=index, result=result):
                segment = next(s for s in reversed(self.transcript.tools) if s.index == index)
                self._line(f"  {state_line(segment)}", "dim" if segment.state == "done" else "red")
                self._line(masked_text(result.content), "dim")

    def close(self, transcript: Transcript, reason: FinishReason = "interrupted") -> None:
        """Print the last line; ``reason`` is why a turn without a TurnEnd ended."""
        self.transcript = transcript.finish(reason)
        self._line(status_line(self.transcript), "dim")

    def _write(self, text: str, style: str = "") -> None:
        self._console.print(printable(text), style=style or None, end="", markup=False, highlight=False, soft_wrap=True)
        self._open = not text.endswith("\n")

    def _line(self, text: str, style: str = "") -> None:
        if self._open:
            self._write("\n")
        if text:
            self._write(text + "\n", style)
