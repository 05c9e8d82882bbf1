"""One answer as it comes from the engine: its events, tokens and text over all its generations, and why it ended."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import cast

from llm_magics.engine.closing import SOFT_LIMIT
from llm_magics.engine.values import Finished, Generation, Prefill, TokenLogprob, Tokens
from llm_magics.events import ModelEnd, ModelEvent, PromptProgress, assemble
from llm_magics.messages import Message, ToolCall

from .base import Request
from .meter import Meter

_OPTION = "--max-tokens (max_tokens in Python)"


@dataclass(slots=True)
class Answer:
    """``end`` is the guide's end, and ``done`` the engine's, of the first generation. ``n_tried`` are the tokens of trials, and
    ``seconds`` the time they took."""

    events: list[ModelEvent] = field(default_factory=list)
    ids: list[int] = field(default_factory=list)
    logprobs: list[TokenLogprob] = field(default_factory=list)
    text: str = ""
    n_tried: int = 0
    seconds: float = 0.0
    finished: Finished | None = None

    @property
    def done(self) -> Finished:
        assert self.finished is not None
        return self.finished

    @property
    def n_written(self) -> int:
        """The tokens of all generations."""
        return self.n_tried + (len(self.finished.ids) if self.finished is not None else 0)

    @property
    def end(self) -> ModelEnd:
        """The answer's end as far as it is known: without ids, usage and records."""
        told = next((event for event in self.events if isinstance(event, ModelEnd)), None)
        end = told or ModelEnd(Message("assistant"), self.done.reason)
        reason = "tool_calls" if end.vain and self.calls else end.finish_reason
        message = assemble(self.events, reason)
        return replace(end, message=message, finish_reason=reason, vain="" if message.tool_calls else end.vain)

    @property
    def calls(self) -> tuple[ToolCall, ...]:
        return assemble(self.events, "stop").tool_calls

    def follow(self, generation: Generation, meter: Meter, *, trial: bool = False) -> Generator[ModelEvent, None, None]:
        """Take a generation's events, and pass the model's on; a ``trial`` reads no new prompt."""
        with closing(generation):
            for event in generation:
                match event:
                    case Prefill(done, total, cached) if not trial:
                        meter.read(done, cached)
                        yield PromptProgress(done, total)
                    case Tokens(ids, _, events, probabilities):
                        self.ids += ids
                        self.logprobs += probabilities
                        meter.wrote(len(ids))
                        yield from self._take(events)
                    case Finished():
                        self.ids, self.text, self.finished = list(event.ids), event.text, event
                        yield from self._take(event.events)

    def _take(self, events: Sequence[object]) -> Generator[ModelEvent, None, None]:
        told = cast("Sequence[ModelEvent]", events)  # the guide's events are the model's
        self.events += told
        yield from (event for event in told if not isinstance(event, ModelEnd))

    def add(self, further: Answer, ids: Sequence[int], lead: str) -> None:
        """Take what a trial behind ``ids`` and ``lead`` has given."""
        done = further.finished
        if done is None:
            return
        self.n_tried += len(done.ids)
        self.seconds += done.prompt_seconds + done.decode_seconds
        notes = (*self.end.notes, *further.end.notes)
        self.events = [replace(event, notes=notes) if isinstance(event, ModelEnd) else event for event in self.events]
        if further.calls:
            self.events += (event for event in further.events if not isinstance(event, ModelEnd))
            self.text = f"{self.text if ids[: len(self.ids)] == self.ids else ''}{lead}{further.text}"
            self.ids = [*ids, *further.ids]


def why_ended(done: Finished, request: Request) -> str:
    """The words after "The answer was stopped"; empty if the model ended it."""
    match done.hurried:
        case "soft" if request.soft_limit is None:
            most = f"{SOFT_LIMIT} tokens, or three times the shortest valid answer"
            return f"early, so that its JSON is complete: without {_OPTION} it has {most}"
        case "soft":
            return f"early, so that its JSON is complete within {request.soft_limit:,} tokens; a larger {_OPTION} allows more"
        case "limit" if request.max_tokens is not None and request.max_tokens == request.soft_limit:
            return f"early, so that its JSON is complete within {request.max_tokens:,} tokens; a larger {_OPTION} allows more"
        case "limit":
            return "early, so that its JSON is complete within the turn's limit of tokens"
        case "context":
            more = "load the model with a larger context (ctx), or start a new thread"
            return f"early, so that its JSON is complete before the context of {done.n_ctx:,} tokens ends; {more}"
        case "repeats":
            return "early, because it repeated itself; its JSON was completed"
    return ""
