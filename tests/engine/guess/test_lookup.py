"""Prompt lookup's guesses: where they come from, and how they give up on text that does not repeat."""

from __future__ import annotations

import random

from llm_magics.engine.guess.lookup import Lookup
from llm_magics.engine.values import MAX_DRAFT

RUN = list(range(1, 21))


def test_it_guesses_what_followed_the_same_run_last_time() -> None:
    assert Lookup([*RUN, 36, 37, 0, *RUN, 38, 39, 0, *RUN]).propose(3) == [38, 39, 0]


def test_it_guesses_nothing_for_what_is_new_or_repeats_little() -> None:
    for tokens in ([], [1], [1, 2, 3], [1, 2, 3, 4, 5, 6], [1, 2, 3, 9, 1, 2, 3], [0, *RUN[1:], 38, 39, *RUN[1:]]):
        assert Lookup(tokens).propose(8) == []


def test_it_keeps_up_with_tokens_as_they_come() -> None:
    tokens = [*RUN, 36]
    lookup = Lookup(tokens)
    assert lookup.propose(2) == []
    tokens += RUN
    assert lookup.propose(2) == [36, 1]


def test_what_the_model_has_said_itself_must_repeat_for_longer() -> None:
    for n, guesses in ((20, False), (31, False), (32, True)):
        run = list(range(100, 100 + n))
        tokens = list(RUN)
        lookup = Lookup(tokens)
        tokens += [48, *run, 36, 37, 0, *run]
        assert lookup.propose(2) == ([36, 37] if guesses else [])


def test_a_failure_asks_for_a_longer_run_and_a_success_for_a_shorter_one() -> None:
    tokens = [49, *RUN, 36, 37, 38, *RUN]
    for accepted, guesses in ((0, False), (3, True)):
        lookup = Lookup(tokens.copy())
        lookup.learn(3, accepted)
        assert bool(lookup.propose(3)) is guesses
    lookup = Lookup([*RUN[1:], 49, 49, *RUN[1:]])
    assert lookup.propose(3) == []
    lookup.learn(3, 3)
    assert lookup.propose(3) == [49, 49, 2]


def test_guesses_grow_while_they_come_true_and_never_beyond_the_most() -> None:
    tokens = list(range(50)) * 2
    lookup = Lookup(tokens)
    lengths = []
    for _ in range(5):
        guess = lookup.propose(100)
        lengths.append(len(guess))
        lookup.learn(len(guess), len(guess))
    assert lengths == sorted(lengths)
    assert lengths[-1] == MAX_DRAFT


def test_guesses_that_fail_become_rare() -> None:
    draw = random.Random(0)
    tokens = [0, 1, 2] * 20
    lookup = Lookup(tokens)
    guessed = 0
    for _ in range(1000):
        guess = lookup.propose(8)
        guessed += bool(guess)
        if guess:
            lookup.learn(len(guess), 0)
        tokens.append(draw.randint(0, 2))
    assert 0 < guessed < 30
