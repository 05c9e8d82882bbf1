"""Counts the steps of a validation before it runs.

The validator is native code that cannot be interrupted, and references multiply: sixty definitions that each use the next one
twice make 2**60 visits. So the visits are counted first, as a sum over pairs of a schema and a value::

    steps(schema, value) = its own keywords + steps of every schema that it applies to the value or to a part of it

Each pair is counted once, however often the validator visits it, so the sum is exact even if the validation would never end. A
step is at most about 30 microseconds of the validator: the slowest visit makes an error, which copies the value.

    {"$defs": {"a": {"allOf": [{"$ref": "#/$defs/b"}, {"$ref": "#/$defs/b"}]}, "b": {"allOf": [c, c]}, ...}}    2 ** depth
    {"uniqueItems": true}                                                                                        1
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import islice
from typing import Any, TypeAlias

from llm_magics.errors import SchemaError

from .dialect import Plain, mappings

MAX_STEPS = 50_000
MAX_BACKTRACKS = 30_000  # in one search for a pattern that needs backtracking
_SEARCH = 40  # steps of such a search at most
_CHARACTERS = 1_000  # states times characters in one step of a search without backtracking
_COPIED = 100  # parts of a value that the validator copies into an error in one step
_UNEVALUATED = 3  # unevaluatedProperties applies the schemas beside it again
_BACKTRACKS = re.compile(r"\(\?[=!<>]|\\[1-9k]|[+*?}]\+")  # e.g. (?=a), (?<!a), \1, a++
_ATOM = re.compile(r"\\[pP](?:\{[^}]*\})?|\\.|\[(?:\\.|[^\]\\]){0,300}\]|\{(\d+)(?:(,)(\d*))?\}|.", re.S)
_WIDE = {"\\p": 300, "\\P": 300, ".": 10, "[^": 10}  # states of classes of many characters
_OF_MEMBERS = {"properties", "additionalProperties", "patternProperties", "unevaluatedProperties", "propertyNames"}

Pair: TypeAlias = tuple[int, int]
Edge: TypeAlias = tuple[int, Any, Any]  # how often, schema, value
_NO_VALUE = object()


def check_steps(schema: Plain, value: Any) -> set[tuple[str, str]]:
    """Refuse a validation of more than ``MAX_STEPS``; return the searches that backtrack, as (pattern, text).

    Raises SchemaError, also for a schema that applies itself to the same value again, e.g. ``{"$ref": "#"}``.
    """
    counted = _Steps(schema)
    if counted.to_compile() + counted.of(schema.schema, value) > MAX_STEPS:
        raise _too_many()
    return counted.backtracking


def pattern_size(pattern: str) -> int:
    """An upper estimate of the states in a pattern's automaton; ``^[a-z]{1,32}-.{2}$`` has 36."""
    sums, last = [0], 0
    for atom in _ATOM.finditer(pattern):
        text = atom.group()
        if text == "(":
            sums.append(0)
        elif text == ")" and len(sums) > 1:
            last = sums.pop()
            sums[-1] += last
        elif atom[1] is not None:
            most = max(int((atom[3] or atom[1])[:9]), int(atom[1][:9]), 1)
            sums[-1] += last * (most - 1)
            last *= most
        else:
            last = _WIDE.get(text[:2], 300 if "\\p" in text.lower() else 1) if len(text) > 1 else _WIDE.get(text, 1)
            sums[-1] += last
    return sum(sums)


class _Steps:
    def __init__(self, read: Plain) -> None:
        self._read = read
        self._known: dict[Pair, int] = {}
        self._sizes: dict[str, int] = {}  # of patterns
        self._parts: dict[int, int] = {}  # of values
        self.backtracking: set[tuple[str, str]] = set()

    def of(self, schema: Any, value: Any) -> int:
        """The steps of one schema for one value, without recursion: a pair is closed after all pairs below it."""
        begun: set[Pair] = set()
        edges = 0
        stack: list[tuple[Any, Any, list[Edge] | None]] = [(schema, value, None)]
        while stack:
            schema, value, below = stack.pop()
            pair = (id(schema), id(value))
            if below is not None:
                begun.discard(pair)
                total = sum(times * self._known[id(s), id(v)] for times, s, v in below)
                self._known[pair] = min(self._own(schema, value) + total, 10 * MAX_STEPS)
            elif pair in begun:
                raise SchemaError("A part of the JSON schema refers to itself directly.", "Refer to it from a property.")
            elif pair not in self._known:
                begun.add(pair)
                below = list(islice(self._below(schema, value), MAX_STEPS))
                edges += 1 + len(below)
                if edges > MAX_STEPS:  # each is at least a step
                    raise _too_many()
                stack.append((schema, value, below))
                stack.extend((s, v, None) for _, s, v in below if (id(s), id(v)) not in self._known)
        return self._known[pair]

    def to_compile(self) -> int:
        """The steps to compile the schema: its patterns, and what its unevaluated keywords need."""
        total = 0
        for part in mappings(self._read.schema):
            total += 1 + len(part) // 10
            for pattern in (part.get("pattern"), *_dict(part.get("patternProperties"))):
                if isinstance(pattern, str):
                    total += len(pattern) // 2 + self._size(pattern) // 2
            if "unevaluatedProperties" in part or "unevaluatedItems" in part:
                total += 2 * self.of(part, _NO_VALUE)
            if total > MAX_STEPS:
                raise _too_many()
        return total

    def _own(self, schema: Any, value: Any) -> int:
        """The steps of a schema's own keywords."""
        if not isinstance(schema, dict):
            return 1
        total = 1 + len(schema) + self._parts_of(value) // _COPIED
        if isinstance(schema.get("enum"), list):
            total += len(schema["enum"]) // 100
        if isinstance(value, str) and isinstance(schema.get("pattern"), str):
            total += self._search(schema["pattern"], value)
        if isinstance(value, dict):
            total += sum(self._search(p, key) for p in _dict(schema.get("patternProperties")) for key in value)
        return total

    def _parts_of(self, value: Any) -> int:
        """The size of a value: its parts, and its text in units of fifty characters."""
        if isinstance(value, str):
            return 1 + len(value) // 50
        if not isinstance(value, dict | list):
            return 1
        if id(value) not in self._parts:
            inner = value.values() if isinstance(value, dict) else value
            keys = sum(map(self._parts_of, value)) if isinstance(value, dict) else 0
            self._parts[id(value)] = 1 + keys + sum(map(self._parts_of, inner))
        return self._parts[id(value)]

    def _search(self, pattern: str, text: str) -> int:
        fixed = 1
        if _BACKTRACKS.search(pattern):
            fixed = 2 * _SEARCH  # validate() searches first, to see whether it ends
            self.backtracking.add((pattern, text))
        return fixed + self._size(pattern) * len(text) // _CHARACTERS

    def _size(self, pattern: str) -> int:
        if pattern not in self._sizes:
            if len(pattern) > MAX_STEPS:
                raise _too_many()
            self._sizes[pattern] = pattern_size(pattern)
        return self._sizes[pattern]

    def _below(self, schema: Any, value: Any) -> Iterator[Edge]:
        """The schemas that a schema applies, each with the value that it applies to."""
        if not isinstance(schema, dict):
            return
        again = _UNEVALUATED if "unevaluatedProperties" in schema or "unevaluatedItems" in schema else 1
        yield from ((again, sub, value) for sub in self._beside(schema, value))
        if isinstance(value, list):
            yield from self._of_items(schema, value)
        elif isinstance(value, dict):
            yield from self._of_members(schema, value)

    def _beside(self, schema: dict[str, Any], value: Any) -> Iterator[Any]:
        """The schemas that apply to the same value."""
        if "$ref" in schema:
            yield self._read.target(schema["$ref"])
        for keyword in ("allOf", "anyOf", "oneOf"):
            yield from _list(schema.get(keyword))
        yield from (schema[keyword] for keyword in ("not", "if", "then", "else") if keyword in schema)
        for key, sub in _dict(schema.get("dependentSchemas")).items():
            if value is _NO_VALUE or (isinstance(value, dict) and key in value):
                yield sub

    def _of_items(self, schema: dict[str, Any], value: list[Any]) -> Iterator[Edge]:
        first = _list(schema.get("prefixItems"))
        yield from ((1, sub, item) for sub, item in zip(first, value, strict=False))
        for keyword, begin in (("items", len(first)), ("contains", 0), ("unevaluatedItems", 0)):
            if keyword in schema:
                yield from ((1 + (keyword != "items"), schema[keyword], item) for item in value[begin:])

    def _of_members(self, schema: dict[str, Any], value: dict[str, Any]) -> Iterator[Edge]:
        if not schema.keys() & _OF_MEMBERS:
            return
        declared = _dict(schema.get("properties"))
        every = [(1, sub) for sub in _dict(schema.get("patternProperties")).values()]
        if "unevaluatedProperties" in schema:
            every.append((_UNEVALUATED, schema["unevaluatedProperties"]))
        for key, item in value.items():
            if key in declared:
                yield 1, declared[key], item
            elif "additionalProperties" in schema:
                yield 1, schema["additionalProperties"], item
            yield from ((times, sub, item) for times, sub in every)
            if "propertyNames" in schema:
                yield 1, schema["propertyNames"], key


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _too_many() -> SchemaError:
    return SchemaError("The JSON schema takes too many steps to check.", "Simplify its references, unions and patterns.")
