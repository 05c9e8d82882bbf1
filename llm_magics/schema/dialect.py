"""JSON schemas, translated into the one dialect that every reader here reads.

Tools, pydantic and people write schemas of several drafts, and refer to parts by pointer, by ``$anchor`` or by ``$id``.
:func:`plain` copies a schema into plain dicts and lists, in the keywords of 2020-12 only, with every reference a pointer into
the copy. The normal form, the count of steps and the validator read this copy, so they agree on the target of a reference.

    {"nullable": true, "type": "string"}               {"type": ["string", "null"]}
    {"type": "str"}                                    {"type": "string"}
    {"items": [a, b], "additionalItems": c}            {"prefixItems": [a, b], "items": c}
    {"minimum": 1, "exclusiveMinimum": true}           {"exclusiveMinimum": 1}
    {"dependencies": {"a": ["b"]}}                     {"dependentRequired": {"a": ["b"]}}
    {"$ref": "#zip"}                                   {"$ref": "#/$defs/zip"}       where $defs/zip has "$anchor": "zip"

Sources: JSON Schema 2020-12, 2019-09 (``$recursiveRef``), draft-07 and draft-04; OpenAPI 3.0 (``nullable``). The
``referencing`` library resolves references, in this document only: nothing is fetched.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any
from urllib.parse import quote, unquote

from llm_magics.errors import SchemaError

MAX_DEPTH = 192  # of a schema as written
MAX_SIZE = 200_000  # keys and values of a schema
MAX_KEPT = 128  # schemas kept for the next turn
MAPS = frozenset({"properties", "patternProperties", "dependentSchemas", "$defs", "definitions"})
VALUES = frozenset({"const", "enum", "required", "dependentRequired", "type"})
ANNOTATIONS = frozenset({"title", "description", "default", "examples", "example", "deprecated", "$comment"})  # left out
_LIMITS = ("Length", "Items", "Properties", "imum", "Minimum", "Maximum", "type", "multipleOf", "format", "nullable")
_NOWHERE = "#/(nowhere)/"
_REFERENCES = ("$ref", "$dynamicRef", "$recursiveRef")
_NAMES = ("$id", "$anchor", "$dynamicAnchor", "$recursiveAnchor", "$schema", "$vocabulary")  # not needed beside pointers


@dataclass(frozen=True, slots=True, eq=False)
class Plain:
    """A schema in the dialect, and the target of each ``$ref``. Equal schemas share one, so never change it."""

    schema: Any
    targets: Mapping[str, Any]

    def target(self, ref: str) -> Any:
        """The target of a reference. Raises SchemaError if there is none."""
        if ref not in self.targets:
            shown = unquote(ref.removeprefix(_NOWHERE))
            raise SchemaError(f"The reference {shown[:80]!r} has no target here.", "Copy the definition into $defs.")
        return self.targets[ref]


def plain(schema: Any) -> Plain:
    """Translate a schema into the dialect that the head of this file describes; equal schemas are read once.

    Raises SchemaError for an invalid schema, for a reference without a target in this document, and beyond the bounds.
    """
    check_size(schema)
    try:
        text = json.dumps(schema, default=_jsonable)
    except (TypeError, ValueError) as error:
        raise SchemaError(f"The JSON schema is not JSON: {error}.", "Use JSON values in const, enum and default.") from error
    return _plain(text)


@lru_cache(maxsize=MAX_KEPT)
def _plain(text: str) -> Plain:
    schema = json.loads(text)
    if not isinstance(schema, dict | bool):
        raise SchemaError(f"A JSON schema is an object, true or false, not {type(schema).__name__}.", "Correct the schema.")
    return _Copy(schema).run() if isinstance(schema, dict) else Plain(schema, {})


def _jsonable(value: Any) -> Any:
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"{type(value).__name__} is not a JSON value")


def check_size(schema: object) -> None:
    """Refuse, without recursion, a schema that is nested too deeply, too large, or not Unicode text."""
    stack, count = [(schema, 0)], 0
    while stack:
        value, depth = stack.pop()
        count += 1
        if depth > MAX_DEPTH or count > MAX_SIZE:
            raise SchemaError("The JSON schema is nested too deeply or is too large.", "Simplify it.")
        if isinstance(value, Mapping):
            stack.extend((v, depth + 1) for pair in value.items() for v in pair)
        elif isinstance(value, list | tuple):
            stack.extend((v, depth + 1) for v in value)
        elif isinstance(value, str) and not value.isascii() and any("\ud800" <= c <= "\udfff" for c in value):
            raise SchemaError("The JSON schema has half of a surrogate pair in it.", "Write whole characters.")


class _Copy:
    """Translates one schema. References are resolved when all parts are copied, because a target may come later."""

    def __init__(self, schema: dict[str, Any]) -> None:
        self._schema = schema
        self._copies: dict[int, tuple[str, Any]] = {}  # id of an object in the schema -> its pointer, its copy
        self._waiting: list[tuple[dict[str, Any], Any, str]] = []  # a copy, the target of its reference, the reference
        self._dynamic: dict[str, set[int]] = {}  # $dynamicAnchor -> ids of the objects that it names

    def run(self) -> Plain:
        copy, targets = self._part(self._schema, "#", _resolver(self._schema), strict=True), {}
        for part, target, ref in self._waiting:
            if ref.startswith("$dynamicRef") and len(self._dynamic.get(ref.rpartition("#")[2], ())) > 1:
                raise SchemaError(f"The reference {ref[:80]!r} has several targets, which is not supported.", "Use $ref.")
            if isinstance(target, bool):
                part["allOf"] = [*part.get("allOf", []), target]
            elif id(target) in self._copies:
                place, targets[place] = self._copies[id(target)]
                if part.setdefault("$ref", place) != place:  # a second reference beside the first
                    part["allOf"] = [*part.get("allOf", []), {"$ref": place}]
            else:
                raise SchemaError(f"The reference {ref[:80]!r} does not lead to a schema.", "Correct the reference.")
        return Plain(copy, targets)

    def _part(self, value: Any, place: str, resolver: Any, strict: bool) -> Any:
        """Copy a schema, or a list of schemas. ``strict``: the schema is in use, so its references need targets."""
        if isinstance(value, list):
            return [self._part(v, f"{place}/{i}", resolver, strict) for i, v in enumerate(value)]
        if not isinstance(value, dict):
            return value
        if resolver is not None and place != "#" and isinstance(value.get("$id"), str):
            resolver = _inside(resolver, value)
        copy: dict[str, Any] = {}
        self._copies.setdefault(id(value), (place, copy))
        if isinstance(value.get("$dynamicAnchor"), str):
            self._dynamic.setdefault(value["$dynamicAnchor"], set()).add(id(value))
        for key, inner in _renamed(value):
            if key in _REFERENCES:
                self._refer(copy, key, inner, place, resolver, strict)
            elif key in MAPS and isinstance(inner, dict):
                used = strict and key not in ("$defs", "definitions")
                copy[key] = {k: self._part(v, f"{place}/{key}/{step(k)}", resolver, used) for k, v in inner.items()}
            elif key in VALUES:
                copy[key] = inner
            elif not (key in _NAMES and isinstance(inner, str | bool | dict)):
                copy[key] = self._part(inner, f"{place}/{step(key)}", resolver, strict and key in _SCHEMAS)
        return copy

    def _refer(self, copy: dict[str, Any], key: str, ref: Any, place: str, resolver: Any, strict: bool) -> None:
        if not isinstance(ref, str):
            raise SchemaError(f"{place}/{key} must be a string.", "Point into the same document, e.g. #/$defs/item.")
        try:
            target = _found(resolver, ref, f"{place}/{key}")
        except SchemaError:
            if strict:
                raise
            copy["$ref"] = _NOWHERE + step(ref)  # Plain.target() raises if the reference is read
            return
        self._waiting.append((copy, target, f"{key}: {ref}"))


_SCHEMAS = {
    "items", "prefixItems", "contains", "additionalProperties", "propertyNames", "allOf", "anyOf", "oneOf", "not",
    "if", "then", "else", "unevaluatedItems", "unevaluatedProperties",
}  # fmt: skip
_PYTHON_TYPES = {  # which people write instead
    "str": "string", "int": "integer", "float": "number", "bool": "boolean", "dict": "object",
    "list": "array", "tuple": "array", "set": "array", "None": "null", "NoneType": "null",
}  # fmt: skip


def _typed(named: Any) -> Any:
    if isinstance(named, list):
        return _once(list(map(_typed, named)))
    return _PYTHON_TYPES.get(named, named) if isinstance(named, str) else named


def _once(names: Any) -> Any:
    return list(dict.fromkeys(names)) if isinstance(names, list) and all(isinstance(n, str) for n in names) else names


def _renamed(schema: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """The keywords of one schema, translated into those of 2020-12."""
    words = dict(schema)
    if "type" in words:
        words["type"] = _typed(words["type"])
    if words.get("nullable") is True and "type" in words:
        types = words["type"] if isinstance(words["type"], list) else [words["type"]]
        words["type"] = types if "null" in types else [*types, "null"]
    if isinstance(words.get("items"), list):
        words["prefixItems"], words["items"] = words["items"], words.pop("additionalItems", True)
    for exclusive, bound in (("exclusiveMinimum", "minimum"), ("exclusiveMaximum", "maximum")):
        if isinstance(words.get(exclusive), bool) and words.pop(exclusive) and bound in words:
            words[exclusive] = words.pop(bound)
    if isinstance(words.get("required"), bool):  # on a property, as in draft-03 and many tool definitions
        del words["required"]
    elif "required" in words:
        words["required"] = _once(words["required"])
    if words.get("prefixItems") == []:
        del words["prefixItems"]
    if isinstance(words.get("dependencies"), dict):
        for key, needs in words.pop("dependencies").items():
            keyword = "dependentRequired" if isinstance(needs, list) else "dependentSchemas"
            words[keyword] = {key: needs, **(words.get(keyword) or {})}
    if isinstance(words.get("dependentRequired"), dict):
        words["dependentRequired"] = {key: _once(needs) for key, needs in words["dependentRequired"].items()}
    for key, value in words.items():
        absent = value is None and key.endswith(_LIMITS)  # some programs write null for no limit
        if not absent and key not in ANNOTATIONS:
            yield key, value


def step(key: str) -> str:
    """One key as a step of a pointer."""
    return quote(key.replace("~", "~0").replace("/", "~1"), safe="~$")


def _resolver(schema: dict[str, Any]) -> Any:
    """The resolver of a schema's references; None if there are none, which is common and needs no library."""
    if not any(key in part for part in mappings(schema) for key in _REFERENCES):
        return None
    from referencing import Registry

    return Registry().resolver_with_root(_specification().create_resource(schema))


def _inside(resolver: Any, schema: dict[str, Any]) -> Any:
    try:
        return resolver.in_subresource(_specification().create_resource(schema))
    except ValueError as error:
        raise SchemaError(f"The $id {schema['$id'][:80]!r} cannot be used: {error}.", "Correct it.") from error


def _found(resolver: Any, ref: str, place: str) -> Any:
    from referencing.exceptions import Unresolvable

    try:
        return resolver.lookup(ref).contents
    except (Unresolvable, LookupError, ValueError, TypeError, AttributeError) as error:
        if ref.startswith("#"):
            raise SchemaError(f"{place} points to {ref[:80]}, which is not there.", "Correct the reference.") from error
        raise SchemaError(f"{place} points outside the schema: {ref[:80]}.", "Copy the definition into $defs.") from error


def mappings(schema: Any) -> Iterator[dict[str, Any]]:
    """Every JSON object in a schema, the schema itself first; not all of them are schemas."""
    stack = [schema]
    while stack:
        value = stack.pop()
        if isinstance(value, dict):
            yield value
            stack.extend(value.values())
        elif isinstance(value, list):
            stack.extend(value)


def _specification() -> Any:
    """Finds ids and anchors of any draft: in any mapping that is not a constant."""
    import referencing

    library: Any = referencing  # mypy does not see the arguments of its attrs classes

    def identity(contents: Any) -> str | None:
        given = contents.get("$id") if isinstance(contents, dict) else None
        return given if isinstance(given, str) and not given.startswith("#") else None

    def within(contents: Any) -> Iterable[Any]:
        if isinstance(contents, dict):
            for key, value in contents.items():
                if key in MAPS and isinstance(value, dict):
                    yield from value.values()
                elif key not in VALUES and key not in ANNOTATIONS:
                    yield from value if isinstance(value, list) else [value]
        elif isinstance(contents, list):
            yield from contents

    def anchors(specification: Any, contents: Any) -> Iterable[Any]:
        if isinstance(contents, dict):
            given = [contents.get("$anchor"), contents.get("$dynamicAnchor")]
            named = contents.get("$id")  # in draft-07 also an anchor, e.g. "#zip"
            given.append(named[1:] if isinstance(named, str) and named.startswith("#") else None)
            yield from (
                library.Anchor(name, specification.create_resource(contents)) for name in given if isinstance(name, str)
            )

    return library.Specification("any draft", identity, within, lambda segments, resolver, subresource: resolver, anchors)
