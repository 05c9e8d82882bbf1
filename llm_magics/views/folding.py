"""Folds neighbouring calls that did not run, e.g. repeated ones, into one quiet row; denied calls keep their own row."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeAlias

from llm_magics.segments import Segment, TextSegment, ToolSegment


@dataclass(frozen=True, slots=True)
class NotRun:
    """Neighbouring calls that did not run; ``repeated`` if each had been made before in the turn."""

    calls: tuple[ToolSegment, ...]
    repeated: bool

    @property
    def line(self) -> str:
        """E.g. ``4 repeated calls, not run``."""
        n = len(self.calls)
        return f"{n}{' repeated' if self.repeated else ''} call{'s' if n > 1 else ''}, not run"

    def is_same(self, other: object) -> bool:
        """Whether ``other`` holds the same objects."""
        if not isinstance(other, NotRun) or (len(self.calls), self.repeated) != (len(other.calls), other.repeated):
            return False
        return all(mine is theirs for mine, theirs in zip(self.calls, other.calls, strict=True))


Item: TypeAlias = Segment | NotRun


def did_not_run(segment: Segment) -> bool:
    """Whether this is a call that did not run although nobody denied it."""
    return isinstance(segment, ToolSegment) and segment.state == "refused" and not segment.is_error


def folded(segments: Iterable[Segment]) -> list[Item]:
    """The segments, with neighbouring calls that did not run as one item; blank text between them is dropped."""
    items: list[Item] = []
    made: set[tuple[str, str]] = set()
    blank: list[Segment] = []
    for segment in segments:
        if isinstance(segment, TextSegment) and not segment.text.strip() and items and isinstance(items[-1], NotRun):
            blank.append(segment)
            continue
        if isinstance(segment, ToolSegment) and did_not_run(segment):
            repeated = segment.call.key in made
            last = items[-1] if items else None
            if isinstance(last, NotRun):
                items[-1] = NotRun((*last.calls, segment), last.repeated and repeated)
            else:
                items.append(NotRun((segment,), repeated))
            blank.clear()
        else:
            items += [*blank, segment]
            blank.clear()
        if isinstance(segment, ToolSegment):
            made.add(segment.call.key)
    return [*items, *blank]
