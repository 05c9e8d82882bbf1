"""The front end's request for the cell that runs: its metadata and header, empty in a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def parent_metadata(shell: Any) -> Mapping[str, Any]:
    """E.g. ``cellId`` and ``tags``."""
    return _part(shell, "metadata")


def parent_header(shell: Any) -> Mapping[str, Any]:
    """The header of the request, e.g. ``session`` and ``msg_id``."""
    return _part(shell, "header")


def _part(shell: Any, name: str) -> Mapping[str, Any]:
    parent = shell.get_parent() if hasattr(shell, "get_parent") else None
    part = parent.get(name) if isinstance(parent, Mapping) else None
    return part if isinstance(part, Mapping) else {}
