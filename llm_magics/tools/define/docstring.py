"""What a docstring tells a model: the summary, and a description (and perhaps a type) for each parameter."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

_TYPES: Mapping[str, Any] = {
    "str": str, "string": str, "text": str, "int": int, "integer": int, "float": float, "number": float,
    "bool": bool, "boolean": bool, "list": list, "array": list, "dict": dict, "object": dict,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Documentation:
    """``types`` holds plain types that the docstring names, for parameters without an annotation."""

    summary: str = ""
    parameters: Mapping[str, str] = field(default_factory=dict)
    types: Mapping[str, Any] = field(default_factory=dict)


def read_docstring(text: str) -> Documentation:
    """Read a Google, NumPy or reST docstring; one that follows none of them is all summary."""
    if not text.strip():
        return Documentation()
    from docstring_parser import ParseError, parse

    try:
        parsed = parse(text)
    except ParseError:
        return Documentation(text.strip())
    summary = "\n\n".join(part.strip() for part in (parsed.short_description, parsed.long_description) if part)
    described = {p.arg_name.strip("*`"): " ".join((p.description or "").split()) for p in parsed.params}
    types = {p.arg_name: _TYPES[word] for p in parsed.params if (word := _word(p.type_name)) in _TYPES}
    return Documentation(summary or text.strip(), {name: text for name, text in described.items() if text}, types)


def _word(type_name: str | None) -> str:
    """The bare type in e.g. ``int, optional`` or ``str (default: "x")``."""
    return (type_name or "").split(",")[0].split("(")[0].strip().lower()
