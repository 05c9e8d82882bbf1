"""Lays out an answer that is JSON. Only white space changes: numbers keep their digits, and repeated keys stay."""

from __future__ import annotations

import json
import re

_BEGINS = re.compile(r'\s*(\{\s*["}]|\[\s*[\[{"\]0-9tfn-])')  # e.g. {"title" or [1, but not [a link](...)
_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*(?:"|\\?$)|[\[\]{},:]|[0-9truefalsnE.+-]+|\s+', re.S)


def json_lines(text: str) -> str | None:
    r"""Lay out a JSON object or array, perhaps incomplete, e.g. ``{"a": [1, 2]}`` as ``{\n  "a": [1, 2]\n}``; else None."""
    if not _BEGINS.match(text):
        return None
    tokens = _tokens(text.strip())
    return None if tokens is None else _laid_out(tokens)


def json_summary(text: str) -> str:
    """Describe a JSON text, e.g. "JSON, 3 members"; "JSON" while it is incomplete."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return "JSON"
    what = "member" if isinstance(value, dict) else "item"
    return f"JSON, {len(value)} {what}{'' if len(value) == 1 else 's'}"


def _tokens(text: str) -> list[str] | None:
    """Split into strings, brackets, marks and bare words; None if the text cannot begin one JSON value."""
    tokens: list[str] = []
    depth, at = 0, 0
    while at < len(text):
        if tokens and depth == 0:
            return None  # something follows the value
        found = _TOKEN.match(text, at)
        if found is None:
            return None
        at = found.end()
        token = found[0]
        depth += (token in "[{") - (token in "]}") if len(token) == 1 else 0
        if not token.isspace():
            tokens.append(token)
    return tokens


def _laid_out(tokens: list[str]) -> str:
    lines, depth = [""], 0
    flat: list[bool] = []  # for each open bracket: whether it fits on one line
    for at, token in enumerate(tokens):
        if token in ("[", "{"):
            flat.append(_is_flat(tokens, at) or bool(flat and flat[-1]))
            lines[-1] += token
            depth += 1
            if not flat[-1]:
                lines.append("  " * depth)
        elif token in ("]", "}"):
            depth -= 1
            if flat and not flat.pop():
                lines.append("  " * depth)
            lines[-1] += token
        elif token == ",":
            lines[-1] += "," if flat and not flat[-1] else ", "
            if flat and not flat[-1]:
                lines.append("  " * depth)
        else:
            lines[-1] += ": " if token == ":" else token
    return "\n".join(line.rstrip() for line in lines)


def _is_flat(tokens: list[str], at: int) -> bool:
    """Whether a bracket fits on one line: an empty object, or a short list without nesting."""
    if tokens[at] == "{":
        return tokens[at + 1 : at + 2] == ["}"]
    length = 0
    for token in tokens[at + 1 :]:
        if token == "]":
            return True
        length += len(token) + 1
        if token in ("[", "{") or length > 80:
            return False
    return False
