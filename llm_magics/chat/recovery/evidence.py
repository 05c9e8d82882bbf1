"""The evidence that a near miss is meant as a call: how sure the model was of it, and what in it was said.

A model whose tools do not fit the question often begins a call all the same and makes up its arguments. Two doubts show it:

- of the **opening**: how likely the model was to begin with words instead. Every beginning of a call counts as one, in whatever
  wrapper: a fence or a brace are the same decision. The template's own marker counts too.
- of the **choices**: a wanted call has one obvious continuation from the name to the last value, an unwanted one is a chain of
  doubtful ones (which tool? which city?). Only tokens with a letter or a digit are choices, layout says nothing about a call.
  Their mean counts, so that a long call is not doubtful for its length.

Both are -log p at temperature 1, in nats, and their sum must stay below a limit. What was said vouches for the opening: the
share of the call's words that the conversation contains takes as much of that doubt. Words that it does not contain change
nothing: code and translations never stand there. Numbers vouch for nothing: a wrong tool is given those of the question, too.

``tests/bench/near-misses.md`` has the measurements behind the numbers.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from llm_magics.messages import ToolSpec

from .bodies import FoundCall

LIMIT = 0.14
"""The doubt up to which a near miss is a call."""

TEXT_CAP = 1.0
"""What a text of several words counts at most among the choices: it can be written in many ways."""

FURTHER = 1.0
"""The limit behind other calls, for one that adds what was asked. It is seldom what the model would have written first: that is
the call before it, once more."""

Rivals: TypeAlias = Sequence[tuple[str, float]]
_TEXT = 3  # words


@dataclass(frozen=True, slots=True)
class Evidence:
    """What is known about one near miss. The doubts are None if the model's probabilities are not known. ``said`` is the share
    of the words among the argument values that the conversation contains; 0 without any."""

    opening: float | None = None
    choices: float | None = None
    said: float = 0.0
    limit: float = LIMIT

    @property
    def doubt(self) -> float:
        return (self.opening or 0.0) * (1 - self.said) + (self.choices or 0.0)

    @property
    def meant(self) -> bool:
        return self.doubt <= self.limit

    def __str__(self) -> str:
        known = [f"{name} {p:.3f}" for name, p in (("opening", self.opening), ("choices", self.choices)) if p is not None]
        if not known:
            return "the model's probabilities are not known"
        said = f"; {self.said:.0%} of its words were said" if self.said else ""
        return f"doubt {self.doubt:.3f} ({', '.join(known)}{said}), up to {self.limit:.3f} allowed"


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
        total, n, inside, string, doubts = 0.0, 0, False, "", list[float]()
        for piece, logprob in [*self.of(text), ('"', None)]:
            if '"' in piece:
                total += min(sum(doubts), TEXT_CAP) if inside and len(string.split()) >= _TEXT else sum(doubts)
                inside, string, doubts = inside ^ (piece.count('"') % 2 == 1), "", []
            string += piece.rpartition('"')[2]
            if logprob is not None and any(c.isalnum() for c in piece):
                n += 1
                doubts.append(-logprob)
        return total / n if n else None

    def of(self, text: str) -> Iterator[tuple[str, float | None]]:
        """The tokens of ``text``, the end of what was taken."""
        text = text.strip()
        start, at = "".join(piece for piece, _ in self._tokens).rfind(text), 0
        for piece, logprob in self._tokens:
            at += len(piece)
            if text and 0 <= start < at and at - len(piece) < start + len(text):
                yield piece, logprob


def share_said(calls: Sequence[FoundCall], tools: Mapping[str, ToolSpec], conversation: Sequence[str]) -> float:
    """The share of the words in the calls' arguments that the conversation contains. A choice from an enum counts only if it
    was said: a user need not know the choices."""
    texts = [text.casefold() for text in conversation]
    words: list[bool] = []
    for call in calls:
        known = tools[call.name].parameters.get("properties", {})
        for key, value in json.loads(call.arguments).items():
            said = [any(_contains(text, word) for text in texts) for word in _words(value)]
            words += filter(None, said) if "enum" in (known.get(key) or {}) else said
    return sum(words) / len(words) if words else 0.0


def _contains(text: str, word: str) -> bool:
    """Whether a text contains this word, perhaps with an ending of two letters, e.g. "lamp" in "lamps"."""
    return re.search(rf"(?<!\w){re.escape(word)}\w{{0,2}}(?!\w)", text) is not None if word.isascii() else word in text


def _words(value: Any) -> Iterator[str]:
    """The strings with a letter in a value."""
    if isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _words(item)
    elif isinstance(value, str) and any(c.isalpha() for c in value):
        yield value.strip().casefold()
