"""Read a GGUF's header and tensor table in pure Python, trusting nothing in it.

The format (https://github.com/ggml-org/ggml/blob/master/docs/gguf.md): magic, version, counts, metadata (typed key-value
pairs), one info per tensor, padding, tensor data. llama.cpp aborts the process on some damage here, so every length is checked
against the file before use. Arrays stay undecoded (a vocabulary has 150,000 strings); the header is copied and the file closed.
The gguf package trusts the lengths that a file states, and maps the whole file. :mod:`.gguf_check` checks the model's metadata.
"""

from __future__ import annotations

import mmap
import re
import stat
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any, TypeAlias

from llm_magics.errors import ModelFileError, UnsupportedModelError

_AGAIN = "Download it again, or check it against its sha256."
_SPLIT = re.compile(r"(?P<stem>.*)-(?P<part>\d{5})-of-(?P<parts>\d{5})\.gguf")

# far beyond any real model, and quick to read
_MAX_KEYS, _MAX_TENSORS, _MAX_STRINGS, _MAX_HEADER = 1 << 16, 1 << 17, 1 << 24, 1 << 30
_MAX_BEHIND = 16 << 20  # bytes behind the last tensor; real files have none
_MAX_NAME, _MAX_DIMS = 63, 4  # bytes, dimensions: llama.cpp's own limits

# ggml type id -> (name, weights per block, bytes per block)
GGML_TYPES: dict[int, tuple[str, int, int]] = {
    0: ("F32", 1, 4), 1: ("F16", 1, 2), 2: ("Q4_0", 32, 18), 3: ("Q4_1", 32, 20), 6: ("Q5_0", 32, 22), 7: ("Q5_1", 32, 24),
    8: ("Q8_0", 32, 34), 9: ("Q8_1", 32, 36), 10: ("Q2_K", 256, 84), 11: ("Q3_K", 256, 110), 12: ("Q4_K", 256, 144),
    13: ("Q5_K", 256, 176), 14: ("Q6_K", 256, 210), 15: ("Q8_K", 256, 292), 16: ("IQ2_XXS", 256, 66), 17: ("IQ2_XS", 256, 74),
    18: ("IQ3_XXS", 256, 98), 19: ("IQ1_S", 256, 50), 20: ("IQ4_NL", 32, 18), 21: ("IQ3_S", 256, 110), 22: ("IQ2_S", 256, 82),
    23: ("IQ4_XS", 256, 136), 24: ("I8", 1, 1), 25: ("I16", 1, 2), 26: ("I32", 1, 4), 27: ("I64", 1, 8), 28: ("F64", 1, 8),
    29: ("IQ1_M", 256, 56), 30: ("BF16", 1, 2), 34: ("TQ1_0", 256, 54), 35: ("TQ2_0", 256, 66), 39: ("MXFP4", 32, 17),
    40: ("NVFP4", 64, 36), 41: ("Q1_0", 128, 18), 42: ("Q2_0", 64, 18),
}  # fmt: skip

_STRING, _ARRAY = 8, 9
# metadata type id -> struct of one value, little-endian
_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_U32, _U64 = struct.Struct("<I"), struct.Struct("<Q")

Buffer: TypeAlias = bytes | mmap.mmap


@dataclass(frozen=True, slots=True)
class Array:
    """A metadata array, decoded when iterated, strings as bytes. ``type`` is the GGUF type id of its elements."""

    type: int
    count: int
    offset: int
    header: Buffer = field(repr=False)

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[Any]:
        if self.type == _STRING:
            return self._strings()
        scalar = struct.Struct("<" + _SCALARS[self.type])
        data = self.header[self.offset : self.offset + self.count * scalar.size]
        return (value for (value,) in scalar.iter_unpack(data))

    @property
    def is_strings(self) -> bool:
        return self.type == _STRING

    def _strings(self) -> Iterator[bytes]:
        position, header, unpack = self.offset, self.header, _U64.unpack_from
        for _ in range(self.count):
            start = position + 8
            position = start + unpack(header, position)[0]
            yield header[start:position]


Value: TypeAlias = int | float | bool | str | Array


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """One tensor: its shape (the row length first), its ggml type id, and the place of its bytes in part ``part``."""

    name: str
    shape: tuple[int, ...]
    type: int
    offset: int
    n_bytes: int
    part: int = 0

    @property
    def n_elements(self) -> int:
        return prod(self.shape)


@dataclass(frozen=True, slots=True)
class Gguf:
    """The header of one GGUF, or of all parts of a split one. ``size`` in bytes; ``metadata`` is the first part's."""

    paths: tuple[Path, ...]
    metadata: dict[str, Value]
    tensors: tuple[TensorInfo, ...]
    size: int

    @property
    def architecture(self) -> str:
        return str(self.metadata.get("general.architecture", ""))

    def arch(self, key: str, default: Any = None) -> Any:
        """The value under the architecture's own prefix, e.g. ``arch("block_count")`` reads ``llama.block_count``."""
        return self.metadata.get(f"{self.architecture}.{key}", default)

    @property
    def n_params(self) -> int:
        return sum(t.n_elements for t in self.tensors)


def read_gguf(path: str | Path) -> Gguf:
    """Read a GGUF, all parts if it is split. Raises ModelFileError or UnsupportedModelError that names the fault."""
    first = _read_part(Path(path), 0)
    parts = [first, *(_read_part(p, n) for n, p in enumerate(_further_parts(first), 1))]
    tensors = tuple(t for part in parts for t in part.tensors)
    if len({t.name for t in tensors}) != len(tensors):
        raise _damaged(first.paths[0], "two of its parts hold the same tensor")
    expected = first.metadata.get("split.tensors.count")
    if len(parts) > 1 and expected != len(tensors):
        raise _damaged(first.paths[0], f"its parts hold {len(tensors)} tensors instead of {expected}")
    return Gguf(tuple(p.paths[0] for p in parts), first.metadata, tensors, sum(p.size for p in parts))


def _further_parts(first: Gguf) -> Iterator[Path]:
    path, count = first.paths[0], first.metadata.get("split.count", 1)
    if not isinstance(count, int) or count <= 1:
        return
    match = _SPLIT.fullmatch(path.name)
    if match is None or int(match["parts"]) != count or int(match["part"]) != 1:
        raise ModelFileError(
            f"{path.name} is the first of {count} parts, but is not named like one.",
            f"Name the parts ...-00001-of-{count:05}.gguf and so on, and load the first.",
        )
    for part in range(2, count + 1):
        yield path.with_name(f"{match['stem']}-{part:05}-of-{count:05}.gguf")


def _read_part(path: Path, part: int) -> Gguf:
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # to open a pipe would wait for a writer
            raise ModelFileError(f"{path.name} cannot be read: it is not a file.", "Name a .gguf file.")
        with path.open("rb") as file:
            size = file.seek(0, 2)
            if size < 24:
                raise _damaged(path, f"it has {size} bytes, too few for a header")
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
                return _Reader(path, mapped, size, part).read()
    except FileNotFoundError as error:
        raise ModelFileError(f"There is no file {path}.", "Put all parts of a split GGUF into one directory.") from error
    except OSError as error:
        what = f"{path} cannot be read: {error.strerror or error}."
        raise ModelFileError(what, "Check the file's permissions and the disk.") from error


def _damaged(path: Path, what: str) -> ModelFileError:
    return ModelFileError(f"{path.name} is damaged: {what}.", _AGAIN)


class _Reader:
    """Reads one file's header; every read checks its bounds."""

    def __init__(self, path: Path, data: mmap.mmap, size: int, part: int) -> None:
        self.path, self.data, self.size, self.part = path, data, size, part
        self.position = 0

    def read(self) -> Gguf:
        n_tensors, n_keys = self._counts()
        metadata = dict(self._pairs(n_keys))
        alignment = metadata.get("general.alignment", 32)
        if not isinstance(alignment, int) or alignment <= 0 or alignment & (alignment - 1):
            raise self._bad(f"its alignment is {alignment!r}, not a power of two")
        infos = [self._tensor() for _ in range(n_tensors)]
        header = self.data[: self.position]
        start = self.position + -self.position % alignment
        self._check_data(infos, start, alignment)
        tensors = tuple(TensorInfo(n, s, t, start + offset, b, self.part) for n, s, t, offset, b in infos)
        kept = {k: Array(v.type, v.count, v.offset, header) if isinstance(v, Array) else v for k, v in metadata.items()}
        return Gguf((self.path,), kept, tensors, self.size)

    def _counts(self) -> tuple[int, int]:
        magic = self.data[:4]
        if magic != b"GGUF":
            raise ModelFileError(f"{self.path.name} is not a GGUF: it begins with {magic!r}.", "Name a .gguf file.")
        self.position = 4
        version = self._take(_U32)
        if version & 0xFFFF == 0:
            raise UnsupportedModelError(f"{self.path.name} is a GGUF in big-endian byte order.", "Get a little-endian file.")
        if version not in (2, 3):
            what = f"{self.path.name} is a GGUF of version {version:,}; only 2 and 3 can be read."
            raise UnsupportedModelError(what, "Get it in version 3, or check it against its sha256.")
        n_tensors, n_keys = self._take(_U64), self._take(_U64)
        if n_tensors > _MAX_TENSORS or n_keys > _MAX_KEYS:
            raise self._bad(f"it claims {n_tensors:,} tensors and {n_keys:,} metadata keys")
        return n_tensors, n_keys

    def _pairs(self, count: int) -> Iterator[tuple[str, Value]]:
        seen: set[str] = set()
        for _ in range(count):
            key = self._text("a metadata key")
            if not key or key in seen:
                raise self._bad(f"the metadata key {key!r} is {'given twice' if key else 'empty'}")
            seen.add(key)
            yield key, self._value(key, self._take(_U32))

    def _value(self, key: str, kind: int) -> Value:
        if kind == _STRING:
            return self._bytes(f"the value of {key}").decode("utf-8", "replace")
        if kind == _ARRAY:
            return self._array(key)
        if kind not in _SCALARS:
            raise self._bad(f"the value of {key} has the unknown type {kind}")
        return self._take(struct.Struct("<" + _SCALARS[kind]))

    def _array(self, key: str) -> Array:
        kind, count = self._take(_U32), self._take(_U64)
        start = self.position
        if kind == _STRING:
            self._skip_strings(key, count)
        elif kind in _SCALARS:
            self.position += count * struct.calcsize("<" + _SCALARS[kind])
            self._within(f"the array {key}")
        else:
            raise self._bad(f"the array {key} has elements of the unknown type {kind}")
        return Array(kind, count, start, self.data)

    def _skip_strings(self, key: str, count: int) -> None:
        if count > _MAX_STRINGS:
            raise self._bad(f"the array {key} claims {count:,} strings")
        position, data, unpack, last = self.position, self.data, _U64.unpack_from, self.size - 8
        for n in range(count):
            if position > last:
                raise self._bad(f"the file ends inside string {n} of {key}")
            position += 8 + unpack(data, position)[0]
        self.position = position
        self._within(f"the array {key}")

    def _tensor(self) -> tuple[str, tuple[int, ...], int, int, int]:
        name = self._text("a tensor's name")
        if len(name.encode()) > _MAX_NAME:
            raise self._bad(f"the tensor name {name[:40]!r}... is too long")
        n_dims = self._take(_U32)
        if n_dims > _MAX_DIMS:
            raise self._bad(f"the tensor {name} has {n_dims} dimensions")
        shape = tuple(self._take(_U64) for _ in range(n_dims))
        kind, offset = self._take(_U32), self._take(_U64)
        return name, shape, kind, offset, self._tensor_bytes(name, shape, kind)

    def _tensor_bytes(self, name: str, shape: tuple[int, ...], kind: int) -> int:
        if kind not in GGML_TYPES:
            what = f"{self.path.name}: the tensor {name} has the quantisation type {kind}, which this llama.cpp does not know."
            raise UnsupportedModelError(what, "Get the model in another quantisation.")
        type_name, per_block, block_bytes = GGML_TYPES[kind]
        row = shape[0] if shape else 1
        if row % per_block or any(d < 1 for d in shape):
            raise self._bad(f"the tensor {name} has the shape {shape}, impossible in {type_name}")
        return prod(shape) // per_block * block_bytes

    def _check_data(self, infos: list[tuple[str, tuple[int, ...], int, int, int]], start: int, alignment: int) -> None:
        """Check that the tensors follow each other, padded, in the order of their infos, within the file."""
        expected, seen = 0, set()
        for name, _, _, offset, n_bytes in infos:
            if name in seen:
                raise self._bad(f"it has two tensors named {name}")
            seen.add(name)
            if offset != expected:
                raise self._bad(f"the tensor {name} has the offset {offset:,}, expected {expected:,}")
            if (missing := start + offset + n_bytes - self.size) > 0:
                raise self._bad(f"the tensor {name} ends {missing:,} bytes after the end of the file, which was cut off")
            expected += n_bytes + -n_bytes % alignment
        if (behind := self.size - start - expected) > _MAX_BEHIND:  # llama.cpp would read all of it
            raise self._bad(f"it has {behind:,} bytes behind its last tensor")

    def _text(self, what: str) -> str:
        try:
            return self._bytes(what).decode("utf-8")
        except UnicodeDecodeError as error:
            raise self._bad(f"{what} near byte {self.position:,} is not text") from error

    def _bytes(self, what: str) -> bytes:
        length = self._take(_U64)
        start = self.position
        self.position += length
        self._within(what)
        return self.data[start : self.position]

    def _take(self, kind: struct.Struct) -> Any:
        start = self.position
        self.position += kind.size
        self._within("a number")
        return kind.unpack_from(self.data, start)[0]

    def _within(self, what: str) -> None:
        if self.position > self.size:
            raise self._bad(f"{what} ends after the end of the file")
        if self.position > _MAX_HEADER:
            raise self._bad(f"{what} lies {self.position:,} bytes into the header")

    def _bad(self, what: str) -> ModelFileError:
        return _damaged(self.path, what)
