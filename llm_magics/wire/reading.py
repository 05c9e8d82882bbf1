"""Reads values from wire dictionaries; errors name the path of the wrong value."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from llm_magics.errors import WireError

Json: TypeAlias = dict[str, Any]

EXTENSION = "llm_magics"  # the key of all that OpenAI's form has no words for


def wrong(path: str, wanted: str, got: object) -> WireError:
    kind = "missing" if got is None else f"{type(got).__name__} {str(got)[:40]!r}"
    return WireError(f"{path} must be {wanted}, but is {kind}.", "Correct the JSON that was sent.")


def as_object(value: object, path: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise wrong(path, "an object", value)
    return value


def as_list(value: object, path: str) -> Sequence[Any]:
    if not isinstance(value, list | tuple):
        raise wrong(path, "an array", value)
    return value


def as_string(value: object, path: str, *, default: str | None = None) -> str:
    if value is None and default is not None:
        return default
    if not isinstance(value, str):
        raise wrong(path, "a string", value)
    return value


def as_integer(value: object, path: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise wrong(path, "an integer", value)
    return value
