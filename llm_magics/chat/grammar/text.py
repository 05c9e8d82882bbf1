"""Grammar text for llguidance: rules, terminals, markers.

Its dialect of Lark (https://github.com/guidance-ai/llguidance/blob/main/docs/syntax.md): rules are context-free, UPPERCASE
terminals are regular, a lexer takes the longest terminal that fits unless a rule is lazy. Markers are written as text, whether
the vocabulary has a token for them or not: the engine shows a grammar the text of every token but those that end the
generation. White space is bounded, and so is the length of numbers: a small model that may not write what it wants loses itself
in either. Between a key and its value two blanks are all there is; elsewhere it is two line breaks and an indentation.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

MAX_SPACE = 60  # blanks of an indentation
MAX_CALLS = 32  # calls of one message: a small model may repeat one without end, and the grammar's ambiguity grows with each
HEADER_SPACE = 60  # characters that a block's header may have around the recipient
MAX_COUNT = 10_000  # array elements and string lengths beyond which a limit is not worth a grammar

# A JSON string's characters; a surrogate is only allowed as half of a pair, e.g. \ud83d\ude00.
_PAIR = r"[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}"
_UNICODE = rf"\\u([0-9a-ce-fA-CE-F][0-9a-fA-F]{{3}}|[dD][0-7][0-9a-fA-F]{{2}}|{_PAIR})"
TERMINALS = {
    "SP": r"/[ \t]{1,2}/",
    "WS": rf"/[ \t]{{1,8}}|[ \t]{{0,8}}(\r?\n[ \t]{{0,8}})?\r?\n[ \t]{{0,{MAX_SPACE}}}/",
    "INT": r"/-?(0|[1-9][0-9]{0,30})/",
    "NUMBER": r"/-?(0|[1-9][0-9]{0,30})(\.[0-9]{1,30})?([eE][+-]?([0-9]{1,2}|[12][0-9]{2}))?/",
    "STRING": rf'/"([^"\\\x00-\x1f]|\\["\\\/bfnrt]|{_UNICODE})*"/',
    # A free key may not spell a character that needs no escape as one: it could then repeat a declared key unseen.
    "KEY": r'/"([^"\\\x00-\x1f]|\\["\\\/bfnrt]|\\u00[01][0-9a-fA-F])*"/',
    # JSON inside a JSON string: every quote and every backslash has one more backslash, e.g. {\"a\": \"x\\n\"}
    "NESTED": r'/\\"([^"\\\x00-\x1f]|\\\\(\\"|\\\\|[\/bfnrt]|u[0-9a-fA-F]{4}))*\\"/',
    "SINGLE": r"/'([^'\\\x00-\x1f]|\\[^\x00-\x1f])*'/",
    "DOUBLE": r'/"([^"\\\x00-\x1f]|\\[^\x00-\x1f])*"/',
    "ANY_KEY": r"""/"([^"\\\x00-\x1f]|\\[^\x00-\x1f])*"|'([^'\\\x00-\x1f]|\\[^\x00-\x1f])*'/""",
    "SINGLE_RAW": r"/'[^']*'/",
    "DOUBLE_RAW": r'/"[^"]*"/',
    "WORD": r"/[A-Za-z_][A-Za-z0-9_.-]{0,80}/",
    "TEXT": r"/(?s:.*)/",
}


def quoted(text: str) -> str:
    """Write text as a grammar literal."""
    return json.dumps(text, ensure_ascii=False)


class GrammarWriter:
    """Collects the rules of one grammar."""

    def __init__(self) -> None:
        self.rules: list[str] = []
        self.used: dict[str, None] = {}
        self.own_terminals: dict[str, str] = {}
        self.known: dict[tuple[Any, ...], str] = {}
        self.count = 0

    # --- pieces -------------------------------------------------------------------------------------------------------------

    def name(self, hint: str = "r") -> str:
        self.count += 1
        return f"{hint}{self.count}"

    def rule(self, body: str, hint: str = "r") -> str:
        """Add a rule and return its name; the same body twice is one rule."""
        key = ("rule", body)
        if key not in self.known:
            self.known[key] = self.name(hint)
            self.rules.append(f"{self.known[key]}: {body}")
        return self.known[key]

    def terminal(self, name: str) -> str:
        self.used[name] = None
        return name

    def new_terminal(self, body: str, hint: str = "T") -> str:
        if body not in self.own_terminals:
            self.own_terminals[body] = f"{hint}{len(self.own_terminals)}"
        return self.own_terminals[body]

    @property
    def gap(self) -> str:
        return self.terminal("WS") + "?"

    def assign(self, sign: str) -> str:
        """What stands between a key and its value."""
        blank = self.terminal("SP") + "?"
        return f"{blank} {quoted(sign)} {blank}"

    def marker(self, text: str) -> str:
        """Write a marker: its tags exactly, its layout free.

        White space is optional at the edges and between tags; between two words, e.g. in ``<function name="``, it must stand.
        """
        parts = [] if text == text.lstrip() else [self.gap]
        runs = text.split()
        for before, run in zip(["", *runs], runs, strict=False):
            if before:
                words = before[-1].isalnum() and run[0].isalnum()
                parts.append(self.terminal("WS") if words else self.gap)
            parts.append(quoted(run))
        if text.strip() and text != text.rstrip():
            parts.append(self.gap)
        return " ".join(parts)

    def until(self, *ends: str) -> str:
        """Any text up to and with the first of these ends."""
        return self.lazy(f"/(?s:.*)({'|'.join(map(as_regex, ends))})/", "until")

    def header_until(self, marker: str) -> str:
        """The rest of a block's header up to a marker: models put more into it than templates do, e.g. a channel."""
        return self.lazy(rf"/[^\n]{{0,{HEADER_SPACE}}}{as_regex(marker.strip())}/", "head")

    def restricted(self, body: str, end: str) -> str:
        """Text that a terminal ``body`` matches, then layout, then ``end``, which the text may not hold.

        One lexeme: a lexer takes the longest, and would otherwise take the beginning of ``end`` for text.
        """
        ending = f"/[ \\t\\r\\n]{{0,{MAX_SPACE}}}{as_regex(end)}/"
        name = self.new_terminal(f"(({body}) & ~/(?s:.*){as_regex(end)}(?s:.*)/) {ending}", "S")
        return self.lazy(name, "s")

    def lazy(self, terminal: str, hint: str) -> str:
        """A rule that takes the shortest match of a terminal."""
        key = ("lazy", terminal)
        if key not in self.known:
            self.known[key] = self.name(hint)
            self.rules.append(f"{self.known[key]}[lazy]: {terminal}")
        return self.known[key]

    def text(self, start: str) -> str:
        """The whole grammar, from the rule body ``start``."""
        lines = ["%llguidance {}", f"start: {start}", *self.rules]
        lines += [f"{name}: {body}" for body, name in self.own_terminals.items()]
        lines += [f"{name}: {TERMINALS[name]}" for name in self.used]
        return re.sub(r"(WS\? +)+WS\?", "WS?", "\n".join(lines)) + "\n"


def when(body: str, conditions: Sequence[str]) -> str:
    if not conditions:
        return body
    test = conditions[-1]
    for condition in reversed(conditions[:-1]):
        test = f"and({condition}, {test})"
    return f"{body} %if {test}"


def repeat(item: str, low: int, high: int) -> str:
    """``item`` between ``low`` and ``high`` times; a very high limit is none."""
    if high <= 0:
        return ""
    if high >= MAX_COUNT - 1:
        return f"({item})*" if low == 0 else f"({item}){{{low},}}"
    return f"({item}){{{low},{high}}}"


def as_regex(text: str) -> str:
    """Write text as a regular expression that matches it, inside ``/.../``."""
    return "".join(f"\\x{{{ord(c):x}}}" if not (c.isalnum() and c.isascii()) else c for c in text)


def inside_slashes(regex: str) -> str:
    """Write a regular expression inside ``/.../``."""
    return re.sub(r"(?<!\\)/", r"\\/", regex).replace("\n", "\\n")
