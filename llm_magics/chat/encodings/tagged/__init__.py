"""Arguments as tags, e.g. ``<parameter=a>1</parameter>``: found and written in this file."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Any

from llm_magics.chat.encodings.encoding import FIRST, KEYS, Around, Emit, Encoding, Gaps, Sample, dumps, members_of, outside
from llm_magics.chat.grammar.text import GrammarWriter
from llm_magics.chat.scan.reader import Reader, Reading
from llm_magics.chat.syntax.compare import common_prefix, common_suffix, safe_prefix, safe_suffix
from llm_magics.chat.syntax.syntax import Escapes, escape
from llm_magics.chat.syntax.tags import opens_tag
from llm_magics.schema.nodes import Normalised

from .grammar import TagWriter
from .read import TagReader
from .tags import Tags

_TYPES = {dict: "object", list: "array", str: "string", bool: "boolean", int: "integer", float: "number", type(None): "null"}
_SAMPLES: dict[str, tuple[Any, str]] = {
    "string": ("qvala", "qvala"),
    "integer": (31259, "31259"),
    "number": (31259.5, "31259"),
    "boolean": (True, "[Tt]rue"),
    "array": ([31259, "qitem"], r"\["),
    "object": ({"qsub": "qitem"}, r"\{"),
    "null": (None, "[Nn](ull|one)"),
}
"""One value of each JSON type and the beginning of its text, to see how the tag names the type."""


@dataclass(frozen=True, slots=True)
class TaggedArguments(Tags, Encoding):
    label = "argument"
    closes = False

    @property
    def kind(self) -> str:
        return "name + tagged arguments"

    @property
    def tags(self) -> tuple[str, ...]:
        return self.start, self.end

    @property
    def markers(self) -> tuple[str, ...]:
        return self.start, self.key_end, self.end

    @classmethod
    def find(cls, sample: Sample) -> tuple[TaggedArguments, int, int] | None:
        gaps = sample.gaps()
        if gaps is None:
            return None
        if not gaps.quoted or gaps.numbers is None:
            return _read_tags(gaps, sample)
        to_value, to_next = gaps.numbers
        if gaps.to_next != '"' + to_next:
            return None
        found = _read_tags(gaps._replace(to_value=to_value, to_next=to_next, rest=gaps.rest.removeprefix('"')), sample)
        return found and (cls(found[0].start, to_value, found[0].end, found[0].separator, json_values=True), *found[1:])

    def with_escapes(self, escapes: Escapes) -> TaggedArguments:
        return replace(self, escapes=escapes)

    def write(self, arguments: str) -> list[str]:
        return self._written(members_of(arguments), self.separator)

    def _written(self, members: dict[str, Any], separator: str = "") -> list[str]:
        pieces: list[str] = []
        for key, value in members.items():
            pieces += [separator if pieces else "", *self._tag(key, value)]
        return pieces

    def _tag(self, key: str, value: Any) -> list[str]:
        key = outside(escape(key, self.escapes))
        named = [self.type_start, dict(self.type_names).get(_TYPES[type(value)], "")] if self.type_start else []
        again = [key, self.end_tail] if self.end_has_key else []
        return [self.start, key, *named, self.key_end, *self._value(value), self.end, *again]

    def _value(self, value: Any) -> list[str]:
        if self.nested and isinstance(value, dict):
            return self._written(value)
        if self.nested and isinstance(value, list):
            return [piece for v in value for piece in self._tag(self.item, v)]
        if isinstance(value, str) and not self.json_values:
            raw = self.raw_start and (self.end.strip() in value or "<" in value or "&" in value)
            return [self.raw_start, outside(value), self.raw_end] if raw else [outside(value)]
        return [dumps(value, self.constants)]

    def read(self, reader: Reader, around: Around, emit: Emit) -> Reading[None]:
        return TagReader(reader, self, around).read(emit)

    def constrain(self, writer: GrammarWriter, schema: Normalised, end: str) -> str:
        return TagWriter(writer, schema, self).arguments(end)


def _read_tags(gaps: Gaps, sample: Sample) -> tuple[TaggedArguments, int, int] | None:
    """The tags around keys and values, e.g. ``<p=qkeya>qvala</p><p=qkeyb>qvalb</p>``, and where arguments begin and end."""
    to_key, to_value, to_next, rest, *_ = gaps
    end_tail = separator = ""
    mirrored = KEYS[0] in to_next
    if mirrored:
        end, _, tail = to_next.partition(KEYS[0])
        sign = next((c for c in reversed(end) if opens_tag(c)), "")  # cuts the rest of the closing tag as a tag
        start = safe_suffix(to_key, f"{sign}q{tail}")
        end_tail = tail[: len(tail) - len(start)]
        closed = end + KEYS[1] + end_tail
        if not rest.startswith(closed):
            return None
    else:
        start = safe_suffix(to_key, to_next)
        gap = to_next[: len(to_next) - len(start)]
        end = closed = safe_prefix(gap, rest) if gap != common_prefix(gap, rest) else gap
        separator = gap[len(end) :]
    if not (start.strip() and to_value.strip() and end.strip()):
        return None
    tagged = TaggedArguments(start, to_value, end, separator, end_has_key=mirrored, end_tail=end_tail)
    tagged = _with_values(_with_types(tagged, sample), sample)
    return tagged, sample.at + len(to_key) - len(start), len(sample.text) - len(rest) + len(closed)


def _with_types(tagged: TaggedArguments, sample: Sample) -> TaggedArguments:
    """Find whether the tag names the value's type, as ``<p=qkeya type="integer">31259</p>`` does."""
    gaps: dict[str, str] = {}
    for kind, (value, begins) in _SAMPLES.items():
        if found := re.search(f"{KEYS[0]}(.*?){begins}", sample.calls((FIRST, {KEYS[0]: value})), re.S):
            gaps[kind] = found.group(1)
    if len({gaps.get(kind, "") for kind in ("string", "integer", "boolean")}) < 2 or "string" not in gaps:
        return tagged
    string = gaps["string"]
    other = next(g for g in gaps.values() if g != string)
    start = common_prefix(string, other)
    if any(re.match(r"\w", text[len(start) :]) for text in (string, other)):  # both end outside a word
        start = re.sub(r"\w+$", "", start)
    end = re.sub(r"^\w+", "", common_suffix(string, other))
    if not start.strip() or not end.strip() or len(start) + len(end) > min(len(string), len(other)):
        return tagged
    named = {kind: gap for kind, gap in gaps.items() if gap.startswith(start) and end in gap[len(start) :]}
    names = tuple((kind, gap[len(start) : gap.find(end, len(start))]) for kind, gap in named.items())
    return replace(tagged, type_start=start, key_end=end, type_names=names)


def _with_values(tagged: TaggedArguments, sample: Sample) -> TaggedArguments:
    """Find how constants, nested values and awkward strings are written, e.g. ``<![CDATA[qa<qb>&qc]]>``."""
    key_end = re.escape(tagged.key_end)
    nested = sample.calls((FIRST, {"qkeya": {"qsub": "qitem"}, "qkeyb": ["qelement"]}))
    mark = re.search(re.escape(tagged.start.strip()) + "qsub" + key_end, nested)
    listed = re.search(r"(\w+)" + key_end + "qelement", nested) if mark else None
    awkward = "qa<qb>&qc"
    key = KEYS[0] + (".{0,40}?" if tagged.type_start else "") + key_end
    around = key + r"([^\n]{1,20})" + re.escape(awkward) + r"([^\n]{1,20}?)" + re.escape(tagged.end)
    raw = re.search(around, sample.calls((FIRST, {"qkeya": awkward})))
    raw_start, raw_end = raw.groups() if raw else ("", "")
    python = "True" in sample.calls((FIRST, {"qkeya": True}))
    tagged = replace(tagged, nested=bool(mark), item=listed.group(1) if listed else "", raw_start=raw_start, raw_end=raw_end)
    return replace(tagged, constants="python" if python else "json")
