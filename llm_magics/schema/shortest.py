"""The shortest JSON texts under a schema, which complete an answer that runs out of tokens.

A node's shortest text is built from those of the nodes inside it; definitions, which may be recursive, are repeated until no
text becomes shorter. E.g. ``{"type": "array", "items": {"enum": ["long", "s"]}, "minItems": 2}`` has ``["s","s"]``. A pattern,
a format or a number between odd bounds has no known text, and so has every node that needs it. Users of these texts check them
against the grammar.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from functools import lru_cache
from itertools import islice

from .dialect import MAX_KEPT
from .leaves import EXACT, NUMBER_BOUNDS, exact, within
from .nodes import Node, Normalised, properties_of

_MOST_TEXTS = 256
_LONGEST = 8_000  # characters of one text
_MOST_ROUNDS = 16  # over the definitions


@lru_cache(maxsize=MAX_KEPT)
def shortest_values(normal: Normalised) -> tuple[str, ...]:
    """The shortest texts of a schema's nodes, the shortest first."""
    known: dict[str, str] = {}
    for _ in range(_MOST_ROUNDS):
        texts = {name: _shortest(node, known) for name, node in normal.definitions.items()}
        shorter = {name: text for name, text in texts.items() if text and len(text) < len(known.get(name, text + " "))}
        if not shorter:
            break
        known |= shorter
    found = {text for node in normal.nodes() if (text := _shortest(node, known)) is not None}
    return tuple(sorted(found, key=lambda text: (len(text), text))[:_MOST_TEXTS])


def _shortest(node: Node, known: Mapping[str, str]) -> str | None:
    if not node:
        return "0"
    if "enum" in node:
        return _least(json.dumps(value, ensure_ascii=False, separators=(",", ":")) for value in node["enum"])
    if "anyOf" in node:
        return _least(text for option in node["anyOf"] if (text := _shortest(option, known)) is not None)
    if "$ref" in node:
        return known.get(node["$ref"])
    match node["type"]:
        case "null":
            return "null"
        case "boolean":
            return "true"
        case "integer" | "number":
            return _number(node)
        case "string":
            free = "patterns" not in node and "format" not in node
            return _within_reach('"' + "a" * min(node.get("minLength", 0), _LONGEST) + '"') if free else None
        case "array":
            return _array(node, known)
    return _object(node, known)


def _least(texts: Iterator[str]) -> str | None:
    return min(texts, key=len, default=None)


def _within_reach(text: str) -> str | None:
    return text if len(text) < _LONGEST else None


def _number(node: Node) -> str | None:
    """The number with the fewest characters, of those near zero and near the bounds."""
    bounds = [node[keyword] for keyword in NUMBER_BOUNDS if keyword in node and abs(node[keyword]) <= EXACT]
    near = [whole + by for bound in bounds for whole in (math.floor(bound), math.ceil(bound)) for by in (-1, 0, 1)]
    step = exact(node["multipleOf"]) if "multipleOf" in node else None
    multiples = [step * (exact(bound) // step + by) for bound in bounds for by in (-1, 0, 1)] if step else []
    numbers = [*range(100), *range(-1, -100, -1), *near, *bounds, *map(float, multiples)]
    fitting = (n for n in numbers if within(node, n) and (node["type"] == "number" or n == math.floor(n)))
    return _least(json.dumps(int(n) if n == math.floor(n) else n) for n in fitting)


def _array(node: Node, known: Mapping[str, str]) -> str | None:
    least, prefix = node.get("minItems", 0), node.get("prefixItems", [])
    items = [_shortest(one, known) for one in prefix[:least]]
    more = max(least - len(items), 0)
    rest = _shortest(node.get("items", {}), known) if more else ""
    if rest is None or None in items or more * (len(rest) + 1) > _LONGEST:
        return None
    return _within_reach(f"[{','.join([*filter(None, items), *[rest] * more])}]")


def _object(node: Node, known: Mapping[str, str]) -> str | None:
    """The required members, and as many more as ``minProperties`` needs, in the order of their declaration."""
    required = node.get("required", [])
    texts = {key: _shortest(sub, known) for key, sub in properties_of(node).items()}
    members = {key: f"{json.dumps(key, ensure_ascii=False)}:{text}" for key, text in texts.items() if text is not None}
    free = sorted((key for key in members if key not in required), key=lambda key: len(members[key]))
    more = max(node.get("minProperties", 0) - len(set(required)), 0)
    if more > len(free) or not members.keys() >= set(required):
        return None
    kept = {*required, *islice(free, more)}
    return _within_reach("{" + ",".join(text for key, text in members.items() if key in kept) + "}")
