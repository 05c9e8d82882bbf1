"""Damaged and foreign files, fixed seeds: whatever is in a file, the answer is a named error or a model that loads.

What passes our own checks is loaded in a child process only, as it is outside the tests; a child that dies there is such a
named error too. The kernel's own process never sees such a file: that this process is still here at the end is the point.
"""

from __future__ import annotations

import gzip
import io
import json
import os
import pickle
import random
import shutil
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from llm_magics.engine.fit.gguf import read_gguf
from llm_magics.engine.fit.gguf_check import read_model
from llm_magics.engine.fit.probe import try_model
from llm_magics.errors import ModelFileError, UnsupportedModelError
from tests.engine.tiny_gguf import tiny_model


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLM_MAGICS_CACHE", str(tmp_path / "cache"))


def verdict(path: Path) -> str:
    """How loading this file would end: "" where it loads, else what our error says; any other exception comes through."""
    try:
        gguf = read_model(path)
        try_model(gguf.paths)
    except (ModelFileError, UnsupportedModelError) as error:
        return error.what
    return ""


def test_the_undamaged_file_loads(tmp_path: Path) -> None:
    assert verdict(tiny_model().write(tmp_path / "tiny.gguf")) == ""


def test_fifty_truncations_are_refused_without_trying_them(tmp_path: Path) -> None:
    data = tiny_model().to_bytes()
    draw = random.Random(50)
    for length in [0, 1, 4, 23, 24, len(data) - 1, *(draw.randrange(len(data)) for _ in range(44))]:
        path = tmp_path / "cut.gguf"
        path.write_bytes(data[:length])
        with pytest.raises(ModelFileError, match=r"cut\.gguf"):
            read_model(path)


def edits(region: str, count: int, seed: int) -> Iterator[bytes]:
    """A sound file with one to four bytes of a region replaced."""
    file = tiny_model()
    data = file.to_bytes()
    begin, end = file.regions[region]
    draw = random.Random(seed)
    for _ in range(count):
        at, width = draw.randrange(begin, end - 4), draw.choice([1, 1, 2, 4])
        replacement = draw.choice([draw.randbytes(width), b"\xff" * width, b"\0" * width])
        yield data[:at] + replacement + data[at + width :]


@pytest.mark.parametrize(("region", "count"), [("metadata", 75), ("infos", 50)])
def test_edits_end_in_a_named_error_or_in_a_model_that_loads(region: str, count: int, tmp_path: Path) -> None:
    outcomes = []
    for n, data in enumerate(edits(region, count, seed=count)):
        path = tmp_path / f"edit{n}.gguf"
        path.write_bytes(data)
        outcomes.append(verdict(path))
    refused = [o for o in outcomes if o]
    assert refused, "no edit was noticed"
    assert all(".gguf" in o for o in refused)
    if region == "infos":  # almost every byte of the tensor table matters
        assert len(refused) > count * 0.8


def foreign() -> dict[str, bytes]:
    """Twenty-five things that are not a GGUF."""
    zipped, tarred = io.BytesIO(), io.BytesIO()
    with zipfile.ZipFile(zipped, "w") as archive:
        archive.writestr("model.gguf", tiny_model().to_bytes())
    with tarfile.open(fileobj=tarred, mode="w") as tar:
        tar.addfile(tarfile.TarInfo("model.gguf"))
    model, noise = tiny_model().to_bytes(), random.Random(25).randbytes(4096)
    return {
        "empty": b"",
        "one byte": b"G",
        "magic only": b"GGUF",
        "zeros": bytes(4096),
        "ones": b"\xff" * 4096,
        "noise": noise,
        "magic and noise": b"GGUF" + noise,
        "magic and ones": b"GGUF\x03\0\0\0" + b"\xff" * 4096,
        "version 3 and noise": b"GGUF\x03\0\0\0" + noise,
        "html": b"<!doctype html><title>404</title>" * 9,
        "json": json.dumps({"error": "Entry not found", "x": "y" * 99}).encode(),
        "git lfs": b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 98362432\n",
        "zip": zipped.getvalue(),
        "tar": tarred.getvalue(),
        "gzip": gzip.compress(model),
        "pickle": pickle.dumps(list(range(999))),
        "safetensors": (64).to_bytes(8, "little") + b'{"w":{"dtype":"F16","shape":[8],"data_offsets":[0,16]}}'.ljust(80),
        "png": b"\x89PNG\r\n\x1a\n" + noise,
        "elf": b"\x7fELF\x02\x01\x01" + bytes(64),
        "pe": b"MZ" + noise,
        "ggml": b"lmgg" + noise,
        "ggjt": b"tjgg\x03\0\0\0" + noise,
        "upper byte order": b"FUGG" + model[4:],
        "text": b"no weights, only words\n" * 99,
        "shifted": b"\0" + model,
    }


@pytest.mark.parametrize("name", foreign())
def test_a_foreign_file_is_refused_by_name(name: str, tmp_path: Path) -> None:
    path = tmp_path / "foreign.gguf"
    path.write_bytes(foreign()[name])
    with pytest.raises((ModelFileError, UnsupportedModelError), match=r"foreign\.gguf"):
        read_gguf(path)


def test_there_are_twenty_five_foreign_files() -> None:
    assert len(foreign()) == 25


def test_a_directory_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match="cannot be read"):
        read_gguf(tmp_path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs a pipe with a name")
def test_a_pipe_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.gguf")
    with pytest.raises(ModelFileError, match=r"pipe\.gguf cannot be read: it is not a file"):
        read_gguf(tmp_path / "pipe.gguf")


def test_a_file_that_goes_on_for_long_behind_its_tensors_is_refused(tmp_path: Path) -> None:
    path = tiny_model().write(tmp_path / "long.gguf")
    with path.open("ab") as file:
        file.write(bytes(100))
    assert verdict(path) == ""
    with path.open("r+b") as file:
        file.truncate(1 << 30)  # a hole
    assert "behind its last tensor" in verdict(path)


@pytest.fixture(scope="module")
def real_copy(smollm: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of a real model, to be damaged in place and mended again."""
    path = tmp_path_factory.mktemp("real") / "real.gguf"
    shutil.copyfile(smollm, path)
    return path


@pytest.mark.model
@pytest.mark.parametrize(("region", "count"), [("metadata", 75), ("infos", 50)])
def test_a_real_model_with_edits_ends_in_a_named_error_or_loads(region: str, count: int, real_copy: Path) -> None:
    header = min(t.offset for t in read_gguf(real_copy).tensors)
    table = header - 20_000  # the tensor table is the last part of the header
    begin, end = (24, table) if region == "metadata" else (table, header - 32)
    draw = random.Random(count)
    outcomes = []
    for _ in range(count):
        at = draw.randrange(begin, end)
        with real_copy.open("r+b") as file:
            file.seek(at)
            before = file.read(2)
            file.seek(at)
            file.write(draw.randbytes(2))
        outcomes.append(verdict(real_copy))
        with real_copy.open("r+b") as file:
            file.seek(at)
            file.write(before)
    assert any(outcomes), "no edit was noticed"
    assert all(o == "" or "real.gguf" in o for o in outcomes)
    assert verdict(real_copy) == "", "the edits were not undone"


@pytest.mark.model
def test_a_real_model_cut_off_anywhere_is_refused(smollm: Path, tmp_path: Path) -> None:
    path = tmp_path / "real.gguf"
    shutil.copyfile(smollm, path)
    draw = random.Random(98)
    for length in sorted((draw.randrange(path.stat().st_size) for _ in range(50)), reverse=True):
        with path.open("r+b") as file:
            file.truncate(length)
        with pytest.raises(ModelFileError, match=r"real\.gguf"):
            read_model(path)
