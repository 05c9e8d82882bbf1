"""What a session remembers: turns, each derived from the events that made it.

Theory of operation: a :class:`Turn` only ever *appends* the events that flowed, and its messages are a pure function of them.
So there is no moment at which the history is invalid and nothing to repair afterwards: cut the list of events anywhere (an
interrupt, a crash of a tool, a closed generator) and the fold still gives every call exactly one result (law 5).
"""

from __future__ import annotations

from collections.abc import Iterable

from llm_magics.events import Event
from llm_magics.messages import FinishReason, Message, assistant
from llm_magics.segments import NoticeSegment
from llm_magics.transcript import Transcript

from .settings import TurnSettings

_CLOSING = {
    "interrupted": "[interrupted]",
    "length": "[stopped: a limit of the turn was reached]",
    "error": "[stopped: an error ended the turn]",
    "tool_calls": "[stopped before the results were answered]",
}


class Turn:
    """One turn of a conversation, from its first event on.

    Args:
        id: name of the turn, e.g. that of its cell.
        transcript: what is there already, for a turn read back from a saved notebook.
        settings: what it was asked with; None for a turn read back.
    """

    def __init__(self, id: str, transcript: Transcript | None = None, settings: TurnSettings | None = None) -> None:
        self.id = id
        self.settings = settings
        # One tuple, replaced as a whole: an interrupt between two assignments must not count an event twice or lose one.
        self._state: tuple[Transcript, list[Event]] = (transcript or Transcript(turn=id), [])

    def record(self, event: Event) -> None:
        self._state[1].append(event)

    @property
    def trace(self) -> Transcript:
        """The turn as it stands, as a value; running turns are marked "running"."""
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
        """Mark a turn that nobody will continue; one that ended by itself stays as it is."""
        self._state = (self.trace.finish("interrupted"), [])

    @property
    def messages(self) -> tuple[Message, ...]:
        """The turn's messages, valid at any moment; empty while (or if) the model said nothing at all.

        Where the turn stopped behind a tool result, a bracketed remark stands in for the answer: many templates demand that
        user and assistant alternate, and the model should know why there is none.
        """
        trace = self.trace.finish("interrupted")
        messages = trace.messages()
        if len(messages) < 2:
            return ()
        # Where the model said nothing and was asked again, nothing was said.
        *earlier, last = messages
        messages = (*(m for m in earlier if m.role != "assistant" or m.text or m.reasoning or m.tool_calls), last)
        if messages[-1].role == "assistant":
            return messages
        reason: FinishReason = "interrupted" if trace.state == "running" else trace.state
        remark = next((s.text for s in reversed(trace.segments) if isinstance(s, NoticeSegment) and s.level == "error"), "")
        closing = f"[stopped: {remark}]" if remark else _CLOSING.get(reason, _CLOSING["tool_calls"])
        return (*messages, assistant(closing))


def messages_of(turns: Iterable[Turn]) -> tuple[Message, ...]:
    return tuple(message for turn in turns for message in turn.messages)
