"""Write GGUF files for tests: a sound one of a few kilobytes that llama.cpp loads, and whatever damage a test asks for."""

from __future__ import annotations

import random
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any

U8, I8, U16, I16, U32, I32, F32, BOOL, STRING, ARRAY, U64, I64, F64 = range(13)
_FORMATS = {U8: "B", I8: "b", U16: "H", I16: "h", U32: "I", I32: "i", F32: "f", BOOL: "?", U64: "Q", I64: "q", F64: "d"}
ALIGNMENT = 32


@dataclass
class Tensor:
    """``kind`` is a ggml type id; ``offset`` None lets the writer place it."""

    name: str
    shape: tuple[int, ...]
    data: bytes
    kind: int = 0
    offset: int | None = None


@dataclass
class File:
    """A GGUF to be written. ``metadata`` maps a key to (type, value); an array is (ARRAY, element type, values)."""

    metadata: dict[str, tuple[Any, ...]]
    tensors: list[Tensor]
    magic: bytes = b"GGUF"
    version: int = 3
    counts: tuple[int, int] | None = None
    regions: dict[str, tuple[int, int]] = field(default_factory=dict)  # filled when written: where things lie

    def to_bytes(self) -> bytes:
        counts = self.counts or (len(self.tensors), len(self.metadata))
        head = self.magic + struct.pack("<IQQ", self.version, *counts)
        pairs = b"".join(_text(key) + _value(value) for key, value in self.metadata.items())
        infos, data = b"", b""
        for tensor in self.tensors:
            place = len(data) if tensor.offset is None else tensor.offset
            n_dims = len(tensor.shape)
            infos += _text(tensor.name) + struct.pack(f"<I{n_dims}QIQ", n_dims, *tensor.shape, tensor.kind, place)
            data += tensor.data + b"\0" * (-len(tensor.data) % ALIGNMENT)
        first, second = len(head) + len(pairs), len(head) + len(pairs) + len(infos)
        self.regions = {"metadata": (len(head), first), "infos": (first, second)}
        return head + pairs + infos + b"\0" * (-second % ALIGNMENT) + data

    def write(self, path: Path) -> Path:
        path.write_bytes(self.to_bytes())
        return path


def tiny_model(**changes: Any) -> File:
    """A llama of two layers with random weights and a byte vocabulary, about 90 kB; ``changes`` replace sizes below."""
    size = {"layers": 2, "width": 32, "heads": 2, "kv_heads": 1, "ff": 64, "context": 128} | changes
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{n:02X}>" for n in range(256)), *"▁abcdefghijklmnopqrstuvwxyz"]
    types = [2, 3, 3, *[6] * 256, *[1] * 27]
    metadata: dict[str, tuple[Any, ...]] = {
        "general.architecture": (STRING, "llama"),
        "general.name": (STRING, "tiny"),
        "llama.block_count": (U32, size["layers"]),
        "llama.context_length": (U32, size["context"]),
        "llama.embedding_length": (U32, size["width"]),
        "llama.feed_forward_length": (U32, size["ff"]),
        "llama.attention.head_count": (U32, size["heads"]),
        "llama.attention.head_count_kv": (U32, size["kv_heads"]),
        "llama.attention.layer_norm_rms_epsilon": (F32, 1e-5),
        "llama.rope.freq_base": (F32, 10000.0),
        "tokenizer.ggml.model": (STRING, "llama"),
        "tokenizer.ggml.tokens": (ARRAY, STRING, tokens),
        "tokenizer.ggml.scores": (ARRAY, F32, [-float(n) for n in range(len(tokens))]),
        "tokenizer.ggml.token_type": (ARRAY, I32, types),
        "tokenizer.ggml.bos_token_id": (U32, 1),
        "tokenizer.ggml.eos_token_id": (U32, 2),
        "tokenizer.chat_template": (STRING, "{% for m in messages %}{{ m.content }}{% endfor %}"),
    }
    return File(metadata, _tensors(size, len(tokens)))


def _tensors(size: Mapping[str, int], n_vocab: int) -> list[Tensor]:
    width, ff = size["width"], size["ff"]
    kv = width // size["heads"] * size["kv_heads"]
    block = {
        "attn_norm.weight": (width,), "attn_q.weight": (width, width), "attn_k.weight": (width, kv),
        "attn_v.weight": (width, kv), "attn_output.weight": (width, width), "ffn_norm.weight": (width,),
        "ffn_gate.weight": (width, ff),
        "ffn_up.weight": (width, ff), "ffn_down.weight": (ff, width),
    }  # fmt: skip
    return random_tensors(width, n_vocab, [block] * size["layers"])


def random_tensors(width: int, n_vocab: int, blocks: Sequence[Mapping[str, tuple[int, ...]]]) -> list[Tensor]:
    """Embeddings, the last norm and each block's tensors, with small random weights of a fixed seed."""
    shapes: dict[str, tuple[int, ...]] = {"token_embd.weight": (width, n_vocab), "output_norm.weight": (width,)}
    for n, block in enumerate(blocks):
        shapes |= {f"blk.{n}.{name}": shape for name, shape in block.items()}
    draw = random.Random(0)
    return [Tensor(name, shape, _floats(draw, shape)) for name, shape in shapes.items()]


def _floats(draw: random.Random, shape: tuple[int, ...]) -> bytes:
    count = prod(shape)
    return struct.pack(f"<{count}f", *(draw.gauss(0, 0.1) for _ in range(count)))


def _text(text: str) -> bytes:
    data = text.encode()
    return struct.pack("<Q", len(data)) + data


def _value(value: tuple[Any, ...]) -> bytes:
    kind = value[0]
    if kind != ARRAY:
        return struct.pack("<I", kind) + _scalar(kind, value[1])
    element, values = value[1], value[2]
    return struct.pack("<IIQ", ARRAY, element, len(values)) + b"".join(_scalar(element, v) for v in values)


def _scalar(kind: int, value: Any) -> bytes:
    return _text(value) if kind == STRING else struct.pack("<" + _FORMATS[kind], value)
