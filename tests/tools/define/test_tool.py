"""@tool: from signatures and docstrings to schemas, and from a model's arguments to Python values."""

from __future__ import annotations

import dataclasses
import enum
import json
from collections.abc import Callable, Iterator
from typing import Annotated, Any, Literal, TypedDict

import pydantic
import pytest
from pydantic import Field

from llm_magics.errors import ToolError
from llm_magics.tools.define.registry import registered
from llm_magics.tools.define.tool import Tool, make_tool, tool


class Unit(enum.Enum):
    CELSIUS = "c"
    FAHRENHEIT = "f"


@dataclasses.dataclass
class Point:
    x: int
    y: int = 2


class Node(pydantic.BaseModel):
    name: str
    children: list[Node] = []


class Options(TypedDict, total=False):
    depth: int
    label: str


def takes(annotation: Any, default: Any = ...) -> Tool:
    """A tool with one parameter ``x`` of that type, which gives it back."""

    def give(x: Any) -> Any:
        return x

    give.__annotations__ = {"x": annotation}
    if default is not ...:
        give.__defaults__ = (default,)
    return make_tool(give)


def call(made: Tool, arguments: str) -> Any:
    steps = made.invoke(made.bind(arguments))
    while True:
        try:
            next(steps)
        except StopIteration as stop:
            return stop.value


@pytest.mark.parametrize(
    ("annotation", "schema", "given", "value"),
    [
        (int, {"type": "integer"}, "3", 3),
        (int, {"type": "integer"}, '"3"', 3),
        (str, {"type": "string"}, "5", "5"),
        (float, {"type": "number"}, "1", 1.0),
        (bool, {"type": "boolean"}, "true", True),
        (Literal["a", "b"], {"type": "string", "enum": ["a", "b"]}, '"b"', "b"),
        (Unit, {"type": "string", "enum": ["c", "f"]}, '"f"', Unit.FAHRENHEIT),
        (list[int], {"type": "array", "items": {"type": "integer"}}, "[1, 2]", [1, 2]),
        (dict[str, int], {"type": "object", "additionalProperties": {"type": "integer"}}, '{"a": 1}', {"a": 1}),
        (int | None, {"anyOf": [{"type": "integer"}, {"type": "null"}]}, "null", None),
        (int | str, {"anyOf": [{"type": "integer"}, {"type": "string"}]}, '"x"', "x"),
        (Annotated[int, Field(ge=1, description="how many")],
         {"type": "integer", "minimum": 1, "description": "how many"}, "1", 1),
    ],
)  # fmt: skip
def test_a_type_becomes_a_schema_and_its_json_a_value(annotation: Any, schema: Any, given: str, value: Any) -> None:
    made = takes(annotation)
    assert made.parameters["properties"]["x"] == schema
    assert made.parameters["required"] == ["x"]
    assert call(made, f'{{"x": {given}}}') == value


def test_structured_types_arrive_as_what_they_are() -> None:
    assert call(takes(Point), '{"x": {"x": "1"}}') == Point(1, 2)
    assert call(takes(Node), '{"x": {"name": "a", "children": [{"name": "b"}]}}') == Node(name="a", children=[Node(name="b")])
    assert call(takes(list[Options]), '{"x": [{"depth": 1}]}') == [{"depth": 1}]


def test_only_recursive_definitions_stand_apart() -> None:
    assert "$defs" not in takes(Point).parameters
    assert set(takes(Node).parameters["$defs"]) == {"Node"}
    assert "title" not in json.dumps(takes(Node).parameters)


def test_defaults_are_told_and_used() -> None:
    made = takes(int, 7)
    assert made.parameters["properties"]["x"]["default"] == 7
    assert "required" not in made.parameters
    assert call(made, "{}") == 7
    assert call(takes(int, Field(3, ge=1)), "{}") == 3


GOOGLE = "Look it up.\n\nArgs:\n    city: Where.\n    n (int): How many."
NUMPY = "Look it up.\n\nParameters\n----------\ncity : str\n    Where.\nn : int\n    How many."
REST = "Look it up.\n\n:param city: Where.\n:param int n: How many."


@pytest.mark.parametrize("docstring", [GOOGLE, NUMPY, REST])
def test_docstrings_describe_the_tool_and_its_parameters(docstring: str) -> None:
    def look_up(city: str, n=1) -> str:  # type: ignore[no-untyped-def]
        return city * n

    look_up.__doc__ = docstring
    made = make_tool(look_up)
    assert made.description == "Look it up."
    assert made.parameters["properties"]["city"]["description"] == "Where."
    assert made.parameters["properties"]["n"] == {"type": "integer", "description": "How many.", "default": 1}


@pytest.mark.parametrize("annotation", [Callable[[int], int], type(iter([])), "Undefined", complex.__add__])
def test_what_cannot_be_expressed_is_an_error_that_names_the_parameter(annotation: Any) -> None:
    with pytest.raises(ToolError, match="'x'"):
        takes(annotation)


def test_star_parameters_are_refused_by_name() -> None:
    with pytest.raises(ToolError, match=r"\*\*options"):
        make_tool(lambda **options: options, name="f")
    with pytest.raises(ToolError, match=r"\*things"):
        make_tool(lambda *things: things, name="f")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("{}", "x is missing"), ('{"x": "many"}', "x: "), ('{"x": 1, "y": 2}', "there is no parameter y"),
        ("[1]", "not an object"), ("{", "not valid JSON"), ('{"x": null}', "x: "), ("[" * 100_000, "not valid JSON"),
        ('{"x": 1}' + " " * 10**6, "characters"),
    ],
)  # fmt: skip
def test_invalid_arguments_are_worded_for_the_model(arguments: str, said: str) -> None:
    with pytest.raises(ToolError, match=said):
        takes(int).bind(arguments)


def test_a_tool_stays_a_function_and_a_method_knows_its_instance() -> None:
    class Shop:
        def __init__(self, price: int) -> None:
            self.price = price

        @tool
        def cost(self, n: int) -> int:
            """What n pieces cost."""
            return self.price * n

    assert "cost" not in registered
    bound = Shop(3).cost
    assert set(bound.parameters["properties"]) == {"n"}
    assert (bound(2), call(bound, '{"n": 2}')) == (6, 6)


def test_decorating_again_replaces_the_tool_of_that_name() -> None:
    @tool(name="replaced", approve="ask", timeout=3)
    def first() -> int:
        return 1

    @tool(name="replaced")
    def second() -> int:
        return 2

    try:
        assert first.options.approve == "ask"
        assert registered["replaced"] is second
        assert [made for made in registered if made.name == "replaced"] == [second]
    finally:
        registered.discard(second)


def test_generators_give_what_they_return_or_else_what_they_yielded() -> None:
    def returns() -> Iterator[str]:
        yield "half"
        return "whole"

    def lines() -> Iterator[str]:
        yield "a"
        yield "b"

    async def later() -> Any:
        yield 1
        yield 2

    assert call(make_tool(returns), "{}") == "whole"
    assert call(make_tool(lines), "{}") == "a\nb"
    assert call(make_tool(later), "{}") == [1, 2]


def test_a_mock_stands_in_and_still_gets_valid_arguments() -> None:
    made = make_tool(lambda n: 1 / 0, name="f", mock=lambda n: f"mocked {n}")
    assert call(made, '{"n": "5"}') == "mocked 5"
    assert call(make_tool(lambda: 1 / 0, name="f", mock=42), "{}") == 42


@pytest.mark.parametrize("options", [{"approve": "perhaps"}, {"timeout": 0}, {"max_chars": -1}, {"colour": "red"}])
def test_options_that_mean_nothing_are_refused(options: Any) -> None:
    with pytest.raises(Exception, match=f"{next(iter(options.values()))}|{next(iter(options))}"):
        make_tool(lambda: 1, name="f", **options)
