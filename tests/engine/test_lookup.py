"""Prompt lookup's guesses: where they come from, and how they give up on text that does not repeat."""

from __future__ import annotations

import random

from llm_magics.engine.lookup import MAX_DRAFT, Lookup


def test_it_guesses_what_followed_the_same_three_tokens_last_time() -> None:
    tokens = [1, 2, 3, 4, 5, 9, 1, 2, 3, 7, 8, 9, 1, 2, 3]
    assert Lookup(tokens).propose(3) == [7, 8, 9]


def test_it_guesses_nothing_for_what_is_new() -> None:
    assert Lookup([1, 2, 3, 4, 5]).propose(8) == []
    assert Lookup([1]).propose(8) == []
    assert Lookup([1, 2, 3]).propose(8) == []


def test_it_keeps_up_with_tokens_as_they_come() -> None:
    tokens = [1, 2, 3, 4]
    lookup = Lookup(tokens)
    assert lookup.propose(2) == []
    tokens += [1, 2, 3]
    assert lookup.propose(2) == [4, 1]


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
