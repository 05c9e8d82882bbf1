"""A further call, tried: whether an answer of near misses is over, or another call is due.

Small models write the first call that a question needs, and end. After results they write it again. So the choice between
another call and the end is made deliberately: behind what they wrote, they are made to begin one more call, in the wrapper that
they use, unlike all before it. It counts if its values say something that was asked and that no call has said yet
(:mod:`.course`), and if the model was not at a loss for them. Otherwise nobody sees it.

Calls in the template's own syntax are never followed by a trial.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from llm_magics.events import ModelEnd
from llm_magics.messages import ToolSpec

from .course import Course

MOST_TOKENS = 256
_LONGEST_LEAD = 120  # characters


@dataclass(frozen=True, slots=True)
class Trial:
    """One further call to try. ``lead`` is the text up to its name, e.g. ``{"name": "``; ``ids`` are the answer's tokens before
    it; ``n_calls`` of the answer count already."""

    lead: str
    ids: tuple[int, ...]
    tools: tuple[ToolSpec, ...]
    course: Course
    n_calls: int


def next_trial(end: ModelEnd, text: str, ids: Sequence[int], tools: Sequence[ToolSpec], course: Course) -> Trial | None:
    """What to try after an answer, from the turn's ``course`` before it; None if the answer is over.

    After calls, that is one more of them; after a call in vain behind results, a call of another tool. ``text`` and ``ids`` are
    the answer as the model wrote it.
    """
    message = end.message
    if end.stopped or end.finish_reason == "length" or message.reasoning or message.text.strip():
        return None
    names = "|".join(re.escape(tool.name) for tool in tools)
    found = re.search(rf"(?<!\w)(?:{names})(?!\w)", text) if names else None
    if found is None or found.start() > _LONGEST_LEAD or not all(call.recovered for call in message.tool_calls):
        return None
    lead, calls = text[: found.start()].lstrip(), message.tool_calls
    if calls:
        return Trial(lead, tuple(ids), tuple(tools), course.after(calls), len(calls))
    others = tuple(tool for tool in tools if tool.name != found.group())
    return Trial(lead, (), others, course, 0) if end.vain and course.begun and others else None
