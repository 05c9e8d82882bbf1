"""A model that answers from a script: for tests, documentation and labs on machines without a model.

>>> model = ScriptedModel(["Hello!", ToolCall("weather", '{"city": "Oslo"}'), "It is cold."])

Each request takes the next step. A piece of about four characters counts as a token, so that usage, speed and prefix reuse look
like a real model's. Answers have no token ids, because none were sampled.
"""

from __future__ import annotations

import hashlib
import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeAlias, cast

from llm_magics.canonical import hash_of
from llm_magics.errors import ContextFullError, EngineError, ModelError
from llm_magics.events import (
    ModelEnd,
    ModelEvent,
    PromptProgress,
    ReasoningDelta,
    TextDelta,
    ToolCallDelta,
    ToolCallEnd,
    ToolCallStart,
    Usage,
    assemble,
)
from llm_magics.messages import FinishReason, Message, ToolCall

from .base import Mappable, PromptPart, Request

if TYPE_CHECKING:
    from llm_magics.chat.format import ChatFormat
    from llm_magics.chat.template.template import Prompt

Step: TypeAlias = "str | Message | ToolCall | Iterable[ToolCall] | BaseException | Callable[[Request], Step]"

_PIECE = re.compile(r"\n|[^\S\n]*\S{1,4}|[^\S\n]+")


class ScriptedModel(Mappable):
    """Answer each request with the next step of a script.

    Args:
        steps: the answers in order: one step or any iterable of steps, also an endless one. A step is text, a Message (its
            reasoning, text and calls), a ToolCall or several, an exception to raise, or a function from the Request to a step.
        template: a chat template's source or a ChatFormat; text is then what the model writes, with markers, to be parsed.
        tokens_per_second: the pace; 0 is as fast as possible.
        context_size: in tokens, 0 for no limit. A longer answer ends with finish reason "length"; a longer prompt raises
            ContextFullError and takes no step.
        parallel: how many requests the model claims to answer at once. Requests get the steps in order of arrival.

    ``requests`` holds every Request received. After the last step, a request raises ModelError.
    """

    def __init__(
        self, steps: Step | Iterable[Step], *, template: str | ChatFormat | None = None, name: str = "scripted",
        tokens_per_second: float = 0.0, context_size: int = 0, parallel: int = 1,
    ) -> None:  # fmt: skip
        several = isinstance(steps, Iterable) and not isinstance(steps, str)
        self._steps: Iterator[Any] = iter(cast("Iterable[Any]", steps) if several else (steps,))
        self._format = _chat_format(template)
        self._name = name
        self._pause = 1.0 / tokens_per_second if tokens_per_second > 0 else 0.0
        self._context_size = context_size
        self._parallel = parallel
        self._cached: dict[str, list[str]] = {}
        self._closed = False
        self._lock = threading.Lock()
        self.requests: list[Request] = []

    @property
    def name(self) -> str:
        return self._name

    @property
    def context_size(self) -> int:
        return self._context_size

    @property
    def parallel(self) -> int:
        return self._parallel

    def close(self) -> None:
        self._closed = True

    def preview(self, request: Request) -> tuple[PromptPart, ...]:
        """Split the prompt by message, or as the template does; equal pieces get equal made-up ids."""
        if self._format is not None:
            runs = [(str(origin), text) for origin, text in self._rendered(request, self._format).parts]
        else:
            runs = [(message.role, _written(message)) for message in request.messages]
        return tuple(PromptPart(origin, text, tuple(map(_made_up_id, _PIECE.findall(text)))) for origin, text in runs)

    def stream(self, request: Request) -> Iterator[ModelEvent]:
        """Play the next step."""
        if self._closed:
            raise EngineError(f"The model {self._name!r} is closed.", "Load it again.")
        with self._lock:
            self.requests.append(request)
            usage = self._read_prompt(request)
            step = self._next_step(request)
        if isinstance(step, BaseException):
            raise step
        yield PromptProgress(usage.evaluated_tokens, usage.evaluated_tokens)
        yield from self._play(self._events(step, request), request, usage)

    def _next_step(self, request: Request) -> Any:
        try:
            step = next(self._steps)
        except StopIteration:
            what = f"The script of {self._name!r} has no step for request {len(self.requests)}."
            raise ModelError(what, "Give ScriptedModel more steps.") from None
        while callable(step):
            step = step(request)
        return step

    def _read_prompt(self, request: Request) -> Usage:
        """Count the prompt, and the part of it that the conversation's last prompt had; at least one token is evaluated."""
        prompt, size = _PIECE.findall(self._text(request)), self._context_size
        common = min(_common(self._cached.get(request.conversation, []), prompt), max(len(prompt) - 1, 0))
        if size and len(prompt) > size:
            what = f"The prompt has {len(prompt)} tokens, but the context holds {size}."
            raise ContextFullError(what, "Shorten the conversation.", n_prompt=len(prompt), n_ctx=size)
        self._cached[request.conversation] = prompt
        return Usage(len(prompt), common, len(prompt) - common, context_size=size)

    def _events(self, step: Any, request: Request) -> Iterator[ModelEvent]:
        """The step's events, one per made-up token; only a parser adds a ModelEnd."""
        if isinstance(step, str) and self._format is not None:
            return self._parsed(step, request, self._format)
        if isinstance(step, str):
            step = Message("assistant", step)
        elif isinstance(step, ToolCall):
            step = Message("assistant", tool_calls=(step,))
        elif not isinstance(step, Message):
            step = Message("assistant", tool_calls=tuple(step))
        return _spoken(step, len(self.requests))

    def _parsed(self, raw: str, request: Request, chat_format: ChatFormat) -> Iterator[ModelEvent]:
        from llm_magics.chat.parsing.safe import SafeParser

        parser = chat_format.parser(
            request.tools, prompt=self._rendered(request, chat_format), tool_choice=request.tool_choice,
            parallel_tool_calls=request.parallel_tool_calls, response_format=request.response_schema,
        )  # fmt: skip
        reading = SafeParser(parser)
        for piece in _PIECE.findall(raw):
            yield from reading.feed(piece)
        yield from reading.finish("stop")

    def _rendered(self, request: Request, chat_format: ChatFormat) -> Prompt:
        return chat_format.render(
            request.messages, tools=request.tools if request.tool_choice != "none" else (),
            enable_thinking=request.thinking is not False, continue_final=request.continue_final, now=request.now,
            **request.template_kwargs,
        )  # fmt: skip

    def _text(self, request: Request) -> str:
        if self._format is not None:
            return self._rendered(request, self._format).text
        return "".join(_written(message) for message in request.messages)

    def _play(self, events: Iterator[ModelEvent], request: Request, usage: Usage) -> Iterator[ModelEvent]:
        """Pace the events, stop where the request says, and end with a ModelEnd."""
        limits = [n for n in (request.max_tokens, self._room(usage)) if n is not None]
        played: list[ModelEvent] = []
        began = time.perf_counter()
        first = 0.0
        reason: FinishReason | None = None
        tokens = 0
        for event in _until(events, request.stop):
            if isinstance(event, ModelEnd):
                played.append(event)
                break
            if limits and tokens >= min(limits) and not isinstance(event, ToolCallEnd):
                reason = "length"
                break
            if isinstance(event, (TextDelta, ReasoningDelta, ToolCallDelta)):
                tokens += 1
                if self._pause:
                    time.sleep(max(0.0, began + tokens * self._pause - time.perf_counter()))
                first = first or time.perf_counter() - began
            played.append(event)
            yield event
        seconds = time.perf_counter() - began
        usage = replace(
            usage, completion_tokens=tokens, completion_seconds=seconds, time_to_first_token=first,
            context_used=usage.prompt_tokens + tokens,
        )  # fmt: skip
        yield self._end(played, reason, usage, request)

    def _room(self, usage: Usage) -> int | None:
        return max(self._context_size - usage.prompt_tokens, 0) if self._context_size else None

    def _end(self, played: list[ModelEvent], reason: FinishReason | None, usage: Usage, request: Request) -> ModelEnd:
        parsed = played[-1] if played and isinstance(played[-1], ModelEnd) else None
        message = assemble(played)
        reason = reason or (parsed.finish_reason if parsed else "tool_calls" if message.tool_calls else "stop")
        sampling = {"seed": request.sampling.seed, "temperature": request.sampling.temperature}
        record = {"model": {"name": self._name}, "sampling": sampling}
        notes, vain = (parsed.notes, parsed.vain) if parsed else ((), "")
        recording = self._recording(request)
        return ModelEnd(replace(message, finish_reason=reason), reason, usage, record, notes, recording=recording, vain=vain)

    def _recording(self, request: Request) -> dict[str, Any]:
        """What the prompt adds to the known ids; made up, as in ``preview``."""
        if request.known is None:
            return {}
        pieces = _PIECE.findall(self._text(request))
        ids = list(map(_made_up_id, pieces))
        kept = _common(request.known, ids)
        text = "".join(pieces[kept:])
        return {"prompt": text, "prompt_token_ids": ids[kept:], "prompt_kept": kept, "prompt_hash": hash_of(text)}


def _common(a: Sequence[Any], b: Sequence[Any]) -> int:
    """How many leading items two sequences share."""
    return next((at for at, (one, other) in enumerate(zip(a, b, strict=False)) if one != other), min(len(a), len(b)))


def _spoken(message: Message, step: int) -> Iterator[ModelEvent]:
    yield from map(ReasoningDelta, _PIECE.findall(message.reasoning))
    yield from map(TextDelta, _PIECE.findall(message.text))
    for index, call in enumerate(message.tool_calls):
        call = call if call.id else replace(call, id=f"call_{step}_{index}")
        yield ToolCallStart(index, call.id, call.name, call.recovered)
        for piece in _PIECE.findall(call.arguments):
            yield ToolCallDelta(index, piece)
        yield ToolCallEnd(index, call)


def _until(events: Iterator[ModelEvent], stop: tuple[str, ...]) -> Iterator[ModelEvent]:
    """The events before the first stop string in the answer's text."""
    if not any(stop):
        yield from events
        return
    text, sent, longest = "", 0, max(map(len, stop))
    for event in events:
        if not isinstance(event, TextDelta):
            if sent < len(text):
                yield TextDelta(text[sent:])
                sent = len(text)
            yield event
            continue
        text += event.text
        found = [at for at in (text.find(s, max(0, sent - longest)) for s in stop if s) if at >= 0]
        certain = min(found) if found else max(sent, len(text) - longest + 1)
        if certain > sent:
            yield TextDelta(text[sent:certain])
            sent = certain
        if found:
            return
    if sent < len(text):
        yield TextDelta(text[sent:])


def _chat_format(template: str | ChatFormat | None) -> ChatFormat | None:
    if not isinstance(template, str):
        return template
    from llm_magics.chat.format import ChatFormat

    return ChatFormat.from_template(template)


def _written(message: Message) -> str:
    calls = "".join(f"\n{call.name}({call.arguments})" for call in message.tool_calls)
    return f"{message.role}: {message.reasoning}{message.text}{calls}\n"


def _made_up_id(piece: str) -> int:
    return int.from_bytes(hashlib.blake2b(piece.encode(errors="replace"), digest_size=2).digest(), "big")
