"""The JSON schema of a Python type, closed for generation and tidied for reading.

pydantic's own schemas allow unknown members, because pydantic ignores them; a small model then invents one after the other. So
a *generated* object has its declared members only, while *reading* stays as open as the type. Types that ask for further
members keep them (``extra="allow"``, ``dict[...]``), and so do raw JSON schemas, which do not pass through this file. A tool's
schema is also tidied: no generated titles, and definitions written where they are used.
"""

from __future__ import annotations

import json
import re
import warnings
from typing import Any

from pydantic import TypeAdapter
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema

_DATA = frozenset({"default", "enum", "const", "examples", "required"})  # keywords whose values are data, not schemas
_REFERENCE = re.compile(r'"#/\$defs/([^"]+)"')  # e.g. {"$ref": "#/$defs/Point"}


def declared_schema(adapter: TypeAdapter[Any]) -> dict[str, Any]:
    """The JSON schema of a type, with its models, dataclasses and TypedDicts closed. Raises pydantic's own errors."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # for a default that JSON cannot express
        return adapter.json_schema(schema_generator=_Declared)


class _Declared(GenerateJsonSchema):
    def model_schema(self, schema: core_schema.ModelSchema) -> JsonSchemaValue:
        return _closed(super().model_schema(schema))

    def dataclass_schema(self, schema: core_schema.DataclassSchema) -> JsonSchemaValue:
        return _closed(super().dataclass_schema(schema))

    def typed_dict_schema(self, schema: core_schema.TypedDictSchema) -> JsonSchemaValue:
        return _closed(super().typed_dict_schema(schema))


def _closed(schema: JsonSchemaValue) -> JsonSchemaValue:
    """Close an object that is silent about further members; ``unevaluatedProperties`` respects an ``allOf`` beside it."""
    said = {"additionalProperties", "unevaluatedProperties", "patternProperties"} & schema.keys()
    if schema.get("type") != "object" or said:
        return schema
    merged = {"allOf", "anyOf", "oneOf", "$ref"} & schema.keys()
    return {**schema, "unevaluatedProperties" if merged else "additionalProperties": False}


def tidy(schema: dict[str, Any]) -> dict[str, Any]:
    """Remove generated titles, and write definitions where they are used; only recursive ones stay in ``$defs``."""
    definitions = schema.get("$defs", {})

    def reached(node: Any) -> set[str]:
        found: set[str] = set()
        todo = [node]
        while todo:
            new = set(_REFERENCE.findall(json.dumps(todo.pop()))) & definitions.keys() - found
            found |= new
            todo += [definitions[name] for name in new]
        return found

    recursive = {name for name, node in definitions.items() if name in reached(node)}

    def clean(node: Any, names: bool = False) -> Any:
        if isinstance(node, list):
            return [clean(item) for item in node]
        if not isinstance(node, dict):
            return node
        reference = str(node.get("$ref", "")).removeprefix("#/$defs/")
        if not names and reference in definitions.keys() - recursive:
            return clean({**definitions[reference], **{key: value for key, value in node.items() if key != "$ref"}})
        return {
            key: value if key in _DATA and not names else clean(value, names=key == "properties" and not names)
            for key, value in node.items()
            if names or key not in ("title", "$defs")
        }

    plain: dict[str, Any] = clean(schema)
    apart = {name: clean(definitions[name]) for name in sorted(reached(plain) & recursive)}
    return {**plain, "$defs": apart} if apart else plain
