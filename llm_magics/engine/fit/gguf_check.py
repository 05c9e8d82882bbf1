"""Check that a GGUF's metadata and tensors describe a possible model, and that a configuration suits it. llama.cpp asserts
several of these conditions, which would end the process.

Unusual files pass: a trial in a child process (:mod:`.probe`) tells whether llama.cpp can run a sound file.
"""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

from llm_magics.engine.values import FlashAttention, KVType
from llm_magics.errors import ModelFileError, OptionError, UnsupportedModelError

from .gguf import Array, Gguf, read_gguf

_MAX_LAYERS, _MAX_EXPERTS = 512, 1024  # llama.cpp's own limits
_MAX_COUNT = 1 << 28  # of anything else: widths, heads, context
_NO_TOKEN = 0xFFFFFFFF  # converters write this for "has none"
_ROPE_SCALINGS = ("none", "linear", "yarn", "longrope")
_BLOCK = re.compile(r"blk\.(\d+)\.")  # e.g. "blk.12.attn_q.weight"; encoder-decoders have "dec.blk.3.ffn_up.weight"
_DECISIVE_TOKENS = ("bos", "eos", "eot", "eom")  # real files have wrong ids of others, which llama.cpp does not need
_I32, _F32 = 5, 6  # GGUF types of token_type and scores


def read_model(path: str | Path) -> Gguf:
    """Read a GGUF and check it as a language model. Raises ModelFileError or UnsupportedModelError that names the fault."""
    gguf = read_gguf(path)
    check_model(gguf)
    return gguf


def check_model(gguf: Gguf) -> None:
    """Raise ModelFileError or UnsupportedModelError unless the metadata and the tensors describe one possible model."""
    _Checks(gguf).all()


class _Checks:
    def __init__(self, gguf: Gguf) -> None:
        self.gguf = gguf
        self.name = gguf.paths[0].name

    def all(self) -> None:
        self.kind()
        n_blocks = self.count("block_count", 1, _MAX_LAYERS)
        self.widths(n_blocks)
        self.experts(n_blocks)
        self.numbers()
        self.blocks(n_blocks)
        self.vocabulary()

    def kind(self) -> None:
        kind = self.gguf.metadata.get("general.type", "model")
        if kind != "model":
            what = f"{self.name} is a GGUF of type {kind!r}, not a language model."
            raise UnsupportedModelError(what, "Name the model's own file.")
        if not isinstance(self.gguf.metadata.get("general.architecture"), str) or not self.gguf.architecture:
            raise self.bad("it does not name its architecture")
        if not self.gguf.tensors:
            raise self.bad("it has no tensors, so it is a vocabulary at most")

    def widths(self, n_blocks: int) -> None:
        self.count("context_length", 1)
        width = self.count("embedding_length", 1)
        self.counts("feed_forward_length", n_blocks)
        heads = self.counts("attention.head_count", n_blocks)
        kv_heads = self.counts("attention.head_count_kv", n_blocks) or heads
        for own, shared in zip(heads, kv_heads, strict=False):  # recurrent models may have neither
            if own and shared and own % shared:
                raise self.bad(f"it has {own} attention heads on {shared} key-value heads")
        if heads and heads[0] > width:
            raise self.bad(f"it has {heads[0]} attention heads in a width of {width}")
        for key in ("attention.key_length", "attention.value_length", "rope.dimension_count", "attention.sliding_window"):
            self.counts(key, n_blocks)

    def experts(self, n_blocks: int) -> None:
        experts = self.optional("expert_count", _MAX_EXPERTS)
        used = max(self.counts("expert_used_count", n_blocks), default=0)
        if used > experts or (experts and not used):
            raise self.bad(f"it uses {used} of {experts} experts")
        groups = self.optional("expert_group_count")
        if groups and (groups >= max(experts, 1) or experts % groups):
            raise self.bad(f"it has {experts} experts in {groups} groups")

    def numbers(self) -> None:
        for key, value in self.gguf.metadata.items():
            if not isinstance(value, float) or not key.startswith(f"{self.gguf.architecture}."):
                continue
            negative = (value < 0 and key.endswith("epsilon")) or (value <= 0 and key.endswith("rope.freq_base"))
            if negative or not math.isfinite(value):
                raise self.bad(f"{key} is {value}")
        scaling = self.gguf.arch("rope.scaling.type", "none")
        if scaling not in _ROPE_SCALINGS:
            raise self.bad(f"it scales its positions by the unknown method {scaling!r}")

    def blocks(self, n_blocks: int) -> None:
        """Every layer must have tensors, and every tensor's layer must exist. Layers without heads may lack tensors, and so may
        those that only predict further tokens, at the end."""
        found = {int(m[1]) for t in self.gguf.tensors if (m := _BLOCK.match(t.name))}
        if not found and any(".blk." in t.name for t in self.gguf.tensors):
            return  # an encoder-decoder counts the layers of each side
        if found and max(found) >= n_blocks:
            raise self.bad(f"it has tensors of layer {max(found)}, but {n_blocks} layers")
        heads = self.counts("attention.head_count", n_blocks)
        required = n_blocks - self.optional("nextn_predict_layers", _MAX_LAYERS)
        missing = [n for n in range(required) if n not in found and (not heads or heads[n])]
        if missing:
            raise self.bad(f"it has no tensor of layer {missing[0]}, of {n_blocks} layers")

    def vocabulary(self) -> None:
        model = self.gguf.metadata.get("tokenizer.ggml.model")
        if not isinstance(model, str):
            raise self.bad("it has no tokenizer")
        tokens = self.gguf.metadata.get("tokenizer.ggml.tokens")
        if not isinstance(tokens, Array):
            if model in ("none", "no_vocab"):
                return
            raise self.bad("it has no vocabulary")
        if not tokens.is_strings or not len(tokens):
            raise self.bad("its vocabulary is not a list of texts")
        named = [t for t in tokens if t]  # llama.cpp names empty tokens itself
        if len(set(named)) != len(named):
            raise self.bad("its vocabulary has the same token twice")
        self.parallel("tokenizer.ggml.scores", len(tokens), (_F32, _I32))
        self.parallel("tokenizer.ggml.token_type", len(tokens), (_I32,))
        self.token_ids(len(tokens))
        self.embedding(len(tokens))

    def parallel(self, key: str, n_tokens: int, types: tuple[int, ...]) -> None:
        values = self.gguf.metadata.get(key)
        if values is not None and not (isinstance(values, Array) and values.type in types and len(values) >= n_tokens):
            raise self.bad(f"{key} does not give one number for each of {n_tokens:,} tokens")

    def token_ids(self, n_tokens: int) -> None:
        for token in _DECISIVE_TOKENS:
            key = f"tokenizer.ggml.{token}_token_id"
            value = self.gguf.metadata.get(key, _NO_TOKEN)
            if type(value) is not int or not (0 <= value < n_tokens or value in (_NO_TOKEN, -1)):
                raise self.bad(f"{key} is {value}, in a vocabulary of {n_tokens:,}")

    def embedding(self, n_tokens: int) -> None:
        table = next((t for t in self.gguf.tensors if t.name == "token_embd.weight"), None)
        if table is None:
            raise self.bad("it has no token embeddings")
        wanted = (self.gguf.arch("embedding_length"), n_tokens)
        if table.shape != wanted:
            raise self.bad(f"its token embeddings have the shape {table.shape}, expected {wanted}")

    def count(self, key: str, least: int, most: int = _MAX_COUNT) -> int:
        """The whole number under the architecture's key, within bounds."""
        value = self.gguf.arch(key)
        if value is None:
            raise self.bad(f"it lacks its {key}")
        return self.within(key, value, least, most)

    def optional(self, key: str, most: int = _MAX_COUNT) -> int:
        """Like :meth:`count`; 0 if the key is absent."""
        return self.within(key, self.gguf.arch(key, 0), 0, most)

    def counts(self, key: str, n_blocks: int) -> list[int]:
        """One whole number per layer, from one number for all or an array; empty if the key is absent."""
        value = self.gguf.arch(key)
        if value is None:
            return []
        if not isinstance(value, Array):
            return [self.within(key, value, 0, _MAX_COUNT)] * n_blocks
        if len(value) < n_blocks or value.is_strings:
            raise self.bad(f"{key} has {len(value)} values for {n_blocks} layers")
        return [self.within(key, v, 0, _MAX_COUNT) for v in value][:n_blocks]

    def within(self, key: str, value: Any, least: int, most: int) -> int:
        if type(value) is not int or not least <= value <= most:
            raise self.bad(f"its {key} is {value!r}")
        return value

    def bad(self, what: str) -> ModelFileError:
        return ModelFileError(f"{self.name} is damaged: {what}.", "Download it again, or check it against its sha256.")


def check_cache(kv: KVType, flash_attention: FlashAttention) -> None:
    """Refuse a quantised cache without flash attention, which llama.cpp needs to read it."""
    if kv != "f16" and flash_attention == "off":
        what = f"A {kv} KV cache needs flash attention, which is switched off."
        raise OptionError(what, "Set --flash-attn to auto or on, or use --kv f16.")


def trained_context(gguf: Gguf) -> int:
    """How many tokens of context the model can use according to the file, with its scaling of positions; 0 if unknown.

    With a scaling, ``context_length`` may be the length before it, e.g. 32,768 with a factor of 4 over an original 32,768.
    """
    trained = _number(gguf, "context_length")
    if gguf.arch("rope.scaling.type", "none") == "none":
        return int(trained)
    scaled = _number(gguf, "rope.scaling.original_context_length") * max(1.0, _number(gguf, "rope.scaling.factor"))
    return int(max(trained, scaled))


def check_context(gguf: Gguf, n_ctx: int) -> None:
    """Refuse a context longer than the model can use: beyond that, it silently answers with nonsense."""
    limit = trained_context(gguf)
    if 0 < limit < n_ctx:
        raise OptionError(
            f"{gguf.paths[0].name} was trained for a context of {limit:,} tokens and cannot use {n_ctx:,}.",
            f"Load it with --ctx {limit} or less, or with --ctx auto.",
        )


def _number(gguf: Gguf, key: str) -> float:
    value = gguf.arch(key, 0)
    return value if isinstance(value, int | float) else 0
