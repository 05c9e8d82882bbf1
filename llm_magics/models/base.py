"""What a model is to the rest of the package: something that turns a Request into a stream of ModelEvents."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from importlib import import_module
from typing import Any, Literal, Protocol, runtime_checkable

from llm_magics.events import ModelEvent
from llm_magics.messages import JsonSchema, Message, ToolChoice, ToolSpec
from llm_magics.tools.runaway import CallLimit


@dataclass(frozen=True, slots=True)
class Sampling:
    """How to draw tokens; names and meanings as in ``engine.values.SamplerSettings``. ``None`` is the model's own default."""

    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    repeat_penalty: float | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    seed: int | None = None
    logit_bias: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True, slots=True)
class Request:
    """One model step: everything the answer depends on.

    ``thinking`` None leaves it to the template. ``response_schema`` asks for JSON valid under it. ``continue_final`` says that
    the last message is an assistant's whose content or reasoning is to go on. ``conversation`` names the thread, for the cache.
    ``soft_limit`` is how many tokens a JSON answer may take; None leaves it to the model. ``max_tokens`` holds for any answer,
    and may be what a turn has left. ``call_limit`` is the most calls that the answer may hold; a model need not look at it, the
    session does.
    ``known`` are token ids that a recording of the conversation holds already: ``ModelEnd.recording`` then says what the prompt
    adds to them; None asks for no recording of the prompt. ``now`` is the time that the template is told, the same however
    often the request is rendered.
    """

    messages: tuple[Message, ...]
    tools: tuple[ToolSpec, ...] = ()
    tool_choice: ToolChoice = "auto"
    parallel_tool_calls: bool = True
    response_schema: JsonSchema | None = None
    sampling: Sampling = field(default_factory=Sampling)
    max_tokens: int | None = None
    soft_limit: int | None = None
    stop: tuple[str, ...] = ()
    logprobs: int = 0
    thinking: bool | None = None
    template_kwargs: Mapping[str, Any] = field(default_factory=dict)
    continue_final: Literal["content", "reasoning"] | None = None
    conversation: str = ""
    priority: int = 0
    call_limit: CallLimit | None = None
    known: tuple[int, ...] | None = None
    now: datetime = field(default_factory=datetime.now, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class PromptPart:
    """A run of the prompt of one origin, e.g. "system", "tools", "user", "assistant", "tool", "template"; for ``--preview``."""

    origin: str
    text: str
    token_ids: tuple[int, ...]


@runtime_checkable
class Model(Protocol):
    """A model to ask. Contract: the stream ends with exactly one ModelEnd, also when it is cut short by ``close()`` of the
    generator (then nothing more is yielded) or by an interrupt (then the partial answer is the session's to keep)."""

    @property
    def name(self) -> str: ...

    @property
    def context_size(self) -> int:
        """The context in tokens; 0 where unknown."""
        ...

    def stream(self, request: Request) -> Iterator[ModelEvent]: ...

    def preview(self, request: Request) -> tuple[PromptPart, ...]:
        """The prompt that ``stream`` would evaluate, in parts that concatenate to it; nothing is evaluated."""
        ...

    def close(self) -> None: ...


def room_for(model: Model, request: Request) -> int | None:
    """How many tokens an answer to this request may have in the model's context, less than 0 if the prompt does not fit.

    None if the model does not know its context. A model that can make room by itself says so with a method ``room(request)``.
    """
    if not model.context_size:
        return None
    own = getattr(model, "room", None)
    if own is not None:
        return int(own(request))
    return model.context_size - sum(len(part.token_ids) for part in model.preview(request))


class Mappable:
    """Gives a Model the method ``map``. It is no part of the Protocol: ``map_prompts`` takes any Model."""

    @property
    def parallel(self) -> int:
        """How many requests the model answers at once."""
        return 1

    def map(self: Any, prompts: Any, **options: Any) -> Any:
        """Ask one question per row; see :func:`llm_magics.map_prompts` for arguments, result and errors."""
        public: Any = import_module("llm_magics")  # it hands out what stands above the models
        return public.map_prompts(self, prompts, **options)
