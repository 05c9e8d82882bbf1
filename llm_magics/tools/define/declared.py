"""The JSON schema of a Python type, as a model is held to it: objects have their declared members and no others.

A pydantic model ignores members that it does not know, so its own schema allows them, and a small model then invents one after
the other. What is *read* stays as open as the type is; what is *generated* is not. Types that ask for further members keep
them: ``extra="allow"``, ``dict[...]``, and raw JSON schemas, which never come here.
"""

from __future__ import annotations

from typing import Any

from pydantic import TypeAdapter
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema


def declared_schema(adapter: TypeAdapter[Any]) -> dict[str, Any]:
    """Make the JSON schema of a type, its models, dataclasses and TypedDicts closed. Raises pydantic's own errors."""
    return adapter.json_schema(schema_generator=_Declared)


class _Declared(GenerateJsonSchema):
    def model_schema(self, schema: core_schema.ModelSchema) -> JsonSchemaValue:
        return _closed(super().model_schema(schema))

    def dataclass_schema(self, schema: core_schema.DataclassSchema) -> JsonSchemaValue:
        return _closed(super().dataclass_schema(schema))

    def typed_dict_schema(self, schema: core_schema.TypedDictSchema) -> JsonSchemaValue:
        return _closed(super().typed_dict_schema(schema))


def _closed(schema: JsonSchemaValue) -> JsonSchemaValue:
    """Close an object that says nothing of further members; one with an applicator beside it after that is merged in."""
    said = {"additionalProperties", "unevaluatedProperties", "patternProperties"} & schema.keys()
    if schema.get("type") != "object" or said:
        return schema
    merged = {"allOf", "anyOf", "oneOf", "$ref"} & schema.keys()
    return {**schema, "unevaluatedProperties" if merged else "additionalProperties": False}
