"""Is a call right? The rules of BFCL's "ast" check for one Python function, written anew from its description.

A case lists, per parameter, the values that count as right; "" among them says that the parameter may be left out. Strings are
compared without case, spaces and the punctuation ``, . / - _ * ^``, single quotes as double ones; an integer will do for a
float; lists compare in order, dicts key by key.
Source: https://gorilla.cs.berkeley.edu/blogs/8_berkeley_function_calling_leaderboard.html
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any


def all_right(calls: Sequence[tuple[str, Any]], answers: list[dict[str, dict[str, list[Any]]]]) -> bool:
    """Are these exactly the calls that a case wants, in any order? A case wants one call per answer."""
    left = list(answers)
    for name, arguments in calls:
        fitting = next((answer for answer in left if is_right(name, arguments, [answer])), None)
        if fitting is None:
            return False
        left.remove(fitting)
    return not left


def is_right(name: str, arguments: Any, answers: list[dict[str, dict[str, list[Any]]]]) -> bool:
    """Does one call match any of a case's right answers?"""
    return any(name in answer and _arguments_match(arguments, answer[name]) for answer in answers)


def _arguments_match(arguments: Any, wanted: dict[str, list[Any]]) -> bool:
    if not isinstance(arguments, dict) or any(key not in wanted for key in arguments):
        return False
    return all(_value_matches(arguments[key], right) if key in arguments else "" in right for key, right in wanted.items())


def _value_matches(value: Any, right: list[Any]) -> bool:
    return any(_same(value, candidate) for candidate in right)


def _same(value: Any, right: Any) -> bool:
    if isinstance(value, str) and isinstance(right, str):
        return _plain(value) == _plain(right)
    if isinstance(value, bool) or isinstance(right, bool):
        return value is right
    if isinstance(value, int | float) and isinstance(right, int | float):
        return value == right
    if isinstance(value, list) and isinstance(right, list):
        return len(value) == len(right) and all(_same(a, b) for a, b in zip(value, right, strict=True))
    if isinstance(value, dict) and isinstance(right, dict):  # every value in it is a list of right ones again
        nested = {k: v if isinstance(v, list) else [v] for k, v in right.items()}
        return _arguments_match(value, nested)
    return value is None and right is None


def _plain(text: str) -> str:
    return re.sub(r"[ ,./\-_*^]", "", text).lower().replace("'", '"')
