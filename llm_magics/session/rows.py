"""From a list, a Series, a DataFrame or any iterable to the rows of a map: one prompt and one label each.

A template names the row's fields in single braces: ``{column}`` of a DataFrame or a mapping, ``{}`` (or the Series' own name)
for a row that is one value. ``{{`` and ``}}`` are literal braces; any other brace, e.g. in JSON, stays as it is. Fields are
written with ``str``, never evaluated.
"""

from __future__ import annotations

import difflib
import re
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from llm_magics.errors import LLMMagicsError, OptionError

_FIELD = re.compile(r"\{\{|\}\}|\{([^{}\n]*)\}")  # e.g. {text}, {}, {first name}, {{
_MISSING = "There is no value in this row."


@dataclass(frozen=True, slots=True)
class Rows:
    """The rows of a map. A prompt may be the error that explains why its row has none. ``index`` is pandas' own, or None."""

    labels: tuple[Any, ...]
    prompts: tuple[str | LLMMagicsError, ...]
    index: Any = None
    name: Any = None


def read_rows(given: Any, template: str | None = None) -> Rows:
    """Read the rows of a Series, a DataFrame (whose columns the template names), or any finite iterable of texts or mappings.

    Raises OptionError if ``given`` cannot be rows, or if the template names a field that no row has.
    """
    pandas = sys.modules.get("pandas")  # imported by whoever made the Series
    if pandas is not None and isinstance(given, pandas.DataFrame):
        if template is None:
            raise OptionError("A DataFrame's rows need a template.", 'Give template="... {column} ...", or map one column.')
        fields = [str(column) for column in given.columns]
        rows: list[Any] = [dict(zip(fields, row, strict=True)) for row in given.itertuples(index=False, name=None)]
        return Rows(tuple(given.index), _prompts(rows, template), given.index)
    if pandas is not None and isinstance(given, pandas.Series):
        names = ("", str(given.name)) if isinstance(given.name, str) else ("",)
        return Rows(tuple(given.index), _prompts(list(given), template, names), given.index, given.name)
    if isinstance(given, (str, bytes, Mapping)) or not isinstance(given, Iterable):
        raise OptionError(f"A map needs rows, not {type(given).__name__}.", "Give a list, a Series or a DataFrame.")
    listed = list(given)
    return Rows(tuple(range(len(listed))), _prompts(listed, template))


def _prompts(rows: list[Any], template: str | None, names: tuple[str, ...] = ("",)) -> tuple[str | LLMMagicsError, ...]:
    if template is None:
        return tuple(_plain(row) for row in rows)
    known = dict.fromkeys(name for row in rows for name in _fields(row, names))
    _check(template, known if rows else None)
    return tuple(_filled(template, _fields(row, names), known) for row in rows)


def _plain(row: Any) -> str | LLMMagicsError:
    if isinstance(row, Mapping):
        return OptionError("A row that is a mapping needs a template.", 'Give template="... {key} ...".')
    return OptionError(_MISSING, "Fill it, or leave the row out.") if _missing(row) else str(row)


def _fields(row: Any, names: tuple[str, ...]) -> dict[str, Any]:
    return {str(key): value for key, value in row.items()} if isinstance(row, Mapping) else dict.fromkeys(names, row)


def _check(template: str, known: Mapping[str, Any] | None) -> None:
    """Refuse a field that no row has, and a template without any field: every prompt would be the same."""
    written = [found[1] for found in _FIELD.finditer(template) if found[1] is not None]
    for name in written:
        if known is not None and name not in known and (name.isidentifier() or not name):
            likely = difflib.get_close_matches(name, known, 1) or list(known)
            raise OptionError(f"The template's {{{name}}} is not a field of these rows.", f"Did you mean {_listed(likely)}?")
    if known is not None and not any(name in known for name in written):
        raise OptionError("The template has no place for the row.", f"Write {_listed(known)} where it belongs.")


def _listed(fields: Iterable[str]) -> str:
    return " or ".join("{" + field + "}" for field in fields)


def _filled(template: str, fields: Mapping[str, Any], known: Mapping[str, Any]) -> str | LLMMagicsError:
    missing = []

    def written(found: re.Match[str]) -> str:
        if found[1] is None:
            return found[0][0]
        if found[1] not in known:
            return found[0]
        value = fields.get(found[1])
        if _missing(value):
            missing.append(found[1])
        return str(value)

    text = _FIELD.sub(written, template)
    named = f" ({missing[0]!r} is missing)" if missing and missing[0] else ""
    return OptionError(_MISSING[:-1] + named + ".", "Fill it, or leave the row out.") if missing else text


def _missing(value: Any) -> bool:
    """Whether this is None, NaN, NaT or pandas' NA."""
    try:
        return value is None or bool(value != value)  # NaN and NaT differ from themselves
    except (TypeError, ValueError):
        return type(value).__name__ == "NAType"
