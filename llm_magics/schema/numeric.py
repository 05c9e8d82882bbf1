"""What the bounds of a number node admit, worked out exactly: as fractions of the decimals that the schema writes.

The constraint engine computes bounds in 64 bits. What lies beyond its reach is widened for it (:func:`widened`), and whether
any number is left at all is decided here (:func:`is_empty`), not by what the engine makes of it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from fractions import Fraction
from typing import Any

EXACT = 2**53  # up to here every integer has a 64-bit float of its own


def exact(number: float) -> Fraction:
    """The number as it is written: 0.1 is a tenth."""
    return Fraction(number) if isinstance(number, int) else Fraction(repr(number))


def is_empty(node: Mapping[str, Any]) -> bool:
    """Does no number satisfy this node?"""
    low, high = _ends(node)
    step = _step(node)
    if step is None:
        return low is not None and high is not None and (low[0] > high[0] or (low[0] == high[0] and (low[1] or high[1])))
    if low is None or high is None:
        return False
    first, last = low[0] / step, high[0] / step
    least, most = math.ceil(first), math.floor(last)
    return least + (low[1] and least == first) > most - (high[1] and most == last)


def within(node: Mapping[str, Any], number: float) -> bool:
    """Check a constant against a number node's bounds."""
    low, high = _ends(node)
    value, step = exact(number), node.get("multipleOf")
    if step is not None and (value / exact(step)).denominator != 1:
        return False
    over = low is None or value > low[0] or (value == low[0] and not low[1])
    return over and (high is None or value < high[0] or (value == high[0] and not high[1]))


def widened(node: Mapping[str, Any]) -> dict[str, Any]:
    """The node with bounds that 64-bit floats hold exactly; none is narrower, e.g. ``minimum: 10**20`` becomes 2**53."""
    kept = dict(node)
    for keyword, side in (("minimum", 1), ("exclusiveMinimum", 1), ("maximum", -1), ("exclusiveMaximum", -1)):
        bound = kept.get(keyword)
        if bound is None or abs(bound) <= EXACT:
            continue
        del kept[keyword]
        if bound * side > 0 and node["type"] == "integer":  # it still says of small numbers that they are out
            plain = "minimum" if side > 0 else "maximum"
            kept[plain] = side * EXACT
    return kept


def _ends(node: Mapping[str, Any]) -> tuple[tuple[Fraction, bool] | None, tuple[Fraction, bool] | None]:
    """The lower and the upper bound, each with whether it is itself out."""
    lows = [(exact(node[k]), out) for k, out in (("minimum", False), ("exclusiveMinimum", True)) if k in node]
    highs = [(exact(node[k]), out) for k, out in (("maximum", False), ("exclusiveMaximum", True)) if k in node]
    return max(lows, default=None), min(highs, key=lambda end: (end[0], not end[1]), default=None)


def _step(node: Mapping[str, Any]) -> Fraction | None:
    """The distance of the numbers that a node admits; None where they lie as close as they like."""
    step = exact(node["multipleOf"]) if "multipleOf" in node else None
    if node["type"] != "integer":
        return step
    return Fraction(1) if step is None else Fraction(step.numerator)  # the least common multiple with 1, in lowest terms
