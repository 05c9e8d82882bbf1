"""Write tool calls in a template's syntax: what the template would have written itself.

Used where a template cannot write calls (they go into the content as text), to check an analysis against the template's own
text, and in tests. Strings keep their origin: markers are the template's, names and arguments the model's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llm_magics.chat.grammar.text import quoted
from llm_magics.chat.syntax.origin import concat
from llm_magics.chat.syntax.syntax import escape
from llm_magics.messages import ToolCall

from .encoding import dumps, outside
from .syntax import JsonCall, KeyedCall, NamedCall, ToolSyntax


def write_calls(syntax: ToolSyntax, calls: Sequence[ToolCall]) -> str:
    """Write a message's calls, from ``section_start`` to ``section_end``."""
    written = [_call(syntax, call, i) for i, call in enumerate(calls)]
    pieces = [syntax.section_start, "[" if syntax.array else ""]
    for i, text in enumerate(written):
        pieces += [(syntax.separator or ", ") if i and syntax.array else syntax.separator if i else "", text]
    return concat([*pieces, "]" if syntax.array else "", syntax.section_end])


def _call(syntax: ToolSyntax, call: ToolCall, index: int) -> str:
    arguments = syntax.arguments.write(call.arguments)
    match syntax.call:
        case JsonCall() as how:
            parts = {"name": dumps(call.name), "arguments": concat(arguments), "id": dumps(call.id)}
            body = [_object(how.members(parts, dict(how.constants)))]
        case KeyedCall():
            body = ["{", dumps(call.name), ": ", *arguments, "}"]
        case NamedCall() as how:
            body = [*_name(how, call, index), *arguments]
    return concat([syntax.call_start, *body, syntax.call_end])


def _name(how: NamedCall, call: ToolCall, index: int) -> list[str]:
    name, call_id = outside(escape(call.name, how.escapes)), outside(call.id)
    if how.id_place == "carries":
        given = call_id if call.name in call.id else outside(how.id_form.format(name=call.name, index=index))
        return [given, how.name_end]
    pieces = [call_id, how.id_end] if how.id_place == "before" else []
    pieces += [name]
    if how.index_start:
        pieces += [how.index_start, str(index + how.index_base)]
    if how.name_again:
        pieces += [how.name_again, name]
    pieces += [how.name_end]
    return [*pieces, call_id, how.id_end] if how.id_place == "after" else pieces


def _object(members: dict[str, Any]) -> str:
    pieces: list[str] = ["{"]
    for key, value in members.items():
        pieces += [", " if len(pieces) > 1 else "", quoted(key), ": ", _object(value) if isinstance(value, dict) else value]
    return concat([*pieces, "}"])


def json_type(value: Any) -> str:
    """The JSON schema name of a value's type, e.g. "integer"."""
    names = {dict: "object", list: "array", str: "string", bool: "boolean", int: "integer", float: "number"}
    return names.get(type(value), "null")
