"""Stores a tool's picture once in a saved cell: in the HTML, which every reader shows. The transcript refers to it.

``{"image/png": {"html": 2}}`` in a tool segment's ``outputs`` is picture number 2 (from 0) in the same output's ``text/html``,
e.g. ``<img src="data:image/png;base64,iVBORw0K..."``. A picture that is not in the HTML stays in the transcript.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

_PICTURE = re.compile(r'<img src="data:(image/(?:png|jpeg));base64,([A-Za-z0-9+/=]+)"')


def pointing(transcript: dict[str, Any], html: str) -> dict[str, Any]:
    """A transcript's JSON with each picture replaced by its number in ``html``."""
    places = {found.groups(): number for number, found in reversed(list(enumerate(_PICTURE.finditer(html))))}

    def number(kind: str, data: Any) -> Any:
        at = places.get((kind, "".join(data.split()))) if isinstance(data, str) else None
        return data if at is None else {"html": at}

    return _mapped(transcript, number) if places else transcript


def resolved(transcript: Any, html: Any) -> Any:
    """A transcript's JSON with its pictures restored; invalid references, and anything but a transcript, stay unchanged."""
    text = "".join(map(str, html)) if isinstance(html, list) else html
    found = [match.groups() for match in _PICTURE.finditer(text)] if isinstance(text, str) else []

    def picture(kind: str, data: Any) -> Any:
        at = data.get("html") if isinstance(data, Mapping) else None
        return found[at][1] if type(at) is int and 0 <= at < len(found) and found[at][0] == kind else data

    return _mapped(transcript, picture) if found else transcript


def _mapped(transcript: Any, change: Callable[[str, Any], Any]) -> Any:
    segments = transcript.get("segments") if isinstance(transcript, dict) else None
    if not isinstance(segments, list):
        return transcript
    return {**transcript, "segments": [_segment(segment, change) for segment in segments]}


def _segment(segment: Any, change: Callable[[str, Any], Any]) -> Any:
    outputs = segment.get("outputs") if isinstance(segment, dict) else None
    if not isinstance(outputs, list):
        return segment
    return {**segment, "outputs": [_output(output, change) for output in outputs]}


def _output(output: Any, change: Callable[[str, Any], Any]) -> Any:
    if not isinstance(output, dict):
        return output
    return {kind: change(kind, data) if kind.startswith("image/") else data for kind, data in output.items()}
