"""JSON schema, rewritten into a normal form that a grammar can enforce.

A schema from people or pydantic has siblings beside ``$ref``, ``allOf``, conditions and typeless keywords. Grammars and readers
get none of these: :func:`normalise` rewrites a schema into this form.

    node := {}                                            any value
          | {"enum": [...]}                               one of these; [] is the node that nothing satisfies
          | {"type": "null" | "boolean"}
          | {"type": "integer" | "number", bounds}        minimum maximum exclusiveMinimum exclusiveMaximum multipleOf
          | {"type": "string", limits}                    minLength maxLength format patterns (a list: all must be found)
          | {"type": "array", "prefixItems": [node], "items": node, "minItems": n, "maxItems": n}
          | {"type": "object", "properties": {key: node}, "required": [key], "patternProperties": {regex: node},
             "additionalProperties": node, "minProperties": n, "maxProperties": n}
          | {"anyOf": [node, ...]}                        no siblings
          | {"$ref": name}                                into ``Normalised.definitions``, no siblings

**Not enforced by the grammar.** The normal form admits every value that the schema admits, and more if a keyword has no
grammar: ``not``, ``uniqueItems``, ``contains``, ``oneOf``'s "only one", ``if`` without its negation, patterns with look-around
or back-references, ``patternProperties`` that overlap or stand beside free keys, ``propertyNames`` other than an enum or one
pattern, property counts on an object with free keys, ``dependentRequired`` beyond a few, ``unevaluatedItems``, enums of many
thousand values, bounds beyond 64 bits. ``Normalised.unenforced`` names each such keyword by its place;
:func:`llm_magics.schema.validate.validate` checks them on the finished value. A ``format`` that the constraint engine knows is
enforced; any other is an annotation, as in the specification.

Depth, nodes and products are bounded; a schema beyond that raises SchemaError. ``schema/dialect.py`` reads older drafts and
resolves references first. Source: JSON Schema 2020-12.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from llm_magics.errors import SchemaError

from .algebra import Algebra, disjoint
from .dialect import MAX_KEPT, Plain, plain, step
from .leaves import NUMBER_BOUNDS, has_linear_regex, linear_search
from .nodes import TYPES, Node, Normalised, is_never, json_type, never, size_of

FORMATS = frozenset({"date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid", "uri"})
MAX_CONSTANTS = 10_000  # values of an enum, with their parts
MAX_DEPENDENCIES = 3  # each doubles the union


def normalise(schema: Mapping[str, Any] | bool) -> Normalised:
    """Rewrite a JSON schema into the normal form that the head of this file describes; equal schemas are read once.

    Raises SchemaError for a schema that is invalid, points outside itself, admits no value, or exceeds the bounds.
    """
    return _normalise(plain(schema))


def parameters(schema: Mapping[str, Any]) -> Normalised:
    """Normalise a tool's parameters, which are an object even if untyped."""
    untyped = "type" not in schema and "$ref" not in schema
    return normalise({**schema, "type": "object"} if untyped else schema)


@lru_cache(maxsize=MAX_KEPT)
def _normalise(read: Plain) -> Normalised:
    return _Normaliser(read).run()


def _types(schema: dict[str, Any], path: str) -> list[str]:
    """The types that a schema allows, all if it names none; "number" includes integers."""
    wanted = schema.get("type")
    if wanted is None:
        return [name for name in TYPES if name != "integer"]
    names = [wanted] if isinstance(wanted, str) else wanted
    if not isinstance(names, list) or not all(isinstance(n, str) and n in TYPES for n in names):
        raise SchemaError(f"{path}/type is {wanted!r}, which is not a JSON type.", f"Use one of {', '.join(TYPES)}.")
    names = list(dict.fromkeys(names))
    return [n for n in names if not (n == "integer" and "number" in names)]


def _bounds(schema: dict[str, Any], path: str) -> Node:
    node = {keyword: schema[keyword] for keyword in NUMBER_BOUNDS if schema.get(keyword) is not None}
    for keyword, value in node.items():
        if not _finite(value) or (keyword == "multipleOf" and value <= 0):
            raise SchemaError(f"{path}/{keyword} must be a number, not {value!r}.", "Correct the bound.")
    return node


def _sizes(schema: dict[str, Any], what: str, path: str) -> Node:
    node = {keyword: schema[keyword] for keyword in (f"min{what}", f"max{what}") if schema.get(keyword) is not None}
    for keyword, value in node.items():
        if not _finite(value) or value < 0 or value % 1:
            raise SchemaError(f"{path}/{keyword} must be a whole number, not {value!r}.", "Correct the limit.")
    return {keyword: int(value) for keyword, value in node.items() if value or keyword.startswith("max")}


def _finite(value: Any) -> bool:
    return type(value) is int or (isinstance(value, float) and math.isfinite(value))


def _mapping(schema: dict[str, Any], keyword: str, path: str) -> dict[str, Any]:
    value = schema.get(keyword, {})
    if not isinstance(value, dict):
        raise SchemaError(f"{path}/{keyword} must be an object.", "Map each name to its schema.")
    return value


class _Normaliser(Algebra):
    """Normalises one schema. References become definitions, made from a list, so that recursion needs no stack."""

    def __init__(self, read: Plain) -> None:
        super().__init__()
        self.read = read

    def run(self) -> Normalised:
        root = self.node(self.read.schema, "#", 0)
        while self.pending:
            self.resolve(next(iter(self.pending)))
        self.prune()
        root = self.tidy(root)
        if is_never(root):
            raise SchemaError("No value satisfies this JSON schema.", "Look for contradicting keywords or endless recursion.")
        return Normalised(root, self.reachable(root), tuple(self.unenforced))

    def node(self, schema: Any, path: str, depth: int) -> Node:
        """Normalise one schema: intersect its own keywords with every applicator beside them."""
        self.count(depth, path)
        if isinstance(schema, bool):
            return {} if schema else never()
        if not isinstance(schema, dict):
            raise SchemaError(f"{path} is {type(schema).__name__}, not a schema.", "A schema is an object, true or false.")
        node = self.own(schema, path, depth)
        for part in self.applicators(schema, path, depth):
            node = self.meet(node, part, path)
        if schema.get("unevaluatedProperties") is False and not self.evaluates_all(schema):
            node = self.close(node, path)
        return node

    def evaluates_all(self, schema: dict[str, Any]) -> bool:
        """Whether a schema, or one applied beside it, evaluates every property, so that none is unevaluated."""
        waiting, seen = [schema], list[Any]()
        while waiting:
            part = waiting.pop()
            if not isinstance(part, dict) or any(part is other for other in seen):
                continue
            seen.append(part)
            if part.get("additionalProperties", False) is not False or part.get("unevaluatedProperties", False) is not False:
                return True
            waiting += [part[word] for word in ("if", "then", "else") if word in part]
            waiting += [self.read.target(part["$ref"])] if "$ref" in part else []
            for word in ("allOf", "anyOf", "oneOf"):
                waiting += part[word] if isinstance(part.get(word), list) else []
            waiting += _mapping(part, "dependentSchemas", "#").values()
        return False

    def own(self, schema: dict[str, Any], path: str, depth: int) -> Node:
        """The node of a schema's plain keywords: one option per allowed type."""
        types = _types(schema, path)
        for keyword in ("uniqueItems", "not", "contains", "unevaluatedItems"):
            if schema.get(keyword) if keyword == "uniqueItems" else keyword in schema:
                self.loose(path, keyword)
        if isinstance(schema.get("unevaluatedProperties"), dict):
            self.loose(path, "unevaluatedProperties")
        options = [self.typed(name, schema, path, depth) for name in types]
        restricted = any(len(option) > 1 for option in options)
        node: Node = {} if set(types) == set(TYPES) - {"integer"} and not restricted else self.union(options, path)
        if "const" in schema:
            node = self.meet(node, self.values([schema["const"]], path, "const"), path)
        if "enum" in schema:
            values = schema["enum"]
            if not isinstance(values, list):
                raise SchemaError(f"{path}/enum must be a list.", "Write the allowed values as a JSON array.")
            node = self.meet(node, self.values(values, path, "enum"), path)
        return node

    def values(self, values: list[Any], path: str, keyword: str) -> Node:
        """The node of these constants; of their types only, if there are too many for a grammar."""
        size = size_of(values)
        self.count(0, path, size // 4)
        if size <= MAX_CONSTANTS:
            return {"enum": values}
        self.loose(path, keyword)
        return self.union([{"type": name} for name in dict.fromkeys(map(json_type, values))], path)

    def typed(self, name: str, schema: dict[str, Any], path: str, depth: int) -> Node:
        match name:
            case "integer" | "number":
                return {"type": name, **_bounds(schema, path)}
            case "string":
                return self.string(schema, path)
            case "array":
                return self.array(schema, path, depth)
            case "object":
                return self.named(self.object(schema, path, depth), schema, path)
        return {"type": name}

    def string(self, schema: dict[str, Any], path: str) -> Node:
        node: Node = {"type": "string", **_sizes(schema, "Length", path)}
        if isinstance(schema.get("format"), str) and schema["format"] in FORMATS:
            node["format"] = schema["format"]
        pattern = schema.get("pattern", "")
        if not isinstance(pattern, str):
            raise SchemaError(f"{path}/pattern must be a string.", "Write a regular expression.")
        if pattern and not has_linear_regex(pattern):
            self.loose(path, "pattern")
        elif pattern:
            node["patterns"] = [pattern]
        return node

    def array(self, schema: dict[str, Any], path: str, depth: int) -> Node:
        prefix, rest = schema.get("prefixItems", []), schema.get("items", True)
        if not isinstance(prefix, list):
            raise SchemaError(f"{path}/prefixItems must be a list.", "Write one schema per position.")
        node: Node = {"type": "array", **_sizes(schema, "Items", path)}
        first = [self.node(s, f"{path}/prefixItems/{i}", depth + 1) for i, s in enumerate(prefix)]
        items = self.node(rest, f"{path}/items", depth + 1)
        if "contains" in schema and schema.get("minContains", 1) != 0:
            node["minItems"] = max(node.get("minItems", 0), 1)
        return node | {k: v for k, v in (("prefixItems", first), ("items", items)) if v}

    def object(self, schema: dict[str, Any], path: str, depth: int) -> Node:
        node: Node = {"type": "object", **_sizes(schema, "Properties", path)}
        properties = _mapping(schema, "properties", path)
        patterns = _mapping(schema, "patternProperties", path)
        required = schema.get("required", [])
        if not isinstance(required, list) or not all(isinstance(k, str) for k in required):
            raise SchemaError(f"{path}/required must be a list of names.", "Write the names of the required properties.")
        props = {k: self.node(s, f"{path}/properties/{step(k)}", depth + 1) for k, s in properties.items()}
        found = {p: self.node(s, f"{path}/patternProperties/{step(p)}", depth + 1) for p, s in patterns.items()}
        extra = self.node(schema.get("additionalProperties", True), f"{path}/additionalProperties", depth + 1)
        counted = node.get("minProperties", 0) > 1 or "maxProperties" in node
        if counted and not (is_never(extra) and not found):
            self.loose(path, "minProperties")
        if any(not has_linear_regex(p) for p in found):
            self.loose(path, "patternProperties")
            found, extra = {}, {}
        if found and not (is_never(extra) and len(found) == 1):
            self.loose(path, "patternProperties")
        for key in props:
            for pattern, sub in found.items():
                if linear_search(pattern, key):
                    props[key] = self.meet(props[key], sub, path)
        parts = {"properties": props, "patternProperties": found, "required": list(dict.fromkeys(required))}
        return node | {k: v for k, v in (*parts.items(), ("additionalProperties", extra)) if v}

    def named(self, node: Node, schema: dict[str, Any], path: str) -> Node:
        """Apply ``propertyNames`` if it is an enum or one pattern; leave other forms to validation."""
        names = schema.get("propertyNames", True)
        declared, extra = node.get("properties", {}), node.get("additionalProperties", {})
        said = names if isinstance(names, dict) and "patternProperties" not in node else {}
        allowed, pattern = (said.get(keyword) if said.keys() <= {keyword, "type"} else None for keyword in ("enum", "pattern"))
        if isinstance(allowed, list):
            props = {k: declared.get(k, extra) for k in allowed if isinstance(k, str)}
            return {**node, "properties": props, "additionalProperties": never()}
        if isinstance(pattern, str) and has_linear_regex(pattern):
            props = {k: v for k, v in declared.items() if linear_search(pattern, k)}
            return {**node, "properties": props, "patternProperties": {pattern: extra}, "additionalProperties": never()}
        if names is not True:
            self.loose(path, "propertyNames")
        return node

    def applicators(self, schema: dict[str, Any], path: str, depth: int) -> list[Node]:
        """The nodes of the schemas that apply beside a schema's own keywords."""
        parts: list[Node] = []
        if "$ref" in schema:
            ref = schema["$ref"]
            parts.append(self.define(ref, lambda: self.node(self.read.target(ref), ref, 0)))
        for keyword in [word for word in ("allOf", "anyOf", "oneOf") if word in schema]:
            subs = schema[keyword]
            if not isinstance(subs, list) or not subs:
                raise SchemaError(f"{path}/{keyword} must be a list of schemas.", "Write at least one schema.")
            nodes = [self.node(s, f"{path}/{keyword}/{i}", depth + 1) for i, s in enumerate(subs)]
            if keyword == "oneOf" and not disjoint(nodes):
                self.loose(path, "oneOf")
            parts += nodes if keyword == "allOf" else [self.union(nodes, path)]
        if "if" in schema:
            parts.append(self.condition(schema, path, depth))
        parts.extend(self.dependencies(schema, path, depth))
        return parts

    def condition(self, schema: dict[str, Any], path: str, depth: int) -> Node:
        """``if c then t else e`` holds if c and t hold, or if e holds; validation checks that e needs "not c"."""
        self.loose(path, "if")
        test = self.node(schema["if"], f"{path}/if", depth + 1)
        then = self.node(schema.get("then", True), f"{path}/then", depth + 1)
        other = self.node(schema.get("else", True), f"{path}/else", depth + 1)
        return self.union([self.meet(test, then, path), other], path)

    def dependencies(self, schema: dict[str, Any], path: str, depth: int) -> list[Node]:
        """Each dependency is a choice: the key is absent, or its schema holds."""
        rules: dict[str, Any] = {}
        for keyword in ("dependentRequired", "dependentSchemas"):
            for key, needs in _mapping(schema, keyword, path).items():
                rules[f"{keyword}/{key}"] = (key, {"required": needs} if isinstance(needs, list) else needs)
        if len(rules) > MAX_DEPENDENCIES:
            self.loose(path, "dependentRequired")
            return []
        parts = []
        for place, (key, needs) in rules.items():
            absent = {"type": "object", "properties": {key: never()}}
            present = self.meet(self.node(needs, f"{path}/{place}", depth + 1), {"type": "object", "required": [key]}, path)
            other = [{"type": name} for name in ("null", "boolean", "number", "string", "array")]
            parts.append(self.union([absent, present, *other], path))
        return parts
