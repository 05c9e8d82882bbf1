"""What a session remembers: turns, each derived from its events.

Theory of operation: a :class:`Turn` only *appends* events, and its messages are a pure function of them. So the history is
always valid: cut the list of events anywhere (an interrupt, a crash of a tool, a closed generator), and the fold still gives
every call exactly one result (law 5).
"""

from __future__ import annotations

from collections.abc import Iterable

from llm_magics.events import Event
from llm_magics.messages import FinishReason, Message, assistant
from llm_magics.segments import NoticeSegment
from llm_magics.tools.results import shorten
from llm_magics.transcript import Transcript

from .settings import TurnSettings

_CLOSING = {
    "interrupted": "[interrupted]",
    "length": "[stopped: a limit of the turn was reached]",
    "error": "[stopped: an error ended the turn]",
    "tool_calls": "[stopped before the results were answered]",
}
_MOST_SAID = 500  # characters of one result in a remark


class Turn:
    """One turn of a conversation, from its first event on.

    Args:
        id: name of the turn, e.g. its cell's id.
        transcript: the saved turn, if it is read back from a notebook.
        settings: the turn's settings; None for a turn read back.
    """

    def __init__(self, id: str, transcript: Transcript | None = None, settings: TurnSettings | None = None) -> None:
        self.id = id
        self.settings = settings
        # One tuple, replaced as a whole: an interrupt between two assignments would count an event twice or lose one.
        self._state: tuple[Transcript, list[Event]] = (transcript or Transcript(turn=id), [])

    def record(self, event: Event) -> None:
        self._state[1].append(event)

    @property
    def trace(self) -> Transcript:
        """The turn so far, as a value; its state is "running" until it ends."""
        done, fresh = self._state
        taken = list(fresh)
        for event in taken:
            done = done.fold(event)
        self._state = (done, fresh[len(taken) :])
        return done

    @property
    def over(self) -> bool:
        return self.trace.state != "running"

    def cut(self) -> None:
        """Mark the turn as interrupted, unless it has ended by itself."""
        self._state = (self.trace.finish("interrupted"), [])

    @property
    def messages(self) -> tuple[Message, ...]:
        """The turn's messages, always valid; empty as long as the model has said nothing.

        If the turn stopped after a tool result, a remark in brackets stands for the answer: many templates demand that user and
        assistant alternate, and the model should know why the answer is missing.
        """
        trace = self.trace.finish("interrupted")
        messages = trace.messages()
        if len(messages) < 2:
            return ()
        *earlier, last = messages  # an empty answer after which the model was asked again is left out
        messages = (*(m for m in earlier if m.role != "assistant" or m.text or m.reasoning or m.tool_calls), last)
        if messages[-1].role == "assistant":
            return messages
        reason: FinishReason = "interrupted" if trace.state == "running" else trace.state
        remark = next((s.text for s in reversed(trace.segments) if isinstance(s, NoticeSegment) and s.level == "error"), "")
        closing = f"[stopped: {remark}]" if remark else _no_words(trace) or _CLOSING.get(reason, _CLOSING["tool_calls"])
        return (*messages, assistant(closing))


def _no_words(trace: Transcript) -> str:
    """The plain statement that the model ended with calls, with the results at hand; empty for other ends."""
    results = [f"{tool.name}: {shorten(tool.result or '', _MOST_SAID)}" for tool in trace.tools if tool.state == "done"]
    return f"[no answer in words; the results are: {'; '.join(results)}]" if trace.state == "tool_calls" and results else ""


def messages_of(turns: Iterable[Turn]) -> tuple[Message, ...]:
    return tuple(message for turn in turns for message in turn.messages)
