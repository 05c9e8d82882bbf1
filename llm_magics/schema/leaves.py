"""Strings and numbers: which of their limits the constraint engine can enforce, computed exactly and in linear time.

**Numbers.** The engine computes bounds in 64 bits. Larger bounds are widened for it (:func:`widened`). Whether any number is
left is decided here, in fractions of the decimals in the schema, not by the engine's rounding.

**Patterns.** Python's ``re`` backtracks, so a hostile pattern can hang a validator. The engine's regular expressions use
derivatives and take linear time, so the engine also checks the patterns that it enforces. It has no look-around and no
back-references; :func:`has_linear_regex` says whether it can express a pattern.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from decimal import Decimal
from fractions import Fraction
from functools import lru_cache
from typing import Any

from llm_magics.errors import SchemaError

EXACT = 2**53  # 64-bit floats hold all integers up to here exactly
NUMBER_BOUNDS = ("multipleOf", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum")
STRING_LIMITS = ("format", "patterns", "maxLength", "minLength")  # in the order to drop them if the engine refuses all
MAX_PATTERN = 2_000  # characters
_EMPTY = re.compile(r"at \d+\(\d+\): failed to compile JSON schema: Unsatisfiable schema: ")  # the rest repeats the schema


def enforceable(node: Mapping[str, Any]) -> tuple[dict[str, Any] | None, list[str]]:
    """The part of a string or number node that the constraint engine takes (None if nothing satisfies the node), and the
    keywords that it does not take. Bounds are only widened, so that no right value is refused."""
    if node["type"] != "string":
        return (None, []) if is_empty(node) else _enforceable_number(node)
    kept, loose = dict(node), list[str]()
    for keyword in STRING_LIMITS:
        problem = _problem(kept)
        if _EMPTY.match(problem):
            return None, loose
        if problem and kept.pop(keyword, None) is not None:
            loose.append(keyword)
    return kept, loose


def _enforceable_number(node: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    kept = widened(node)
    loose = [keyword for keyword in node if kept.get(keyword) != node[keyword]]
    refused = [k for k in NUMBER_BOUNDS if k in kept and _problem({"type": node["type"], k: kept[k]})]
    kept = {keyword: value for keyword, value in kept.items() if keyword not in refused}
    if "multipleOf" in kept and beside_whole({k: v for k, v in kept.items() if k != "multipleOf"}):
        refused += [keyword for keyword in kept if keyword.startswith("exclusive")]
    if _problem(kept):  # the engine takes each keyword, but not all together
        return {"type": node["type"]}, [*loose, *refused, *(kept.keys() - {"type"})]
    return kept, [*loose, *refused]


def leaf_schema(node: Mapping[str, Any]) -> dict[str, Any]:
    """Write a string or number node of the normal form as the JSON schema that the constraint engine takes."""
    schema = {k: v for k, v in node.items() if k != "patterns"}
    patterns = node.get("patterns", [])
    if len(patterns) == 1:
        schema["pattern"] = patterns[0]
    elif patterns:
        schema["allOf"] = [{"type": "string", "pattern": p} for p in patterns]
    return {**schema, "x-guidance": {"whitespace_flexible": False}}


def _grammar(node: Mapping[str, Any]) -> str:
    return f"%llguidance {{}}\nstart: %json {json.dumps(leaf_schema(node), ensure_ascii=False)}\n"


def _problem(node: Mapping[str, Any]) -> str:
    """Why the constraint engine refuses a string or number node; empty if it does not."""
    return _problem_of(_grammar(node))


@lru_cache(maxsize=1024)
def _problem_of(grammar: str) -> str:
    from llguidance import LLMatcher

    return str(LLMatcher.validate_grammar(grammar))


def exact(number: float) -> Fraction:
    """The number as written: 0.1 is a tenth."""
    return Fraction(number) if isinstance(number, int) else Fraction(repr(number))


def is_empty(node: Mapping[str, Any]) -> bool:
    """Whether no number satisfies this node."""
    low, high, step = *ends(node), _step(node)
    if low is None or high is None:
        return False
    if step is None:
        return low[0] > high[0] or (low[0] == high[0] and (low[1] or high[1]))
    first, last = low[0] / step, high[0] / step
    least, most = math.ceil(first), math.floor(last)
    return least + (low[1] and least == first) > most - (high[1] and most == last)


def within(node: Mapping[str, Any], number: float) -> bool:
    """Check a constant against a number node's bounds."""
    low, high = ends(node)
    value, step = exact(number), node.get("multipleOf")
    if step is not None and (value / exact(step)).denominator != 1:
        return False
    over = low is None or value > low[0] or (value == low[0] and not low[1])
    return over and (high is None or value < high[0] or (value == high[0] and not high[1]))


def widened(node: Mapping[str, Any]) -> dict[str, Any]:
    """The node with bounds that 64-bit floats hold exactly, never narrower, e.g. ``minimum: 10**20`` becomes 2**53."""
    kept = dict(node)
    for keyword, side in (("minimum", 1), ("exclusiveMinimum", 1), ("maximum", -1), ("exclusiveMaximum", -1)):
        bound = kept.get(keyword)
        if bound is None or abs(bound) <= EXACT:
            continue
        del kept[keyword]
        if bound * side > 0 and node["type"] == "integer":  # still excludes small numbers
            kept["minimum" if side > 0 else "maximum"] = side * EXACT
    return kept


def ends(node: Mapping[str, Any]) -> tuple[tuple[Fraction, bool] | None, tuple[Fraction, bool] | None]:
    """The lower and the upper bound, each as (bound, whether it is excluded); None without one."""
    lows = [(exact(node[k]), out) for k, out in (("minimum", False), ("exclusiveMinimum", True)) if k in node]
    highs = [(exact(node[k]), out) for k, out in (("maximum", False), ("exclusiveMaximum", True)) if k in node]
    return max(lows, default=None), min(highs, key=lambda end: (end[0], not end[1]), default=None)


def beside_whole(node: Mapping[str, Any]) -> str:
    """A terminal for the numbers between an excluded whole number and a bound less than one away; empty for other nodes.

    The constraint engine would admit the whole number. E.g. above 0 and up to 0.25: 0.1 and 0.25, but not 0 or 0.26.
    """
    low, high = ends(node)
    if node["type"] != "number" or "multipleOf" in node or low is None or high is None:
        return ""
    sign, (near, out), (far, far_out) = ("", low, high) if low[0] >= 0 else ("-", (-high[0], high[1]), (-low[0], low[1]))
    rest = far - near
    digits = format(Decimal(rest.numerator) / rest.denominator, "f")[2:]
    if not out or near.denominator != 1 or near < 0 or not 0 < rest < 1 or exact(float(f"0.{digits}")) != rest:
        return ""
    less = [f"{digits[:i]}[0-{int(d) - 1}][0-9]{{0,30}}" for i, d in enumerate(digits) if d != "0"]
    less += [digits[:i] for i in range(1, len(digits))] + ([] if far_out else [f"{digits}0{{0,30}}"])
    return rf"/{sign}{near}\.({'|'.join(less)})/ & ~/{sign}{near}\.0*/"


def _step(node: Mapping[str, Any]) -> Fraction | None:
    """The distance between the numbers that a node admits; None if it is arbitrary."""
    step = exact(node["multipleOf"]) if "multipleOf" in node else None
    if node["type"] != "integer":
        return step
    return Fraction(1) if step is None else Fraction(step.numerator)  # the least common multiple with 1, in lowest terms


def has_linear_regex(pattern: str) -> bool:
    """Whether the constraint engine can express this pattern."""
    return len(pattern) <= MAX_PATTERN and not _problem({"type": "string", "patterns": [pattern]})


def linear_search(pattern: str, text: str) -> bool:
    """Whether ``pattern`` is found in ``text``. Raises SchemaError if the engine cannot express the pattern."""
    matcher = _matcher(pattern).deep_copy()
    quoted = json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
    return bool(matcher.consume_tokens(list(quoted.encode("utf-8", "replace"))) and matcher.is_accepting())


@lru_cache(maxsize=256)
def _matcher(pattern: str) -> Any:
    from llguidance import LLMatcher

    if not has_linear_regex(pattern):
        raise SchemaError(f"The pattern {pattern[:80]!r} cannot be checked in linear time.", "Remove look-around from it.")
    return LLMatcher(byte_tokenizer(), _grammar({"type": "string", "patterns": [pattern]}), log_level=0)


class _Bytes:
    """A vocabulary of 256 bytes and an end token, to run a grammar over text without a model."""

    eos_token_id = 256
    bos_token_id = None
    special_token_ids = (256,)
    tokens = (*(bytes([i]) for i in range(256)), b"<|end|>")

    def __call__(self, text: bytes | str) -> list[int]:
        return list(text.encode() if isinstance(text, str) else text)


@lru_cache(maxsize=1)
def byte_tokenizer() -> Any:
    """The constraint engine's tokenizer over single bytes."""
    from llguidance import LLTokenizer, TokenizerWrapper

    return LLTokenizer(TokenizerWrapper(_Bytes()), n_vocab=257, slices=[])
