"""Prompt lookup: guess that what followed the same words before will follow them again.

Text that is copied or edited repeats long runs of the prompt
(https://arxiv.org/abs/2304.04487, https://github.com/apoorvumang/prompt-lookup-decoding).

A wrong guess costs time: on a CPU, four tokens take as long as 2.3 single ones, eight 2.7, seventeen 4.3 (two cores, weights of
Q4_K; others between are no cheaper, as llama.cpp's kernels go by four and eight rows). So a guess is made only where the run of
tokens that repeats is already long, longer still where it repeats what the model itself has said, which is how lists and loops
begin that soon go another way; longer after each failure and shorter again after each success; and guesses grow while they
come true. The lengths are those under which, at these costs, none of 60 recorded answers would have become slower, from prose
to copied programs.
"""

from __future__ import annotations

from typing import Protocol

from llm_magics.engine.values import MAX_DRAFT

_GRAM = 3  # shorter repetitions are not looked for
_FIRST_RUN = 20
_LONGEST_RUN = 48
_OWN_RUN = 12  # more, for what the model has said itself
_LENGTHS = (3, 7, MAX_DRAFT)  # of guesses; with the token that is due, four and eight rows


class Guesser(Protocol):
    """Guesses what may follow in one sequence, and learns from how that turned out."""

    def propose(self, limit: int) -> list[int]: ...

    def learn(self, proposed: int, accepted: int) -> None: ...


class Lookup:
    """Guesses for one sequence, over its own list of tokens, which only grows. What is there at first is what was given."""

    def __init__(self, tokens: list[int]) -> None:
        self._tokens = tokens
        self._n_given = len(tokens)
        self._after: dict[tuple[int, ...], int] = {}  # three tokens -> where the text went on after them last
        self._indexed = _GRAM
        self._run = _FIRST_RUN
        self._level = 0  # of the lengths

    def propose(self, limit: int) -> list[int]:
        """Return up to ``limit`` tokens that may follow; usually none."""
        tokens, end = self._tokens, len(self._tokens)
        for i in range(self._indexed, end):
            self._after[tuple(tokens[i - _GRAM : i])] = i
        self._indexed = max(self._indexed, end)
        at = self._after.get(tuple(tokens[end - _GRAM :]))
        if at is None or not self._repeats(at, self._run + _OWN_RUN * (at > self._n_given)):
            return []
        return tokens[at : at + min(_LENGTHS[self._level], limit)]

    def _repeats(self, at: int, n: int) -> bool:
        """Whether the ``n`` tokens before ``at`` are the same as those at the end."""
        return n <= at and self._tokens[at - n : at] == self._tokens[-n:]

    def learn(self, proposed: int, accepted: int) -> None:
        if accepted == proposed:
            self._level = min(len(_LENGTHS) - 1, self._level + 1)
            self._run = max(_GRAM, self._run - 1)
        elif accepted * 2 < proposed:
            self._level = max(0, self._level - 1)
            self._run = min(_LONGEST_RUN, self._run * 2)
