"""The algebra of schema nodes: what two of them admit together, what either admits, and which admit nothing.

``schema/normal.py`` says what a node is. :class:`Algebra` holds the definitions that nodes refer to. A definition is made when
it is first needed, never while it is read, so recursion in a schema is not recursion here.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from llm_magics.errors import SchemaError

from .numeric import within
from .patterns import linear_search

Node: TypeAlias = dict[str, Any]

MAX_DEPTH = 64  # nesting of the schema as written, and of references through references
MAX_NODES = 20_000  # nodes made while normalising
MAX_OPTIONS = 64  # of one union after multiplying out


def never() -> Node:
    """The node that no value satisfies."""
    return {"enum": []}


def is_never(node: Node) -> bool:
    return node.get("enum") == []


def same(a: object, b: object) -> bool:
    """Compare two JSON values as JSON does: ``1`` is ``1.0`` but not ``true``."""
    return canonical(a) == canonical(b)


def canonical(value: object) -> str:
    """A text that is the same for equal JSON values."""
    return json.dumps(_plain(value), sort_keys=True, ensure_ascii=True)


def _plain(value: Any) -> Any:
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    return value


def size_of(value: object) -> int:
    """How many values there are in a JSON value, itself one of them."""
    stack, size = [value], 0
    while stack:
        part = stack.pop()
        size += 1
        stack.extend(part.values() if isinstance(part, Mapping) else part if isinstance(part, list | tuple) else ())
    return size


def json_type(value: object) -> str:
    """Name the JSON type of a Python value; a float without a fraction is an integer."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int) or (isinstance(value, float) and value.is_integer()):
        return "integer"
    names: tuple[tuple[type | tuple[type, ...], str], ...] = ((float, "number"), (str, "string"), (Mapping, "object"))
    for kind, name in (*names, ((list, tuple), "array")):
        if isinstance(value, kind):
            return name
    raise SchemaError(f"{type(value).__name__} is no JSON value.", "Use JSON values in const, enum and default.")


def property_of(node: Node, key: str) -> Node:
    """The node for one key of an object node."""
    properties = node.get("properties", {})
    if key in properties:
        return properties[key]
    for pattern, sub in node.get("patternProperties", {}).items():
        if linear_search(pattern, key):
            return sub
    return node.get("additionalProperties", {})


def disjoint(nodes: list[Node]) -> bool:
    """Can no value satisfy two of these? Says so only where the types, or the values of an enum, already show it."""
    seen: set[str] = set()
    for node in nodes:
        if "enum" in node:
            marks = {canonical(v) for v in node["enum"]} | {json_type(v) for v in node["enum"]}
        elif "type" in node:
            marks = {node["type"]} | ({"integer"} if node["type"] == "number" else set())
        else:
            return False
        if marks & seen and not ("enum" in node and not {m for m in marks if m not in _TYPE_NAMES} & seen):
            return False
        seen |= marks
    return True


_TYPE_NAMES = frozenset({"null", "boolean", "integer", "number", "string", "array", "object"})


def _fits(node: Node, size: int, what: str) -> bool:
    return bool(node.get(f"min{what}", 0) <= size <= node.get(f"max{what}", size))


def _pick(best: Callable[..., Any], keyword: str, a: Node, b: Node) -> Node:
    """The stricter of two limits, where either has one."""
    values = [x[keyword] for x in (a, b) if keyword in x]
    return {keyword: best(values)} if values else {}


class Algebra:
    """Nodes and the definitions they refer to; ``loose`` collects what the normal form cannot say."""

    def __init__(self) -> None:
        self.definitions: dict[str, Node] = {}
        self.pending: dict[str, Callable[[], Node]] = {}
        self.names: dict[str, str] = {}
        self.unenforced: dict[str, None] = {}
        self.made = 0

    def define(self, make: Callable[[], Node], name: str = "") -> str:
        name = name or f"d{len(self.definitions) + len(self.pending)}"
        self.pending[name] = make
        return name

    def resolve(self, name: str, path: tuple[str, ...] = ()) -> Node:
        if name in self.pending:
            if len(path) > MAX_DEPTH:
                raise SchemaError("A $ref leads through too many others.", "Simplify the schema.")
            make = self.pending.pop(name)
            self.definitions[name] = {"$ref": name}  # while it is being made it can only be itself
            self.definitions[name] = make()
        return self.definitions[name]

    def count(self, depth: int, path: str, made: int = 1) -> None:
        self.made += made
        if depth > MAX_DEPTH or self.made > MAX_NODES:
            raise SchemaError(f"The JSON schema is nested too deeply or multiplies out too far at {path[:80]}.", "Simplify it.")

    def loose(self, path: str, keyword: str) -> None:
        self.unenforced[f"{path}/{keyword}"] = None

    # --- intersection and union ---------------------------------------------------------------------------------------------

    def meet(self, a: Node, b: Node, path: str) -> Node:
        """The node that admits what both admit."""
        self.count(0, path)
        if not a or is_never(b):
            return b
        if not b or is_never(a) or a == b:
            return a
        for x, y in ((a, b), (b, a)):
            if "$ref" in x:
                return self.meet_ref(x, y, path)
        for x, y in ((a, b), (b, a)):
            if "anyOf" in x:
                return self.union([self.meet(option, y, path) for option in x["anyOf"]], path)
        if "enum" in a and "enum" in b:
            common = {canonical(value) for value in b["enum"]}
            return {"enum": [value for value in a["enum"] if canonical(value) in common]}
        for x, y in ((a, b), (b, a)):
            if "enum" in x:
                return {"enum": [value for value in x["enum"] if self.admits(y, value, path)]}
        if a["type"] == b["type"] or {a["type"], b["type"]} == {"integer", "number"}:
            return self.meet_typed(a, b, path)
        return never()

    def meet_ref(self, ref: Node, other: Node, path: str) -> Node:
        """Intersecting with a reference is a new definition, made later: the target may not be finished yet."""
        key = f"{ref['$ref']}&{canonical(other)}"
        if key not in self.names:
            self.names[key] = self.define(lambda: self.meet(self.solid(ref), other, path))
        return {"$ref": self.names[key]}

    def solid(self, node: Node) -> Node:
        """Follow references until something else comes; a circle of nothing but references admits no value."""
        seen: set[str] = set()
        while "$ref" in node:
            if node["$ref"] in seen:
                return never()
            seen.add(node["$ref"])
            node = self.resolve(node["$ref"], tuple(seen))
        return node

    def meet_typed(self, a: Node, b: Node, path: str) -> Node:
        node: Node = {"type": "integer" if "integer" in (a["type"], b["type"]) else a["type"]}
        for keyword in ("minimum", "exclusiveMinimum", "minLength", "minItems", "minProperties"):
            node |= _pick(max, keyword, a, b)
        for keyword in ("maximum", "exclusiveMaximum", "maxLength", "maxItems", "maxProperties"):
            node |= _pick(min, keyword, a, b)
        if node["type"] in ("integer", "number"):
            return self.meet_multiples(node, a, b, path)
        if node["type"] == "string":
            return self.meet_strings(node, a, b, path)
        if node["type"] == "array":
            return self.meet_arrays(node, a, b, path)
        if node["type"] == "object":
            return self.meet_objects(node, a, b, path)
        return node

    def meet_multiples(self, node: Node, a: Node, b: Node, path: str) -> Node:
        steps = [x["multipleOf"] for x in (a, b) if "multipleOf" in x]
        if len(steps) == 2 and not same(*steps):
            self.loose(path, "multipleOf")
        return node | ({"multipleOf": steps[0]} if steps else {})

    def meet_strings(self, node: Node, a: Node, b: Node, path: str) -> Node:
        formats = list(dict.fromkeys(x["format"] for x in (a, b) if "format" in x))
        if len(formats) == 2:
            return never()
        patterns = list(dict.fromkeys(a.get("patterns", []) + b.get("patterns", [])))
        return node | ({"format": formats[0]} if formats else {}) | ({"patterns": patterns} if patterns else {})

    def meet_arrays(self, node: Node, a: Node, b: Node, path: str) -> Node:
        heads = [x.get("prefixItems", []) for x in (a, b)]
        rests = [x.get("items", {}) for x in (a, b)]
        length = max(len(h) for h in heads)
        prefix = []
        for i in range(length):
            left, right = (head[i] if i < len(head) else rest for head, rest in zip(heads, rests, strict=True))
            prefix.append(self.meet(left, right, path))
        items = self.meet(rests[0], rests[1], path)
        return node | ({"prefixItems": prefix} if prefix else {}) | ({"items": items} if items else {})

    def meet_objects(self, node: Node, a: Node, b: Node, path: str) -> Node:
        keys = dict.fromkeys([*a.get("properties", {}), *b.get("properties", {})])
        props = {key: self.meet(property_of(a, key), property_of(b, key), path) for key in keys}
        found: Node = {}
        for x, y in ((a, b), (b, a)):
            for pattern, sub in x.get("patternProperties", {}).items():
                other = y.get("patternProperties", {}).get(pattern, y.get("additionalProperties", {}))
                found[pattern] = self.meet(sub, other, path)
        extra = self.meet(a.get("additionalProperties", {}), b.get("additionalProperties", {}), path)
        required = list(dict.fromkeys(a.get("required", []) + b.get("required", [])))
        parts = (("properties", props), ("patternProperties", found), ("required", required), ("additionalProperties", extra))
        return node | {k: v for k, v in parts if v}

    def union(self, options: list[Node], path: str) -> Node:
        """The node that admits what any of them admits."""
        flat: dict[str, Node] = {}
        for option in options:
            for node in option.get("anyOf", [option]):
                if not node:
                    return {}
                if not is_never(node):
                    flat[canonical(node)] = node
        if '{"type": "number"}' in flat:
            flat.pop('{"type": "integer"}', None)
        nodes = list(flat.values())
        if len(nodes) > MAX_OPTIONS:
            raise SchemaError(f"{path[:80]} multiplies out to over {MAX_OPTIONS} alternatives.", "Simplify its unions.")
        return nodes[0] if len(nodes) == 1 else {"anyOf": nodes} if nodes else never()

    def admits(self, node: Node, value: Any, path: str) -> bool:
        """Is this constant admitted by a node? Used to filter an enum, so what is unsure counts as admitted."""
        if not node:
            return True
        if "enum" in node:
            return any(same(value, v) for v in node["enum"])
        if "anyOf" in node:
            return any(self.admits(option, value, path) for option in node["anyOf"])
        if "$ref" in node:
            return self.admits(self.solid(node), value, path)
        kind, wanted = json_type(value), node["type"]
        if kind != wanted and (kind, wanted) != ("integer", "number"):
            return False
        if kind == "string":
            return _fits(node, len(value), "Length") and all(linear_search(p, value) for p in node.get("patterns", []))
        if kind in ("integer", "number"):
            return within(node, value)
        if kind == "array":
            prefix, rest = node.get("prefixItems", []), node.get("items", {})
            subs = [*prefix[: len(value)], *[rest] * (len(value) - len(prefix))]
            return _fits(node, len(value), "Items") and all(self.admits(s, v, path) for s, v in zip(subs, value, strict=True))
        if kind == "object":
            return all(k in value for k in node.get("required", [])) and all(
                self.admits(property_of(node, k), v, path) for k, v in value.items()
            )
        return True

    def close(self, node: Node, path: str) -> Node:
        """Forbid further properties, after everything beside them has been merged in."""
        if "anyOf" in node:
            return self.union([self.close(option, path) for option in node["anyOf"]], path)
        if "$ref" in node:
            key = f"close {node['$ref']}"
            if key not in self.names:
                self.names[key] = self.define(lambda: self.close(self.solid(node), path))
            return {"$ref": self.names[key]}
        return {**node, "additionalProperties": never()} if node.get("type") == "object" else node
