"""Write tool calls in a template's syntax: what the template would have written itself.

Used where a template cannot write calls (they go into the content as text), to check an analysis against the template's own
text, and in tests. Strings keep their origin: markers are the template's, names and arguments the model's.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from llm_magics.chat.syntax.origin import concat, mark
from llm_magics.chat.syntax.syntax import JsonFields, LiteralArguments, Shape, TaggedArguments, ToolSyntax, escape
from llm_magics.messages import ToolCall

_PYTHON = {True: "True", False: "False", None: "None"}


def write_calls(syntax: ToolSyntax, calls: Sequence[ToolCall]) -> str:
    """Write a message's calls, from ``section_start`` to ``section_end``."""
    written = [_call(syntax, call, i) for i, call in enumerate(calls)]
    pieces = [syntax.section_start, "[" if syntax.array else ""]
    for i, text in enumerate(written):
        pieces += [(syntax.separator or ", ") if i and syntax.array else syntax.separator if i else "", text]
    return concat([*pieces, "]" if syntax.array else "", syntax.section_end])


def _call(syntax: ToolSyntax, call: ToolCall, index: int) -> str:
    if syntax.shape in (Shape.JSON, Shape.GENERIC):
        body = [_fields(syntax.fields or JsonFields(), call)]
    elif syntax.shape is Shape.KEYED:
        body = ["{", _dumps(call.name), ": ", _json_arguments(syntax, call), "}"]
    else:
        body = [*_name(syntax, call, index), *_arguments(syntax, call)]
    return concat([syntax.call_start, *body, syntax.call_end])


def _name(syntax: ToolSyntax, call: ToolCall, index: int) -> list[str]:
    name, call_id = _outside(escape(call.name, syntax.escapes)), _outside(call.id)
    if syntax.id_place == "carries":
        given = call_id if call.name in call.id else _outside(syntax.id_form.format(name=call.name, index=index))
        return [given, syntax.name_end]
    pieces = [call_id, syntax.id_end] if syntax.id_place == "before" else []
    pieces += [name]
    if syntax.index_start:
        pieces += [syntax.index_start, str(index + syntax.index_base)]
    if syntax.name_again:
        pieces += [syntax.name_again, name]
    pieces += [syntax.name_end]
    return [*pieces, call_id, syntax.id_end] if syntax.id_place == "after" else pieces


def _arguments(syntax: ToolSyntax, call: ToolCall) -> list[str]:
    if syntax.tagged:
        return _tagged(syntax.tagged, members_of(call.arguments))
    if syntax.literal:
        return [_literal_object(syntax.literal, members_of(call.arguments), syntax.literal.open, syntax.literal.close)]
    return [_json_arguments(syntax, call)]


def members_of(arguments: str) -> dict[str, Any]:
    """The members of arguments given as JSON text; what is no object (a call that was cut off) is one member without a name."""
    try:
        value = json.loads(arguments or "{}")
    except ValueError:
        value = arguments
    return value if isinstance(value, dict) else {"": value}


def _json_arguments(syntax: ToolSyntax, call: ToolCall) -> str:
    text = call.arguments or "{}"
    return _outside(json.dumps(text, ensure_ascii=False) if syntax.arguments_as_text else text)


def _fields(fields: JsonFields, call: ToolCall) -> str:
    """One JSON object; nested paths become nested objects, members in the template's order."""
    arguments = call.arguments or "{}"
    values = {
        "name": (fields.name, _dumps(call.name)),
        "arguments": (fields.arguments, _dumps(arguments) if fields.arguments_as_text else _outside(arguments)),
        "id": (fields.id, _dumps(call.id)),
    }
    members: dict[str, Any] = {}
    for path, text in [*fields.constants, *(values[key] for key in fields.order)]:
        at = members
        for key in path[:-1]:
            at = at.setdefault(key, {})
        at[path[-1]] = text
    return _object(members)


def _object(members: dict[str, Any]) -> str:
    pieces: list[str] = ["{"]
    for key, value in members.items():
        pieces += [", " if len(pieces) > 1 else "", _plain(key), ": ", _object(value) if isinstance(value, dict) else value]
    return concat([*pieces, "}"])


def _tagged(tags: TaggedArguments, arguments: dict[str, Any]) -> list[str]:
    pieces: list[str] = []
    for key, value in arguments.items():
        pieces += [tags.separator if pieces else "", *_tag(tags, key, value)]
    return pieces


def _tag(tags: TaggedArguments, key: str, value: Any) -> list[str]:
    key = escape(key, tags.escapes)
    pieces = [tags.start, _outside(key)]
    if tags.type_start:
        pieces += [tags.type_start, dict(tags.type_names).get(json_type(value), "")]
    pieces += [tags.key_end, *_tag_value(tags, value), tags.end]
    return [*pieces, _outside(key), tags.end_tail] if tags.end_has_key else pieces


def _tag_value(tags: TaggedArguments, value: Any) -> list[str]:
    if tags.nested and isinstance(value, dict):
        return [piece for k, v in value.items() for piece in _tag(tags, k, v)]
    if tags.nested and isinstance(value, list):
        return [piece for v in value for piece in _tag(tags, tags.item, v)]
    if isinstance(value, str) and not tags.json_values:
        quoted = tags.raw_start and (tags.end.strip() in value or "<" in value or "&" in value)
        return [tags.raw_start, _outside(value), tags.raw_end] if quoted else [_outside(value)]
    if tags.constants == "python" and (value is None or isinstance(value, bool)):
        return [_PYTHON[value]]
    return [_dumps(value)]


def _literal_object(syntax: LiteralArguments, members: dict[str, Any], start: str, end: str, *, top: bool = True) -> str:
    pieces: list[str] = [start]
    for key, value in members.items():
        written = _outside(key) if top or syntax.bare_keys else _literal(syntax, key)
        pieces += [syntax.separator if len(pieces) > 1 else "", written, syntax.assign if top or syntax.bare_keys else ": "]
        alike = top and syntax.quotes_all and not syntax.escapes and not isinstance(value, str)
        pieces += [syntax.quote_start, _dumps(value), syntax.quote_end] if alike else [_literal(syntax, value)]
    return concat([*pieces, end])


def _literal(syntax: LiteralArguments, value: Any) -> str:
    if isinstance(value, dict):
        return _literal_object(syntax, value, "{", "}", top=False)
    if isinstance(value, list):
        items = [piece for v in value for piece in (syntax.separator, _literal(syntax, v))]
        return concat(["[", *items[1:], "]"])
    if isinstance(value, str):
        text = json.dumps(value, ensure_ascii=False)[1:-1] if syntax.escapes else value
        if syntax.escapes and syntax.quote_end == "'":
            text = text.replace('\\"', '"').replace("'", "\\'")
        return concat([syntax.quote_start, _outside(text), syntax.quote_end])
    if syntax.constants == "python" and (value is None or isinstance(value, bool)):
        return _PYTHON[value]
    return _dumps(value)


def json_type(value: Any) -> str:
    """The JSON schema name of a value's type, e.g. "integer"."""
    names = {dict: "object", list: "array", str: "string", bool: "boolean", int: "integer", float: "number"}
    return names.get(type(value), "null")


def _dumps(value: Any) -> str:
    return _outside(json.dumps(value, ensure_ascii=False))


def _plain(value: str) -> str:
    return json.dumps(value, ensure_ascii=False)


def _outside(text: str) -> str:
    return mark(text, "assistant")
