"""Arithmetic from text, evaluated over Python's syntax tree: numbers, operators and a table of functions only.

Every operation is bounded before it runs: ``9^9^9^9`` is refused by the size its result would have, not by a timer. Libraries
that evaluate expressions limit time or names, not that size.
"""

from __future__ import annotations

import ast
import math
import operator
from collections.abc import Callable
from typing import Any, TypeAlias

from llm_magics.errors import ToolError

Number: TypeAlias = int | float
MAX_CHARS = 2_000
MAX_BITS = 20_000  # of any intermediate integer, about 6,000 digits
_MAX_FACTORIAL = 1_000

CONSTANTS: dict[str, float] = {"pi": math.pi, "e": math.e, "tau": math.tau, "inf": math.inf}


def _factorial(n: Number) -> int:
    if n > _MAX_FACTORIAL:
        raise ToolError(f"The factorial of {n} is too large.", f"Use numbers up to {_MAX_FACTORIAL}.")
    return math.factorial(_whole(n))


def _choose(function: Callable[[int, int], int]) -> Callable[[Number, Number], int]:
    def bounded(n: Number, k: Number) -> int:
        if n > _MAX_FACTORIAL:
            raise ToolError(f"{n} is too large here.", f"Use numbers up to {_MAX_FACTORIAL}.")
        return function(_whole(n), _whole(k))

    return bounded


def _whole(n: Number) -> int:
    if n != int(n):
        raise ToolError(f"{n} is not a whole number.", "Use a whole number.")
    return int(n)


def _spelled(function: Callable[[int], str]) -> Callable[[Number], str]:
    return lambda n: function(_whole(n))


def _root(n: Number, degree: Number = 2) -> float:
    return math.copysign(abs(n) ** (1 / degree), n) if degree % 2 == 1 else _power(n, 1 / degree)


def _lcm(*numbers: Number) -> int:
    _check_product([_whole(n) for n in numbers])
    return math.lcm(*(_whole(n) for n in numbers))


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "sqrt": math.sqrt, "cbrt": math.cbrt, "root": _root, "exp": math.exp, "ln": math.log, "log": math.log,
    "log10": math.log10, "log2": math.log2, "sin": math.sin, "cos": math.cos, "tan": math.tan, "asin": math.asin,
    "acos": math.acos, "atan": math.atan, "atan2": math.atan2, "sinh": math.sinh, "cosh": math.cosh, "tanh": math.tanh,
    "degrees": math.degrees, "radians": math.radians, "hypot": math.hypot, "floor": math.floor, "ceil": math.ceil,
    "trunc": math.trunc, "gcd": lambda *n: math.gcd(*map(_whole, n)), "lcm": _lcm, "factorial": _factorial,
    "comb": _choose(math.comb), "perm": _choose(math.perm), "abs": abs, "round": round, "min": min, "max": max,
    "sum": lambda *n: sum(n), "pow": lambda a, b: _power(a, b), "mean": lambda *n: sum(n) / len(n),
    "hex": _spelled(hex), "bin": _spelled(bin), "oct": _spelled(oct), "int": int, "float": float,
}  # fmt: skip


def evaluate(expression: str) -> Number | str:
    """Evaluate arithmetic. ``^`` and ``**`` are power; ``hex``, ``bin`` and ``oct`` give text.

    Raises ToolError for text that is not arithmetic, and for results that are undefined or too large.
    """
    if len(expression) > MAX_CHARS:
        raise ToolError(f"The expression has {len(expression):,} characters.", f"Write at most {MAX_CHARS:,}.")
    text = expression.strip().rstrip("=").strip()
    for written, meant in (("^", "**"), ("×", "*"), ("·", "*"), ("÷", "/"), ("−", "-"), ("π", "pi")):
        text = text.replace(written, meant)
    try:
        return _tidied(_value(ast.parse(text, mode="eval").body))
    except SyntaxError as error:
        what = f"{expression[:200]!r} is not an arithmetic expression: {error.msg}."
        raise ToolError(what, "Write it as in 2*(3+4)^2.") from error
    except (ArithmeticError, ValueError, TypeError, RecursionError, MemoryError) as error:
        raise ToolError(f"{expression[:200]!r} has no value: {error}.", "Check the numbers and functions.") from error


def _tidied(value: Any) -> Number | str:
    """Write a result as a calculator does: whole numbers as integers, floats without their last, uncertain digits."""
    if isinstance(value, float) and math.isfinite(value):
        return int(value) if value.is_integer() and abs(value) < 1e15 else float(f"{value:.15g}")
    if isinstance(value, int):
        str(value)  # Python refuses to write very long integers
    return value


def _value(node: ast.expr) -> Any:
    match node:
        case ast.Constant(value=bool() | complex()):
            pass
        case ast.Constant(value=int() | float() as number):
            return number
        case ast.Name(id=name) if name.lower() in CONSTANTS:
            return CONSTANTS[name.lower()]
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -_value(operand)
        case ast.UnaryOp(op=ast.UAdd(), operand=operand):
            return +_value(operand)
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _OPERATORS:
            return _OPERATORS[type(op)](_value(left), _value(right))
        case ast.Call(func=func, args=args, keywords=[]):
            return _function(func)(*(_value(item) for item in _arguments(args)))
        case ast.Attribute(value=ast.Name(id="math"), attr=name) if name in CONSTANTS:
            return CONSTANTS[name]
        case ast.Name(id=name):
            raise ToolError(f"There is no constant {name!r}.", f"Known are {', '.join(CONSTANTS)}; write others as numbers.")
    raise ToolError(f"{ast.unparse(node)[:100]!r} is not arithmetic.", "Use numbers, operators, functions and parentheses.")


def _arguments(args: list[ast.expr]) -> list[ast.expr]:
    """Read ``sum([1, 2])`` as ``sum(1, 2)``."""
    return args[0].elts if len(args) == 1 and isinstance(args[0], (ast.List, ast.Tuple)) else args


def _function(node: ast.expr) -> Callable[..., Any]:
    if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "math":
        node = ast.Name(node.attr)
    name = node.id if isinstance(node, ast.Name) else ast.unparse(node)[:50]
    if name not in FUNCTIONS:
        raise ToolError(f"There is no function {name!r}.", f"Known are {', '.join(FUNCTIONS)}.")
    return FUNCTIONS[name]


def _power(base: Number, exponent: Number) -> Any:
    if isinstance(base, int) and isinstance(exponent, int) and exponent > 0 and base.bit_length() * exponent > MAX_BITS:
        raise ToolError("That power is too large.", f"Results have at most about {MAX_BITS * 3 // 10:,} digits.")
    value = base**exponent
    if isinstance(value, complex):
        raise ToolError("That power is not a real number.", "Use a base of at least 0, or a whole exponent.")
    return value


def _times(a: Number, b: Number) -> Number:
    if isinstance(a, int) and isinstance(b, int):
        _check_product([a, b])
    return a * b


def _check_product(factors: list[int]) -> None:
    if sum(factor.bit_length() for factor in factors) > MAX_BITS:
        raise ToolError("That product is too large.", f"Results have at most about {MAX_BITS * 3 // 10:,} digits.")


_OPERATORS: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: _times, ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv, ast.Mod: operator.mod, ast.Pow: _power,
}  # fmt: skip
