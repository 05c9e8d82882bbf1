"""Chooses the next token: llama.cpp's sampler chain, or the highest logit if the choice is greedy without penalties.

A pass over 150,000 logits is the main cost beside the model itself. The greedy choice is one vectorised search over llama.cpp's
own row, some twenty times faster than its sampler chain. Logit bias and grammar masks are written into that row, which
llama.cpp overwrites at the next step.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from math import isfinite
from typing import Any

import numpy as np

from llm_magics.engine.values import SamplerSettings, TokenLogprob
from llm_magics.errors import EngineError, OptionError

from . import llama
from .chains import DeviceChain, chain_of, penalises, stages_of
from .context import Context
from .library import lib

Row = np.ndarray[Any, np.dtype[np.float32]]
_SEEDS = 2**32 - 1  # to llama.cpp, the largest 32-bit number means a random seed


class Sampler:
    """The sampler of one generation. Owns C memory: free it."""

    def __init__(self, settings: SamplerSettings, n_vocab: int, prompt: Sequence[int], *, on_device: bool = False) -> None:
        _check(settings, n_vocab)
        self.seed = (secrets.randbelow(_SEEDS) if settings.seed is None else settings.seed) % _SEEDS
        self._bias_ids = np.array([token for token, _ in settings.logit_bias], dtype=np.int64)
        self._bias = np.array([value for _, value in settings.logit_bias], dtype=np.float32)
        self._greedy = settings.temperature <= 0
        self._penalties: Any = None
        self._before: Any = None  # the penalties' state before the latest draw
        self._chain: Any = None
        if settings.temperature > 0 or penalises(settings):
            self._build(settings, n_vocab, prompt)
        self.device_chain: DeviceChain | None = None  # what may draw on the device; a chain that has cannot draw on the host
        if on_device and not settings.logit_bias and not penalises(settings):
            self.device_chain = DeviceChain(settings, self.seed)

    def _build(self, settings: SamplerSettings, n_vocab: int, prompt: Sequence[int]) -> None:
        chain = self._chain = chain_of([])
        if penalises(settings):
            s = settings
            args = (n_vocab, s.penalty_last_n, s.repeat_penalty, s.frequency_penalty, s.presence_penalty)
            self._penalties = llama.must(lib.llama_sampler_init_penalties(*args), "make the penalties sampler")
            for token in prompt[-settings.penalty_last_n :]:
                llama.sampler_accept(self._penalties, token)
            self._before = llama.must(lib.llama_sampler_clone(self._penalties), "copy the penalties sampler")
            lib.llama_sampler_chain_add(chain, self._penalties)
        for stage in stages_of(settings, self.seed):
            lib.llama_sampler_chain_add(chain, llama.must(stage, "make a sampler"))

    def sample(self, context: Context, row: int) -> int:
        """Draw the token that follows a batch row."""
        if self.device_chain is not None and (token := context.sampled(row)) >= 0:
            if not isfinite(context.device_logits(row).max(initial=-np.inf)):
                raise NotANumberError
            return token
        logits = context.logits(row)
        if self._chain is None and not self._bias_ids.size:
            best = int(logits.argmax())
            if not isfinite(logits.item(best)):  # argmax finds any NaN
                raise NotANumberError
            return best
        if not isfinite(logits.max()):  # so does max
            raise NotANumberError
        if self._bias_ids.size:
            logits[self._bias_ids] += self._bias
        return self._draw(context, row)

    def near_tie(self, context: Context, row: int, distance: float) -> bool:
        """Whether the choice at a batch row is greedy, between two logits within ``distance``."""
        if not self._greedy:
            return False
        logits = context.logits(row)
        if self._bias_ids.size:
            logits = logits.copy()
            logits[self._bias_ids] += self._bias
        best = int(logits.argmax())
        return bool(max(logits[:best].max(initial=-np.inf), logits[best + 1 :].max(initial=-np.inf)) > logits[best] - distance)

    def sample_again(self, context: Context, row: int, allowed: np.ndarray[Any, np.dtype[np.bool_]]) -> int:
        """Draw again from the same row, among the ``allowed`` tokens only, after the first draw was refused.

        The two draws are independent, so their outcome follows the distribution restricted to the allowed tokens.
        """
        if self._penalties is not None:
            llama.sampler_copy(self._before, self._penalties)
        logits = context.logits(row)
        np.putmask(logits, ~allowed, -np.inf)
        token = self._draw(context, row)
        if logits[token] == -np.inf:
            what = "No token can be chosen: the grammar allows only tokens that the logit bias bans."
            raise EngineError(what, "Remove the bias, or allow more in the schema.")
        return token

    def force(self, token: int) -> None:
        if self._chain is not None:
            llama.sampler_accept(self._chain, token)

    def _draw(self, context: Context, row: int) -> int:
        if self._chain is None:
            return int(context.logits(row).argmax())
        if self._penalties is not None:
            llama.sampler_copy(self._penalties, self._before)
        return int(llama.sampler_sample(self._chain, context.pointer, row))

    def free(self) -> None:
        """Free the C memory; harmless when called twice."""
        owned, device = (self._chain, self._before), self.device_chain
        self._chain = self._before = self._penalties = self.device_chain = None
        if device is not None:
            device.free()
        for sampler in filter(None, owned):
            lib.llama_sampler_free(sampler)


class NotANumberError(EngineError):
    """The model's logits are NaN or infinite."""

    def __init__(self) -> None:
        super().__init__(
            "The model computed NaN or infinity instead of logits, so no next token can be chosen.",
            "Ask again. If it repeats, load the model with other settings (--kv f16, --flash-attn off, --gpu-layers 0). "
            "If it repeats with those too, fetch the file again: its weights are damaged.",
        )


def _check(s: SamplerSettings, n_vocab: int) -> None:
    """Refuse settings with which llama.cpp would write nonsense or abort."""
    rules = (
        ("temperature", s.temperature, 0 <= s.temperature < np.inf, "0 or more"),
        ("top_k", s.top_k, s.top_k >= 0, "0 (off) or more"),
        ("top_p", s.top_p, 0 <= s.top_p <= 1, "between 0 and 1"),
        ("min_p", s.min_p, 0 <= s.min_p <= 1, "between 0 and 1"),
        ("repeat_penalty", s.repeat_penalty, 0 < s.repeat_penalty < np.inf, "more than 0; 1 is off"),
        ("frequency_penalty", s.frequency_penalty, np.isfinite(s.frequency_penalty), "a finite number; 0 is off"),
        ("presence_penalty", s.presence_penalty, np.isfinite(s.presence_penalty), "a finite number; 0 is off"),
        ("penalty_last_n", s.penalty_last_n, 0 <= s.penalty_last_n <= 2**20, "between 0 (off) and 1,048,576"),
    )
    for name, value, good, wanted in rules:
        if not good:
            raise OptionError(f"{name} is {value}, but must be {wanted}.")
    for token, value in s.logit_bias:
        if not 0 <= token < n_vocab or not value < np.inf:
            what = f"The logit bias {value} of token {token} is not a number, or there is no such token."
            raise OptionError(what, f"Give numbers, or -inf, for tokens from 0 to {n_vocab - 1}.")


def logprob(logits: Row, token: int) -> float:
    """The log-probability of ``token`` under the model itself."""
    highest = logits.max()
    return float(logits[token] - highest - np.log(np.exp(logits - highest).sum()))


def logprobs(logits: Row, token: int, n_top: int) -> TokenLogprob:
    """The log-probabilities, under the model itself, of ``token`` and of the ``n_top`` likeliest tokens."""
    exact = logits.astype(np.float64)
    exact -= exact.max()
    exact -= np.log(np.exp(exact).sum())
    n_top = min(n_top, exact.size)
    likeliest = np.argpartition(exact, -n_top)[-n_top:]
    ordered = likeliest[np.argsort(-exact[likeliest], kind="stable")]
    return TokenLogprob(token, float(exact[token]), tuple((int(i), float(exact[i])) for i in ordered))
