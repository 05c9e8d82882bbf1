"""Tiny models whose memory is unlike a plain transformer's: experts, sliding windows, recurrent states, latent attention."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .tiny_gguf import F32, STRING, U32, File, random_tensors, tiny_model

Shape = tuple[int, ...]


def _of_architecture(name: str, extra: dict[str, tuple[Any, ...]], blocks: list[dict[str, Shape]]) -> File:
    plain = tiny_model(layers=len(blocks))
    metadata = {k.replace("llama.", f"{name}.", 1): v for k, v in plain.metadata.items()}
    metadata |= {"general.architecture": (STRING, name)} | {f"{name}.{k}": v for k, v in extra.items()}
    n_vocab = len(metadata["tokenizer.ggml.tokens"][2])
    return File(metadata, random_tensors(32, n_vocab, blocks))


def experts() -> File:
    """Two blocks of four experts, two of them used for each token."""
    block = _attention(kv=16) | {
        "ffn_gate_inp.weight": (32, 4), "ffn_gate_exps.weight": (32, 64, 4), "ffn_up_exps.weight": (32, 64, 4),
        "ffn_down_exps.weight": (64, 32, 4),
    }  # fmt: skip
    return _of_architecture("llama", {"expert_count": (U32, 4), "expert_used_count": (U32, 2)}, [block] * 2)


def sliding_window() -> File:
    """Seven blocks, of which six look back 32 tokens only."""
    norms = {"post_attention_norm.weight": (32,), "post_ffw_norm.weight": (32,)}
    block = _attention(kv=16) | _feed_forward() | norms | {"attn_q_norm.weight": (16,), "attn_k_norm.weight": (16,)}
    extra = {"attention.sliding_window": (U32, 32), "attention.key_length": (U32, 16), "attention.value_length": (U32, 16)}
    return _of_architecture("gemma3", extra, [block] * 7)


def recurrent() -> File:
    """Two blocks that keep a state of fixed size and no keys or values."""
    block = {
        "attn_norm.weight": (32,), "ssm_in.weight": (32, 128), "ssm_conv1d.weight": (4, 64), "ssm_conv1d.bias": (64,),
        "ssm_x.weight": (64, 34), "ssm_dt.weight": (2, 64), "ssm_dt.bias": (64,), "ssm_a": (16, 64), "ssm_d": (64,),
        "ssm_out.weight": (64, 32),
    }  # fmt: skip
    extra = {
        "attention.head_count": (U32, 0), "attention.head_count_kv": (U32, 0), "feed_forward_length": (U32, 0),
        "ssm.conv_kernel": (U32, 4), "ssm.inner_size": (U32, 64), "ssm.state_size": (U32, 16), "ssm.time_step_rank": (U32, 2),
    }  # fmt: skip
    return _of_architecture("mamba", extra, [block] * 2)


def latent_attention() -> File:
    """Three blocks that cache one compressed vector per token; the first is dense, the others have experts."""
    attention = {
        "attn_norm.weight": (32,), "attn_kv_a_norm.weight": (32,), "attn_q.weight": (32, 48), "attn_kv_a_mqa.weight": (32, 40),
        "attn_k_b.weight": (16, 32, 2), "attn_v_b.weight": (32, 16, 2), "attn_output.weight": (32, 32),
        "ffn_norm.weight": (32,),
    }  # fmt: skip
    moe = {
        "ffn_gate_inp.weight": (32, 4), "ffn_down_exps.weight": (16, 32, 4), "ffn_gate_exps.weight": (32, 16, 4),
        "ffn_up_exps.weight": (32, 16, 4), "ffn_gate_shexp.weight": (32, 16), "ffn_down_shexp.weight": (16, 32),
        "ffn_up_shexp.weight": (32, 16),
    }  # fmt: skip
    counts = {
        "attention.q_lora_rank": 0, "attention.kv_lora_rank": 32, "attention.key_length_mla": 24,
        "attention.value_length_mla": 16, "attention.key_length": 40, "attention.value_length": 32,
        "rope.dimension_count": 8, "leading_dense_block_count": 1,
        "expert_count": 4, "expert_used_count": 2, "expert_feed_forward_length": 16, "expert_shared_count": 1,
    }  # fmt: skip
    extra = {k: (U32, v) for k, v in counts.items()} | {"expert_weights_scale": (F32, 1.0)}
    dense = attention | {k: v for k, v in _feed_forward().items() if k != "ffn_norm.weight"}
    return _of_architecture("deepseek2", extra, [dense, attention | moe, attention | moe])


def _attention(kv: int) -> dict[str, Shape]:
    return {
        "attn_norm.weight": (32,), "attn_q.weight": (32, 32), "attn_k.weight": (32, kv), "attn_v.weight": (32, kv),
        "attn_output.weight": (32, 32), "ffn_norm.weight": (32,),
    }  # fmt: skip


def _feed_forward() -> dict[str, Shape]:
    return {"ffn_norm.weight": (32,), "ffn_gate.weight": (32, 64), "ffn_up.weight": (32, 64), "ffn_down.weight": (64, 32)}


ARCHITECTURES: dict[str, Callable[[], File]] = {f.__name__: f for f in (experts, sliding_window, recurrent, latent_attention)}
