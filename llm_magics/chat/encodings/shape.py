"""The shape of a call as a JSON object, whatever it calls and in whose field names."""

from __future__ import annotations

import re

from .syntax import JsonCall, ToolSyntax

_FUNCTION = r'("type"\s*:\s*"function"\s*,\s*)?("function"\s*:\s*\{\s*)?'
_NAME = r'"[^"\n]{1,80}"'


def field_sets(syntax: ToolSyntax) -> list[JsonCall]:
    """The field names that a call may use: the template's own, then those of the OpenAI API and of Llama."""
    sets = [syntax.call] if isinstance(syntax.call, JsonCall) else []
    for arguments in ("arguments", "parameters"):
        function = ((("type",), '"function"'),)
        sets += [JsonCall(arguments=(arguments,)), JsonCall(("function", "name"), ("function", arguments), constants=function)]
    return list({(f.name, f.arguments, f.constants): f for f in sets}.values())


def argument_keys(syntax: ToolSyntax) -> list[str]:
    """The keys that a call may have for its arguments, as regular expressions."""
    return list(dict.fromkeys(re.escape(f.arguments[-1]) for f in field_sets(syntax)))


def shape_of_call(syntax: ToolSyntax) -> str:
    """A regular expression for the beginning of a call, with the field names that a call may use. Slashes need no escape."""
    names = "|".join(dict.fromkeys(re.escape(f.name[-1]) for f in field_sets(syntax)))
    arguments = "|".join(argument_keys(syntax))
    return rf'\{{{{1,2}}\s*{_FUNCTION}"({names})"\s*:\s*{_NAME}\s*,\s*"({arguments})"\s*:'
