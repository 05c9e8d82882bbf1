"""A model that says what it was told to: for tests, documentation and labs on machines without a model.

>>> model = ScriptedModel(["Hello!", ToolCall("weather", '{"city": "Oslo"}'), "It is cold."])

Each request takes the next step. Tokens are counted as pieces of about four characters, so that usage, speed and prefix reuse
have the shape of a real model's; the ids of what it says are left empty, because nobody sampled any.
"""

from __future__ import annotations

import hashlib
import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator
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
        steps: what to say, in order; any iterable, also an endless one, or a single step. A step is text, a Message (its
            reasoning, text and calls), a ToolCall or several, an exception to raise, or a function from the Request to a step.
            With ``template``, text is what the model writes verbatim, markers and all, and is parsed as that template says.
        template: a chat template's source or a ChatFormat.
        name: what the model is called.
        tokens_per_second: the pace to write at; 0 is as fast as it goes.
        context_size: in tokens; a longer answer ends with finish reason "length", a longer prompt is refused with
            ContextFullError, and uses up no step. 0 has no limit.
        parallel: how many requests it says to answer at once. Steps go to requests in the order in which those come.

    ``requests`` holds every Request received. A script that has come to its end raises ModelError.
    """

    def __init__(
        self,
        steps: Step | Iterable[Step],
        *,
        template: str | ChatFormat | None = None,
        name: str = "scripted",
        tokens_per_second: float = 0.0,
        context_size: int = 0,
        parallel: int = 1,
    ) -> None:
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
        """End the model: a closed one raises EngineError."""
        self._closed = True

    def preview(self, request: Request) -> tuple[PromptPart, ...]:
        """Split the prompt by message, or as the template does; ids are made up from the text, the same for the same piece."""
        if self._format is not None:
            runs = [(str(origin), text) for origin, text in self._rendered(request, self._format).parts]
        else:
            runs = [(message.role, _written(message)) for message in request.messages]
        return tuple(PromptPart(origin, text, tuple(map(_made_up_id, _PIECE.findall(text)))) for origin, text in runs)

    def stream(self, request: Request) -> Iterator[ModelEvent]:
        """Play the next step; closing the stream early ends it without a word more."""
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
            raise ModelError(
                f"The script of {self._name!r} has ended: {len(self.requests)} requests came.", "Give ScriptedModel more steps."
            ) from None
        while callable(step):
            step = step(request)
        return step

    def _read_prompt(self, request: Request) -> Usage:
        """Count the prompt and what the conversation's last prompt already covered of it (at least one token is left)."""
        prompt = _PIECE.findall(self._text(request))
        common = 0
        for old, new in zip(self._cached.get(request.conversation, []), prompt, strict=False):
            if old != new:
                break
            common += 1
        common = min(common, max(len(prompt) - 1, 0))
        if self._context_size and len(prompt) > self._context_size:
            raise ContextFullError(
                f"The prompt has {len(prompt)} tokens, but the context holds {self._context_size}.",
                "Shorten the conversation.",
                n_prompt=len(prompt),
                n_ctx=self._context_size,
            )
        self._cached[request.conversation] = prompt
        return Usage(
            prompt_tokens=len(prompt),
            cached_tokens=common,
            evaluated_tokens=len(prompt) - common,
            context_size=self._context_size,
        )

    def _events(self, step: Any, request: Request) -> Iterator[ModelEvent]:
        """The step's events, one per made-up token and without an end, unless the parser has one."""
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
            request.tools,
            prompt=self._rendered(request, chat_format),
            tool_choice=request.tool_choice,
            parallel_tool_calls=request.parallel_tool_calls,
            response_format=request.response_schema,
        )
        reading = SafeParser(parser)
        for piece in _PIECE.findall(raw):
            yield from reading.feed(piece)
        yield from reading.finish("stop")

    def _rendered(self, request: Request, chat_format: ChatFormat) -> Prompt:
        return chat_format.render(
            request.messages,
            tools=request.tools if request.tool_choice != "none" else (),
            enable_thinking=request.thinking is not False,
            continue_final=request.continue_final,
            now=request.now,
            **request.template_kwargs,
        )

    def _text(self, request: Request) -> str:
        """The prompt's text."""
        if self._format is not None:
            return self._rendered(request, self._format).text
        return "".join(_written(message) for message in request.messages)

    def _play(self, events: Iterator[ModelEvent], request: Request, usage: Usage) -> Iterator[ModelEvent]:
        """Pace the events, stop where the request says, and end with the one ModelEnd."""
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
            usage,
            completion_tokens=tokens,
            completion_seconds=seconds,
            time_to_first_token=first,
            context_used=usage.prompt_tokens + tokens,
        )
        yield self._end(played, reason, usage, request)

    def _room(self, usage: Usage) -> int | None:
        return max(self._context_size - usage.prompt_tokens, 0) if self._context_size else None

    def _end(self, played: list[ModelEvent], reason: FinishReason | None, usage: Usage, request: Request) -> ModelEnd:
        parsed = played[-1] if played and isinstance(played[-1], ModelEnd) else None
        message = assemble(played)
        reason = reason or (parsed.finish_reason if parsed else "tool_calls" if message.tool_calls else "stop")
        record = {
            "model": {"name": self._name},
            "sampling": {"seed": request.sampling.seed, "temperature": request.sampling.temperature},
        }
        notes = parsed.notes if parsed else ()
        recording = self._recording(request)
        return ModelEnd(replace(message, finish_reason=reason), reason, usage, record, notes, recording=recording)

    def _recording(self, request: Request) -> dict[str, Any]:
        """What the prompt adds to the ids that are known; the ids are made up, as in ``preview``."""
        if request.known is None:
            return {}
        pieces = _PIECE.findall(self._text(request))
        ids = list(map(_made_up_id, pieces))
        kept = next((at for at, (one, other) in enumerate(zip(request.known, ids, strict=False)) if one != other), None)
        kept = min(len(request.known), len(ids)) if kept is None else kept
        text = "".join(pieces[kept:])
        return {"prompt": text, "prompt_token_ids": ids[kept:], "prompt_kept": kept, "prompt_hash": hash_of(text)}


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
    """Let events pass until the answer's text contains a stop string, which is no part of it."""
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
