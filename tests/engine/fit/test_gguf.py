"""The reader of GGUF headers: what it finds in sound files, and what it says of unsound ones."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llm_magics.engine.fit.gguf import Array, read_gguf
from llm_magics.engine.fit.gguf_check import read_model
from llm_magics.errors import ModelFileError, UnsupportedModelError
from tests.engine.tiny_gguf import ARRAY, F32, I32, STRING, U32, U64, File, Tensor, tiny_model


@pytest.mark.model
@pytest.mark.parametrize(
    ("model", "architecture", "layers", "vocabulary"), [("smollm", "llama", 30, 49152), ("qwen", "qwen2", 24, 151936)]
)
def test_a_real_model_reads_as_its_publisher_describes_it(
    model: str, architecture: str, layers: int, vocabulary: int, request: pytest.FixtureRequest
) -> None:
    path: Path = request.getfixturevalue(model)
    gguf = read_model(path)
    assert (gguf.architecture, gguf.arch("block_count")) == (architecture, layers)
    tokens = gguf.metadata["tokenizer.ggml.tokens"]
    assert isinstance(tokens, Array)
    assert (len(tokens), len(list(tokens))) == (vocabulary, vocabulary)
    assert "chat_template" in " ".join(gguf.metadata)
    assert gguf.size == path.stat().st_size
    assert sum(t.n_bytes for t in gguf.tensors) <= gguf.size


def test_everything_written_is_read_back(tmp_path: Path) -> None:
    file = tiny_model()
    file.metadata |= {"x.u64": (U64, 2**40), "x.text": (STRING, "grüß")}
    file.metadata |= {"x.list": (ARRAY, I32, [-1, 0, 7]), "x.none": (ARRAY, STRING, [])}
    gguf = read_model(file.write(tmp_path / "tiny.gguf"))
    assert (gguf.metadata["x.u64"], gguf.metadata["x.text"]) == (2**40, "grüß")
    assert [list(gguf.metadata[k]) for k in ("x.list", "x.none")] == [[-1, 0, 7], []]
    data = (tmp_path / "tiny.gguf").read_bytes()
    for info, tensor in zip(gguf.tensors, file.tensors, strict=True):
        assert (info.name, info.shape) == (tensor.name, tensor.shape)
        assert data[info.offset : info.offset + info.n_bytes] == tensor.data


def test_no_part_of_the_file_stays_open_or_mapped(tmp_path: Path) -> None:
    path = tiny_model().write(tmp_path / "tiny.gguf")
    gguf = read_model(path)
    path.write_bytes(b"\0" * path.stat().st_size)
    tokens = gguf.metadata["tokenizer.ggml.tokens"]
    assert isinstance(tokens, Array)
    assert next(iter(tokens)) == b"<unk>"


Change = Callable[[File], Any]


def setting(key: str, *value: Any) -> Change:
    return lambda file: file.metadata.__setitem__(key, value)


def dropping(key: str) -> Change:
    return lambda file: file.metadata.pop(key)


def tensor(index: int, **values: Any) -> Change:
    return lambda file: [setattr(file.tensors[index], k, v) for k, v in values.items()]


def header(**values: Any) -> Change:
    return lambda file: [setattr(file, k, v) for k, v in values.items()]


# what is done to a sound file, and what the refusal must say
WRONG: list[tuple[Change, str]] = [
    (header(magic=b"GGML"), "not a GGUF"),
    (header(version=1), "version 1"),
    (header(version=9), "version 9"),
    (header(version=0x03000000), "big-endian"),
    (header(counts=(2**40, 3)), "claims"),
    (header(counts=(20, 2**62)), "claims"),
    (header(counts=(20, 500)), "damaged"),
    (setting("general.alignment", U32, 3), "alignment"),
    (setting("general.alignment", U32, 0), "alignment"),
    (setting("", U32, 1), "empty"),
    (setting("general.type", STRING, "mmproj"), "mmproj"),
    (dropping("general.architecture"), "architecture"),
    (dropping("llama.block_count"), "block_count"),
    (setting("llama.block_count", U32, 0), "block_count"),
    (setting("llama.block_count", U32, 513), "block_count"),
    (setting("llama.block_count", U32, 1), "layer 1"),
    (setting("llama.block_count", U32, 3), "layer 2"),
    (setting("llama.block_count", STRING, "2"), "block_count"),
    (setting("llama.context_length", U32, 0), "context_length"),
    (setting("llama.embedding_length", U32, 64), "embeddings"),
    (setting("llama.embedding_length", U64, 2**50), "embedding_length"),
    (setting("llama.attention.head_count", U32, 2**31), "head_count"),
    (setting("llama.attention.head_count", U32, 33), "33 attention heads"),
    (setting("llama.attention.head_count", ARRAY, U32, [2]), "1 values for 2 layers"),
    (setting("llama.attention.head_count_kv", U32, 3), "key-value heads"),
    (setting("llama.attention.layer_norm_rms_epsilon", F32, math.nan), "epsilon"),
    (setting("llama.attention.layer_norm_rms_epsilon", F32, -1.0), "epsilon"),
    (setting("llama.attention.layer_norm_rms_epsilon", F32, math.inf), "epsilon"),
    (setting("llama.rope.freq_base", F32, 0.0), "freq_base"),
    (setting("llama.rope.scaling.type", STRING, "magic"), "magic"),
    (setting("llama.expert_count", U32, 5000), "expert_count"),
    (setting("llama.expert_used_count", U32, 2), "experts"),
    (setting("llama.nextn_predict_layers", STRING, "one"), "nextn_predict_layers"),
    (dropping("tokenizer.ggml.model"), "tokenizer"),
    (dropping("tokenizer.ggml.tokens"), "vocabulary"),
    (setting("tokenizer.ggml.tokens", ARRAY, I32, [1, 2]), "vocabulary"),
    (setting("tokenizer.ggml.tokens", ARRAY, STRING, ["a"] * 286), "twice"),
    (setting("tokenizer.ggml.tokens", ARRAY, STRING, ["a", "b", "c"]), "embeddings"),
    (setting("tokenizer.ggml.scores", ARRAY, F32, [0.0]), "scores"),
    (setting("tokenizer.ggml.token_type", ARRAY, F32, [0.0] * 286), "token_type"),
    (setting("tokenizer.ggml.bos_token_id", U32, 286), "bos_token_id"),
    (setting("tokenizer.ggml.eos_token_id", F32, 1.0), "eos_token_id"),
    (setting("tokenizer.ggml.eot_token_id", I32, -2), "eot_token_id"),
    (tensor(0, name="other.weight"), "no token embeddings"),
    (tensor(0, name="x" * 64), "too long"),
    (tensor(2, name="token_embd.weight"), "two tensors"),
    (tensor(0, shape=(32, 285)), "has the offset 36,608, expected 36,480"),
    (tensor(0, shape=(2,) * 5), "5 dimensions"),
    (tensor(0, shape=(2**62, 4, 4)), "damaged"),
    (tensor(0, shape=(32, 0)), "impossible"),
    (tensor(0, kind=4), "quantisation type 4"),
    (tensor(0, kind=99), "quantisation type 99"),
    (tensor(0, kind=12), "impossible in Q4_K"),
    (tensor(1, offset=7), "has the offset 7, expected "),
    (tensor(-1, data=b""), "cut off"),
]


@pytest.mark.parametrize(("change", "says"), WRONG, ids=[f"{n}-{says[:24]}" for n, (_, says) in enumerate(WRONG)])
def test_a_file_that_cannot_be_true_is_refused_by_name(change: Change, says: str, tmp_path: Path) -> None:
    file = tiny_model()
    change(file)
    path = file.write(tmp_path / "tiny.gguf")
    with pytest.raises((ModelFileError, UnsupportedModelError)) as refusal:
        read_model(path)
    assert "tiny.gguf" in refusal.value.what
    assert says in refusal.value.what


# unusual, but files like these exist and run
RIGHT: list[Change] = [
    setting("tokenizer.ggml.padding_token_id", U32, 286),
    setting("tokenizer.ggml.eos_token_id", U32, 0xFFFFFFFF),
    setting("general.alignment", U32, 32),
    setting("llama.attention.head_count", ARRAY, U32, [2, 2]),
    setting("llama.nextn_predict_layers", U32, 0),
    setting("general.type", STRING, "model"),
    lambda file: file.tensors.append(Tensor("rope_freqs.weight", (16,), b"\0" * 64)),
]


@pytest.mark.parametrize("change", RIGHT, ids=range(len(RIGHT)))
def test_an_unusual_but_possible_file_is_accepted(change: Change, tmp_path: Path) -> None:
    file = tiny_model()
    change(file)
    assert read_model(file.write(tmp_path / "tiny.gguf")).architecture == "llama"


def split(file: File, directory: Path, parts: int = 3) -> list[Path]:
    """Write a model as ``parts`` files, as llama.cpp's splitter lays them out."""
    paths = []
    for n in range(parts):
        tensors = file.tensors[n::parts]
        common = {"split.no": (2, n), "split.count": (2, parts), "split.tensors.count": (I32, len(file.tensors))}
        part = File((file.metadata if n == 0 else {}) | common, tensors)
        paths.append(part.write(directory / f"tiny-{n + 1:05}-of-{parts:05}.gguf"))
    return paths


def test_a_split_model_reads_as_one(tmp_path: Path) -> None:
    whole, parts = tiny_model(), split(tiny_model(), tmp_path)
    gguf = read_model(parts[0])
    assert list(gguf.paths) == parts
    assert {t.name for t in gguf.tensors} == {t.name for t in whole.tensors}
    assert gguf.size == sum(p.stat().st_size for p in parts)


def test_a_missing_part_of_a_split_model_is_named(tmp_path: Path) -> None:
    parts = split(tiny_model(), tmp_path)
    parts[2].unlink()
    with pytest.raises(ModelFileError, match=parts[2].name):
        read_gguf(parts[0])


def test_a_part_of_another_model_is_noticed(tmp_path: Path) -> None:
    parts = split(tiny_model(), tmp_path)
    parts[2].write_bytes(parts[1].read_bytes())
    with pytest.raises(ModelFileError, match="same tensor"):
        read_gguf(parts[0])
