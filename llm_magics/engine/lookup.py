"""Prompt lookup: guess that what followed the same words before will follow them again.

Text that is copied or edited repeats long runs of the prompt. The guess is evaluated in one batch with the token that is due,
and every position is then drawn as usual; a guess is kept only where the draw gives the same token, so neither greedy output
nor a sampled distribution changes (https://arxiv.org/abs/2304.04487, https://github.com/apoorvumang/prompt-lookup-decoding).

A wrong guess costs time: on a CPU, evaluating nine tokens takes as long as five single ones. So a guess is made only where the
run of tokens that repeats is already long, longer after each failure and shorter again after each success; and it grows while
guesses come true.
"""

from __future__ import annotations

from typing import Protocol

MAX_DRAFT = 16
_GRAM = 3  # shorter repetitions are not looked for
_FIRST_RUN = 12
_LONGEST_RUN = 48
_FIRST_DRAFT = 4


class Guesser(Protocol):
    """Guesses what may follow in one sequence, and learns from how that turned out."""

    def propose(self, limit: int) -> list[int]: ...

    def learn(self, proposed: int, accepted: int) -> None: ...


class Lookup:
    """Guesses for one sequence, over its own list of tokens, which only grows."""

    def __init__(self, tokens: list[int]) -> None:
        self._tokens = tokens
        self._after: dict[tuple[int, ...], int] = {}  # three tokens -> where the text went on after them last
        self._indexed = _GRAM
        self._run = _FIRST_RUN
        self._length = _FIRST_DRAFT

    def propose(self, limit: int) -> list[int]:
        """Return up to ``limit`` tokens that may follow; usually none."""
        tokens, end = self._tokens, len(self._tokens)
        for i in range(self._indexed, end):
            self._after[tuple(tokens[i - _GRAM : i])] = i
        self._indexed = max(self._indexed, end)
        at = self._after.get(tuple(tokens[end - _GRAM :]))
        if at is None or self._repeated(at) < self._run:
            return []
        return tokens[at : at + min(self._length, limit)]

    def _repeated(self, at: int) -> int:
        """How many tokens before ``at`` are the same as those at the end, as far as it matters."""
        tokens, end = self._tokens, len(self._tokens)
        n = _GRAM
        while n < self._run and n < at and tokens[at - 1 - n] == tokens[end - 1 - n]:
            n += 1
        return n

    def learn(self, proposed: int, accepted: int) -> None:
        """Take note of how many of the proposed tokens came true."""
        if accepted == proposed:
            self._length = min(MAX_DRAFT, self._length * 2)
            self._run = max(_GRAM, self._run - 1)
        elif accepted * 2 < proposed:
            self._length = max(_FIRST_DRAFT, self._length // 2)
            self._run = min(_LONGEST_RUN, self._run * 2)
