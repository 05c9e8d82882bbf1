"""Schemas of arguments that differ from those that were given before."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from .nodes import Node, Normalised, properties_of

_SCALAR = ("string", "integer", "number")


def others(schema: Normalised, given: Sequence[Mapping[str, Any]]) -> list[Normalised]:
    """The schemas that together admit arguments unlike all of ``given``: each differs from them in one property.

    A required property is preferred: a call that differs in an option alone is mostly the same one again. Where no property can
    differ, e.g. without any, the list is empty.
    """
    root = schema.object()
    members = properties_of(root)
    required = [key for key in root.get("required", []) if key in members]
    for keys in (required, [key for key in members if key not in required]):
        found = [(key, node) for key in keys if (node := _unlike(members[key], [one[key] for one in given if key in one]))]
        if found:
            return [replace(schema, root=_with(root, key, node)) for key, node in found]
    return []


def _with(root: Node, key: str, node: Node) -> Node:
    required = list(dict.fromkeys([*root.get("required", []), key]))
    return {**root, "properties": {**root.get("properties", {}), key: node}, "required": required}


def _unlike(node: Node, values: Sequence[Any]) -> Node | None:
    """The node without these values; None if that cannot be said of it, or nothing is left."""
    if "enum" in node:
        left = [value for value in node["enum"] if value not in values]
        return {"enum": left} if left else None
    if node.get("type") == "boolean":
        return _unlike({"enum": [True, False]}, values)
    return {**node, "unlike": list(values)} if node.get("type") in _SCALAR and len(node) == 1 else None
