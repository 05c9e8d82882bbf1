"""llama.cpp's sampler chains, made from sampler settings."""

from __future__ import annotations

import ctypes
from typing import Any

from llm_magics.engine.values import SamplerSettings

from . import llama
from .library import lib


def chain_of(stages: list[Any]) -> Any:
    """A chain that owns these stages. Free it with ``llama_sampler_free``."""
    chain = llama.must(lib.llama_sampler_chain_init(lib.llama_sampler_chain_default_params()), "make a sampler chain")
    for stage in stages:
        lib.llama_sampler_chain_add(chain, llama.must(stage, "make a sampler"))
    return chain


def stages_of(s: SamplerSettings, seed: int) -> list[Any]:
    """The stages behind the penalties, in llama.cpp's order."""
    if s.temperature <= 0:
        return [lib.llama_sampler_init_greedy()]
    return [
        *([lib.llama_sampler_init_top_k(s.top_k)] if s.top_k > 0 else []),
        *([lib.llama_sampler_init_top_p(s.top_p, 1)] if s.top_p < 1 else []),
        *([lib.llama_sampler_init_min_p(s.min_p, 1)] if s.min_p > 0 else []),
        lib.llama_sampler_init_temp(s.temperature),
        lib.llama_sampler_init_dist(seed),
    ]


def penalises(s: SamplerSettings) -> bool:
    active = s.repeat_penalty != 1.0 or s.frequency_penalty != 0.0 or s.presence_penalty != 0.0
    return active and s.penalty_last_n != 0


class DeviceChain:
    """A chain that may draw on the device, at its first draw. ``kind`` is all of its settings but the seed."""

    def __init__(self, settings: SamplerSettings, seed: int) -> None:
        s = settings
        self.kind: tuple[float, ...] = (s.top_k, s.top_p, s.min_p, s.temperature) if s.temperature > 0 else ()
        self.pointer: Any = chain_of(stages_of(settings, seed))

    def clone(self) -> DeviceChain:
        other = object.__new__(DeviceChain)
        other.kind = self.kind
        other.pointer = llama.must(lib.llama_sampler_clone(self.pointer), "copy a sampler chain")
        return other

    def free(self) -> None:
        """Free the C memory; harmless when called twice."""
        pointer, self.pointer = self.pointer, None
        if pointer:
            lib.llama_sampler_free(pointer)


class Attached:
    """The chains by which a context draws, one per sequence. They stay attached when a request ends.

    A new chain makes llama.cpp plan its graphs again in the next evaluation, where a failed allocation ends the process. So the
    first chains are attached with the context, and a request that differs only in its seed gets the attached chain.
    """

    def __init__(self, n_sequences: int) -> None:
        self._chains = {sequence: DeviceChain(SamplerSettings(), 0) for sequence in range(n_sequences)}
        self._drawing: dict[int, DeviceChain] = {}  # the request's chain that each one copies
        self._configs = (lib.llama_sampler_seq_config * n_sequences)()
        for config, (sequence, chain) in zip(self._configs, self._chains.items(), strict=True):
            config.seq_id, config.sampler = sequence, ctypes.cast(chain.pointer, ctypes.c_void_p)

    def write_to(self, params: Any) -> None:
        """Attach the chains to a context that these parameters make."""
        params.samplers, params.n_samplers = self._configs, len(self._configs)

    def draw_by(self, context: Any, sequence: int, chain: DeviceChain | None) -> None:
        """Draw a sequence's next tokens by a chain, a new one from its first draw on; None detaches the sequence's chain."""
        there = self._chains.get(sequence)
        if chain is None:
            if there is not None:
                lib.llama_set_sampler(context, sequence, None)
                self._chains.pop(sequence).free()
                self._drawing.pop(sequence, None)
        elif self._drawing.get(sequence) is not chain:
            if there is None or there.kind != chain.kind:
                self._replace(context, sequence, chain)
            else:
                llama.sampler_copy(chain.pointer, there.pointer)
            self._drawing[sequence] = chain

    def _replace(self, context: Any, sequence: int, chain: DeviceChain) -> None:
        new = chain.clone()
        lib.llama_set_sampler(context, sequence, new.pointer)
        if (old := self._chains.pop(sequence, None)) is not None:
            old.free()
        self._chains[sequence] = new

    def free(self) -> None:
        """Free the C memory, after the context's."""
        for chain in self._chains.values():
            chain.free()
        self._chains.clear()
        self._drawing.clear()
