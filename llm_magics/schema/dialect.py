"""JSON schemas as they come, brought into one dialect that every reader of schemas reads.

Tools, pydantic and people write schemas of several drafts, and refer to their parts by pointer, by ``$anchor`` or by ``$id``.
:func:`plain` copies a schema into plain dicts and lists, in the words of 2020-12 alone, where every reference is a pointer into
the copy. The grammar (``schema.py``), the types of tagged arguments (``typed.py``), the count of steps (``steps.py``) and the
validator read this copy, so they cannot disagree about where a reference leads.

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

from collections.abc import Iterable, Iterator, Mapping
from typing import Any
from urllib.parse import quote, unquote

from llm_magics.errors import SchemaError

MAX_DEPTH = 192  # of a schema as it is written
MAX_SIZE = 200_000  # keys and values in it
MAPS = frozenset({"properties", "patternProperties", "dependentSchemas", "$defs", "definitions"})
VALUES = frozenset({"const", "enum", "required", "dependentRequired", "type"})
ANNOTATIONS = frozenset({"title", "description", "default", "examples", "example", "deprecated", "$comment"})  # left out
_LIMITS = ("Length", "Items", "Properties", "imum", "Minimum", "Maximum", "type", "multipleOf", "format", "nullable")
_NOWHERE = "(nowhere)"
_REFERENCES = ("$ref", "$dynamicRef", "$recursiveRef")
_NAMES = ("$id", "$anchor", "$dynamicAnchor", "$recursiveAnchor", "$schema", "$vocabulary")  # needless once pointers are left


def plain(schema: Any) -> Any:
    """Copy a schema into the dialect that the head of this file describes.

    What is no schema at all is left as it is: whoever reads it says what is wrong. Raises SchemaError for a reference that
    leads nowhere or elsewhere, and for a schema beyond the bounds.
    """
    check_size(schema)
    return _Copy(schema).run() if isinstance(schema, Mapping) else schema


def pointed(root: Any, ref: Any) -> Any:
    """What a reference of a plain schema leads to. Raises SchemaError where that is nothing."""
    if not isinstance(ref, str) or not (ref == "#" or ref.startswith("#/")):
        raise SchemaError(f"The reference {str(ref)[:80]!r} is no pointer.", "Point into the same document, e.g. #/$defs/item.")
    at = root
    for step in ref[2:].split("/") if ref != "#" else ():
        key = unquote(step).replace("~1", "/").replace("~0", "~")
        if isinstance(at, Mapping) and key in at:
            at = at[key]
        elif isinstance(at, list) and key.isdecimal() and int(key) < len(at):
            at = at[int(key)]
        else:
            shown = unquote(ref.removeprefix(f"#/{_NOWHERE}/"))
            raise SchemaError(f"The reference {shown[:80]!r} leads to nothing here.", "Copy the definition into $defs.")
    return at


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

    def __init__(self, schema: Mapping[str, Any]) -> None:
        self._schema = schema
        self._places: dict[int, str] = {}  # of each part of the schema that is a mapping: the pointer to its copy
        self._waiting: list[tuple[dict[str, Any], Any, str]] = []  # a copy, what its reference leads to, and the reference
        self._dynamic: dict[str, set[int]] = {}  # the parts that each $dynamicAnchor names

    def run(self) -> Any:
        copy = self._part(self._schema, "", _resolver(self._schema), strict=True)
        for part, target, ref in self._waiting:
            if ref.startswith("$dynamicRef") and len(self._dynamic.get(ref.rpartition("#")[2], ())) > 1:
                raise SchemaError(f"The reference {ref[:80]!r} has several targets, which is not supported.", "Use $ref.")
            if isinstance(target, bool):
                part["allOf"] = [*part.get("allOf", []), target]
            elif id(target) in self._places:
                part.setdefault("$ref", "#" + self._places[id(target)])
                if part["$ref"] != "#" + self._places[id(target)]:  # a second reference beside the first
                    part["allOf"] = [*part.get("allOf", []), {"$ref": "#" + self._places[id(target)]}]
            else:
                raise SchemaError(f"The reference {ref[:80]!r} leads to something that is no schema.", "Correct the reference.")
        return copy

    def _part(self, value: Any, place: str, resolver: Any, strict: bool) -> Any:
        """Copy a schema, or a list of them. ``strict``: it counts, so that its references must lead somewhere."""
        if isinstance(value, list | tuple):
            return [self._part(v, f"{place}/{i}", resolver, strict) for i, v in enumerate(value)]
        if not isinstance(value, Mapping):
            return value
        if resolver is not None and place and isinstance(value.get("$id"), str):
            resolver = _inside(resolver, value)
        self._places.setdefault(id(value), place)
        if isinstance(value.get("$dynamicAnchor"), str):
            self._dynamic.setdefault(value["$dynamicAnchor"], set()).add(id(value))
        copy: dict[str, Any] = {}
        for key, inner in _renamed(value):
            if key in _REFERENCES:
                self._refer(copy, key, inner, place, resolver, strict)
            elif key in MAPS and isinstance(inner, Mapping):
                named = ((str(k), v) for k, v in inner.items())
                used = strict and key not in ("$defs", "definitions")
                copy[key] = {k: self._part(v, f"{place}/{key}/{step(k)}", resolver, used) for k, v in named}
            elif key in VALUES:
                copy[key] = json_copy(inner)
            elif not (key in _NAMES and isinstance(inner, str | bool | Mapping)):
                copy[key] = self._part(inner, f"{place}/{step(key)}", resolver, strict and key in _SCHEMAS)
        return copy

    def _refer(self, copy: dict[str, Any], key: str, ref: Any, place: str, resolver: Any, strict: bool) -> None:
        if not isinstance(ref, str):
            raise SchemaError(f"#{place}/{key} should be a string.", "Point into the same document, e.g. #/$defs/item.")
        try:
            target = _found(resolver, ref, f"#{place}/{key}")
        except SchemaError:
            if strict:
                raise
            copy["$ref"] = f"#/{_NOWHERE}/{step(ref)}"  # perhaps nobody reads it: whoever does is told by pointed()
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
    if isinstance(named, list | tuple):
        return list(dict.fromkeys(map(_typed, named))) if all(isinstance(n, str) for n in named) else list(named)
    return _PYTHON_TYPES.get(named, named) if isinstance(named, str) else named


def _renamed(schema: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """The keywords of one schema, in the words of 2020-12."""
    words = {str(key): value for key, value in schema.items()}
    if "type" in words:
        words["type"] = _typed(words["type"])
    if words.get("nullable") is True and "type" in words:
        types = list(words["type"]) if isinstance(words["type"], list | tuple) else [words["type"]]
        words["type"] = types if "null" in types else [*types, "null"]
    if isinstance(words.get("items"), list | tuple):
        words["prefixItems"], words["items"] = words["items"], words.pop("additionalItems", True)
    for exclusive, bound in (("exclusiveMinimum", "minimum"), ("exclusiveMaximum", "maximum")):
        if isinstance(words.get(exclusive), bool) and words.pop(exclusive) and bound in words:
            words[exclusive] = words.pop(bound)
    if isinstance(words.get("required"), bool):  # draft-03 put it on the property; many tool definitions still do
        del words["required"]
    if isinstance(words.get("dependencies"), Mapping):
        for key, needs in words.pop("dependencies").items():
            keyword = "dependentRequired" if isinstance(needs, list | tuple) else "dependentSchemas"
            words[keyword] = {key: needs, **(words.get(keyword) or {})}
    for key, value in words.items():
        absent = value is None and key.endswith(_LIMITS)  # some programs write null for a limit that there is not
        if not absent and key not in ANNOTATIONS:
            yield key, value


def step(key: str) -> str:
    """One key as a step of a pointer."""
    return quote(key.replace("~", "~0").replace("/", "~1"), safe="~$")


def json_copy(value: Any) -> Any:
    """Copy a JSON value into plain dicts and lists."""
    if isinstance(value, Mapping):
        return {str(k): json_copy(v) for k, v in value.items()}
    return [json_copy(v) for v in value] if isinstance(value, list | tuple) else value


# --- references ---------------------------------------------------------------------------------------------------------------


def _resolver(schema: Mapping[str, Any]) -> Any:
    """What resolves the references of a schema; None where it has none, which is the common case and needs no library."""
    if not any(key in part for part in _parts(schema) for key in _REFERENCES):
        return None
    from referencing import Registry

    return Registry().resolver_with_root(_specification().create_resource(schema))


def _inside(resolver: Any, schema: Mapping[str, Any]) -> Any:
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


def _parts(schema: Any) -> Iterator[Mapping[str, Any]]:
    """Every mapping inside a schema, itself first."""
    stack = [schema]
    while stack:
        value = stack.pop()
        if isinstance(value, Mapping):
            yield value
            stack.extend(value.values())
        elif isinstance(value, list | tuple):
            stack.extend(value)


def _specification() -> Any:
    """Where ids and anchors stand, in any draft: in any mapping but a constant."""
    import referencing

    library: Any = referencing  # its classes are attrs', whose arguments mypy does not see

    def identity(contents: Any) -> str | None:
        given = contents.get("$id") if isinstance(contents, Mapping) else None
        return given if isinstance(given, str) and not given.startswith("#") else None

    def within(contents: Any) -> Iterable[Any]:
        if isinstance(contents, Mapping):
            for key, value in contents.items():
                if key in MAPS and isinstance(value, Mapping):
                    yield from value.values()
                elif key not in VALUES and key not in ANNOTATIONS:
                    yield from value if isinstance(value, list | tuple) else [value]
        elif isinstance(contents, list | tuple):
            yield from contents

    def anchors(specification: Any, contents: Any) -> Iterable[Any]:
        if isinstance(contents, Mapping):
            given = [contents.get("$anchor"), contents.get("$dynamicAnchor")]
            named = contents.get("$id")  # draft-07 named a part so: "#zip"
            given.append(named[1:] if isinstance(named, str) and named.startswith("#") else None)
            yield from (
                library.Anchor(name, specification.create_resource(contents)) for name in given if isinstance(name, str)
            )

    return library.Specification("any draft", identity, within, lambda segments, resolver, subresource: resolver, anchors)
