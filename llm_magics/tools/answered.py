"""What a turn's calls have already given, so that a call written again is answered from memory and not run again.

Small models often write their last call once more where the answer is due, and would do so for ever. Running it again costs
time, and does twice what should be done once (a message sent, a row added). So a call *repeats* where one of the same name and
arguments has succeeded in this turn and

- nothing else has run since the model was last told its result, so that nothing can have changed, or
- it has been run again meanwhile and gave what it had given before, or
- it stands beside such a repetition in one message.

Reading, changing and reading again is therefore no repetition, and new calls of one message never are: a model that wants two
dice writes two calls. A tool whose result may change by itself (a clock, a die, a queue) says ``repeats=True``.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from llm_magics.messages import ToolCall, ToolResult


@dataclass(frozen=True, slots=True)
class _Known:
    content: str
    told: int  # the round of runs that was the latest when the model was told
    settled: bool = False  # it was run twice, and gave the same


@dataclass(slots=True)
class Answered:
    """Remembers the successful calls of one turn.

    ``round`` counts the messages of the model from which anything ran; ``last`` is what the last call gave.
    """

    round: int = 0
    last: str = "none"
    _known: dict[tuple[str, str], _Known] = field(default_factory=dict)

    def recall(self, calls: Sequence[ToolCall]) -> dict[int, str]:
        """What the repetitions among one message's calls gave, by their index."""
        known = {index: one for index, call in enumerate(calls) if (one := self._known.get(key_of(call))) is not None}
        if not any(one.settled or one.told == self.round for one in known.values()):
            return {}
        for index, one in known.items():
            self._known[key_of(calls[index])] = replace(one, told=self.round)
        return {index: one.content for index, one in known.items()}

    def learn(self, call: ToolCall, result: ToolResult, round: int) -> None:
        """Keep what a call has given in the round of that number."""
        before = self._known.get(key_of(call))
        same = before is not None and before.told < round and before.content == result.content
        self._known[key_of(call)] = _Known(result.content, round, same)
        self.round, self.last = round, result.content


def key_of(call: ToolCall) -> tuple[str, str]:
    """Name and arguments, written so that the same ones compare equal whatever their spacing and order."""
    try:
        return call.name, json.dumps(json.loads(call.arguments or "{}"), sort_keys=True)
    except (ValueError, RecursionError):
        return call.name, call.arguments
