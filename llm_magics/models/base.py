"""A model, as the rest of the package sees it: it turns a Request into a stream of ModelEvents."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from importlib import import_module
from typing import Any, Literal, Protocol, runtime_checkable

from llm_magics.events import ModelEvent
from llm_magics.messages import JsonSchema, Message, ToolCall, ToolChoice, ToolSpec
from llm_magics.tools.runaway import CallLimit


@dataclass(frozen=True, slots=True)
class Sampling:
    """How to draw tokens; fields as in ``engine.values.SamplerSettings``. ``None`` is the model's own default."""

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

    ``thinking`` None follows the template. ``response_schema`` asks for JSON that is valid under it. ``continue_final``: the
    answer continues the content or reasoning of the last message, an assistant's. ``conversation`` names the thread for the
    cache. ``max_tokens`` limits any answer (it may be the rest of a turn's limit), ``soft_limit`` a JSON answer; None follows
    the model. ``call_limit`` is the most calls in the answer; a model may ignore it, the session does not. ``known`` are the
    token ids that the conversation's recording already holds: ``ModelEnd.recording`` adds to them; None asks for no recording
    of the prompt. ``asked_again``: the caller asks again if the answer is a call in vain, which is then withheld
    (``ModelEnd.vain``). ``in_words``: it asks again now, and the answer may not have the shape of a call. ``now`` is the time
    for the template, so that the request always renders the same.
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
    answered: tuple[ToolCall, ...] = ()
    asked_again: bool = False
    in_words: bool = False
    now: datetime = field(default_factory=datetime.now, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class PromptPart:
    """A part of the prompt with one origin: "system", "tools", "user", "assistant", "tool" or "template"; for ``--preview``."""

    origin: str
    text: str
    token_ids: tuple[int, ...]


@runtime_checkable
class Model(Protocol):
    """A model to ask. Contract: the stream ends with exactly one ModelEnd, unless it is closed or interrupted; nothing more is
    yielded then, and the session keeps the partial answer."""

    @property
    def name(self) -> str: ...

    @property
    def context_size(self) -> int:
        """The context in tokens; 0 if unknown."""
        ...

    def stream(self, request: Request) -> Iterator[ModelEvent]: ...

    def preview(self, request: Request) -> tuple[PromptPart, ...]:
        """The prompt of ``stream``, in parts that concatenate to it; nothing is evaluated."""
        ...

    def close(self) -> None: ...


def room_for(model: Model, request: Request) -> int | None:
    """The most tokens that an answer to this request may have in the context; negative if the prompt does not fit, None if the
    context is unknown. A model that can make room has its own method ``room(request)``."""
    if not model.context_size:
        return None
    own = getattr(model, "room", None)
    if own is not None:
        return int(own(request))
    return model.context_size - sum(len(part.token_ids) for part in model.preview(request))


class Mappable:
    """Gives a Model the method ``map``, which the Protocol does not need: ``map_prompts`` takes any Model."""

    @property
    def parallel(self) -> int:
        """The number of requests the model answers at once."""
        return 1

    def map(self: Any, prompts: Any, **options: Any) -> Any:
        """Ask one question per row; see :func:`llm_magics.map_prompts` for arguments, result and errors."""
        public: Any = import_module("llm_magics")  # it gives access to the session, which imports this package
        return public.map_prompts(self, prompts, **options)
