"""Check finished JSON values against their schemas.

The second half of ``schema/normal.py``: what a grammar cannot enforce is checked here, by the ``jsonschema-rs`` library. It is
native code that nothing can interrupt, so everything is bounded before it runs: the steps (:mod:`.steps`), the backtracking of
a pattern, the depth and the size of schema and value. Nothing is fetched.
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
MAX_DIGITS = 4_000  # of an integer; Python reads no more from text either
MAX_REMARKS = 20
_SHOWN = 80  # characters of a value in a remark
_MASK = "\0"  # what stands for a value in the library's messages, which would else repeat all of it


def validate(value: Any, schema: Mapping[str, Any] | bool) -> tuple[str, ...]:
    """Say what is wrong with a JSON value under a schema; nothing where it is valid.

    Each remark names the place, e.g. '$.days[0]: "x" is not of type "integer"', so that a model can mend its call; there are
    at most ``MAX_REMARKS``. Every schema is read as 2020-12, with what older drafts spelt differently; a ``format`` is an
    annotation. Raises SchemaError where the schema cannot be used, or takes more than a bounded number of steps.
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
    """Refuse a search that does not end within its limit: under ``if`` or ``contains`` the library takes it for no match."""
    for error in _validator({"pattern": pattern}).iter_errors(text):
        if type(error.kind).__name__ != "Pattern":
            raise SchemaError(f"The pattern {pattern[:80]!r} takes too many steps to check.", "Simplify the pattern.")


@lru_cache(maxsize=MAX_KEPT)
def _validator_of(read: Plain) -> Any:
    return _validator(read.schema)


def _validator(schema: Any) -> Any:
    """Compile a schema in the dialect. Raises SchemaError where it is none."""
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


# --- values -----------------------------------------------------------------------------------------------------------------


def _oddities(value: Any) -> Iterator[str]:
    """What makes a value no JSON value, or one too deep to look at; without recursion."""
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
    """A copy in plain dicts and lists, where half a surrogate pair, which UTF-8 cannot spell, is one character, U+FFFD."""
    if isinstance(value, str):
        return value if value.isascii() else "".join("\ufffd" if "\ud800" <= c <= "\udfff" else c for c in value)
    if isinstance(value, Mapping):
        return {_whole(k): _whole(v) for k, v in value.items()}
    return [_whole(v) for v in value] if isinstance(value, list | tuple) else value


# --- remarks ----------------------------------------------------------------------------------------------------------------


def _said(error: Any, value: Any = None) -> str:
    """What the library says, with long values cut short: the reason comes after them."""
    unexpected: list[Any] = []
    if error.kind.name in ("additionalProperties", "unevaluatedProperties"):
        unexpected = list(error.kind.unexpected)
    elif error.kind.name == "falseSchema":
        place = reduce(getitem, error.instance_path, value)
        if error.schema_path[-1:] != ["additionalProperties"] or not isinstance(place, dict):
            return "nothing is allowed here"
        unexpected = list(place)  # the schema declares no property at all
    if unexpected:
        return ", ".join(f"the property {_shown(key)} is not allowed" for key in unexpected[:MAX_REMARKS])
    return str(error.message).replace(_MASK, _shown(error.instance))[:300]


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


def _place(path: Any) -> str:
    """A place in a value as JSONPath writes it, e.g. ``$.days[0]``."""
    steps = (f"[{s}]" if isinstance(s, int) else f".{s}" if s.isidentifier() else f"[{s!r}]" for s in path)
    return "$" + "".join(steps)
