"""What goes into the engine and what comes out: plain values that pickle, so that an engine may live across a pipe.

The engine knows tokens and grammar text. It knows no messages, no templates and no tools: a :class:`Guide` (written by the
``chat`` room) runs beside the sampler, is fed the text of each token, and answers with events for the consumer (opaque here),
a grammar to arm, or a stop.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal, Protocol, TypeAlias, runtime_checkable

KVType: TypeAlias = Literal["f16", "q8_0"]
FlashAttention: TypeAlias = Literal["auto", "on", "off"]
Speculation: TypeAlias = Literal["off", "lookup", "auto"]

MAX_DRAFT = 16
"""Guessed tokens in one batch, at most."""
Hurry: TypeAlias = Literal["", "repeats", "soft", "limit", "context"]
"""Why a JSON text was brought to its end: it repeated itself, or one of three bounds of its length was near."""


@dataclass(frozen=True, slots=True)
class EngineConfig:
    """How to load one model. Sizes in tokens unless said; ``None`` leaves the choice to the engine.

    ``path`` is the first file of a split GGUF. ``n_gpu_layers`` -1 means all. ``n_slots`` sequences share one KV cache of
    ``n_ctx`` tokens. ``deterministic``: no prefix reuse, fixed batch shape, one sequence. ``speculation``: "lookup" guesses
    that the text repeats itself, and checks every guess, so that only the speed changes (see :mod:`.guess.speculation`);
    "auto" does so where that was measured to help, with no layer on a GPU, if this model's memory can take a wrong guess back.
    ``draft`` is the file of a small model of the same vocabulary that guesses too, ``draft_gpu_layers`` of it on the GPU.
    ``device_sampling`` lets llama.cpp draw where the logits are, as long as a request needs no grammar, log-probabilities,
    penalties or bias; a seed then gives another draw than on the host. It does not go with speculation. ``park_memory`` and
    ``park_disk`` are the bytes that the states of conversations may take that have lost their slot, on disk in
    ``park_directory`` ("" is one beside the models that were fetched).
    """

    path: str
    n_ctx: int = 4096
    n_batch: int = 512
    n_ubatch: int = 512
    n_gpu_layers: int = 0
    tensor_split: tuple[float, ...] = ()
    main_gpu: int = 0
    kv_type: KVType = "f16"
    flash_attention: FlashAttention = "auto"
    n_threads: int | None = None
    n_slots: int = 1
    use_mmap: bool = True
    deterministic: bool = False
    speculation: Speculation = "off"
    draft: str = ""
    draft_gpu_layers: int = 0
    device_sampling: bool = False
    park_memory: int = 256 * 2**20
    park_disk: int = 0
    park_directory: str = ""


@dataclass(frozen=True, slots=True)
class SamplerSettings:
    """The sampler chain, in llama.cpp's order: penalties, top-k, top-p, min-p, temperature, draw.

    ``temperature`` 0 is greedy. ``seed`` None draws one (and the result's ``seed`` says which). ``top_k`` 0, ``top_p`` 1,
    ``min_p`` 0 and penalties 1/0/0 switch their stage off. ``logit_bias`` maps token id to an addend; -inf bans it.
    """

    temperature: float = 0.8
    top_k: int = 40
    top_p: float = 0.95
    min_p: float = 0.05
    repeat_penalty: float = 1.0
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    penalty_last_n: int = 64
    seed: int | None = None
    logit_bias: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True, slots=True)
class JsonText:
    """A grammar's text is one JSON value, which must be complete within the limit of tokens; see ``engine/closing.py``.

    ``required`` are the keys that some object in it requires. ``prelude_start`` and ``prelude_end`` are the markers around what
    may stand before the JSON, e.g. ``<think>`` and ``</think>``; without a start, the prelude is open already. ``others`` are
    the beginnings of what may stand in its place and has no limit to keep, e.g. ``<tool_call>``. ``values`` are texts to
    complete it with, the shortest first; they need not be valid.
    """

    required: tuple[str, ...] = ()
    prelude_start: str = ""
    prelude_end: str = ""
    others: tuple[str, ...] = ()
    values: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Grammar:
    """A grammar in llguidance's Lark dialect, to hold from here on.

    ``pending`` is text that the model has already written and that the grammar must consume first, e.g. ``"\\n{"`` when the
    token that completed the marker carried more than the marker. An armed grammar holds until the generation ends or the
    guide disarms it; where it accepts and cannot go on, only an end-of-generation token is left. ``json`` asks for a text that
    is complete when the limit of tokens is reached.
    """

    text: str
    pending: str = ""
    json: JsonText | None = None


@dataclass(frozen=True, slots=True)
class GuideStep:
    """A guide's answer to one piece of text. ``events`` go to the consumer as they are."""

    events: tuple[object, ...] = ()
    arm: Grammar | None = None
    disarm: bool = False
    stop: bool = False


@runtime_checkable
class Guide(Protocol):
    """Runs beside the sampler in the engine's thread. Pickles. Must be fast: it is called once per token."""

    def start(self) -> GuideStep:
        """Answer before the first token; the place to arm a grammar that holds from the start."""
        ...

    def feed(self, text: str) -> GuideStep:
        """Take the text of newly sampled tokens (complete UTF-8, special tokens written out)."""
        ...

    def finish(self, reason: str) -> GuideStep:
        """Take the end: "stop", "length" or "interrupted"; only ``events`` of the answer are read."""
        ...


@runtime_checkable
class ScoringGuide(Guide, Protocol):
    """A guide that decides by how probable the model finds its own text, where it asks for that."""

    @property
    def wants_logprob(self) -> bool:
        """Whether the next token's log-probability is wanted; asked before each draw, because it costs a pass over the row."""
        ...

    def observe(self, logprob: float) -> None:
        """Take the drawn token's log-probability under the model itself: temperature 1, no grammar. Its text is fed next."""
        ...


@dataclass(frozen=True, slots=True)
class GenerateRequest:
    """One sequence to generate. ``prompt`` is the whole prompt's token ids, BOS included.

    ``conversation`` names what the slot's cache belongs to, so that the right slot is chosen; "" takes any. ``logprobs`` > 0
    asks for that many alternatives per token. ``max_tokens`` None goes on to the context's end. ``soft_limit`` is how many
    tokens a JSON text may take, if less than that; None is 500 (see ``engine/closing.py``). ``stop`` strings end the
    text and are not part of it. ``priority`` 0 is a cell somebody looks at, larger numbers wait. ``droppable`` are ranges of
    the prompt that may be forgotten when the context is full, each a whole number of turns, the oldest first; without any, a
    prompt that does not fit is refused and an answer ends where the context does.
    """

    prompt: tuple[int, ...]
    sampler: SamplerSettings = field(default_factory=SamplerSettings)
    max_tokens: int | None = None
    stop: tuple[str, ...] = ()
    logprobs: int = 0
    guide: Guide | None = None
    conversation: str = ""
    priority: int = 0
    droppable: tuple[tuple[int, int], ...] = ()
    soft_limit: int | None = None

    @property
    def same_again(self) -> bool:
        """Whether the same prompt in the same conversation must give the same text: a greedy or seeded one of a reader's."""
        fixed = self.sampler.temperature <= 0 or self.sampler.seed is not None
        return fixed and bool(self.conversation) and self.priority <= 0


# --- what comes out, in this order: Prefill* Tokens* Finished ---------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Prefill:
    """``done`` of ``total`` prompt tokens evaluated that were not cached; ``cached`` more were."""

    done: int
    total: int
    cached: int


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    token: int
    logprob: float
    top: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True, slots=True)
class Tokens:
    """New tokens: their ids, the text that became certain (may be empty inside a UTF-8 character or a possible stop string),
    what the guide said of it, and logprobs where asked for."""

    ids: tuple[int, ...]
    text: str
    events: tuple[object, ...] = ()
    logprobs: tuple[TokenLogprob, ...] = ()


@dataclass(frozen=True, slots=True)
class Finished:
    """The end of one generation. ``ids`` are all sampled tokens without the end-of-generation token; ``text`` is all text.

    ``reason``: "stop" (end token, stop string or guide), "length" (max_tokens or context), "interrupted". ``losses`` says why
    the prefix could not be reused further than it was, or that guesses ended. ``masked`` counts tokens for which a grammar mask
    was computed, ``forced`` those a grammar forced without sampling, ``drafted``/``accepted`` those of speculation; ``dropped``
    counts the droppable ranges that were forgotten (``n_prompt`` and ``n_past`` are without them). ``hurried`` says
    why a JSON text was brought to its end.
    """

    reason: Literal["stop", "length", "interrupted"]
    ids: tuple[int, ...]
    text: str
    n_prompt: int
    n_cached: int
    n_evaluated: int
    seed: int
    prompt_seconds: float
    decode_seconds: float
    time_to_first_token: float
    n_past: int
    n_ctx: int
    events: tuple[object, ...] = ()
    losses: tuple[str, ...] = ()
    masked: int = 0
    forced: int = 0
    drafted: int = 0
    accepted: int = 0
    dropped: int = 0
    hurried: Hurry = ""


EngineEvent: TypeAlias = Prefill | Tokens | Finished


@dataclass(frozen=True, slots=True)
class EngineInfo:
    """What is loaded. Bytes are bytes. ``buffers`` maps (device, kind) to llama.cpp's own reported size, where kind is one of
    "model", "kv", "compute", "output", "recurrent". ``control_tokens`` maps the text of every control or user-defined special
    token to its id. ``can_shift``: the memory can forget a range and close up. ``draft`` describes the model that guesses, if
    there is one."""

    path: str
    architecture: str
    description: str
    n_params: int
    size: int
    n_ctx: int
    n_ctx_train: int
    n_vocab: int
    n_layers: int
    n_gpu_layers: int
    n_slots: int
    chat_template: str
    metadata: tuple[tuple[str, str], ...]
    bos: int
    eos: int
    eog: tuple[int, ...]
    adds_bos: bool
    control_tokens: tuple[tuple[str, int], ...]
    bos_text: str = ""
    eos_text: str = ""
    can_shift: bool = True
    recurrent: bool = False
    devices: tuple[str, ...] = ()
    buffers: tuple[tuple[str, str, int], ...] = ()
    load_seconds: float = 0.0
    draft: str = ""


class Generation(Protocol):
    """One running request. Iterate under ``contextlib.closing``: closing early cancels it within one token."""

    def __iter__(self) -> Iterator[EngineEvent]: ...

    def __next__(self) -> EngineEvent: ...

    def close(self) -> None: ...


class Engine(Protocol):
    """One loaded model. Thread-safe: every method may be called from any thread of the process that made it."""

    @property
    def info(self) -> EngineInfo: ...

    def tokenize(self, text: str, *, special: bool) -> tuple[int, ...]:
        """Token ids of ``text``, no BOS added; ``special`` False writes control strings out as ordinary text."""
        ...

    def piece(self, token: int) -> bytes:
        """The bytes of one token, special tokens written out."""
        ...

    def submit(self, request: GenerateRequest) -> Generation:
        """Queue a request. Raises ContextFullError before anything is evaluated if the prompt does not fit."""
        ...

    def close(self) -> None:
        """Drain what runs, then free everything. A closed engine raises EngineError."""
        ...
