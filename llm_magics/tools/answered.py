"""The results of a turn's calls, so that a repeated call is answered from memory.

Small models often repeat their last call instead of answering, and would do so for ever. Running it again costs time and does
twice what should be done once (sends a message, adds a row). A call is a *repetition* if a call of the same name and arguments
has succeeded in this turn and

- nothing else has run since the model last read its result, so nothing can have changed, or
- it was run twice and gave the same result both times, or
- it stands beside such a repetition in one message.

So reading, changing and reading again is not a repetition, and equal new calls of one message are not: a model that wants two
dice writes two calls. A tool whose result may change by itself (a clock, a die, a queue) sets ``repeats=True``.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from llm_magics.messages import ToolCall, ToolResult


@dataclass(frozen=True, slots=True)
class _Known:
    content: str
    told: int  # the latest round when the model read the result
    settled: bool = False  # run twice with the same result


@dataclass(slots=True)
class Answered:
    """One turn's successful calls. ``round`` counts the model's messages with calls that ran; ``last`` is the last result."""

    round: int = 0
    last: str = "none"
    _known: dict[tuple[str, str], _Known] = field(default_factory=dict)
    _ran: list[tuple[str, str]] = field(default_factory=list)

    @property
    def current(self) -> tuple[ToolCall, ...]:
        """The calls whose results stand: they would be repetitions now, or no call since has named what they are about. A call
        without arguments is about everything."""
        known = self._known.items()
        stand = (key for key, one in known if one.settled or one.told == self.round or not self._touched(key))
        return tuple(ToolCall(*key) for key in stand)

    def _touched(self, key: tuple[str, str]) -> bool:
        since = self._ran[len(self._ran) - self._ran[::-1].index(key) :]
        about = _leaves(key)
        return any(not about or about & _leaves(other) for other in since if other != key)

    def recall(self, calls: Sequence[ToolCall]) -> dict[int, str]:
        """The known results of the repetitions among one message's calls, by the call's index."""
        known = {index: one for index, call in enumerate(calls) if (one := self._known.get(call.key)) is not None}
        if not any(one.settled or one.told == self.round for one in known.values()):
            return {}
        for index, one in known.items():
            self._known[calls[index].key] = replace(one, told=self.round)
        return {index: one.content for index, one in known.items()}

    def learn(self, call: ToolCall, result: ToolResult, round: int) -> None:
        """Remember the result of a call that ran in this round."""
        before = self._known.get(call.key)
        same = before is not None and before.told < round and before.content == result.content
        self._known[call.key] = _Known(result.content, round, same)
        self.round, self.last = round, result.content
        self._ran.append(call.key)


def _leaves(key: tuple[str, str]) -> set[str]:
    """The values among a call's arguments, as texts."""
    try:
        rest, found = [json.loads(key[1])], set[str]()
    except (ValueError, RecursionError):
        return {key[1]}
    while rest:
        value = rest.pop()
        if isinstance(value, dict | list):
            rest += value.values() if isinstance(value, dict) else value
        else:
            found.add(str(value))
    return found
