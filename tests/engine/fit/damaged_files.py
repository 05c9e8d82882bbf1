"""Damaged, truncated and foreign model files by number: the same seed and number give the same file."""

from __future__ import annotations

import gzip
import io
import json
import os
import pickle
import random
import struct
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.engine.tiny_architectures import ARCHITECTURES
from tests.engine.tiny_gguf import ARRAY, BOOL, F32, I32, STRING, U32, U64, File, Tensor, tiny_model

Maker = Callable[[random.Random, Path], None]
SOUND: list[Callable[[], File]] = [tiny_model, tiny_model, *ARCHITECTURES.values()]
NUMBERS = (0, 1, 2, 3, 7, 31, 64, 127, 255, 4096, 65535, 2**24, 2**31 - 1, 2**31, 2**32 - 1)
FLOATS = (0.0, -1.0, 1e-30, 1e30, float("nan"), float("inf"), float("-inf"), 1.0, 1e-5)
TEXTS = ("", "llama", "gpt2", "none", "\0", "x" * 5000, "qwen2", "mamba", "gemma3", "bert", "clip", "no_vocab", "\x7f", "yarn")


def written_case(seed: int, number: int, directory: Path, real: Path | None = None) -> tuple[str, Path]:
    """Write one file: what kind of damage it has, and where it lies. A ``real`` model's header is damaged, too, if given."""
    draw = random.Random(f"{seed} {number}")
    kinds = [*KINDS, *([("a real header", 3, None)] if real else [])]
    kind, _, make = draw.choices(kinds, [weight for _, weight, _ in kinds])[0]
    path = directory / f"case{number}.gguf"
    if make is None:
        assert real is not None
        _real_header(draw, path, real)
    else:
        make(draw, path)
    return kind, path


# --- bytes ------------------------------------------------------------------------------------------------------------------


def _edited(region: str) -> Maker:
    def make(draw: random.Random, path: Path) -> None:
        file = draw.choice(SOUND)()
        data = bytearray(file.to_bytes())
        begin, end = file.regions.get(region) or (file.regions["infos"][1], len(data))
        for _ in range(draw.choice([1, 1, 1, 2, 5])):
            at, width = draw.randrange(begin, end - 8), draw.choice([1, 1, 2, 4, 8])
            data[at : at + width] = draw.choice([draw.randbytes(width), b"\xff" * width, b"\0" * width])
        path.write_bytes(data)

    return make


def _head(draw: random.Random, path: Path) -> None:
    data = bytearray(tiny_model().to_bytes())
    at = draw.choice([0, 4, 8, 16])
    data[at : at + 4] = draw.choice([draw.randbytes(4), struct.pack("<I", draw.choice(NUMBERS))])
    path.write_bytes(data)


def _cut(draw: random.Random, path: Path) -> None:
    data = draw.choice(SOUND)().to_bytes()
    path.write_bytes(data[: draw.choice([draw.randrange(len(data)), len(data) - draw.randrange(1, 64)])])


def _shifted(draw: random.Random, path: Path) -> None:
    data = draw.choice(SOUND)().to_bytes()
    at, n = draw.randrange(len(data)), draw.choice([1, 3, 8, 32, 500])
    path.write_bytes(data[:at] + (draw.randbytes(n) + data[at:] if draw.random() < 0.5 else data[at + n :]))


def _longer(draw: random.Random, path: Path) -> None:
    path.write_bytes(draw.choice(SOUND)().to_bytes() + draw.randbytes(draw.choice([1, 31, 32, 4096])))


def _spliced(draw: random.Random, path: Path) -> None:
    one, other = (draw.choice(SOUND)().to_bytes() for _ in range(2))
    path.write_bytes(one[: draw.randrange(len(one))] + other[draw.randrange(len(other)) :])


def _weights(draw: random.Random, path: Path) -> None:
    file = draw.choice(SOUND)()
    tensor = draw.choice(file.tensors)
    value = struct.pack("<f", draw.choice(FLOATS))
    tensor.data = value * (len(tensor.data) // 4)
    path.write_bytes(file.to_bytes())


def _real_header(draw: random.Random, path: Path, real: Path) -> None:
    """The first megabytes of a real model, damaged; behind them, as many bytes as it should have, most of them a hole."""
    with real.open("rb") as source:
        head = bytearray(source.read(4 << 20))
    for _ in range(draw.choice([1, 2, 4])):
        at = draw.choice([draw.randrange(24), draw.randrange(4000), draw.randrange(1_800_000), draw.randrange(len(head) - 8)])
        head[at : at + 2] = draw.randbytes(2)
    with path.open("wb") as file:
        file.write(head)
        file.truncate(real.stat().st_size - draw.choice([0, 0, 1, 10**6]))


# --- what the file says -----------------------------------------------------------------------------------------------------


def _value(draw: random.Random) -> tuple[Any, ...]:
    kind = draw.choice([U32, U32, U32, F32, STRING, BOOL, U64, ARRAY])
    if kind == ARRAY:
        n = draw.choice([0, 1, 2, 3, 300])
        return draw.choice([(ARRAY, I32, [draw.choice([-1, 0, 1, 2]) for _ in range(n)]), (ARRAY, STRING, ["a"] * n)])
    values: dict[int, Any] = {U32: NUMBERS, U64: NUMBERS, F32: FLOATS, STRING: TEXTS, BOOL: (True, False)}
    return kind, draw.choice(values[kind])


def _said(draw: random.Random, path: Path) -> None:
    file = draw.choice(SOUND)()
    for _ in range(draw.choice([1, 1, 2])):
        key = draw.choice([k for k in file.metadata if k != "general.name"])
        old = file.metadata[key]
        if draw.random() < 0.6 and old[0] in (U32, F32, STRING):  # of the right type, and wrong
            file.metadata[key] = old[0], draw.choice({U32: NUMBERS, F32: FLOATS, STRING: TEXTS}[old[0]])
        else:
            file.metadata[key] = _value(draw)
    path.write_bytes(file.to_bytes())


EXTRA_KEYS = [
    "rope.scaling.type",
    "rope.scaling.factor",
    "rope.dimension_count",
    "rope.dimension_sections",
    "attention.sliding_window",
    "attention.causal",
    "attention.key_length",
    "attention.value_length",
    "attention.layer_norm_epsilon",
    "attention.clamp_kqv",
    "attention.scale",
    "expert_count",
    "expert_used_count",
    "expert_group_count",
    "leading_dense_block_count",
    "nextn_predict_layers",
    "vocab_size",
    "pooling_type",
    "ssm.conv_kernel",
    "ssm.state_size",
    "logit_scale",
    "embedding_scale",
]
GENERAL_KEYS = [
    "general.alignment",
    "general.file_type",
    "general.type",
    "general.sampling.temp",
    "split.count",
    "split.no",
    "tokenizer.ggml.pre",
    "tokenizer.ggml.merges",
    "tokenizer.ggml.add_bos_token",
    "tokenizer.ggml.eot_token_id",
    "tokenizer.ggml.unknown_token_id",
    "tokenizer.ggml.precompiled_charsmap",
    "tokenizer.ggml.suppress_tokens",
    "tokenizer.ggml.eog_token_ids",
]


def _more(draw: random.Random, path: Path) -> None:
    file = draw.choice(SOUND)()
    architecture = file.metadata["general.architecture"][1]
    for _ in range(draw.choice([1, 2])):
        own = draw.random() < 0.7
        key = f"{architecture}.{draw.choice(EXTRA_KEYS)}" if own else draw.choice(GENERAL_KEYS)
        file.metadata[key] = _value(draw)
    path.write_bytes(file.to_bytes())


def _less(draw: random.Random, path: Path) -> None:
    file = draw.choice(SOUND)()
    for _ in range(draw.choice([1, 2])):
        if draw.random() < 0.5:
            del file.metadata[draw.choice(list(file.metadata))]
        else:
            file.tensors.remove(draw.choice(file.tensors))
    path.write_bytes(file.to_bytes())


def _tensors(draw: random.Random, path: Path) -> None:
    file = draw.choice(SOUND)()
    tensor = draw.choice(file.tensors)
    match draw.randrange(5):
        case 0:
            tensor.shape = tuple(reversed(tensor.shape))
        case 1:
            tensor.shape = tuple(draw.choice([d, d * 2, d // 2, 1, 32]) for d in tensor.shape)
            tensor.data = bytes(4 * max(1, _product(tensor.shape)))
        case 2:
            tensor.kind = draw.choice([0, 1, 2, 8, 12, 24, 26, 28, 30, 39, 99])
        case 3:
            tensor.name = draw.choice([draw.choice(file.tensors).name, "blk.0.surprise", "", "x" * 70, "blk.99.attn_q.weight"])
        case _:
            file.tensors.insert(draw.randrange(3), Tensor("rope_freqs.weight", (draw.choice([1, 8, 16]),), bytes(64)))
    path.write_bytes(file.to_bytes())


def _product(shape: tuple[int, ...]) -> int:
    found = 1
    for d in shape:
        found *= d
    return found


def _vocabulary(draw: random.Random, path: Path) -> None:
    file = tiny_model()
    tokens = list(file.metadata["tokenizer.ggml.tokens"][2])
    for _ in range(draw.choice([1, 20])):
        tokens[draw.randrange(len(tokens))] = draw.choice(["", "a", "<0x41>", "\n", "é", "x" * 300, "<s>"])
    kinds = [draw.choice([1, 2, 3, 4, 5, 6, 0, 9, -1]) for _ in tokens] if draw.random() < 0.5 else [1] * len(tokens)
    file.metadata["tokenizer.ggml.tokens"] = (ARRAY, STRING, tokens)
    file.metadata["tokenizer.ggml.token_type"] = (ARRAY, I32, kinds)
    file.metadata["tokenizer.ggml.model"] = (STRING, draw.choice(["llama", "gpt2", "bert", "t5", "rwkv", "plamo2", "llama"]))
    path.write_bytes(file.to_bytes())


# --- other things -----------------------------------------------------------------------------------------------------------


def _foreign(draw: random.Random, path: Path) -> None:
    model, noise = tiny_model().to_bytes(), draw.randbytes(draw.choice([1, 24, 4096]))
    zipped, tarred = io.BytesIO(), io.BytesIO()
    with zipfile.ZipFile(zipped, "w") as archive:
        archive.writestr("model.gguf", model)
    with tarfile.open(fileobj=tarred, mode="w") as tar:
        tar.addfile(tarfile.TarInfo("model.gguf"))
    safetensors = (64).to_bytes(8, "little") + b'{"w":{"dtype":"F16","shape":[8],"data_offsets":[0,16]}}'.ljust(80)
    contents = [
        b"", noise, b"GGUF" + noise, b"GGUF\x03\0\0\0" + noise, b"FUGG" + model[4:], b"lmgg" + noise,
        b"\x7fELF\x02\x01\x01" + noise, b"MZ" + noise, b"\x89PNG\r\n\x1a\n" + noise, b"%PDF-1.7\n" + noise, b"PK" + noise,
        safetensors, pickle.dumps([1] * 99),
        json.dumps({"error": "not found"}).encode() * 9, b"no weights, only words\n" * 99, "Grüße\n".encode("utf-16") * 20,
        gzip.compress(model), zipped.getvalue(), tarred.getvalue(), bytes(len(model)), model[::-1],
    ]  # fmt: skip
    path.write_bytes(draw.choice(contents))


def _no_file(draw: random.Random, path: Path) -> None:
    kinds = [
        "directory",
        "dangling link",
        "link to itself",
        "sparse giant",
        "giant header",
        "forbidden",
        "model in a directory",
    ]
    match draw.choice([*kinds, *(["pipe", "pipe", "device"] if hasattr(os, "mkfifo") else [])]):
        case "pipe":
            os.mkfifo(path)
        case "device":
            _link(path, draw.choice(["/dev/zero", "/dev/null", "/dev/random"]))
        case "directory":
            path.mkdir()
        case "a model inside":
            path.mkdir()
            tiny_model().write(path / "model.gguf")
        case "dangling link":
            _link(path, path.with_name("nowhere"))
        case "link to itself":
            _link(path, path)
        case "forbidden":
            tiny_model().write(path).chmod(0)
        case "giant header":
            claims = struct.pack("<IQQ", 3, draw.choice([1, 2**17, 2**40]), draw.choice([1, 2**16, 2**40]))
            _sparse(path, b"GGUF" + claims, 2**34)
        case _:
            _sparse(path, draw.choice([b"", b"GGUF", tiny_model().to_bytes()]), 2**40)


def _link(path: Path, target: str | Path) -> None:
    try:
        path.symlink_to(target)
    except OSError:  # Windows lets only some users make links
        path.write_bytes(b"")


def _sparse(path: Path, head: bytes, size: int) -> None:
    with path.open("wb") as file:
        file.write(head)
        try:
            file.truncate(size)
        except OSError:  # this file system has a smaller limit
            file.truncate(2**31)


KINDS: list[tuple[str, int, Maker | None]] = [
    ("edited metadata", 14, _edited("metadata")),
    ("edited tensor table", 10, _edited("infos")),
    ("edited weights", 4, _edited("weights")),
    ("edited head", 3, _head),
    ("truncated", 8, _cut),
    ("bytes inserted or lost", 6, _shifted),
    ("bytes appended", 2, _longer),
    ("two files in one", 4, _spliced),
    ("weights of one value", 5, _weights),
    ("wrong values", 14, _said),
    ("keys too many", 12, _more),
    ("keys or tensors missing", 6, _less),
    ("wrong tensors", 8, _tensors),
    ("another vocabulary", 5, _vocabulary),
    ("foreign", 6, _foreign),
    ("no plain file", 4, _no_file),
]
