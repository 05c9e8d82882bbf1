"""Draft-model speculation: a small model of the same vocabulary guesses the large model's next tokens.

The draft guesses its likeliest tokens (https://arxiv.org/abs/2211.17192), so the draws, the sampled distribution and the text
of a seed are those of plain decoding. At high temperatures, fewer guesses come true than with the draft's own draws.

A guess stops at the first token of which the draft is unsure. Guesses grow while they come true, and a draft that is unsure or
mostly wrong rests for longer and longer, because it costs time too. All this depends on accepted tokens, not on a clock, so
that the same request is evaluated in the same batches every time.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from functools import partial

import numpy as np

from llm_magics.engine import prefix
from llm_magics.engine.native.context import Batch, Context
from llm_magics.engine.native.model import Model, Progress
from llm_magics.engine.values import MAX_DRAFT, EngineConfig
from llm_magics.errors import OptionError, UnsupportedModelError

_SURE = 0.75  # the least probability, under the draft, of a guessed token
_FIRST_LENGTH, _LEAST_LENGTH = 4, 2
_CATCH_UP = 128  # tokens of a prompt that the draft reads in one step of the engine, to keep the step short
_PAYS = 0.5  # share of guessed tokens that must come true
_SHORTEST_REST, _LONGEST_REST = 16, 256  # tokens, of a draft that is mostly wrong
_LONGEST_DOUBT = 16  # tokens that an unsure draft rests at most
_PADDING = 128  # vocabularies of one family differ by unused tokens at their end


class Draft:
    """The small model and its context, with as many sequences as the large one's. Belongs to the engine's thread; free it."""

    def __init__(self, config: EngineConfig, target: Model, progress: Progress | None = None) -> None:
        own = replace(config, path=config.draft, n_gpu_layers=config.draft_gpu_layers, draft="", speculation="off")
        with ExitStack() as on_failure:
            self._model = Model(own, progress)
            on_failure.callback(self._model.free)
            check_vocabularies(target, self._model, os.path.basename(config.path), os.path.basename(config.draft))
            if not self._model.cuttable:
                what = f"{os.path.basename(config.draft)} cannot draft: its memory cannot take back a wrong guess."
                raise UnsupportedModelError(what, "Choose a draft model with plain attention.")
            self._context = Context(self._model, own)
            on_failure.callback(self._context.free)
            self.description = self._model.description()
            self.log = [*self._model.log, *self._context.log]
            self._n_vocab = target.n_vocab
            self._batch = Batch(self._context.n_batch)
            self._cached: list[list[int]] = [[] for _ in range(config.n_slots)]
            self._used = [0] * config.n_slots
            self._clock = 0
            on_failure.pop_all()

    def guesser(self, tokens: list[int]) -> DraftGuesser:
        return DraftGuesser(partial(self.propose, tokens))

    def propose(self, tokens: list[int], limit: int) -> list[int] | None:
        """Return up to ``limit`` tokens of which the draft is sure; None while it still reads the prompt."""
        sequence = self._choose(tokens)
        cached = self._cached[sequence]
        common = prefix.keep_length(tokens, cached)
        if common < len(cached):
            self._context.cut(sequence, common)
            del cached[common:]
        new = tokens[common : common + min(_CATCH_UP, self._batch.capacity)]
        caught_up = common + len(new) == len(tokens)
        row = self._evaluate(sequence, new, output=caught_up)
        if not caught_up:
            return None
        guessed: list[int] = []
        while row >= 0 and (token := self._sure_of(row)) >= 0:
            guessed.append(token)
            if len(guessed) == limit:
                break
            row = self._evaluate(sequence, [token], output=True)
        return guessed

    def _choose(self, tokens: list[int]) -> int:
        """The sequence that shares the longest prefix with these tokens; at a tie, the one unused for longest."""
        shared = [prefix.common_prefix(tokens, cached) for cached in self._cached]
        best = max(range(len(shared)), key=lambda i: (shared[i], -self._used[i]))
        self._clock += 1
        self._used[best] = self._clock
        return best

    def _evaluate(self, sequence: int, tokens: list[int], *, output: bool) -> int:
        """Evaluate the next tokens of a sequence; return the row of the last one, -1 after a failure."""
        cached = self._cached[sequence]
        self._batch.clear()
        row = self._batch.extend(tokens, len(cached), sequence, output_last=output)
        if self._context.decode(self._batch) != 0:  # most likely, other sequences fill the memory
            for i in range(len(self._cached)):
                self._context.forget(i)
                self._cached[i].clear()
            return -1
        cached.extend(tokens)
        return row

    def _sure_of(self, row: int) -> int:
        """The likeliest token, or -1 if the draft is not sure of it."""
        logits = self._context.logits(row)
        best = int(logits.argmax())
        sure = 1 / float(np.exp(logits - logits[best]).sum()) >= _SURE
        return best if sure and best < self._n_vocab else -1

    def free(self) -> None:
        self._context.free()
        self._model.free()


class DraftGuesser:
    """One sequence's guesses: decides how long they are, and when the draft rests."""

    def __init__(self, propose: Callable[[int], list[int] | None]) -> None:
        self._propose = propose
        self._length = _FIRST_LENGTH
        self._accepted = 1.0  # lately, of 1
        self._rest = _SHORTEST_REST
        self._resting = 0
        self._doubt = 1

    def propose(self, limit: int) -> list[int]:
        if self._resting > 0:
            self._resting -= 1
            return []
        guess = self._propose(min(self._length, limit))
        if guess is not None and not guess:
            self._resting, self._doubt = self._doubt, min(_LONGEST_DOUBT, self._doubt * 2)
        return guess or []

    def learn(self, proposed: int, accepted: int) -> None:
        weight = 0.7**proposed
        self._accepted = weight * self._accepted + (1 - weight) * accepted / proposed
        if accepted == proposed:
            self._length = min(MAX_DRAFT, self._length + 2)
            self._rest, self._doubt = _SHORTEST_REST, 1
        elif accepted * 2 < proposed:
            self._length = max(_LEAST_LENGTH, self._length // 2)
        if self._accepted < _PAYS:
            self._resting, self._rest = self._rest, min(_LONGEST_REST, self._rest * 2)
            self._accepted = _PAYS  # after one more failure, it rests again


def check_vocabularies(target: Model, draft: Model, target_name: str, draft_name: str) -> None:
    if why := _difference(target, draft):
        more = "Choose a smaller model of the same family, with the same vocabulary."
        raise OptionError(f"{draft_name} cannot draft for {target_name}: {why}.", more)


def _difference(target: Model, draft: Model) -> str:
    if abs(target.n_vocab - draft.n_vocab) > _PADDING:
        return f"their vocabularies have {target.n_vocab:,} and {draft.n_vocab:,} tokens"
    for token in range(min(target.n_vocab, draft.n_vocab)):
        pieces = (target.piece(token), draft.piece(token))
        if pieces[0] != pieces[1]:
            ours, theirs = (repr(piece.decode("utf-8", "replace")) for piece in pieces)
            return f"token {token:,} is {ours} in the one vocabulary and {theirs} in the other"
    return ""
