"""Validation: values are checked as JSON has them, remarks are plain, and every schema ends by a limit with a named error."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest

from llm_magics.errors import SchemaError
from llm_magics.schema.dialect import plain
from llm_magics.schema.normal import normalise, parameters
from llm_magics.schema.steps import MAX_STEPS, pattern_size
from llm_magics.schema.validate import MAX_VALUE_DEPTH, validate
from llm_magics.session.settings import TurnSettings, schema_of, value_of
from tests.chat.grammars import accepts, grammar_of

from .hostile_schemas import COUNT, KNOWN, SEED, run_child

# --- remarks ------------------------------------------------------------------------------------------------------------------

REMARKS: list[tuple[Any, Any, str]] = [
    ({"properties": {"days": {"items": {"type": "integer"}}}}, {"days": ["x"]}, '$.days[0]: "x" is not of type "integer"'),
    ({"required": ["city"]}, {"town": 1}, '$: "city" is a required property'),
    ({"properties": {"a": True}, "additionalProperties": False}, {"a": 1, "b": 2}, '$: the property "b" is not allowed'),
    ({"additionalProperties": False}, {"b": 2}, '$: the property "b" is not allowed'),
    ({"properties": {"a b": {"minimum": 3}}}, {"a b": 1}, "$['a b']: 1 is less than the minimum of 3"),
    ({"enum": ["x", "y"]}, "z", '$: "z" is not one of "x" or "y"'),
    ({"maxLength": 3}, "word" * 100, f'$: "{("word" * 100)[:79]}… is longer than 3 characters'),
    ({"not": {"const": 1}}, 1, '$: {"const":1} is not allowed for 1'),
    (False, 1, "$: nothing is allowed here"),
]


@pytest.mark.parametrize(("schema", "value", "remark"), REMARKS, ids=lambda v: json.dumps(v)[:50])
def test_a_remark_says_where_and_what(schema: Any, value: Any, remark: str) -> None:
    assert validate(value, schema) == (remark,)


ODD: list[tuple[Any, str]] = [
    (math.nan, "$: nan is not a JSON number"),
    ({"a": [1.0, -math.inf]}, "$.a[1]: -inf is not a JSON number"),
    ({1: 2}, "$: the key 1 is not a string"),
    ({"a": {1, 2}}, "$.a: set is not a JSON value"),
    (10**5000, "$: the number has more than 4,000 digits"),
]


@pytest.mark.parametrize(("value", "remark"), ODD, ids=lambda v: str(v)[:40] if not isinstance(v, int) else "int")
def test_what_is_no_json_value_is_said_to_be_none(value: Any, remark: str) -> None:
    assert validate(value, True) == validate(value, {"type": ["number", "object", "null"]}) == (remark,)


SAME: list[tuple[Any, Any, bool]] = [
    ({"type": "integer"}, 1.0, True),
    ({"type": "integer"}, 10**300 + 1, True),
    ({"type": "integer", "minimum": 10**30}, 10**30 - 1, False),
    ({"const": 1}, True, False),
    ({"const": 1}, 1.0, True),
    ({"enum": [0]}, False, False),
    ({"uniqueItems": True}, [1, True], True),
    ({"uniqueItems": True}, [{"a": 1, "b": 2}, {"b": 2.0, "a": 1.0}], False),
    ({"multipleOf": 0.1}, 0.3, True),
    ({"type": "string", "maxLength": 1}, "\ud800", True),
    ({"type": "array", "items": {"type": "integer"}}, (1, 2), True),
    ({"type": "string", "format": "date"}, "no date", True),  # an annotation
    ({"type": "string", "nullable": True}, None, True),
    ({"type": "integer", "minimum": 1, "exclusiveMinimum": True}, 1, False),
    ({"items": [{"type": "string"}], "additionalItems": False}, ["a", 1], False),
    ({"dependencies": {"a": ["b"]}}, {"a": 1}, False),
    ({"title": None, "description": 3, "examples": "x", "minimum": None, "type": "integer"}, 1, True),
]


@pytest.mark.parametrize(("schema", "value", "valid"), SAME, ids=lambda v: str(v)[:50])
def test_values_are_compared_as_json_has_them(schema: Any, value: Any, valid: bool) -> None:
    assert (validate(value, schema) == ()) is valid


def test_a_value_that_nests_without_end_is_no_crash() -> None:
    deep: Any = 1
    for _ in range(100_000):
        deep = [deep]
    tree = {"$defs": {"t": {"items": {"$ref": "#/$defs/t"}}}, "$ref": "#/$defs/t"}
    assert validate(deep, tree) == (f"$: the value is nested more than {MAX_VALUE_DEPTH} deep",)
    nested: Any = "x"
    for _ in range(MAX_VALUE_DEPTH):
        nested = [nested]
    assert validate(nested, tree) == ()


# --- references: one reading for grammar, types and validation ----------------------------------------------------------------

STRING = {"type": "string"}
REFERENCES: list[tuple[str, dict[str, Any]]] = [
    ("a pointer", {"$defs": {"zip": STRING}, "properties": {"v": {"$ref": "#/$defs/zip"}}}),
    ("an anchor", {"$defs": {"zip": {"$anchor": "zip", **STRING}}, "properties": {"v": {"$ref": "#zip"}}}),
    ("a dynamic anchor", {"$defs": {"zip": {"$dynamicAnchor": "z", **STRING}}, "properties": {"v": {"$dynamicRef": "#z"}}}),
    ("an old anchor", {"definitions": {"zip": {"$id": "#zip", **STRING}}, "properties": {"v": {"$ref": "#zip"}}}),
    ("percent-escapes", {"$defs": {"a b/%": STRING}, "properties": {"v": {"$ref": "#/$defs/a%20b~1%25"}}}),
    ("an id", {"$defs": {"z": {"$id": "https://x.org/zip", **STRING}}, "properties": {"v": {"$ref": "https://x.org/zip"}}}),
    (
        "an id and a relative one",
        {"$id": "https://x.org/a", "$defs": {"z": {"$id": "zip", **STRING}}, "properties": {"v": {"$ref": "zip"}}},
    ),
    (
        "an anchor below an id",
        {"$defs": {"z": {"$id": "urn:z", "not": {"$anchor": "q", **STRING}}}, "properties": {"v": {"$ref": "urn:z#q"}}},
    ),
    ("an element of old items", {"properties": {"v": {"$ref": "#/properties/w/items/0"}, "w": {"items": [STRING]}}}),
    ("a part that is no definition", {"x": {"y": {"Z": STRING}}, "properties": {"v": {"$ref": "#/x/y/Z"}}}),
    ("patternProperties", {"patternProperties": {"^v": STRING}}),
    ("patterns behind a reference", {"$defs": {"p": {"patternProperties": {"^v": STRING}}}, "allOf": [{"$ref": "#/$defs/p"}]}),
    ("additionalProperties", {"additionalProperties": STRING}),
]  # fmt: skip


@pytest.mark.parametrize("schema", [s for _, s in REFERENCES], ids=[name for name, _ in REFERENCES])
def test_grammar_types_and_validation_agree_where_a_reference_leads(schema: dict[str, Any]) -> None:
    schema = {"type": "object", **schema}
    read = parameters(schema)
    assert read.types(read.member(read.root, "v")) == {"string"}
    assert validate({"v": "12345"}, schema) == ()
    assert validate({"v": 12345}, schema) != ()
    assert accepts(grammar_of(schema), '{"v": "12345"}')
    if "patternProperties" not in json.dumps(schema):  # beside free keys these are left to validation
        assert not accepts(grammar_of(schema), '{"v": 12345}')


NOWHERE = ["https://example.org/x", "file:///etc/passwd", "#/$defs/none", "#none", "other", "http://[", "#/type", "#/enum/0"]


@pytest.mark.parametrize("reference", NOWHERE)
def test_a_reference_that_leads_nowhere_is_refused_by_all_and_nothing_is_fetched(reference: str) -> None:
    schema = {"type": "object", "enum": [{}], "allOf": [{"$ref": reference}]}
    for read in (normalise, plain, lambda s: validate({}, s)):
        with pytest.raises(SchemaError, match=r"reference|points"):
            read(schema)


def test_a_reference_that_nobody_uses_may_lead_nowhere() -> None:
    schema = {"type": "string", "$defs": {"unused": {"$ref": "https://example.org/x"}}, "x-note": {"$ref": "#none"}}
    assert validate("x", schema) == ()
    assert accepts(grammar_of(schema), '"x"')


def test_a_dynamic_reference_with_several_targets_is_refused_and_not_guessed() -> None:
    schema = {"$defs": {"a": {"$dynamicAnchor": "n"}, "b": {"$dynamicAnchor": "n", "not": {}}}, "items": {"$dynamicRef": "#n"}}
    with pytest.raises(SchemaError, match="several targets"):
        validate([1], schema)


# --- limits -------------------------------------------------------------------------------------------------------------------


def test_what_used_to_hang_is_answered() -> None:
    word = "a" * 60 + "!"
    assert validate({word: 1}, KNOWN["pattern beside unevaluated"]) == (f'$: the property "{word}" is not allowed',)
    for numbers in (list(range(4001)), [{"a": i} for i in range(4001)], [i if i % 2 else {"a": i} for i in range(4001)]):
        assert validate(numbers, {"uniqueItems": True}) == ()
        assert validate([*numbers, numbers[0]], {"uniqueItems": True}) != ()


BACKTRACKING = [
    {"pattern": r"((a|aa)+)\1c"},
    {"not": {"anyOf": [{"pattern": r"((a|aa)+)\1c"}]}},
    {"if": {"pattern": r"((a|aa)+)\1c"}, "else": True},
]


@pytest.mark.parametrize("schema", BACKTRACKING, ids=lambda s: next(iter(s)))
def test_a_pattern_that_backtracks_too_far_is_named_and_decides_nothing(schema: Any) -> None:
    with pytest.raises(SchemaError, match=r"pattern .* takes too many steps"):
        validate("a" * 60, schema)
    with pytest.raises(SchemaError, match=r"pattern .* takes too many steps"):
        validate({"a" * 60: 1}, {"patternProperties": {r"((a|aa)+)\1c": False}, "unevaluatedProperties": False})


def test_steps_are_counted_before_they_are_done() -> None:
    def doubling(depth: int) -> dict[str, Any]:
        chain = {f"d{i}": {"allOf": [{"$ref": f"#/$defs/d{i + 1}"}] * 2} for i in range(depth)}
        return {"$defs": {**chain, f"d{depth}": {"type": "integer"}}, "$ref": "#/$defs/d0"}

    assert validate(1, doubling(8)) == ()
    with pytest.raises(SchemaError, match="too many steps"):
        validate(1, doubling(60))
    assert validate(list(range(MAX_STEPS // 10)), {"items": {"type": "integer"}}) == ()
    with pytest.raises(SchemaError, match="refers to itself"):
        validate(1, {"anyOf": [{"$ref": "#"}, {"type": "integer"}]})


def test_the_size_of_a_pattern_multiplies_its_repeats() -> None:
    assert pattern_size("abc") == 3
    assert pattern_size("a{10}b") == 11
    assert pattern_size("(ab){10}") == 20
    assert pattern_size("((a{10}){10}){10}") == 1000
    assert pattern_size("[a-z]{2,5}") == 5
    assert pattern_size("a" + "{1000}" * 50) > 10**100


@pytest.mark.timeout(900)
def test_hostile_schemas_end_by_a_limit_and_not_by_a_hang() -> None:
    """In a child process, with ten seconds for each task; see ``hostile_schemas.py`` for what is done with each."""
    outcomes = run_child(COUNT, SEED)
    assert len({outcome.schema for outcome in outcomes}) == COUNT + len(KNOWN), f"seed {SEED}"
    refused = [outcome for outcome in outcomes if outcome.refused]
    done = [outcome for outcome in outcomes if not outcome.refused]
    assert len(refused) > 500, "these schemas are hostile"
    assert len(done) > 500, "and schemas all the same"
    assert any("steps" in outcome.refused for outcome in refused)


# --- answers under a schema ---------------------------------------------------------------------------------------------------


def test_an_answer_is_read_under_the_same_rules() -> None:
    assert value_of('{"a": null}', {"properties": {"a": {"type": "string", "nullable": True}}}) == {"a": None}
    with pytest.raises(SchemaError, match=r'does not match the schema: \$\.a: 1 is not of type "string"'):
        value_of('{"a": 1}', {"properties": {"a": {"type": "string"}}})
    with pytest.raises(SchemaError, match="not JSON"):
        value_of("{", {"type": "object"})
    with pytest.raises(SchemaError, match="not a JSON number"):
        value_of("[NaN]", {"type": "array"})
    with pytest.raises(SchemaError, match="too many steps"):
        value_of(json.dumps("a" * 60), KNOWN["backtracking"])
    assert value_of(json.dumps([1, 2]), schema_of({"uniqueItems": True})) == [1, 2]
    assert TurnSettings(response_schema={"type": "string"}).json_schema == {"type": "string"}


# --- numbers ------------------------------------------------------------------------------------------------------------------

BEYOND: list[tuple[Any, int | float, str]] = [
    ({"type": "integer", "minimum": 1, "multipleOf": 10**12}, 3 * 10**12, "multipleOf"),
    ({"minimum": -(10**20)}, -7, "minimum"),
    ({"type": "integer", "minimum": 2**63}, 2**63 + 5, "minimum"),
    ({"type": "integer", "maximum": 10**400}, 12, "maximum"),
    ({"type": "number", "minimum": 1e250}, 1.5e250, "minimum"),
    ({"type": "number", "maximum": -(10**20)}, -(10.0**21), "maximum"),
    ({"type": "number", "multipleOf": 1e-300}, 0.5, "multipleOf"),
    ({"type": "integer", "minimum": 10**20, "maximum": 10**20 + 5, "multipleOf": 10}, 10**20, "maximum"),
]


@pytest.mark.parametrize(("schema", "value", "keyword"), BEYOND, ids=lambda v: str(v)[:60])
def test_a_bound_beyond_the_grammars_reach_is_widened_and_validated(schema: Any, value: int | float, keyword: str) -> None:
    normal = normalise(schema)
    assert f"#/{keyword}" in normal.unenforced
    assert accepts(grammar_of(schema), json.dumps(value))
    assert validate(value, schema) == ()


EMPTY = [
    {"type": "integer", "minimum": 10**20 + 1, "maximum": 10**20 + 5, "multipleOf": 10},
    {"type": "number", "minimum": 10**400, "maximum": 10**399},
    {"type": "number", "exclusiveMinimum": 3, "maximum": 3},
    {"type": "integer", "exclusiveMinimum": 3, "exclusiveMaximum": 4},
    {"type": "integer", "minimum": 1, "maximum": 4, "multipleOf": 5},
    {"type": "number", "minimum": 0.11, "maximum": 0.19, "multipleOf": 0.1},
]


@pytest.mark.parametrize("schema", EMPTY, ids=lambda s: str(s)[:60])
def test_bounds_that_leave_no_number_are_refused_for_that(schema: Any) -> None:
    with pytest.raises(SchemaError, match="No value satisfies"):
        normalise(schema)


def test_the_words_of_a_schema_do_not_decide_whether_it_can_be_met() -> None:
    schema = {"type": "string", "pattern": "minimum|nsatisfiable|(?=Unsatisfiable schema: )x?"}
    assert validate("minimum", schema) == ()
    assert "#/pattern" in normalise(schema).unenforced
    assert accepts(grammar_of({"anyOf": [{"const": "minimum"}, {"type": "integer", "minimum": 10**30}]}), '"minimum"')


@pytest.mark.parametrize(
    ("named", "good", "bad"),
    [
        *(("str", "x", 1), ("int", 1, "x"), ("float", 0.5, "x"), ("bool", True, 1)),
        *(("dict", {}, []), ("list", [], {}), ("NoneType", None, 0)),
    ],
)
def test_pythons_names_of_types_are_understood(named: str, good: object, bad: object) -> None:
    schema = {"type": "object", "properties": {"a": {"type": named}, "b": {"type": [named, "null"]}}}
    assert validate({"a": good, "b": None}, schema) == ()
    assert validate({"a": bad}, schema)
    assert accepts(grammar_of(schema), json.dumps({"a": good}))
    read, alone = parameters(schema), normalise({"type": named})
    assert read.types(read.member(read.root, "a")) == alone.types(alone.root)
