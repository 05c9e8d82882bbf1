"""The benchmark's judge: which calls count as right."""

from __future__ import annotations

from typing import Any

import pytest

from .bfcl_check import all_right, is_right

ANSWERS: list[dict[str, dict[str, list[Any]]]] = [
    {"f": {"city": ["New York, NY", "NYC"], "n": [3], "x": [0.5, ""], "tags": [["a", "b"], ""], "at": [{"k": ["v"]}, ""]}},
]

CASES: list[tuple[str, Any, bool]] = [
    ("f", {"city": "New York, NY", "n": 3}, True),
    ("f", {"city": "new york ny", "n": 3, "x": 0.5}, True),
    ("f", {"city": "NYC", "n": 3.0, "tags": ["a", "b"]}, True),
    ("f", {"city": "NYC", "n": 3, "at": {"k": "v"}}, True),
    ("f", {"city": "NYC", "n": 3, "at": {"k": "w"}}, False),
    ("f", {"city": "NYC", "n": 3, "tags": ["b", "a"]}, False),
    ("f", {"city": "Boston", "n": 3}, False),
    ("f", {"city": "NYC"}, False),
    ("f", {"city": "NYC", "n": "3"}, False),
    ("f", {"city": "NYC", "n": True}, False),
    ("f", {"city": "NYC", "n": 3, "extra": 1}, False),
    ("f", ["NYC"], False),
    ("g", {"city": "NYC", "n": 3}, False),
]


@pytest.mark.parametrize(("name", "arguments", "right"), CASES)
def test_a_call_is_right_if_every_argument_is_one_of_the_right_ones(name: str, arguments: Any, right: bool) -> None:
    assert is_right(name, arguments, ANSWERS) is right


TWO: list[dict[str, dict[str, list[Any]]]] = [{"play": {"artist": ["A"]}}, {"play": {"artist": ["B"], "loud": [True, ""]}}]
SETS: list[tuple[list[tuple[str, Any]], bool]] = [
    ([("play", {"artist": "A"}), ("play", {"artist": "B"})], True),
    ([("play", {"artist": "B", "loud": True}), ("play", {"artist": "A"})], True),
    ([("play", {"artist": "A"})], False),
    ([("play", {"artist": "A"}), ("play", {"artist": "A"})], False),
    ([("play", {"artist": "A"}), ("play", {"artist": "B"}), ("play", {"artist": "B"})], False),
    ([], False),
]


@pytest.mark.parametrize(("calls", "right"), SETS)
def test_several_calls_are_right_if_each_answer_has_one(calls: list[tuple[str, Any]], right: bool) -> None:
    assert all_right(calls, TWO) is right
