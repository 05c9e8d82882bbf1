"""``{{expression}}`` in a cell's text: the value of an expression in the user's namespace. All other braces are themselves."""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from typing import Any

from ..errors import OptionError

_OPENING = re.compile(r"\{\{")


def fill(text: str, namespace: Mapping[str, Any]) -> str:
    """Replace every ``{{expression}}`` by ``str`` of its value.

    What stands between the braces must be a Python expression, or the braces stay: ``{{}}``, ``{{ not python }}`` and JSON such
    as ``{"a": {"b": 1}}`` are text. Raises OptionError, naming the expression, where evaluating it fails.
    """
    written: list[str] = []
    at = 0
    while (opening := _OPENING.search(text, at)) is not None:
        written.append(text[at : opening.start()])
        end, code = _expression(text, opening.end())
        if code is None:
            written.append("{")
            at = opening.start() + 1
            continue
        written.append(_value(text[opening.end() : end - 2].strip(), code, namespace))
        at = end
    return "".join((*written, text[at:]))


def _expression(text: str, start: int) -> tuple[int, ast.Expression | None]:
    """Find the first ``}}`` up to which the text is an expression (a dict inside may end with braces of its own)."""
    for closing in re.finditer(r"(?=\}\})", text[start:]):
        source = text[start : start + closing.start()].strip()
        if not source:
            break
        try:
            return start + closing.start() + 2, ast.parse(source, mode="eval")
        except (SyntaxError, ValueError):
            continue
    return start, None


def _value(source: str, code: ast.Expression, namespace: Mapping[str, Any]) -> str:
    try:
        return str(eval(compile(code, "<{{...}}>", "eval"), dict(namespace)))
    except NameError as error:
        raise OptionError(f"{{{{{source}}}}}: {error}.", "Run the cell that defines it first. Nothing was sent.") from error
    except Exception as error:
        raise OptionError(
            f"{{{{{source}}}}}: {type(error).__name__}: {error}.", "Mend the expression. Nothing was sent."
        ) from error
