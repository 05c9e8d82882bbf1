"""Is a turn right? Which calls ran, whether others did, and whether the answer says what was asked for.

A task lists the calls that must run, those that may, and patterns that its answer must match. Each argument has the values that
count as right; "" among them says that it may be left out. Strings are compared without case and outer white space; a number
given as text counts as that number; an expression counts by its value.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from llm_magics.session.session import Reply
from llm_magics.tools.builtin.arithmetic import evaluate

RAW = re.compile(r'</?tool_call|<function|"arguments"\s*:|"parameters"\s*:\s*\{|\{\s*"name"\s*:\s*"\w+"\s*[,}]')
"""What a call looks like that was left in an answer, e.g. ``{"name": "weather", "arguments": {...}}``."""


@dataclass(frozen=True, slots=True)
class Worth:
    """An expression of this value, e.g. ``12*7`` for 84."""

    value: float


@dataclass(frozen=True, slots=True)
class Want:
    """One call: the tool, and per argument the values that count as right. ``must``: whether it has to run."""

    tool: str
    arguments: dict[str, Any]
    must: bool = True

    def matches(self, tool: str, given: Any) -> bool:
        if tool != self.tool or not isinstance(given, dict) or any(key not in self.arguments for key in given):
            return False
        return all(_right(given.get(key, ""), values) for key, values in self.arguments.items())


@dataclass(frozen=True, slots=True)
class Task:
    """What one person asks, one message after the other, with these tools on offer."""

    id: str
    asks: tuple[str, ...]
    tools: tuple[str, ...]
    wants: tuple[Want, ...]
    answer: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Call:
    """One call of a turn: ``ran`` if it gave a result."""

    tool: str
    arguments: Any
    ran: bool


@dataclass(frozen=True, slots=True)
class Verdict:
    """The five figures of one task, and the two that must not be: raw call text, an error."""

    calls: bool
    no_other: bool
    answered: bool
    in_vain: int
    raw: bool = False
    error: str = ""

    @property
    def all(self) -> bool:
        return self.calls and self.no_other and self.answered and not self.raw and not self.error


def judge(task: Task, calls: Sequence[Call], answers: Sequence[str], error: str = "") -> Verdict:
    """Judge what ran and what was said: ``answers`` are those of each message; the last one is compared."""
    ran = [call for call in calls if call.ran]
    left = list(task.wants)
    other = 0
    for call in ran:
        fitting = next((want for want in left if want.matches(call.tool, call.arguments)), None)
        other += fitting is None
        if fitting is not None:
            left.remove(fitting)
    said = plain(answers[-1]) if answers else ""
    return Verdict(
        calls=not any(want.must for want in left),
        no_other=other == 0,
        answered=bool(said.strip()) and all(re.search(pattern, said, re.I) for pattern in task.answer),
        in_vain=len(calls) - len(ran),
        raw=any(RAW.search(answer) for answer in answers),
        error=error,
    )


def plain(text: str) -> str:
    """An answer without what varies in writing numbers: thousands separators, and zeros behind the point."""
    text = re.sub(r"(?<=\d)[,\u00a0\u202f ](?=\d{3}\b)", "", text)
    return re.sub(r"(\d)\.0+\b", r"\1", text)


def calls_of(replies: Iterable[Reply]) -> list[Call]:
    """Every call of these turns, in order."""
    segments = [segment for reply in replies for segment in reply.trace.tools]
    return [Call(s.name, _parsed(s.arguments), s.state == "done" and not s.is_error) for s in segments]


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return None


def _right(given: Any, values: Any) -> bool:
    return any(_same(given, value) for value in (values if isinstance(values, list | tuple) else [values]))


def _same(given: Any, value: Any) -> bool:
    if isinstance(value, Worth):
        return _worth(given) is not None and abs((_worth(given) or 0) - value.value) < 1e-6
    if isinstance(value, re.Pattern):
        return isinstance(given, str) and value.search(given) is not None
    if isinstance(value, bool) or isinstance(given, bool):
        return given is value
    if isinstance(value, int | float) and isinstance(given, int | float | str):
        return _number(given) == value
    if isinstance(value, frozenset):  # a list, in any order
        return isinstance(given, list) and sorted(map(_number, given), key=str) == sorted(value, key=str)
    return isinstance(given, str) and given.strip().lower() == str(value).lower()


def _number(given: Any) -> float | None:
    try:
        return float(given)
    except (TypeError, ValueError):
        return None


def _worth(given: Any) -> float | None:
    try:
        return float(evaluate(str(given)))
    except Exception:
        return None
