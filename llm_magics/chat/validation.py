"""Check finished JSON values against their schemas, and read untyped text as the schema asks.

:func:`validate` is the second half of ``chat/schema.py``: what a grammar cannot enforce is checked here, with regular
expressions in linear time. :func:`coerce` gives types to the argument values of tagged syntaxes, which are bare text.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator, Mapping
from typing import Any

from ..errors import SchemaError
from .regex import has_linear_regex, linear_search
from .schema import check_size

MAX_LITERAL = 10_000  # characters of Python-style text that are read as a literal
MAX_CHECKS = 100_000  # keywords looked at in one validation
MAX_REFERENCES = 32  # a schema that is only references to references


def validate(value: Any, schema: Mapping[str, Any] | bool) -> tuple[str, ...]:
    """Say what is wrong with a JSON value under a schema; nothing where it is valid.

    Each remark names the place, e.g. "$.days[0]: 'x' is not of type 'integer'", so that a model can mend its call.
    Every schema is read as 2020-12, with what older drafts spelt differently. Raises SchemaError where it cannot be used.
    """
    import jsonschema
    import referencing.exceptions

    try:
        errors = list(_validator(schema).iter_errors(value))
    except (jsonschema.SchemaError, referencing.exceptions.Unresolvable) as error:
        raise SchemaError(f"The JSON schema is not valid: {str(error).splitlines()[0][:200]}", "Correct the schema.") from error
    except RecursionError as error:
        raise SchemaError("The JSON schema or the value is nested too deeply.", "Simplify it.") from error
    except (TypeError, ValueError, AttributeError, OverflowError) as error:
        raise SchemaError(f"The JSON schema cannot be used: {error}.", "Correct the schema.") from error
    return tuple(f"{e.json_path}: {e.message[:300]}" for e in sorted(errors, key=lambda e: e.json_path))


def _validator(schema: Mapping[str, Any] | bool) -> Any:
    import jsonschema.validators
    import referencing

    check_size(schema)
    plain = _plain(schema)
    base = jsonschema.Draft202012Validator
    rules = {"pattern": _pattern, "patternProperties": _pattern_properties, "additionalProperties": _additional_properties}
    strict = jsonschema.validators.extend(base, _bounded({**base.VALIDATORS, **rules}))
    # The empty registry answers every reference to elsewhere with "unresolvable" instead of fetching it.
    return strict(plain, registry=referencing.Registry())


def _bounded(rules: Mapping[str, Any]) -> dict[str, Any]:
    """Let the rules of one validation run at most ``MAX_CHECKS`` times: references that branch multiply without end."""
    count = 0

    def counted(rule: Any) -> Any:
        def run(*arguments: Any) -> Any:
            nonlocal count
            count += 1
            if count > MAX_CHECKS:
                raise SchemaError("The JSON schema takes too many steps to check.", "Simplify its references and unions.")
            return rule(*arguments)

        return run

    return {keyword: counted(rule) for keyword, rule in rules.items()}


_MAPS = ("properties", "patternProperties", "$defs", "definitions", "dependentSchemas", "dependencies", "dependentRequired")
_VALUES = ("const", "enum", "default", "examples", "example")


def _plain(schema: Any) -> Any:
    """Copy to plain dicts and lists, in 2020-12's words: ``nullable``, tuples in ``items`` and exclusive bounds as of old."""
    if isinstance(schema, list | tuple):
        return [_plain(v) for v in schema]
    if not isinstance(schema, Mapping):
        return schema
    copy: dict[str, Any] = {}
    for key, value in schema.items():
        if key in _MAPS and isinstance(value, Mapping):
            copy[key] = {str(k): _plain(v) for k, v in value.items()}
        else:
            copy[str(key)] = _json(value) if key in _VALUES else _plain(value)
    if copy.get("nullable") is True and "type" in copy:
        types = copy["type"] if isinstance(copy["type"], list) else [copy["type"]]
        copy["type"] = types if "null" in types else [*types, "null"]
    if isinstance(copy.get("items"), list):
        copy["prefixItems"], copy["items"] = copy["items"], copy.pop("additionalItems", True)
    for exclusive, bound in (("exclusiveMinimum", "minimum"), ("exclusiveMaximum", "maximum")):
        if isinstance(copy.get(exclusive), bool) and copy.pop(exclusive) and bound in copy:
            copy[exclusive] = copy.pop(bound)
    if isinstance(copy.get("required"), bool):
        del copy["required"]
    return copy


def _json(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(k): _json(v) for k, v in value.items()}
    return [_json(v) for v in value] if isinstance(value, list | tuple) else value


def _found(pattern: str, text: str) -> bool:
    if has_linear_regex(pattern):
        return linear_search(pattern, text)
    import re

    try:
        compiled = re.compile(pattern)
    except (re.error, RecursionError, OverflowError) as error:
        raise SchemaError(f"{pattern[:80]!r} is no regular expression: {error}.", "Correct the pattern.") from error
    if _may_explode(pattern):
        raise SchemaError(f"The pattern {pattern[:80]!r} could take forever to check.", "Drop look-around or nested repeats.")
    return compiled.search(text[:MAX_LITERAL]) is not None


def _may_explode(pattern: str) -> bool:
    """Does a pattern repeat something that itself repeats or branches? Only such patterns backtrack exponentially."""
    from re import _parser  # type: ignore[attr-defined]

    def walk(items: Any, inside: bool) -> bool:
        for op, argument in items:
            name = str(op)
            repeats = name in ("MAX_REPEAT", "MIN_REPEAT") and argument[1] > 1
            if inside and (repeats or name == "BRANCH"):
                return True
            parts = argument if isinstance(argument, tuple | list) else (argument,)
            for part in parts:
                nested = part if isinstance(part, list) else [part]
                for sub in nested:
                    if isinstance(sub, _parser.SubPattern) and walk(sub, inside or repeats):
                        return True
        return False

    return walk(_parser.parse(pattern), False)


def _pattern(validator: Any, pattern: str, value: Any, schema: Any) -> Iterator[Any]:
    from jsonschema import ValidationError

    if isinstance(value, str) and not _found(pattern, value):
        yield ValidationError(f"{value!r} does not match {pattern!r}")


def _pattern_properties(validator: Any, patterns: Mapping[str, Any], value: Any, schema: Any) -> Iterator[Any]:
    if isinstance(value, Mapping):
        for pattern, sub in patterns.items():
            for key in value:
                if _found(pattern, key):
                    yield from validator.descend(value[key], sub, path=key, schema_path=pattern)


def _additional_properties(validator: Any, extra: Any, value: Any, schema: Mapping[str, Any]) -> Iterator[Any]:
    from jsonschema import ValidationError

    if not isinstance(value, Mapping):
        return
    for key in value:
        if key in schema.get("properties", {}) or any(_found(p, key) for p in schema.get("patternProperties", {})):
            continue
        if extra is False:
            yield ValidationError(f"the property {key!r} is not allowed")
        elif extra is not True:
            yield from validator.descend(value[key], extra, path=key)


# --- text to typed value ------------------------------------------------------------------------------------------------------


def possible_types(schema: Mapping[str, Any] | bool | None, root: Mapping[str, Any] | None = None) -> frozenset[str]:
    """The JSON types that a value under this schema may have; all of them where the schema does not say.

    ``root`` is the document in which ``#/...`` references are looked up; by default ``schema`` itself.
    """
    everything = frozenset({"null", "boolean", "integer", "number", "string", "array", "object"})
    return _types(schema, root if root is not None else schema, everything, 0)


def _types(schema: Any, root: Any, everything: frozenset[str], depth: int) -> frozenset[str]:
    if not isinstance(schema, Mapping) or depth > MAX_REFERENCES:
        return everything
    found = everything
    named = schema.get("type")
    if named is not None:
        found = frozenset([named] if isinstance(named, str) else named)
        found |= {"integer"} if "number" in found else set()
        found |= {"null"} if schema.get("nullable") is True else set()
    if "const" in schema:
        found &= _value_types(schema["const"])
    if isinstance(schema.get("enum"), list | tuple):
        found &= frozenset().union(*(_value_types(v) for v in schema["enum"]))
    if isinstance(schema.get("$ref"), str):
        found &= _types(_look_up(root, schema["$ref"]), root, everything, depth + 1)
    for keyword in ("anyOf", "oneOf"):
        if isinstance(schema.get(keyword), list | tuple):
            found &= frozenset().union(*(_types(s, root, everything, depth + 1) for s in schema[keyword]))
    for sub in schema.get("allOf", ()) if isinstance(schema.get("allOf"), list | tuple) else ():
        found &= _types(sub, root, everything, depth + 1)
    return found


def _value_types(value: Any) -> frozenset[str]:
    from .schema_nodes import json_type

    name = json_type(value)
    return frozenset({name, "number"} if name == "integer" else {name})


def _look_up(root: Any, ref: str) -> Any:
    value = root
    for step in ref.removeprefix("#").strip("/").split("/"):
        key = step.replace("~1", "/").replace("~0", "~")
        if step:
            value = value.get(key) if isinstance(value, Mapping) else None
    return value


def coerce(text: str, schema: Mapping[str, Any] | bool | None, root: Mapping[str, Any] | None = None) -> Any:
    """Read the bare text of one argument as the value that its schema asks for.

    ``"30"`` becomes 30 where an integer or a number is asked for and no string; ``"null"``, ``"4"`` and ``"true"`` stay text
    where a string may stand, unless an enum says otherwise; ``True``, ``False`` and ``None`` are read as Python writes them.
    Without a schema, text that is JSON is read as JSON. Text that cannot be what the schema asks for stays text, so that
    validation can complain of exactly what the model wrote. ``root`` is where references are looked up.

    >>> coerce("30", {"type": "integer"}), coerce("30", {"type": "string"}), coerce("None", {"type": ["integer", "null"]})
    (30, '30', None)
    """
    types = possible_types(schema, root)
    if schema is None or schema is True or not schema:
        found, value = _read(text)
        return value if found else text
    found, value = _read(text)
    if isinstance(schema, Mapping) and isinstance(schema.get("enum"), list | tuple):
        if text in schema["enum"]:
            return text
        return value if found and any(value == v and type(value) is type(v) for v in schema["enum"]) else text
    if "string" in types and types >= {"string", "object", "number"} and _is_untyped(schema):
        return value if found else text
    if "string" in types and not _prefers(value if found else text, types):
        return text
    if not found:
        return text
    if isinstance(value, float) and value.is_integer() and "number" not in types and "integer" in types:
        return int(value)
    return value if _value_types(value) & types else text


def _is_untyped(schema: Any) -> bool:
    return isinstance(schema, Mapping) and not {"type", "anyOf", "oneOf", "allOf", "$ref", "const", "enum"} & set(schema)


def _prefers(value: Any, types: frozenset[str]) -> bool:
    """In a union with string: is this unmistakably the other member?

    Numbers, null and booleans count where the union names their type; an object or array where it names that.
    """
    return not isinstance(value, str) and bool(_value_types(value) & (types - {"string"}))


def _read(text: str) -> tuple[bool, Any]:
    """Read JSON, or else what Python writes for it; says whether anything was read."""
    body = text.strip()
    try:
        return True, json.loads(body, parse_constant=_refuse)
    except (ValueError, RecursionError):
        pass
    if body in ("True", "False", "None"):
        return True, {"True": True, "False": False, "None": None}[body]
    if body[:1] in ("[", "{", "(") and len(body) <= MAX_LITERAL:
        try:
            value = ast.literal_eval(body)
            return True, json.loads(json.dumps(value, allow_nan=False))
        except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
            pass
    return False, None


def _refuse(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")


