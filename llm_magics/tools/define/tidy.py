"""A pydantic JSON schema as a model reads it best: no generated titles, definitions written where they are used."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

_DATA = frozenset({"default", "enum", "const", "examples", "required"})  # keywords whose values are data, not schemas
_REFERENCE = re.compile(r'"#/\$defs/([^"]+)"')  # e.g. {"$ref": "#/$defs/Point"}


def tidy(schema: dict[str, Any]) -> dict[str, Any]:
    """Take generated titles out and write definitions where they are used; only recursive ones stay apart."""
    definitions = schema.get("$defs", {})
    used: set[str] = set()

    def clean(node: Any, inside: tuple[str, ...], names: bool = False) -> Any:
        if isinstance(node, list):
            return [clean(item, inside) for item in node]
        if not isinstance(node, dict):
            return node
        reference = node.get("$ref", "").removeprefix("#/$defs/") if isinstance(node.get("$ref"), str) and not names else ""
        if reference in definitions:
            if reference in inside or _recursive(reference, definitions):
                used.add(reference)
                return {key: clean(value, inside) for key, value in node.items()}
            rest = {key: value for key, value in node.items() if key != "$ref"}
            return clean({**definitions[reference], **rest}, (*inside, reference))
        return {
            key: value if key in _DATA and not names else clean(value, inside, names=key == "properties" and not names)
            for key, value in node.items()
            if names or key not in ("title", "$defs")
        }

    plain: dict[str, Any] = clean(schema, ())
    done: dict[str, Any] = {}
    while used - done.keys():
        for name in sorted(used - done.keys()):
            done[name] = clean(dict(definitions[name]), (name,))
    return {**plain, "$defs": done} if done else plain


def _recursive(name: str, definitions: Mapping[str, Any]) -> bool:
    """Whether a definition reaches itself."""
    seen: set[str] = set()
    todo = [name]
    while todo:
        for found in _REFERENCE.findall(json.dumps(definitions[todo.pop()])):
            if found == name:
                return True
            if found not in seen and found in definitions:
                seen.add(found)
                todo.append(found)
    return False
