"""Prompt lookup: guess that what followed the last three tokens before will follow them again.

Text that is copied or edited repeats long runs of the prompt. The guess is evaluated in one batch with the token that is due,
and every position is then drawn as usual; a guess is kept only where the draw gives the same token, so neither greedy output
nor a sampled distribution changes (https://arxiv.org/abs/2304.04487, https://github.com/apoorvumang/prompt-lookup-decoding).

A wrong guess costs the evaluation of its tokens. So a guess grows while guesses come true, shrinks when one fails, and pauses
for longer and longer while they all fail.
"""

from __future__ import annotations

_GRAM = 3
MAX_DRAFT = 8
_FIRST_DRAFT = 3
_LONGEST_PAUSE = 128


class Lookup:
    """Guesses for one sequence, over its own list of tokens, which only grows."""

    def __init__(self, tokens: list[int]) -> None:
        self._tokens = tokens
        self._after: dict[tuple[int, ...], int] = {}  # three tokens -> where the text went on after them last
        self._indexed = _GRAM
        self._length = _FIRST_DRAFT
        self._pause = 0
        self._resume_at = 0

    def propose(self, limit: int) -> list[int]:
        """Return up to ``limit`` tokens that may follow; usually none."""
        tokens, end = self._tokens, len(self._tokens)
        for i in range(self._indexed, end):
            self._after[tuple(tokens[i - _GRAM : i])] = i
        self._indexed = max(self._indexed, end)
        if end < self._resume_at:
            return []
        at = self._after.get(tuple(tokens[end - _GRAM :]))
        return [] if at is None else tokens[at : at + min(self._length, limit)]

    def learn(self, proposed: int, accepted: int) -> None:
        """Take note of how many of the proposed tokens came true."""
        if accepted == proposed:
            self._length = min(MAX_DRAFT, self._length * 2)
            self._pause = 0
        elif accepted:
            self._length = max(2, accepted)
            self._pause = 0
        else:
            self._length = max(2, self._length // 2)
            self._pause = min(_LONGEST_PAUSE, max(4, self._pause * 2))
            self._resume_at = len(self._tokens) + self._pause
