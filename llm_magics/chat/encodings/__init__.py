"""The ways in which templates write arguments, one module each. :func:`register` adds one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from .encoding import Encoding
from .json import JsonArguments
from .literal import LiteralArguments
from .tagged import TaggedArguments

_encodings: list[type[Encoding]] = [JsonArguments, LiteralArguments, TaggedArguments]


def encodings() -> tuple[type[Encoding], ...]:
    """The known encodings, in the order in which a template is searched for them."""
    return tuple(_encodings)


def register(encoding: type[Encoding]) -> None:
    """Add an encoding, which templates are searched for first."""
    _encodings.insert(0, encoding)


@contextmanager
def registered(encoding: type[Encoding]) -> Iterator[None]:
    """Know an encoding inside a ``with`` block."""
    register(encoding)
    try:
        yield
    finally:
        _encodings.remove(encoding)
