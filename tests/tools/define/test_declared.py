"""What a model generates for a Python type has the declared members only; what is read may have more."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypedDict

import pytest
from pydantic import BaseModel, ConfigDict, TypeAdapter

from llm_magics import tool
from llm_magics.session.settings import schema_of, value_of
from llm_magics.tools.define.declared import declared_schema


class Step(BaseModel):
    text: str


class Recipe(BaseModel):
    title: str
    steps: list[Step]


class Open(BaseModel):
    model_config = ConfigDict(extra="allow")
    title: str


@dataclass
class Point:
    x: int


class Named(TypedDict):
    name: str


@pytest.mark.parametrize("given", [Recipe, Point, Named])
def test_declared_types_are_closed_when_generated(given: type) -> None:
    assert schema_of(given)["additionalProperties"] is False


def test_nested_models_are_closed_too() -> None:
    assert schema_of(Recipe)["$defs"]["Step"]["additionalProperties"] is False


@pytest.mark.parametrize("given", [Open, dict[str, int], dict, list[dict[str, Any]]])
def test_types_that_ask_for_further_members_stay_open(given: Any) -> None:
    schema = declared_schema(TypeAdapter(given))
    assert schema.get("items", schema).get("additionalProperties") is not False


def test_a_raw_schema_stays_as_it_was_written() -> None:
    written = {"type": "object", "properties": {"a": {"type": "string"}}}
    assert schema_of(written) is written


def test_an_undeclared_member_is_still_accepted_when_read() -> None:
    assert value_of('{"title": "Soup", "steps": [], "mood": "good"}', Recipe) == Recipe(title="Soup", steps=[])


def test_a_tools_nested_parameters_are_closed() -> None:
    @tool
    def cook(recipe: Recipe) -> str:
        """Cook something."""
        return recipe.title

    parameters = cook.parameters
    assert parameters["additionalProperties"] is False
    assert parameters["properties"]["recipe"]["additionalProperties"] is False
