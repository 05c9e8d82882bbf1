"""What a configuration must respect, whichever way it comes in: said before anything is loaded, with the option's name."""

from __future__ import annotations

from llm_magics.engine.values import FlashAttention, KVType
from llm_magics.errors import OptionError

from .gguf import Gguf


def check_cache(kv: KVType, flash_attention: FlashAttention) -> None:
    """Refuse a quantised cache without flash attention: llama.cpp can read quantised values in no other way."""
    if kv != "f16" and flash_attention == "off":
        raise OptionError(
            f"A {kv} KV cache needs flash attention, which is switched off.",
            "Leave --flash-attn at auto or on, or take --kv f16.",
        )


def trained_context(gguf: Gguf) -> int:
    """How many tokens of context the file says its model can use, in its own scaling of positions; 0 where it does not say.

    ``context_length`` is what the model was trained for. Where the file brings a scaling, that may be its length before, e.g.
    32,768 with a factor of 4 over an original context of 32,768.
    """
    trained = _number(gguf, "context_length")
    if gguf.arch("rope.scaling.type", "none") == "none":
        return int(trained)
    scaled = _number(gguf, "rope.scaling.original_context_length") * max(1.0, _number(gguf, "rope.scaling.factor"))
    return int(max(trained, scaled))


def check_context(gguf: Gguf, n_ctx: int) -> None:
    """Refuse a context longer than the model can use: what lies behind it would be answered with nonsense, in silence."""
    limit = trained_context(gguf)
    if 0 < limit < n_ctx:
        raise OptionError(
            f"{gguf.paths[0].name} was trained for a context of {limit:,} tokens; {n_ctx:,} are more than it can use.",
            f"Load it with --ctx {limit} or less, or with --ctx auto.",
        )


def _number(gguf: Gguf, key: str) -> float:
    value = gguf.arch(key, 0)
    return value if isinstance(value, int | float) else 0
