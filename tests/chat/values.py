"""Random schemas and values for the tests of schemas, constraints and agreement. Seeded: the same every time."""

from __future__ import annotations

import random
from typing import Any

TEXTS = ["Paris", "a b", "", "été 😀", 'say "hi"', "it's", "line\nbreak", "back\\slash", "<b>&amp;"]
TEXTS += ["{x: 1}", "1", "true", " pad ", "a, b"]
KEYS = ["city", "n", "unit", "days", "note", "flag", "items", "where"]


def random_schema(rng: random.Random, depth: int = 2) -> dict[str, Any]:
    """A schema of the kinds that tools have."""
    kinds = ["string", "integer", "number", "boolean", "enum", "range", "string", "nullable"]
    kind = rng.choice(kinds + (["array", "object", "array", "object"] if depth else []))
    match kind:
        case "enum":
            return {"type": "string", "enum": ["celsius", "fahrenheit", "a b"]}
        case "range":
            return {"type": "integer", "minimum": 1, "maximum": 30}
        case "nullable":
            return {"anyOf": [{"type": "integer"}, {"type": "null"}]}
        case "array":
            return {"type": "array", "items": random_schema(rng, depth - 1), "maxItems": 4}
        case "object":
            return random_object(rng, depth - 1)
    return {"type": kind}


def random_object(rng: random.Random, depth: int = 2) -> dict[str, Any]:
    keys = rng.sample(KEYS, rng.randint(1, 4))
    return {
        "type": "object",
        "properties": {key: random_schema(rng, depth) for key in keys},
        "required": rng.sample(keys, rng.randint(0, len(keys))),
        "additionalProperties": False,
    }


def random_value(rng: random.Random, schema: dict[str, Any]) -> Any:
    """A value that is valid under a schema of :func:`random_schema`; properties in any order."""
    if "enum" in schema:
        return rng.choice(schema["enum"])
    if "anyOf" in schema:
        return random_value(rng, rng.choice(schema["anyOf"]))
    match schema["type"]:
        case "null":
            return None
        case "boolean":
            return rng.random() < 0.5
        case "integer":
            return rng.randint(schema.get("minimum", -(10**9)), schema.get("maximum", 10**9))
        case "number":
            return rng.choice([rng.randint(-99, 99), rng.uniform(-1e6, 1e6), 1.5e-7, 0.1])
        case "string":
            return rng.choice(TEXTS)
        case "array":
            return [random_value(rng, schema["items"]) for _ in range(rng.randint(0, schema["maxItems"]))]
    optional = [key for key in schema["properties"] if key not in schema["required"]]
    keys = schema["required"] + rng.sample(optional, rng.randint(0, len(optional)))
    rng.shuffle(keys)
    return {key: random_value(rng, schema["properties"][key]) for key in keys}
