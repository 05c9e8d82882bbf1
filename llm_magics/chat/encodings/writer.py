"""Write tool calls in a template's syntax, as the template itself would.

Used for templates that cannot write calls (calls go into the content as text), to check an analysis against the template's own
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
    separator = syntax.separator or (", " if syntax.array else "")
    written = [piece for i, call in enumerate(calls) for piece in (separator if i else "", _call(syntax, call, i))]
    return concat([syntax.section_start, *(["[", *written, "]"] if syntax.array else written), syntax.section_end])


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
    before, after = ([call_id, how.id_end] if how.id_place == place else [] for place in ("before", "after"))
    number = [how.index_start, str(index + how.index_base)] if how.index_start else []
    again = [how.name_again, name] if how.name_again else []
    return [*before, name, *number, *again, how.name_end, *after]


def _object(members: dict[str, Any]) -> str:
    pieces: list[str] = ["{"]
    for key, value in members.items():
        pieces += [", " if len(pieces) > 1 else "", quoted(key), ": ", _object(value) if isinstance(value, dict) else value]
    return concat([*pieces, "}"])
