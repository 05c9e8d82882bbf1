"""The engine's input and output: plain values that pickle, so that an engine can run in another process.

The engine knows tokens and grammar text, but not messages, templates or tools. A :class:`Guide` (written by the ``chat`` room)
runs beside the sampler and reads the text of each token. It answers with events for the consumer, which the engine passes on
unread, a grammar to arm, or a stop.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Literal, Protocol, TypeAlias, runtime_checkable

KVType: TypeAlias = Literal["f16", "q8_0"]
FlashAttention: TypeAlias = Literal["auto", "on", "off"]
Speculation: TypeAlias = Literal["off", "lookup", "auto"]

MAX_DRAFT = 16  # guessed tokens in one batch
Hurry: TypeAlias = Literal["", "repeats", "soft", "limit", "context"]
"""Why a JSON text was brought to its end: the text repeated itself, or was near one of three bounds on its length."""


@dataclass(frozen=True, slots=True)
class EngineConfig:
    """How to load one model. Sizes in tokens unless said; with ``None`` the engine chooses.

    ``path`` is the first file of a split GGUF. ``n_gpu_layers`` -1 means all. ``n_slots`` sequences share one KV cache of
    ``n_ctx`` tokens. ``deterministic``: no prefix reuse, fixed batch shape, one sequence. ``speculation`` "lookup" guesses
    repetitions and checks each guess, so that only the speed changes (see :mod:`.guess.speculation`); "auto" does so if no
    layer is on a GPU, where it was measured to help, and if the model's memory can take back a wrong guess. ``draft`` is the
    file of a small model of the same vocabulary that also guesses, with ``draft_gpu_layers`` on the GPU. ``device_sampling``
    draws where the logits are, if a request needs no grammar, log-probabilities, penalties or bias; the same seed then draws
    differently than on the host. It excludes speculation. ``park_memory`` and ``park_disk`` bound, in bytes, the kept states
    of conversations without a slot; ``park_directory`` "" is a directory beside the fetched models.
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

    ``temperature`` 0 is greedy. ``seed`` None draws a seed, which ``Finished.seed`` reports. ``top_k`` 0, ``top_p`` 1,
    ``min_p`` 0 and penalties 1/0/0 switch their stage off. ``logit_bias`` are (token id, addend); -inf bans the token.
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

    ``required`` are the keys that some object in the JSON requires. ``prelude_start`` and ``prelude_end`` are the markers of a
    text before the JSON, e.g. ``<think>`` and ``</think>``; without a start, that text is open already. ``others`` begin a
    text that may replace the JSON and has no limit, e.g. ``<tool_call>``. ``values`` are texts to complete the JSON with, the
    shortest first; a value may be invalid at its place.
    """

    required: tuple[str, ...] = ()
    prelude_start: str = ""
    prelude_end: str = ""
    others: tuple[str, ...] = ()
    values: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Grammar:
    """A grammar in llguidance's Lark dialect, for the text from here on.

    ``pending`` is text that the model has already written and that the grammar must consume first, e.g. ``"\\n{"`` if the
    token that completed a marker went on behind it. An armed grammar holds until the generation ends or the guide disarms it;
    when its text is complete and cannot continue, only an end-of-generation token is allowed. ``json`` asks for a text that is
    complete when the limit of tokens is reached.
    """

    text: str
    pending: str = ""
    json: JsonText | None = None


@dataclass(frozen=True, slots=True)
class GuideStep:
    """A guide's answer to one piece of text. The consumer gets ``events`` as they are."""

    events: tuple[object, ...] = ()
    arm: Grammar | None = None
    disarm: bool = False
    stop: bool = False


@runtime_checkable
class Guide(Protocol):
    """Runs beside the sampler in the engine's thread, once per token, so it must be fast. Must pickle."""

    def start(self) -> GuideStep:
        """Answer before the first token; may arm a grammar for the whole text."""

    def feed(self, text: str) -> GuideStep:
        """Take the text of newly sampled tokens (complete UTF-8, special tokens written out)."""

    def finish(self, reason: str) -> GuideStep:
        """Take the end: "stop", "length" or "interrupted". Only ``events`` of the answer are read."""


Rivals: TypeAlias = tuple[tuple[str, float], ...]
"""Texts of tokens with their log-probabilities."""


@runtime_checkable
class ScoringGuide(Guide, Protocol):
    """A guide that decides by the log-probability of the text under the model."""

    @property
    def wants_logprob(self) -> bool:
        """Whether to compute the next token's log-probability, at the cost of a pass over the logits; read before each draw."""

    @property
    def wants_rivals(self) -> int:
        """How many of the likeliest tokens to pass along with it; 0 for none."""

    def observe(self, logprob: float, rivals: Rivals = ()) -> None:
        """Take the drawn token's log-probability at temperature 1, without a grammar. Its text is fed next. ``rivals`` are the
        likeliest tokens for its place, itself included and ends of the generation left out."""


@dataclass(frozen=True, slots=True)
class GenerateRequest:
    """One sequence to generate. ``prompt`` is the whole prompt's token ids, BOS included.

    ``conversation`` names the owner of a slot's cache, so that the conversation finds its slot; "" takes any slot.
    ``logprobs`` > 0 asks for that many alternatives per token. ``max_tokens`` None stops at the end of the context.
    ``soft_limit`` bounds a JSON text below that, in tokens; None is 500 (see ``engine/closing.py``). ``stop`` strings end the
    text and are not part of it. ``priority`` 0 is for a cell that a user watches; larger numbers wait. ``droppable`` are ranges
    of the prompt to forget when the context is full, each of whole turns, the oldest first; without them, a prompt that does
    not fit is refused and an answer stops at the end of the context.
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
        """Whether the same prompt in this conversation must give the same text: if greedy or seeded, and watched by a user."""
        fixed = self.sampler.temperature <= 0 or self.sampler.seed is not None
        return fixed and bool(self.conversation) and self.priority <= 0


@dataclass(frozen=True, slots=True)
class Prefill:
    """``done`` of ``total`` uncached prompt tokens are evaluated; ``cached`` more were in the cache."""

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
    """New tokens. ``text`` may be empty inside a UTF-8 character or a possible stop string; ``events`` are the guide's."""

    ids: tuple[int, ...]
    text: str
    events: tuple[object, ...] = ()
    logprobs: tuple[TokenLogprob, ...] = ()


@dataclass(frozen=True, slots=True)
class Finished:
    """The end of one generation. ``ids`` are all sampled tokens without the end-of-generation token; ``text`` is all text.

    ``reason``: "stop" (end token, stop string or guide), "length" (max_tokens or context) or "interrupted". ``losses`` says why
    no more of the prefix was reused, or that guessing ended. ``masked`` counts tokens that needed a grammar mask, ``forced``
    those that a grammar forced without sampling, ``drafted`` and ``accepted`` those of speculation, ``dropped`` the forgotten
    droppable ranges (``n_prompt`` and ``n_past`` exclude them). ``hurried`` says why a JSON text was brought to its end.
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


EngineEvent: TypeAlias = Prefill | Tokens | Finished  # in this order: Prefill* Tokens* Finished


@dataclass(frozen=True, slots=True)
class EngineInfo:
    """A loaded model. Sizes in bytes. ``buffers`` are (device, kind, size) from llama.cpp's log; kind is "model", "kv",
    "compute", "output" or "recurrent". ``control_tokens`` are (text, id) of every control or user-defined special token.
    ``can_shift``: the memory can forget a range and close the gap. ``draft`` describes the draft model, if there is one.
    ``pid`` is the process that runs it: this one, or one of its own."""

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
    pid: int = 0


class Generation(Protocol):
    """One running request. Iterate under ``contextlib.closing``: closing early cancels the request within one token."""

    def __iter__(self) -> Iterator[EngineEvent]: ...

    def __next__(self) -> EngineEvent: ...

    def close(self) -> None: ...


class Engine(Protocol):
    """One loaded model. Thread-safe within the process that loaded it. A closed engine raises EngineError."""

    @property
    def info(self) -> EngineInfo: ...

    def tokenize(self, text: str, *, special: bool) -> tuple[int, ...]:
        """Token ids of ``text`` without BOS; with ``special`` False, control strings are ordinary text."""

    def pieces(self, tokens: Iterable[int]) -> list[bytes]:
        """The bytes of each token, special tokens written out."""

    def submit(self, request: GenerateRequest) -> Generation:
        """Queue a request. Raises ContextFullError before anything is evaluated if the prompt does not fit."""

    def close(self) -> None:
        """End all running requests, then free everything."""
