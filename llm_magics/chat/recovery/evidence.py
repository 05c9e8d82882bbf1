"""The evidence that a near miss is meant as a call: how sure the model was of it, and what in it was said.

A model whose tools do not fit the question often begins a call all the same and makes up its arguments. Two doubts show it:

- of the **opening**: how likely the model was to begin with words instead. Every beginning of a call counts as one, in whatever
  wrapper: a fence or a brace are the same decision. The template's own marker counts too.
- of the **choices**: a wanted call has one obvious continuation from the name to the last value, an unwanted one is a chain of
  doubtful ones (which tool? which city?). Only tokens with a letter or a digit are choices, layout says nothing about a call.
  Their mean counts, so that a long call is not doubtful for its length.

Both are -log p at temperature 1, in nats. Their sum must stay below a limit. If the conversation contains the argument values,
the limit rises. If it does not, nothing falls: computed dates, code and translations never stand there.

``docs/near-misses.md`` has the measurements behind the numbers.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from .bodies import FoundCall

LIMIT = 0.12
"""The doubt up to which a near miss is a call whatever its arguments are."""

SAID = 1.25
"""The factor by which the limit rises if the conversation contains every argument value."""

FURTHER = 1.0
"""The limit behind other calls, for one that adds what was asked. It is seldom what the model would have written first: that is
the call before it, once more."""

Rivals: TypeAlias = Sequence[tuple[str, float]]


@dataclass(frozen=True, slots=True)
class Evidence:
    """What is known about one near miss. The doubts are None if the model's probabilities are not known. ``said`` is the share
    of the argument values that the conversation contains; 0 without any."""

    opening: float | None = None
    choices: float | None = None
    said: float = 0.0
    base: float = LIMIT

    @property
    def doubt(self) -> float:
        return (self.opening or 0.0) + (self.choices or 0.0)

    @property
    def limit(self) -> float:
        return self.base * (1 + (SAID - 1) * self.said)

    @property
    def meant(self) -> bool:
        return self.doubt <= self.limit

    def __str__(self) -> str:
        known = [f"{name} {p:.3f}" for name, p in (("opening", self.opening), ("choices", self.choices)) if p is not None]
        if not known:
            return "the model's probabilities are not known"
        said = f", as {self.said:.0%} of the values were said" if self.said else ""
        return f"doubt {self.doubt:.3f} ({', '.join(known)}), up to {self.limit:.3f} allowed{said}"


class Written:
    """The tokens of a near miss as they come, with their log-probabilities, and what else could have stood at its beginning."""

    def __init__(self) -> None:
        self._tokens: list[tuple[str, float | None]] = []
        self._rivals: Rivals = ()

    def take(self, text: str, logprob: float | None, rivals: Rivals, *, held: bool) -> None:
        """Note a token before it is read; ``held`` says that a near miss has begun. Its first token may begin with layout that
        was passed on, so the last tokens before it are kept."""
        if not held:
            del self._tokens[:-2]
            self._rivals = rivals
        self._tokens.append((text, logprob))

    def opening(self, begins_call: Callable[[str], bool]) -> float | None:
        """The doubt of the opening; None if its rivals are not known. Rivals that are white space are left open."""
        rivals = [(begins_call(text.lstrip()), math.exp(logprob)) for text, logprob in self._rivals if text.strip()]
        calls, total = sum(p for call, p in rivals if call), sum(p for _, p in rivals)
        return math.log(total / calls) if calls else None

    def choices(self, text: str) -> float | None:
        """The mean doubt of the choices in ``text``; None if the probabilities are not known."""
        doubts = [-logprob for piece, logprob in self.of(text) if logprob is not None and any(c.isalnum() for c in piece)]
        return sum(doubts) / len(doubts) if doubts else None

    def of(self, text: str) -> Iterator[tuple[str, float | None]]:
        """The tokens of ``text``, the end of what was taken."""
        text = text.strip()
        start, at = "".join(piece for piece, _ in self._tokens).rfind(text), 0
        for piece, logprob in self._tokens:
            at += len(piece)
            if text and 0 <= start < at and at - len(piece) < start + len(text):
                yield piece, logprob


def share_said(calls: Sequence[FoundCall], conversation: Sequence[str]) -> float:
    """The share of the calls' argument values that the conversation contains, as a whole word or number, in any case."""
    values = [value for call in calls for value in _values(json.loads(call.arguments))]
    texts = [text.casefold() for text in conversation]
    return sum(any(_contains(text, value) for text in texts) for value in values) / len(values) if values else 0.0


def _contains(text: str, value: str) -> bool:
    return re.search(rf"(?<!\w){re.escape(value)}(?!\w)", text) is not None if value.isascii() else value in text


def _values(value: Any) -> Iterator[str]:
    """The strings and numbers in a value as the conversation would spell them; a truth value or null is never said."""
    if isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _values(item)
    elif isinstance(value, str) and value.strip():
        yield value.strip().casefold()
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield f"{value:g}" if abs(value) < 1e6 else str(value)
