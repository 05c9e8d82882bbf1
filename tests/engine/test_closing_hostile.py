"""Schemas that are hard to close: their shortest text is found, and whoever writes ends within any limit from it on."""

from __future__ import annotations

import json
from typing import Any

import pytest

from llm_magics.schema.normal import normalise
from llm_magics.schema.shortest import shortest_values
from llm_magics.schema.validate import validate

from .test_closing import Text
from .test_closing_laws import smallest, writer


def closed(required: list[str] | None = None, **properties: Any) -> dict[str, Any]:
    required = list(properties) if required is None else required
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}


def nested(depth: int) -> dict[str, Any]:
    return closed(in_=nested(depth - 1)) if depth else {"type": "integer"}


TEXT, WHOLE = {"type": "string"}, {"type": "integer"}
NODE = closed(value=WHOLE, next={"anyOf": [{"$ref": "#/$defs/node"}, {"type": "null"}]})
LEFT = {"type": "object", "properties": {"a": TEXT}, "required": ["a"]}
RIGHT = {"type": "object", "properties": {"b": WHOLE}, "required": ["b"]}
SCHEMAS: dict[str, tuple[dict[str, Any], str]] = {
    "an enum of long strings": ({"enum": ["x" * 300, "a long name", "short", "y" * 200]}, '"short"'),
    "an enum in a member": (closed(size={"enum": ["extra large", "large", "xl"]}), '{"size":"xl"}'),
    "a constant": ({"const": {"kind": "a constant", "parts": [1, None, "b"]}}, '{"kind":"a constant","parts":[1,null,"b"]}'),
    "a list with an end": ({"$ref": "#/$defs/node", "$defs": {"node": NODE}}, '{"value":0,"next":null}'),
    "twenty objects inside each other": (nested(20), '{"in_":' * 20 + "0" + "}" * 20),
    "at least 200 items": ({"type": "array", "items": WHOLE, "minItems": 200}, "[" + ",".join("0" * 200) + "]"),
    "at least 30 objects": (
        {"type": "array", "items": closed(id=WHOLE, name=TEXT), "minItems": 30},
        "[" + ",".join(['{"id":0,"name":""}'] * 30) + "]",
    ),
    "at least 400 letters": (closed(text={"type": "string", "minLength": 400}), '{"text":"' + "a" * 400 + '"}'),
    "allOf that closes": ({"allOf": [LEFT, RIGHT], "unevaluatedProperties": False}, '{"a":"","b":0}'),
    "oneOf of objects that overlap": (
        {"oneOf": [closed(a=WHOLE, b=TEXT, c=TEXT), closed(a=WHOLE, d=WHOLE)]},
        '{"a":0,"d":0}',
    ),
    "a long way beside a short one": (
        {"anyOf": [{"type": "string", "minLength": 400}, {"enum": ["several words"]}, LEFT]},
        '{"a":""}',
    ),
    "a required member that is declared last": (
        closed(["last"], **{f"member_{n}": TEXT for n in range(12)}, last=WHOLE),
        '{"last":0}',
    ),
    "as many members in their order": (
        closed(["member_3", "last"], **{f"member_{n}": TEXT for n in range(70)}, last=WHOLE),
        '{"member_3":"","last":0}',
    ),
    "required members that are declared nowhere": ({"type": "object", "required": ["x", "y"]}, '{"x":0,"y":0}'),
    "at least two members": (
        {**closed([], aardvark=TEXT, b=WHOLE, c={"type": "boolean"}), "minProperties": 2},
        '{"b":0,"c":true}',
    ),
    "numbers far from zero": (closed(n={"type": "integer", "minimum": 1_000, "multipleOf": 7}), '{"n":1001}'),
    "a number between bounds": (closed(n={"type": "number", "minimum": 0.25, "maximum": 0.5}), '{"n":0.5}'),
}


@pytest.mark.parametrize("name", SCHEMAS)
def test_the_shortest_text_is_found(name: str) -> None:
    schema, shortest = SCHEMAS[name]
    assert not validate(json.loads(shortest), schema)
    assert shortest in shortest_values(normalise(schema))
    assert smallest(schema) == len(shortest)


@pytest.mark.parametrize("name", SCHEMAS)
def test_whoever_writes_ends_within_any_limit_from_the_shortest_on(name: str) -> None:
    schema, shortest = SCHEMAS[name]
    for seed, more in ((0, 0), (1, 0), (2, 9), (3, 9), (4, 80)):
        text = Text(schema, len(shortest) + more)
        value = json.loads(text.write(writer(seed), forcing=bool(seed % 2)))
        assert not validate(value, schema)
        assert len(text.written) <= len(shortest) + more
