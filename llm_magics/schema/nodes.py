"""Reads the nodes of a schema's normal form (see ``schema/normal.py``): their types, members and elements.

Grammars and the typed reading of tagged arguments read nodes only here, so they agree on how a value is written. E.g. with the
root ``{"anyOf": [{"type": "object", "properties": {"n": {"type": "integer"}}}, {"type": "null"}]}``,
``types(member(root, "n"))`` is ``{"integer"}``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from .leaves import linear_search

Node: TypeAlias = dict[str, Any]

TYPES = ("null", "boolean", "integer", "number", "string", "array", "object")


@dataclass(frozen=True, slots=True, eq=False)
class Normalised:
    """A schema in normal form; ``unenforced`` names the keywords that only validation checks. Equal schemas share one, so never
    change a node."""

    root: Node
    definitions: Mapping[str, Node]
    unenforced: tuple[str, ...] = ()

    def options(self, node: Node) -> list[Node]:
        """The alternatives of a node, without references and unions."""
        found: list[Node] = []
        waiting, seen = [node], set[str]()
        while waiting:
            one = waiting.pop()
            if "$ref" in one:
                if one["$ref"] not in seen:
                    seen.add(one["$ref"])
                    waiting.append(self.definitions[one["$ref"]])
            elif "anyOf" in one:
                waiting.extend(reversed(one["anyOf"]))
            else:
                found.append(one)
        return found

    def types(self, node: Node) -> frozenset[str]:
        """The JSON types that a node admits, all if it is {}; "number" includes integers."""
        found: set[str] = set()
        for option in self.options(node):
            if not option:
                return frozenset(TYPES)
            found |= {option["type"]} if "type" in option else set(map(json_type, option["enum"]))
        return frozenset(found or TYPES)

    def member(self, node: Node, key: str) -> Node:
        """The node of one member of an object; {} if unknown."""
        objects = [option for option in self.options(node) if option.get("type") == "object"]
        declared = [option for option in objects if key in option.get("properties", {})]
        return _either([property_of(option, key) for option in declared or objects])

    def items(self, node: Node) -> Node:
        """The node of an array's elements; {} if unknown."""
        return _either([option.get("items", {}) for option in self.options(node) if option.get("type") == "array"])

    def object(self) -> Node:
        """The object at the root; for a union, one that admits all that its objects admit."""
        objects = [option for option in self.options(self.root) if option.get("type") == "object"]
        if len(objects) < 2:
            return objects[0] if objects else {"type": "object"}
        all_members = [properties_of(option) for option in objects]
        members = {key: _either([m[key] for m in all_members if key in m]) for found in all_members for key in found}
        required = [k for k in objects[0].get("required", []) if all(k in o.get("required", []) for o in objects)]
        rest = never() if all(is_never(o.get("additionalProperties", {})) for o in objects) else {}
        return {"type": "object", "properties": members, "required": required, "additionalProperties": rest}

    def required_keys(self) -> tuple[str, ...]:
        """The keys that some object of the schema requires."""
        return tuple(dict.fromkeys(key for node in self.nodes() for key in node.get("required", [])))

    def nodes(self) -> list[Node]:
        """Every node, nested ones too."""
        found, waiting = list[Node](), [self.root, *self.definitions.values()]
        while waiting:
            found.append(node := waiting.pop())
            waiting += inside(node)
        return found


def inside(node: Node) -> list[Node]:
    """The nodes directly inside a node."""
    found = [node[keyword] for keyword in ("items", "additionalProperties") if keyword in node]
    for keyword in ("properties", "patternProperties"):
        found += node.get(keyword, {}).values()
    for keyword in ("prefixItems", "anyOf"):
        found += node.get(keyword, [])
    return found


def _either(nodes: Sequence[Node]) -> Node:
    """The union of nodes; {} if all are empty."""
    some = [node for node in nodes if not is_never(node)]
    if len(set(map(canonical, some))) < 2:
        return some[0] if some else {}
    return {"anyOf": some}


def property_of(node: Node, key: str) -> Node:
    """The node for one key of an object node."""
    properties = node.get("properties", {})
    if key in properties:
        return properties[key]
    for pattern, sub in node.get("patternProperties", {}).items():
        if linear_search(pattern, key):
            return sub
    return node.get("additionalProperties", {})


def properties_of(node: Node) -> dict[str, Node]:
    """An object's declared properties, and those that are only required."""
    found = {key: sub for key, sub in node.get("properties", {}).items() if not is_never(sub)}
    return found | {key: property_of(node, key) for key in node.get("required", []) if key not in found}


def never() -> Node:
    """The node that no value satisfies."""
    return {"enum": []}


def is_never(node: Node) -> bool:
    return node.get("enum") == []


def json_type(value: object) -> str:
    """The JSON type of a Python value; a float without a fraction is an integer."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int) or (isinstance(value, float) and value.is_integer()):
        return "integer"
    return {float: "number", str: "string", dict: "object", list: "array"}[type(value)]


def canonical(value: object) -> str:
    """A text that is the same for equal JSON values: ``1`` equals ``1.0`` but not ``true``."""
    return json.dumps(_plain(value), sort_keys=True, ensure_ascii=True)


def _plain(value: Any) -> Any:
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, dict):
        return {key: _plain(v) for key, v in value.items()}
    return [_plain(v) for v in value] if isinstance(value, list) else value


def size_of(value: object) -> int:
    """The number of values in a JSON value, itself included."""
    stack, size = [value], 0
    while stack:
        part = stack.pop()
        size += 1
        stack.extend(part.values() if isinstance(part, dict) else part if isinstance(part, list) else ())
    return size
