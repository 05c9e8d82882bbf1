"""Laws of closing JSON: any schema, any writer, any limit from the smallest on. A token is one byte; no model is needed."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llm_magics.errors import SchemaError
from llm_magics.schema.normal import normalise
from llm_magics.schema.shortest import shortest_values
from llm_magics.schema.validate import validate

from .test_closing import Text

NAMES = ("a", "name", "naming", "ort", "länge", 'quo"te')
PATTERNS = (r"^\d{4}-\d\d$", r"^[a-z]+@x$", r"^(left|right|upside down)$", r"ab+c")
FORMATS = ("date", "time", "date-time", "uuid", "ipv4", "email")


def numbers() -> st.SearchStrategy[dict[str, Any]]:
    bounds = st.fixed_dictionaries({}, optional={"minimum": st.integers(-300, 300)})
    return st.tuples(st.sampled_from(("integer", "number")), bounds).map(lambda made: {"type": made[0], **made[1]})


def strings() -> st.SearchStrategy[dict[str, Any]]:
    lengths = st.fixed_dictionaries({}, optional={"minLength": st.integers(0, 12)})
    return st.one_of(
        lengths.map(lambda made: {"type": "string", **made}),
        st.sampled_from(PATTERNS).map(lambda pattern: {"type": "string", "pattern": pattern}),
        st.sampled_from(FORMATS).map(lambda name: {"type": "string", "format": name}),
    )


LEAVES = st.one_of(
    numbers(),
    strings(),
    st.sampled_from(({}, {"type": "null"}, {"type": "boolean"}, {"$ref": "#/$defs/tree"}, {"const": {"a": [1, "b"]}})),
    st.lists(st.sampled_from((None, 7, "a long word", "s", ["x", 2.5])), min_size=1, max_size=4).map(lambda e: {"enum": e}),
)


def arrays(inner: st.SearchStrategy[dict[str, Any]]) -> st.SearchStrategy[dict[str, Any]]:
    sizes = st.tuples(st.integers(0, 3), st.none() | st.integers(3, 6))
    return st.tuples(inner, sizes).map(
        lambda made: {
            "type": "array",
            "items": made[0],
            "minItems": made[1][0],
            **({"maxItems": made[1][1]} if made[1][1] is not None else {}),
        }
    )


@st.composite
def objects(draw: st.DrawFn, inner: st.SearchStrategy[dict[str, Any]]) -> dict[str, Any]:
    properties = draw(st.dictionaries(st.sampled_from(NAMES), inner, max_size=4))
    required = draw(st.lists(st.sampled_from(NAMES), unique=True, max_size=3))
    made: dict[str, Any] = {"type": "object", "properties": properties, "required": required}
    extra = draw(st.sampled_from(("closed", "open", "typed")))
    if extra == "closed":
        made |= {"additionalProperties": False, "required": [key for key in required if key in properties]}
    elif extra == "typed":
        made["additionalProperties"] = draw(inner)
    return made


def schemas() -> st.SearchStrategy[dict[str, Any]]:
    """Schemas with a recursive definition beside them, nested as deep as comes."""
    nested = st.recursive(
        LEAVES,
        lambda inner: st.one_of(
            arrays(inner),
            objects(inner),
            st.lists(inner, min_size=2, max_size=3).map(lambda options: {"anyOf": options}),
        ),
        max_leaves=6,
    )
    kids = {"type": "array", "items": {"$ref": "#/$defs/tree"}}
    tree = {"type": "object", "properties": {"kids": kids}, "required": ["kids"], "additionalProperties": False}
    return nested.map(lambda schema: {**schema, "$defs": {"tree": tree}})


def writer(seed: int) -> Iterator[int]:
    """Somebody who opens everything, and now and then writes words, blanks or nonsense."""
    draw = random.Random(seed)
    favourites = draw.choice((b"[{,", b'"', b"0123456789", b'[{,"a1: ', b" \n"))
    while True:
        yield draw.choice(favourites) if draw.random() < 0.8 else draw.randrange(256)


def smallest(schema: dict[str, Any]) -> int:
    """The smallest limit that is not refused."""
    with pytest.raises(SchemaError, match=r"shortest JSON .* about [\d,]+ tokens; 0 are allowed") as refused:
        Text(schema, 0)
    return int(str(refused.value).partition("about ")[2].split()[0].replace(",", ""))


LAW = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True)


@LAW
@given(schemas(), st.integers(0, 2**16), st.integers(0, 300), st.none() | st.integers(1, 200), st.booleans())
def test_the_text_is_valid_and_within_any_limit_that_is_not_refused(
    schema: dict[str, Any], seed: int, more: int, soft: int | None, forcing: bool
) -> None:
    limit = smallest(schema) + more
    text = Text(schema, limit, soft=soft)
    value = json.loads(text.write(writer(seed), forcing=forcing))
    assert len(text.written) <= limit
    assert not validate(value, schema)


@LAW
@given(schemas())
def test_one_token_less_than_the_shortest_text_is_refused_before_anything_is_written(schema: dict[str, Any]) -> None:
    needed = smallest(schema)
    with pytest.raises(SchemaError, match=f"about {needed:,} tokens; {needed - 1:,} are allowed"):
        Text(schema, needed - 1)


@LAW
@given(schemas())
def test_every_shortest_text_is_valid_under_some_node(schema: dict[str, Any]) -> None:
    normal = normalise(schema)
    whole = [text for text in shortest_values(normal) if not validate(json.loads(text), schema)]
    if whole:  # the schema's own shortest text is among them, so no limit above it is refused
        assert smallest(schema) <= len(min(whole, key=len).encode())
