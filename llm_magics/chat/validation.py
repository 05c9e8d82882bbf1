"""Check finished JSON values against their schemas.

The second half of ``chat/schema.py``: what a grammar cannot enforce is checked here. Bounded like the rest: regular expressions
in linear time, references that branch without end cut off, nothing fetched.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ..errors import SchemaError
from .regex import has_linear_regex, linear_search
from .schema import check_size

MAX_TEXT = 10_000  # characters looked at by a pattern that needs Python's own regular expressions
MAX_CHECKS = 100_000  # keywords looked at in one validation


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
    return compiled.search(text[:MAX_TEXT]) is not None


def _may_explode(pattern: str) -> bool:
    """Does a pattern repeat something that itself repeats or branches? Only such patterns backtrack exponentially."""
    from re import _parser  # type: ignore[attr-defined]  # the parse tree has no public name

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
