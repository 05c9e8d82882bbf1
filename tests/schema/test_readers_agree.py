"""Grammar, validation, shortest form and the types of bare text agree about every value: they read one normal form.

What may differ is named here, and nothing else may: a keyword that :attr:`Normalised.unenforced` lists is left to validation; a
number with bounds is written without an exponent, because the constraint engine writes it so; and bare text that a string and
something else could mean is read as the something else.
"""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any
from zlib import crc32

from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from llm_magics.chat.encodings.typed import json_of
from llm_magics.errors import SchemaError
from llm_magics.schema.nodes import Normalised, json_type
from llm_magics.schema.normal import normalise, parameters
from llm_magics.schema.shortest import shortest_values
from llm_magics.schema.validate import validate
from tests.chat.grammars import accepts, grammar_of

KEYS = ["a", "b", "x_a", "x_b", "n"]
TEXTS = ["", "a", "ab", "abc", "12", "true", "1.5", "é😀", 'a"b', "a\\b", "line\nbreak", "x_a", " pad"]
PATTERNS = ["^a", "b$", "^[a-z]+$", "^x_", "[0-9]{2}"]

numbers = st.one_of(
    st.integers(-6, 6),
    st.integers(-(10**12), 10**12),
    st.sampled_from([0.5, -0.5, 0.25, 1.5, -2.5, 0.1, 3.0, 99.75]),
)
constants = st.one_of(
    st.none(), st.booleans(), numbers, st.sampled_from(TEXTS), st.lists(st.integers(0, 2), max_size=2),
    st.dictionaries(st.sampled_from(KEYS), st.integers(0, 2), max_size=2),
)  # fmt: skip


def some(keywords: dict[str, st.SearchStrategy[Any]]) -> st.SearchStrategy[dict[str, Any]]:
    """A few of these keywords."""
    return st.fixed_dictionaries({}, optional=keywords)


bounds = some({
    "minimum": numbers, "exclusiveMinimum": numbers, "maximum": numbers, "exclusiveMaximum": numbers,
    "multipleOf": st.sampled_from([1, 2, 5, 0.5, 0.25, 3]),
})  # fmt: skip
lengths = some({
    "minLength": st.integers(0, 3), "maxLength": st.integers(0, 4), "pattern": st.sampled_from(PATTERNS),
})  # fmt: skip
leaves = st.one_of(
    st.booleans(),
    st.sampled_from([{}, {"type": "null"}, {"type": "boolean"}]),
    st.lists(constants, max_size=4).map(lambda values: {"enum": values}),
    constants.map(lambda value: {"const": value}),
    bounds.flatmap(lambda limits: st.sampled_from([{"type": "number", **limits}, {"type": "integer", **limits}])),
    lengths.map(lambda limits: {"type": "string", **limits}),
)


def nested(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    members = st.dictionaries(st.sampled_from(KEYS), inner, max_size=3)
    arrays = some({
        "items": inner, "prefixItems": st.lists(inner, min_size=1, max_size=2),
        "minItems": st.integers(0, 2), "maxItems": st.integers(0, 3),
    })  # fmt: skip
    objects = some({
        "properties": members, "required": st.lists(st.sampled_from(KEYS), max_size=2), "additionalProperties": inner,
        "patternProperties": st.dictionaries(st.sampled_from(["^x_", "a$"]), inner, max_size=2),
        "minProperties": st.integers(0, 2), "maxProperties": st.integers(0, 3),
        "propertyNames": st.just({"enum": KEYS[:3]}),
    })  # fmt: skip
    others = some({
        "not": inner, "if": inner, "then": inner, "else": inner, "contains": inner, "uniqueItems": st.booleans(),
        "unevaluatedProperties": st.one_of(st.booleans(), inner),
        "dependentRequired": st.dictionaries(st.sampled_from(KEYS), st.lists(st.sampled_from(KEYS), max_size=2), max_size=2),
        "allOf": st.lists(inner, min_size=1, max_size=2), "properties": members,
    })  # fmt: skip
    return st.one_of(
        others,
        arrays.map(lambda words: {"type": "array", **words}),
        objects.map(lambda words: {"type": "object", **words}),
        objects,
        st.lists(inner, min_size=1, max_size=3).flatmap(
            lambda subs: st.sampled_from([{"anyOf": subs}, {"allOf": subs}, {"oneOf": subs}])
        ),
        inner.map(lambda sub: {"$ref": "#/$defs/d", "$defs": {"d": sub}}).map(moved),
    )


def moved(schema: dict[str, Any]) -> dict[str, Any]:
    """A reference with an anchor in place of a pointer, which stays right wherever the schema is put."""
    target = schema["$defs"]["d"]
    name = f"t{crc32(json.dumps(target).encode())}"
    return {"allOf": [{"$ref": f"#{name}"}], "$defs": {name: {"$anchor": name, "allOf": [target]}}}


schemas = st.recursive(leaves, nested, max_leaves=6)
values = st.recursive(
    constants,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=3),
    max_leaves=5,
)


def written(value: Any) -> str:
    """JSON text whose numbers have no exponent."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(k, ensure_ascii=False)}: {written(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(written, value)) + "]"
    if isinstance(value, float):
        return format(Decimal(repr(value)), "f") if not value.is_integer() else str(int(value))
    return json.dumps(value, ensure_ascii=False)


def normal_of(schema: Any) -> Normalised | None:
    """The normal form; None for a schema that no value satisfies."""
    try:
        return normalise(schema)
    except SchemaError as error:
        if error.what != "No value satisfies this JSON schema.":
            raise
        return None


def some_values(normal: Normalised, data: st.DataObject) -> list[Any]:
    """Values that may fit: the shortest of each part of the schema, and others."""
    return [*map(json.loads, shortest_values(normal)), *(data.draw(values) for _ in range(4))]


@given(schemas, st.data())
@settings(max_examples=300, suppress_health_check=list(HealthCheck))
def test_readers_of_a_schema_agree_about_a_value(schema: Any, data: st.DataObject) -> None:
    normal = normal_of(schema)
    if normal is None:
        assert all(validate(data.draw(values), schema) for _ in range(4)), "no value satisfies the schema, and one does"
        return
    grammar = grammar_of(schema)
    for value in some_values(normal, data):
        text = written(value)
        valid, taken = validate(value, schema) == (), accepts(grammar, text)
        event(f"valid {valid}, admitted {taken}")
        assert taken or not valid, f"the grammar refuses what is valid: {text}"
        assert valid or not taken or normal.unenforced, f"the grammar admits what is not valid: {text}"


@given(schemas, st.data())
@settings(max_examples=200, suppress_health_check=list(HealthCheck))
def test_bare_text_is_read_as_the_value_it_was_written_for(schema: Any, data: st.DataObject) -> None:
    if normal_of(schema) is None:
        return
    read = parameters({"type": "object", "properties": {"v": schema}, "required": ["v"]})
    types = read.types(read.member(read.root, "v"))
    for value in some_values(read, data):
        if validate(value, schema):
            continue
        kind = json_type(value)
        assert kind in types or (kind == "integer" and "number" in types), (value, types)
        found = json_of(value if isinstance(value, str) else written(value), types)
        event(f"{kind} of {len(types)} types")
        if not isinstance(value, str) or types == {"string"}:
            assert json.loads(found) == value
