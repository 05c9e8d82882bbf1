"""Tools that are generators: what they yield is progress, and what they return, or else all they yielded, is their value."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any


def collect(steps: Generator[Any, None, Any]) -> Generator[Any, None, Any]:
    """Pass a generator's progress on; its value is what it returns, or else all it yielded."""
    seen: list[Any] = []
    try:
        while True:
            try:
                item = next(steps)
            except StopIteration as stop:
                return yielded(seen) if stop.value is None else stop.value
            seen.append(item)
            yield item
    finally:
        steps.close()


def yielded(items: list[Any]) -> Any:
    """The value of a tool that only yielded: text as lines, anything else as a list."""
    if not items:
        return None
    return "\n".join(items) if all(isinstance(item, str) for item in items) else items
