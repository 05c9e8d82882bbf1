"""What type a value is written in, where the text alone does not say: the schema decides.

Tagged syntaxes write ``30`` for the number and for the string alike. A value becomes what its schema admits, and stays a
string where the schema admits a string and nothing else fits: ``"30"`` is 30 if and only if an integer is wanted.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Mapping
from typing import Any

from llm_magics.chat.scan.reader import Malformed, decoded
from llm_magics.errors import SchemaError
from llm_magics.schema.dialect import plain, pointed
from llm_magics.schema.patterns import has_linear_regex, linear_search

from .writer import json_type

ALL_TYPES = frozenset({"string", "integer", "number", "boolean", "null", "array", "object"})
_MAX_DEPTH = 20


class Typing:
    """A tool's parameter schema, asked for the types of its parts.

    A schema that cannot be used says nothing here; the grammar and validation say what is wrong with it.
    """

    def __init__(self, root: Mapping[str, Any] | None) -> None:
        try:
            self._root = plain(root or {})
        except SchemaError:
            self._root = {}

    def property(self, schema: Mapping[str, Any] | None, key: str) -> Mapping[str, Any]:
        """The schema of one member of an object; {} where nothing is said."""
        for part in self._parts(self._root if schema is None else schema):
            found = (part.get("properties") or {}).get(key)
            if isinstance(found, Mapping):
                return found
        for part in self._parts(self._root if schema is None else schema):
            for pattern, found in (part.get("patternProperties") or {}).items():
                if isinstance(found, Mapping) and has_linear_regex(pattern) and linear_search(pattern, key):
                    return found
        for part in self._parts(self._root if schema is None else schema):
            if isinstance(part.get("additionalProperties"), Mapping):
                return part["additionalProperties"]
        return {}

    def items(self, schema: Mapping[str, Any]) -> Mapping[str, Any]:
        """The schema of an array's elements; {} where nothing is said."""
        found = (part.get("items") for part in self._parts(schema))
        return next((items for items in found if isinstance(items, Mapping)), {})

    def types(self, schema: Mapping[str, Any], depth: int = 0) -> frozenset[str]:
        """The JSON types that a schema admits; all of them where it says nothing."""
        schema = self._resolved(schema)
        if depth > _MAX_DEPTH:
            return ALL_TYPES
        admitted = ALL_TYPES
        named = schema.get("type")
        if named is not None:
            admitted = frozenset([named] if isinstance(named, str) else named)
        elif "enum" in schema:
            admitted = frozenset(json_type(v) for v in schema["enum"])
        elif "const" in schema:
            admitted = frozenset([json_type(schema["const"])])
        for keyword in ("anyOf", "oneOf"):
            options = [o for o in schema.get(keyword) or () if isinstance(o, Mapping)]
            if options:
                admitted &= frozenset().union(*(self.types(o, depth + 1) for o in options))
        for option in schema.get("allOf") or ():
            if isinstance(option, Mapping):
                admitted &= self.types(option, depth + 1)
        return admitted

    def _resolved(self, schema: Mapping[str, Any]) -> Mapping[str, Any]:
        for _ in range(_MAX_DEPTH):
            if "$ref" not in schema:
                return schema
            try:
                target = pointed(self._root, schema["$ref"])
            except SchemaError:
                return {}
            if not isinstance(target, Mapping):
                return {}
            schema = target
        return {}

    def _parts(self, schema: Mapping[str, Any], depth: int = 0) -> list[Mapping[str, Any]]:
        """A schema and the alternatives inside it."""
        schema = self._resolved(schema)
        parts = [schema]
        if depth < 5:
            for keyword in ("anyOf", "oneOf", "allOf"):
                for option in schema.get(keyword) or ():
                    if isinstance(option, Mapping):
                        parts += self._parts(option, depth + 1)
        return parts


def json_of(text: str, types: frozenset[str]) -> str:
    """The JSON text of a value that was written as bare text, given the types that it may have."""
    if types == {"string"}:
        return json.dumps(text, ensure_ascii=False)
    for read in (_as_json, _as_python):
        found = read(text.strip())
        if found is not None and _admits(types, found[1]):
            return found[0]
    if "string" in types:
        return json.dumps(text, ensure_ascii=False)
    quoted = _as_json(text.strip())
    if quoted is not None and isinstance(quoted[1], str):  # in quotes, though no string is due: "3", "[1, 2]"
        within = _as_json(quoted[1].strip())
        if within is not None and _admits(types, within[1]):
            return within[0]
    found = _as_json(text.strip()) or _escaped(text.strip(), types) or _as_python(text.strip())
    return found[0] if found is not None else json.dumps(text, ensure_ascii=False)


def _escaped(text: str, types: frozenset[str]) -> tuple[str, Any] | None:
    """JSON that was escaped as for a string, of a type that is due: ``[{\\"a\\": 1}]``."""
    if "\\" not in text:
        return None
    inner = _as_json(f'"{text}"')
    found = _as_json(inner[1].strip()) if inner else None
    return found if found is not None and _admits(types, found[1]) else None


def _admits(types: frozenset[str], value: Any) -> bool:
    kind = json_type(value)
    if kind == "integer":
        return bool(types & {"integer", "number"})
    return kind in types or (kind == "number" and "integer" in types and value % 1 == 0)


def _as_json(text: str) -> tuple[str, Any] | None:
    try:
        return text, decoded(text)
    except Malformed:
        return None


def _as_python(text: str) -> tuple[str, Any] | None:
    """Python's spelling: True, None, 'single quotes'. Long text is no literal."""
    if len(text) > 20_000:
        return None
    try:
        value = ast.literal_eval(text)
        return json.dumps(value, ensure_ascii=False), json.loads(json.dumps(value))
    except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
        return None
