"""Prompt lookup: guess that the tokens behind an earlier occurrence of the same words follow again.

Text that is copied or edited repeats long runs of the prompt
(https://arxiv.org/abs/2304.04487, https://github.com/apoorvumang/prompt-lookup-decoding).

A wrong guess costs time: on a CPU, four tokens take as long as 2.3 single ones, eight 2.7, seventeen 4.3 (two cores, Q4_K
weights; numbers between are not cheaper, because llama.cpp's kernels take four or eight rows). So a guess needs a long repeated
run of tokens: a longer one if it repeats the model's own text, whose lists and loops soon diverge; longer after each failure,
shorter after each success. Guesses grow while they come true. With these lengths and costs, none of 60 recorded answers, from
prose to copied programs, would have become slower.
"""

from __future__ import annotations

from typing import Protocol

from llm_magics.engine.values import MAX_DRAFT

_GRAM = 3  # the shortest repetition
_FIRST_RUN = 20
_LONGEST_RUN = 48
_OWN_RUN = 12  # more, in the model's own text
_LENGTHS = (3, 7, MAX_DRAFT)  # of guesses; with the next token, four and eight rows


class Guesser(Protocol):
    """Guesses the next tokens of one sequence, and learns how many were accepted."""

    def propose(self, limit: int) -> list[int]: ...

    def learn(self, proposed: int, accepted: int) -> None: ...


class Lookup:
    """Guesses for one sequence over its list of tokens, which only grows; the tokens at first are the prompt."""

    def __init__(self, tokens: list[int]) -> None:
        self._tokens = tokens
        self._n_given = len(tokens)
        self._after: dict[tuple[int, ...], int] = {}  # three tokens -> the place behind their last occurrence
        self._indexed = _GRAM
        self._run = _FIRST_RUN
        self._level = 0  # in the lengths

    def propose(self, limit: int) -> list[int]:
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
