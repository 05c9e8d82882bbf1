"""Schemas: the grammar admits what the schema admits; what it cannot say is validated; hostile schemas end in named errors."""

from __future__ import annotations

import json
import random
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from llm_magics.errors import SchemaError
from llm_magics.schema.leaves import has_linear_regex, linear_search
from llm_magics.schema.normal import normalise
from llm_magics.schema.validate import validate
from tests.chat.grammars import accepts, grammar_of
from tests.chat.values import random_object, random_value

TREE = {
    "$defs": {
        "tree": {
            "type": "object",
            "properties": {"v": {"type": "integer"}, "kids": {"type": "array", "items": {"$ref": "#/$defs/tree"}}},
            "required": ["v"],
            "additionalProperties": False,
        }
    },
    "$ref": "#/$defs/tree",
}

EMPTY_BEHIND = {"$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"minimum": 5, "maximum": 3, "type": "integer"}}}

# schema, values that are valid, values that are not; all of it enforced by the grammar
ENFORCED: list[tuple[Any, list[Any], list[Any]]] = [
    (True, [1, None, "x", [1, {"a": []}]], []),
    ({"type": "integer"}, [0, -3, 10**20], [1.5, "1", None, True]),
    ({"type": "number", "minimum": 3, "exclusiveMaximum": 5}, [3, 4.99], [2.9, 5]),
    ({"type": "number", "exclusiveMinimum": 0, "maximum": 0.5}, [0.5, 0.04, 0.49], [0, -0.5, 0.51, 1]),
    ({"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 0.05}, [0.049, 0.01], [0, 0.05, 0.1, 0.5]),
    ({"type": "number", "exclusiveMinimum": 2, "maximum": 2.25}, [2.2, 2.25, 2.01], [2, 2.3, 2.26, 0.2, 3]),
    ({"type": "number", "minimum": -1.5, "exclusiveMaximum": -1}, [-1.5, -1.1], [-1, -0.5, 1.1, -1.6]),
    ({"type": "integer", "multipleOf": 5}, [0, 15], [7]),
    ({"type": "integer", "minimum": 1, "exclusiveMinimum": True}, [2], [1, 0]),  # draft-04
    ({"type": ["integer", "null"], "minimum": 3}, [None, 5], [2, "x"]),
    ({"type": "string", "nullable": True}, [None, "x"], [1]),
    ({"type": "string", "minLength": 2, "maxLength": 3}, ["ab", "é😀"], ["a", "abcd"]),
    ({"type": "string", "pattern": "^[a-z]+$"}, ["abc"], ["Abc", ""]),
    ({"allOf": [{"type": "string", "pattern": "^a"}, {"pattern": "z$"}]}, ["az", "a z"], ["a", "z", "za"]),
    ({"const": 3.0}, [3, 3.0], [2, 3.5]),
    ({**EMPTY_BEHIND, "items": {"$ref": "#/$defs/a"}, "type": "array"}, [[]], [[1], [None]]),
    ({"const": {"k": [1, None]}}, [{"k": [1, None]}], [{"k": [1]}, {}]),
    ({"enum": [1, "a", None, []]}, [1, "a", None, []], [2, "b", False, [1]]),
    ({"type": "string", "enum": ["x", 1]}, ["x"], [1, "y"]),
    ({"type": "array", "items": {"type": "integer"}, "minItems": 2, "maxItems": 3},
     [[1, 2], [1, 2, 3]], [[1], [1, 2, 3, 4], ["a", 1]]),
    ({"type": "array", "prefixItems": [{"type": "string"}, {"type": "integer"}], "items": False},
     [[], ["a"], ["a", 1]], [["a", 1, 2], [1]]),
    ({"type": "array", "items": [{"type": "string"}], "additionalItems": {"type": "null"}},
     [["a", None]], [["a", 1]]),  # draft-07
    ({"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]},
     [{"a": 1}, {"x": 2, "a": 1}], [{}, {"a": "1"}]),
    ({"type": "object", "required": ["z"]}, [{"z": 1}, {"a": 0, "z": 1}], [{}, {"a": 1}]),
    ({"type": "object", "required": ["z", "z"]}, [{"z": 1}], [{}]),
    ({"type": "object", "dependentRequired": {"z": ["a", "a"]}, "properties": {"z": True, "a": True}},
     [{}, {"z": 1, "a": 1}], [{"z": 1}]),
    ({"type": "array", "prefixItems": [], "items": {"type": "integer"}}, [[1]], [["a"]]),
    ({"type": "object", "properties": {"a": True}, "additionalProperties": False}, [{}, {"a": 1}], [{"b": 1}]),
    ({"type": "object", "additionalProperties": {"type": "integer"}, "minProperties": 1}, [{"a": 1}], [{}, {"a": "x"}]),
    ({"type": "object", "properties": {"a": True, "b": True}, "additionalProperties": False, "maxProperties": 1},
     [{}, {"b": 1}], [{"a": 1, "b": 2}]),
    ({"type": "object", "patternProperties": {"^x_": {"type": "integer"}}, "additionalProperties": False},
     [{}, {"x_a": 1}], [{"y": 1}, {"x_a": "1"}]),
    ({"type": "object", "patternProperties": {"^x_": {"type": "integer"}}, "additionalProperties": False, "required": ["x_a"]},
     [{"x_a": 1}, {"x_b": 2, "x_a": 1}], [{"x_b": 1}, {"x_a": "1"}, {}]),
    ({"type": "object", "propertyNames": {"enum": ["a", "b"]}}, [{}, {"a": 1}], [{"c": 1}]),
    ({"type": "object", "properties": {"a": True, "b": True}, "dependentRequired": {"a": ["b"]}},
     [{}, {"b": 1}, {"a": 1, "b": 2}], [{"a": 1}]),
    ({"anyOf": [{"type": "string"}, {"type": "object", "required": ["a"]}]}, ["x", {"a": 1}], [1, {}]),
    ({"oneOf": [{"type": "string"}, {"type": "integer"}]}, ["x", 1], [None, 1.5]),
    ({"allOf": [{"properties": {"a": {"type": "string"}}, "required": ["a"]}, {"required": ["b"]}], "type": "object"},
     [{"a": "", "b": 1}], [{"a": ""}, {"a": 1, "b": 1}]),
    ({"allOf": [{"type": "object", "properties": {"a": True}}], "properties": {"b": True}, "type": "object",
      "unevaluatedProperties": False},
     [{"a": 1, "b": 2}], [{"c": 1}]),
    ({"unevaluatedProperties": False}, [1, {}], [{"a": 1}]),
    ({"additionalProperties": {"type": "integer"}, "type": "object", "unevaluatedProperties": False}, [{"a": 1}], [{"a": ""}]),
    (TREE, [{"v": 1, "kids": [{"v": 2}, {"v": 3, "kids": []}]}], [{"kids": []}, {"v": 1, "kids": [{"w": 1}]}]),
    ({"$defs": {"a": {"$anchor": "here", "type": "integer"}}, "$ref": "#here"}, [1], ["x"]),
    ({"definitions": {"a/b": {"type": "null"}}, "$ref": "#/definitions/a~1b"}, [None], [1]),
    ({"type": "object", "properties": {"$ref": {"type": "string"}}}, [{"$ref": "x"}], [{"$ref": 1}]),
    ({"type": "object", "properties": {f"p{i}": {"type": "integer"} for i in range(80)}, "required": ["p3", "p70"]},
     [{"p3": 1, "p70": 2, "zz": 0}], [{"p3": 1}]),
]  # fmt: skip


@pytest.mark.parametrize(("schema", "good", "bad"), ENFORCED, ids=lambda v: json.dumps(v)[:60])
def test_the_grammar_admits_exactly_what_the_schema_admits(schema: Any, good: list[Any], bad: list[Any]) -> None:
    grammar = grammar_of(schema)
    for value in good:
        assert validate(value, schema) == ()
        assert accepts(grammar, json.dumps(value, ensure_ascii=False)), value
        assert accepts(grammar, json.dumps(value, ensure_ascii=False, indent=2)), value
    for value in bad:
        assert validate(value, schema) != ()
        assert not accepts(grammar, json.dumps(value)), value
    assert not normalise(schema).unenforced


LOOSE: list[tuple[Any, Any, Any, str]] = [
    ({"type": "array", "uniqueItems": True}, [1, 2], [1, 1], "uniqueItems"),
    ({"type": "integer", "not": {"const": 3}}, 4, 3, "not"),
    ({"type": "array", "contains": {"const": 1}}, [2, 1], [2], "contains"),
    ({"contains": False}, 1, [1], "contains"),
    ({"anyOf": [{"type": "object", "properties": {k: {"type": "integer"}}} for k in "ab"], "unevaluatedProperties": False},
     {"a": 1, "b": 2}, {"a": 1, "b": "x"}, "unevaluatedProperties"),
    ({"type": "object", "unevaluatedProperties": {"type": "integer"}}, {"a": 1}, {"a": "x"}, "unevaluatedProperties"),
    ({"type": "array", "prefixItems": [True], "unevaluatedItems": False}, [1], [1, 2], "unevaluatedItems"),
    ({"oneOf": [{"type": "integer"}, {"type": "integer", "minimum": 5}]}, 1, 6, "oneOf"),
    ({"oneOf": [{"type": "string"}, {"enum": ["a"]}]}, "b", "a", "oneOf"),
    ({"type": "number", "exclusiveMinimum": 0, "maximum": 0.5, "multipleOf": 0.25}, 0.25, 0, "exclusiveMinimum"),
    ({"type": "object", "patternProperties": {"^x": {"type": "integer"}, "a$": {"minimum": 5}}, "additionalProperties": False},
     {"xa": 5}, {"xa": 1}, "patternProperties"),
    ({"allOf": [{"type": "object", "patternProperties": {p: {"type": "integer"}}, "additionalProperties": False}
                for p in ("^x_", "^x_a")]}, {"x_a": 1}, {"x_b": 1}, "patternProperties"),
    ({"type": "string", "pattern": "^(?=.*[0-9]).{3,}$"}, "ab1", "abc", "pattern"),
    ({"type": "object", "if": {"required": ["a"]}, "then": {"required": ["b"]}}, {"a": 1, "b": 2}, {"a": 1}, "if"),
    ({"type": "object", "minProperties": 2}, {"a": 1, "b": 2}, {"a": 1}, "minProperties"),
]


@pytest.mark.parametrize(("schema", "good", "bad", "keyword"), LOOSE, ids=lambda v: json.dumps(v)[:60])
def test_what_no_grammar_can_say_is_named_and_validated(schema: Any, good: Any, bad: Any, keyword: str) -> None:
    assert any(place.endswith(f"/{keyword}") for place in normalise(schema).unenforced)
    assert accepts(grammar_of(schema), json.dumps(good))
    assert validate(good, schema) == ()
    assert validate(bad, schema) != ()


REFUSED: list[Any] = [
    "string",
    {"type": "quaternion"},
    {"type": 3},
    {"properties": []},
    {"required": "a"},
    {"enum": 3},
    {"minLength": -1},
    {"minimum": "x"},
    {"minimum": float("nan")},
    {"anyOf": []},
    {"$ref": 3},
    {"$ref": "#/nowhere"},
    {"$ref": "https://example.org/schema.json"},
    {"$ref": "#"},
    {"$defs": {"a": {"anyOf": [{"type": "string"}, {"$ref": "#/$defs/a"}]}}, "$ref": "#/$defs/a"},
    {"type": "object", "properties": {"a": {"$ref": "#"}}, "required": ["a"]},
    {"allOf": [{"type": "string"}, {"type": "integer"}]},
    {"allOf": [{"const": False}, {"const": 0}]},
    {"type": "integer", "minimum": 5, "maximum": 3},
    {"type": "array", "minItems": 3, "maxItems": 1},
    {"type": "object", "minProperties": 1, "additionalProperties": False},
    {"type": "object", "required": ["a", "b"], "maxProperties": 1},
    {**EMPTY_BEHIND, "items": {"$ref": "#/$defs/a"}, "type": "array", "minItems": 1},
    False,
]


@pytest.mark.parametrize("schema", REFUSED, ids=lambda v: json.dumps(v)[:60])
def test_a_schema_that_cannot_be_used_is_refused_by_name(schema: Any) -> None:
    with pytest.raises(SchemaError):
        normalise(schema)


def test_random_tool_schemas_and_their_values_agree() -> None:
    rng = random.Random(7)
    for _ in range(60):
        schema = random_object(rng)
        grammar = grammar_of(schema)
        for _ in range(5):
            value = random_value(rng, schema)
            text = json.dumps(value, ensure_ascii=rng.random() < 0.5)
            assert validate(value, schema) == ()
            assert accepts(grammar, text), (schema, text)


# --- hostile ------------------------------------------------------------------------------------------------------------

KEYWORDS = [
    *("type", "properties", "items", "anyOf", "oneOf", "allOf", "not", "if", "then", "$ref", "enum", "const", "required"),
    *("pattern", "minimum", "maxLength", "minItems", "additionalProperties", "patternProperties", "prefixItems", "$defs"),
    *("dependentRequired", "propertyNames", "minProperties", "format", "multipleOf", "contains", "uniqueItems"),
]
ODD = (None, 0, -1, 1e308, 10**30, "", "x" * 300, "(a+)+$", "(?=x)", "[", "\0", [], {}, True, "#", "#/anyOf/0", "\ud800")


def _hostile(rng: random.Random, depth: int) -> Any:
    """Something that looks like a schema: keywords with values that fit, and ever so often with some that do not."""
    if depth <= 0 or rng.random() < 0.08:
        return rng.choice([*ODD, {"type": "string"}, {"type": "integer", "minimum": rng.choice([0, 1e300])}])
    schema: dict[str, Any] = {}
    for keyword in rng.sample(KEYWORDS, rng.randint(1, 5)):
        match keyword:
            case "properties" | "patternProperties" | "$defs":
                schema[keyword] = {rng.choice(["a", "b", "^x", "(a+)+$", "é"]): _hostile(rng, depth - 1) for _ in range(3)}
            case "anyOf" | "oneOf" | "allOf" | "prefixItems":
                schema[keyword] = [_hostile(rng, depth - 1) for _ in range(rng.randint(1, 4))]
            case "type":
                schema[keyword] = rng.choice(["object", "string", "array", "integer", ["null", "number"], "object"])
            case "required" | "enum":
                schema[keyword] = [rng.choice(["a", "b", 1, None])]
            case "items" | "not" | "if" | "then" | "additionalProperties" | "contains" | "propertyNames":
                schema[keyword] = _hostile(rng, depth - 1)
            case "$ref":
                schema[keyword] = rng.choice(["#", "#/$defs/a", "#/properties/a", "#/anyOf/0", "nowhere"])
            case _:
                schema[keyword] = rng.choice(ODD)
    return schema


def _nested(keyword: str, depth: int) -> Any:
    schema: Any = {"type": "string"}
    for _ in range(depth):
        schema = {keyword: [schema, schema] if keyword in ("allOf", "anyOf") else schema}
    return schema


def _hand_made() -> Iterator[Any]:
    union = {"anyOf": [{"required": [f"k{i}"], "type": "object"} for i in range(12)]}
    yield {"allOf": [union] * 12}  # multiplies out to 12**12
    yield {"type": "string", "pattern": "(a{1000}){1000}"}
    yield {"type": "string", "pattern": "(.*a){25}.{40}b", "minLength": 10**6}
    yield {"type": "array", "minItems": 10**9, "items": {"type": "array", "minItems": 10**9}}
    doubling = {f"d{i}": {"allOf": [{"$ref": f"#/$defs/d{i + 1}"}] * 2} for i in range(60)}
    yield {"$defs": doubling | {"d60": {}}, "$ref": "#/$defs/d0"}
    yield {"$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"}
    yield {"enum": list(range(5000))}
    yield {"type": "object", "properties": {f"k{i}": {"type": "string"} for i in range(500)}}
    yield from (_nested(keyword, 5000) for keyword in ("items", "not", "additionalProperties"))
    yield _nested("items", 50)


@contextmanager
def watchdog(seconds: int) -> Iterator[None]:
    """Turn a hang into a failure that says where."""

    def bark(*_: object) -> None:
        raise TimeoutError(f"hung for {seconds} s")

    before = signal.signal(signal.SIGALRM, bark)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@pytest.mark.skipif(not hasattr(signal, "SIGALRM"), reason="the watchdog needs SIGALRM")
@pytest.mark.parametrize("seed", range(10))
def test_hostile_schemas_neither_hang_nor_crash(seed: int) -> None:
    rng = random.Random(seed)
    schemas = [_hostile(rng, 5) for _ in range(50)] + (list(_hand_made()) if seed == 0 else [])
    compiled = 0
    for schema in schemas:
        with watchdog(20):
            try:
                grammar = grammar_of(schema)
                accepts(grammar, '{"a": 1}')
                compiled += 1
                validate({"a": "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa!"}, schema)
            except SchemaError:  # a refusal by name; anything else fails the test
                continue
    assert compiled, "at least some of them are schemas after all"


def test_a_pattern_that_backtracks_is_matched_in_linear_time() -> None:
    with watchdog(5):
        assert not linear_search("(a+)+$", "a" * 5000 + "b")
    assert has_linear_regex(r"^\d{3}-\d{4}$")
    assert not has_linear_regex(r"(a)\1")
    assert validate("a" * 50, {"pattern": r"^(?=a)(a+)+\1$"}) == ()
    with pytest.raises(SchemaError):
        validate("a" * 50, {"pattern": r"((a|aa)+)\1c"})
