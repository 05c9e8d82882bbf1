"""JSON schemas as they come, brought into one dialect that every reader of schemas reads.

Tools, pydantic and people write schemas of several drafts, and refer to their parts by pointer, by ``$anchor`` or by ``$id``.
:func:`plain` copies a schema into plain dicts and lists, in the words of 2020-12 alone, where every reference is a pointer into
the copy. The normal form, the count of steps and the validator read this copy, so they cannot disagree about where a reference
leads. Equal schemas are read once.

    {"nullable": true, "type": "string"}               {"type": ["string", "null"]}
    {"type": "str"}                                    {"type": "string"}
    {"items": [a, b], "additionalItems": c}            {"prefixItems": [a, b], "items": c}
    {"minimum": 1, "exclusiveMinimum": true}           {"exclusiveMinimum": 1}
    {"dependencies": {"a": ["b"]}}                     {"dependentRequired": {"a": ["b"]}}
    {"$ref": "#zip"}                                   {"$ref": "#/$defs/zip"}       where $defs/zip has "$anchor": "zip"

Sources: JSON Schema 2020-12, 2019-09 (``$recursiveRef``), draft-07 and draft-04; OpenAPI 3.0 (``nullable``). References are
resolved by the ``referencing`` library, in this document only: nothing is ever fetched.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any
from urllib.parse import quote, unquote

from llm_magics.errors import SchemaError

MAX_DEPTH = 192  # of a schema as it is written
MAX_SIZE = 200_000  # keys and values in it
MAX_KEPT = 128  # schemas that were read, for the next turn
MAPS = frozenset({"properties", "patternProperties", "dependentSchemas", "$defs", "definitions"})
VALUES = frozenset({"const", "enum", "required", "dependentRequired", "type"})
ANNOTATIONS = frozenset({"title", "description", "default", "examples", "example", "deprecated", "$comment"})  # left out
_LIMITS = ("Length", "Items", "Properties", "imum", "Minimum", "Maximum", "type", "multipleOf", "format", "nullable")
_NOWHERE = "#/(nowhere)/"
_REFERENCES = ("$ref", "$dynamicRef", "$recursiveRef")
_NAMES = ("$id", "$anchor", "$dynamicAnchor", "$recursiveAnchor", "$schema", "$vocabulary")  # needless once pointers are left


@dataclass(frozen=True, slots=True, eq=False)
class Plain:
    """A schema in the dialect, and what each ``$ref`` in it leads to. Nobody changes either: equal schemas share one."""

    schema: Any
    targets: Mapping[str, Any]

    def target(self, ref: str) -> Any:
        """What a reference leads to. Raises SchemaError if that is nothing."""
        if ref not in self.targets:
            shown = unquote(ref.removeprefix(_NOWHERE))
            raise SchemaError(f"The reference {shown[:80]!r} leads to nothing here.", "Copy the definition into $defs.")
        return self.targets[ref]


def plain(schema: Any) -> Plain:
    """Read a schema into the dialect that the head of this file describes.

    Raises SchemaError for what is no schema, for a reference that leads nowhere or elsewhere, and beyond the bounds.
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
    raise TypeError(f"{type(value).__name__} is no JSON value")


def check_size(schema: object) -> None:
    """Refuse, without recursion, a schema that nests or sprawls beyond reason, or that is no Unicode text."""
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
    """One schema on its way into the dialect. A reference waits until all is copied: its target may come later."""

    def __init__(self, schema: dict[str, Any]) -> None:
        self._schema = schema
        self._copies: dict[int, tuple[str, Any]] = {}  # of each part of the schema that is an object: a pointer, the copy
        self._waiting: list[tuple[dict[str, Any], Any, str]] = []  # a copy, what its reference leads to, and the reference
        self._dynamic: dict[str, set[int]] = {}  # the parts that each $dynamicAnchor names

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
        """Copy a schema, or a list of them. ``strict``: it counts, so that its references must lead somewhere."""
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
            raise SchemaError(f"{place}/{key} should be a string.", "Point into the same document, e.g. #/$defs/item.")
        try:
            target = _found(resolver, ref, f"{place}/{key}")
        except SchemaError:
            if strict:
                raise
            copy["$ref"] = _NOWHERE + step(ref)  # perhaps nobody reads it: Plain.target() tells who does
            return
        self._waiting.append((copy, target, f"{key}: {ref}"))


_SCHEMAS = frozenset(
    {
        *("items", "prefixItems", "contains", "additionalProperties", "propertyNames", "allOf", "anyOf", "oneOf", "not"),
        *("if", "then", "else", "unevaluatedItems", "unevaluatedProperties"),
    }
)


_PYTHON_TYPES = {
    "str": "string", "int": "integer", "float": "number", "bool": "boolean", "dict": "object",
    "list": "array", "tuple": "array", "set": "array", "None": "null", "NoneType": "null",
}
"""Python's names of types, which people write where JSON schema's are due."""


def _typed(named: Any) -> Any:
    if isinstance(named, list):
        return _once(list(map(_typed, named)))
    return _PYTHON_TYPES.get(named, named) if isinstance(named, str) else named


def _once(names: Any) -> Any:
    return list(dict.fromkeys(names)) if isinstance(names, list) and all(isinstance(n, str) for n in names) else names


def _renamed(schema: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """The keywords of one schema, in the words of 2020-12."""
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
    if isinstance(words.get("required"), bool):  # draft-03 put it on the property; many tool definitions still do
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
        absent = value is None and key.endswith(_LIMITS)  # some programs write null for a limit that there is not
        if not absent and key not in ANNOTATIONS:
            yield key, value


def step(key: str) -> str:
    """One key as a step of a pointer."""
    return quote(key.replace("~", "~0").replace("/", "~1"), safe="~$")


# --- references ---------------------------------------------------------------------------------------------------------------


def _resolver(schema: dict[str, Any]) -> Any:
    """What resolves the references of a schema; None where it has none, which is the common case and needs no library."""
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
    """Every object inside a schema, itself first; more than its schemas."""
    stack = [schema]
    while stack:
        value = stack.pop()
        if isinstance(value, dict):
            yield value
            stack.extend(value.values())
        elif isinstance(value, list):
            stack.extend(value)


def _specification() -> Any:
    """Where ids and anchors stand, in any draft: in any mapping but a constant."""
    import referencing

    library: Any = referencing  # its classes are attrs', whose arguments mypy does not see

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
            named = contents.get("$id")  # draft-07 named a part so: "#zip"
            given.append(named[1:] if isinstance(named, str) and named.startswith("#") else None)
            yield from (
                library.Anchor(name, specification.create_resource(contents)) for name in given if isinstance(name, str)
            )

    return library.Specification("any draft", identity, within, lambda segments, resolver, subresource: resolver, anchors)
