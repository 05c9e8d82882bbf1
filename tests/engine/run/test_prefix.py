"""The longest common prefix, what is evaluated, and which slot takes a prompt."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from llm_magics.engine.prefix import common_prefix, keep_length
from llm_magics.engine.run.compose import choose_slot
from llm_magics.engine.run.slots import Slot

tokens = st.lists(st.integers(0, 3), max_size=40)


def naive(a: list[int], b: list[int]) -> int:
    n = 0
    while n < min(len(a), len(b)) and a[n] == b[n]:
        n += 1
    return n


@given(tokens, tokens, tokens)
def test_common_prefix_is_what_counting_gives(shared: list[int], a: list[int], b: list[int]) -> None:
    assert common_prefix(shared + a, shared + b) == naive(shared + a, shared + b)


@given(tokens.filter(bool), tokens)
def test_at_least_one_token_is_left_to_evaluate(prompt: list[int], cached: list[int]) -> None:
    kept = keep_length(prompt, cached)
    assert 0 <= kept < len(prompt)
    assert prompt[:kept] == cached[:kept]
    assert kept == min(naive(prompt, cached), len(prompt) - 1)


def slot(index: int, cached: list[int], conversation: str = "", last_used: int = 0) -> Slot:
    return Slot(index, cached, conversation, last_used)


def test_a_conversation_comes_back_to_its_own_slot() -> None:
    slots = [slot(0, [1, 2, 3], "other", 9), slot(1, [7], "mine", 1)]
    assert choose_slot([1, 2, 3, 4], "mine", slots).index == 1


def test_a_stranger_takes_the_slot_that_shares_most() -> None:
    slots = [slot(0, [], "", 0), slot(1, [1, 2, 3, 9], "", 5), slot(2, [1, 8, 8, 8], "", 1)]
    assert choose_slot([1, 2, 3, 4], "new", slots).index == 1


def test_a_stranger_leaves_anothers_conversation_alone_while_there_is_room() -> None:
    slots = [slot(0, [1, 2, 3, 9], "a", 5), slot(1, [], "", 0)]
    assert choose_slot([1, 2, 3, 4], "new", slots).index == 1
    assert choose_slot([1, 2, 3, 4], "", slots).index == 1


def test_a_stranger_overwrites_no_long_cache_for_a_short_prefix() -> None:
    slots = [slot(0, [1, *range(10, 50)], "", 1), slot(1, [], "", 0)]
    assert choose_slot([1, 2, 3], "new", slots).index == 1


def test_with_nothing_shared_the_slot_unused_for_longest_goes() -> None:
    slots = [slot(0, [5, 5], "a", 3), slot(1, [6, 6], "b", 2), slot(2, [7, 7], "c", 4)]
    assert choose_slot([1, 2], "new", slots).index == 1
