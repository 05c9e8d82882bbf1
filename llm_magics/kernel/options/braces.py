r"""``{{expression}}`` in a cell's text or on a magic's line: the value of an expression in the user's namespace.

All other braces are text, and so are escaped ones: ``\{{`` is two braces, e.g. in a question about a Jinja template. A literal
backslash before an expression is written twice: ``C:\\{{name}}`` is ``C:\`` and the value. Braces inside a value are text, too.
"""

from __future__ import annotations

import ast
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

from llm_magics.errors import OptionError

ESCAPE = r"\{{"
_OPENING = re.compile(r"(\\*)\{\{")
_CLOSING = re.compile(r"(?=\}\})")
_MOST_CLOSINGS = 20  # tried for one expression: a pasted template has thousands, and each try is a parse


@dataclass(frozen=True, slots=True)
class Piece:
    """A piece of a text up to ``end``: its literal ``text``, or the source and the code of an expression."""

    text: str
    end: int
    code: ast.Expression | None = None

    def value(self, namespace: Mapping[str, Any]) -> str:
        """The literal text, or ``str`` of the expression's value; raises OptionError, naming the expression."""
        if self.code is None:
            return self.text
        try:
            return str(eval(compile(self.code, "<{{...}}>", "eval"), dict(namespace)))
        except NameError as error:
            raise OptionError(f"{{{{{self.text}}}}}: {error}.", f"Run the cell that defines it first. {_ADVICE}") from error
        except Exception as error:
            what = f"{{{{{self.text}}}}}: {type(error).__name__}: {error}."
            raise OptionError(what, f"Correct the expression. {_ADVICE}") from error


_ADVICE = f"For braces that are text, write {ESCAPE} instead. Nothing was sent."


def fill(text: str, namespace: Mapping[str, Any]) -> str:
    """Replace every ``{{expression}}`` by ``str`` of its value, and every escape by two braces. Braces without a Python
    expression are text: ``{{}}``, ``{{ not python }}``, and JSON such as ``{"a": {"b": 1}}``. Raises OptionError."""
    written: list[str] = []
    at = 0
    while (opening := _OPENING.search(text, at)) is not None:
        written.append(text[at : opening.start()])
        piece = piece_at(text, opening.start())
        assert piece is not None
        written.append(piece.value(namespace))
        at = piece.end
    return "".join((*written, text[at:]))


def piece_at(text: str, at: int) -> Piece | None:
    """Read the braces, or the backslashes in front of braces, at ``at``; None if there are none."""
    opening = _OPENING.match(text, at)
    if opening is None:
        return None
    n_backslashes = len(opening[1])
    if n_backslashes:
        half = "\\" * (n_backslashes // 2)
        return Piece(half + "{{", opening.end()) if n_backslashes % 2 else Piece(half, opening.end() - 2)
    end, code = _expression(text, opening.end())
    return Piece("{", at + 1) if code is None else Piece(text[opening.end() : end - 2].strip(), end, code)


def _expression(text: str, start: int) -> tuple[int, ast.Expression | None]:
    """Find the first ``}}`` that ends an expression (a dict inside may have braces of its own)."""
    for closing in islice(_CLOSING.finditer(text, start), _MOST_CLOSINGS):
        source = text[start : closing.start()].strip()
        if not source:
            break
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", SyntaxWarning)  # e.g. for "\d" or 1is, which may not be code at all
                return closing.start() + 2, ast.parse(source, mode="eval")
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            continue
    return start, None
