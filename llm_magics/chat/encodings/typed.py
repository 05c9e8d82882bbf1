"""The type of a value whose text alone does not say it: the schema decides.

Tagged syntaxes write the number 30 and the string "30" alike. A value gets the type that its schema admits; if no other type
fits and the schema admits a string, it is a string.
"""

from __future__ import annotations

import ast
import json
from typing import Any

from llm_magics.chat.scan.reader import Malformed, decoded
from llm_magics.errors import SchemaError
from llm_magics.messages import ToolSpec
from llm_magics.schema.nodes import Normalised, json_type
from llm_magics.schema.normal import parameters


def typed_arguments(tool: ToolSpec | None) -> Normalised:
    """The schema of a tool's arguments. An invalid one admits everything here; the grammar reports its error."""
    try:
        return parameters(tool.parameters if tool else {})
    except SchemaError:
        return parameters({})


def json_of(text: str, types: frozenset[str]) -> str:
    """The JSON text of a value written as bare text, given the types that it may have."""
    if types == {"string"}:
        return json.dumps(text, ensure_ascii=False)
    for read in (_as_json, _as_python):
        found = read(text.strip())
        if found is not None and _admits(types, found[1]):
            return found[0]
    if "string" in types:
        return json.dumps(text, ensure_ascii=False)
    quoted = _as_json(text.strip())
    if quoted is not None and isinstance(quoted[1], str):  # quoted, but no string is expected: "3", "[1, 2]"
        within = _as_json(quoted[1].strip())
        if within is not None and _admits(types, within[1]):
            return within[0]
    found = _as_json(text.strip()) or _escaped(text.strip(), types) or _as_python(text.strip())
    return found[0] if found is not None else json.dumps(text, ensure_ascii=False)


def _escaped(text: str, types: frozenset[str]) -> tuple[str, Any] | None:
    """JSON of an expected type, escaped as in a string: ``[{\\"a\\": 1}]``."""
    if "\\" not in text:
        return None
    inner = _as_json(f'"{text}"')
    found = _as_json(inner[1].strip()) if inner else None
    return found if found is not None and _admits(types, found[1]) else None


def _admits(types: frozenset[str], value: Any) -> bool:
    kind = json_type(value)
    return kind in types or (kind == "integer" and "number" in types)


def _as_json(text: str) -> tuple[str, Any] | None:
    try:
        return text, decoded(text)
    except Malformed:
        return None


def _as_python(text: str) -> tuple[str, Any] | None:
    """Python's spelling: True, None, 'single quotes'. Long text is not a literal."""
    if len(text) > 20_000:
        return None
    try:
        value = ast.literal_eval(text)
        return json.dumps(value, ensure_ascii=False), json.loads(json.dumps(value))
    except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
        return None
