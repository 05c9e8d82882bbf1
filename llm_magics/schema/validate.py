"""Check finished JSON values against their schemas, also the keywords that a grammar cannot enforce.

The ``jsonschema-rs`` library does the work. It is native code that cannot be interrupted, so all is bounded before it runs: the
steps (:mod:`.steps`), the backtracking of a pattern, the depth and size of schema and value. Nothing is fetched.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from functools import lru_cache, reduce
from operator import getitem
from typing import Any

from llm_magics.errors import SchemaError

from .dialect import MAX_KEPT, Plain, plain
from .steps import MAX_BACKTRACKS, check_steps

MAX_VALUE_DEPTH = 200
MAX_DIGITS = 4_000  # of an integer; Python parses about as many
MAX_REMARKS = 20
_SHOWN = 80  # characters of a value in a remark
_MASK = "\0"  # replaces a value in the library's messages, which would repeat all of it


def validate(value: Any, schema: Mapping[str, Any] | bool) -> tuple[str, ...]:
    """The faults of a JSON value under a schema; empty if the value is valid.

    Each remark names the place, e.g. '$.days[0]: "x" is not of type "integer"', so that a model can fix its call; there are at
    most ``MAX_REMARKS``. A ``format`` is an annotation. Raises SchemaError if the schema cannot be used, or takes too many
    steps.
    """
    odd = next(_oddities(value), "")
    if odd:
        return (odd,)
    value = _whole(value)
    try:
        read = plain(schema)
        for pattern, text in check_steps(read, value):
            _check_search(pattern, text)
        errors = list(_validator_of(read).iter_errors(value))
    except RecursionError as error:
        raise SchemaError("The JSON schema is nested too deeply.", "Simplify it.") from error
    remarks = sorted((_place(found.instance_path), _said(found, value)) for found in errors)
    return tuple(f"{place}: {said}" for place, said in dict.fromkeys(remarks[:MAX_REMARKS]))


def _check_search(pattern: str, text: str) -> None:
    """Refuse a search that exceeds its limit: under ``if`` or ``contains``, the library would count it as no match."""
    for error in _validator({"pattern": pattern}).iter_errors(text):
        if type(error.kind).__name__ != "Pattern":
            raise SchemaError(f"The pattern {pattern[:80]!r} takes too many steps to check.", "Simplify the pattern.")


@lru_cache(maxsize=MAX_KEPT)
def _validator_of(read: Plain) -> Any:
    return _validator(read.schema)


def _validator(schema: Any) -> Any:
    """Compile a schema of the dialect. Raises SchemaError if it is invalid."""
    import jsonschema_rs

    patterns = jsonschema_rs.FancyRegexOptions(backtrack_limit=MAX_BACKTRACKS)
    options: dict[str, Any] = {"pattern_options": patterns, "mask": _MASK, "offline": True, "validate_formats": False}
    try:
        return jsonschema_rs.Draft202012Validator(schema, **options)
    except jsonschema_rs.ValidationError as error:
        what = "#" + "".join(f"/{step}" for step in error.instance_path)
        if type(error.kind).__name__ == "Format":  # the only format of a schema itself that is checked
            what += f" is not a valid regular expression, or is too large: {_shown(error.instance)}"
        else:
            what += f": {_said(error)}"
        raise SchemaError(f"The JSON schema is not valid: {what}.", "Correct it.") from error
    except (ValueError, TypeError, OverflowError, jsonschema_rs.ReferencingError) as error:
        raise SchemaError(f"The JSON schema cannot be used: {str(error).splitlines()[0][:200]}.", "Correct it.") from error


def _oddities(value: Any) -> Iterator[str]:
    """The parts that are not JSON, or nested too deeply; without recursion."""
    stack: list[tuple[Any, tuple[str | int, ...]]] = [(value, ())]
    while stack:
        part, path = stack.pop()
        if len(path) > MAX_VALUE_DEPTH:
            yield f"$: the value is nested more than {MAX_VALUE_DEPTH} deep"
        elif isinstance(part, Mapping):
            if odd := next((key for key in part if not isinstance(key, str)), None):
                yield f"{_place(path)}: the key {odd!r} is not a string"
            stack.extend((v, (*path, k)) for k, v in part.items())
        elif isinstance(part, list | tuple):
            stack.extend((v, (*path, i)) for i, v in enumerate(part))
        elif isinstance(part, float) and not math.isfinite(part):
            yield f"{_place(path)}: {part} is not a JSON number"
        elif isinstance(part, int) and part.bit_length() > MAX_DIGITS * 10 // 3:
            yield f"{_place(path)}: the number has more than {MAX_DIGITS:,} digits"
        elif part is not None and not isinstance(part, str | int | float):
            yield f"{_place(path)}: {type(part).__name__} is not a JSON value"


def _whole(value: Any) -> Any:
    """A copy in plain dicts and lists, with U+FFFD for half a surrogate pair, which UTF-8 cannot encode."""
    if isinstance(value, str):
        return value if value.isascii() else "".join("\ufffd" if "\ud800" <= c <= "\udfff" else c for c in value)
    if isinstance(value, Mapping):
        return {_whole(k): _whole(v) for k, v in value.items()}
    return [_whole(v) for v in value] if isinstance(value, list | tuple) else value


def _said(error: Any, value: Any = None) -> str:
    """The library's message with long values cut short, because the reason comes behind the value."""
    unexpected: list[Any] = []
    if error.kind.name in ("additionalProperties", "unevaluatedProperties"):
        unexpected = list(error.kind.unexpected)
    elif error.kind.name == "falseSchema":
        place = reduce(getitem, error.instance_path, value)
        if error.schema_path[-1:] != ["additionalProperties"] or not isinstance(place, dict):
            return "nothing is allowed here"
        unexpected = list(place)  # the schema declares no property
    if unexpected:
        return ", ".join(f"the property {_shown(key)} is not allowed" for key in unexpected[:MAX_REMARKS])
    return str(error.message).replace(_MASK, _shown(error.instance))[:300]


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


def _place(path: Any) -> str:
    """A place in a value as JSONPath, e.g. ``$.days[0]``."""
    steps = (f"[{s}]" if isinstance(s, int) else f".{s}" if s.isidentifier() else f"[{s!r}]" for s in path)
    return "$" + "".join(steps)
