"""Grammar text for llguidance: rules, terminals, markers.

Its dialect of Lark (https://github.com/guidance-ai/llguidance/blob/main/docs/syntax.md): rules are context-free, UPPERCASE
terminals are regular, and the lexer takes the longest terminal that fits unless a rule is lazy. Markers are written as text,
even if the vocabulary has a token for them: the engine gives the grammar the text of every token except those that end
generation. White space and numbers have a limit, because a small model that may not write what it wants can repeat either for
ever. White space is at most two blanks beside an ``assign`` sign; elsewhere, two line breaks and an indentation.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

MAX_SPACE = 60  # blanks of an indentation
MAX_CALLS = 32  # calls of one message: a small model may repeat one for ever, and each makes the grammar more ambiguous
HEADER_SPACE = 60  # characters around the recipient in a block's header
MAX_COUNT = 10_000  # array elements or characters above which a limit is left to validation

# A JSON string's characters; a surrogate is only allowed as half of a pair, e.g. \ud83d\ude00.
_PAIR = r"[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}"
_UNICODE = rf"\\u([0-9a-ce-fA-CE-F][0-9a-fA-F]{{3}}|[dD][0-7][0-9a-fA-F]{{2}}|{_PAIR})"
TERMINALS = {
    "SP": r"/[ \t]{1,2}/",
    "WS": rf"/[ \t]{{1,8}}|[ \t]{{0,8}}(\r?\n[ \t]{{0,8}})?\r?\n[ \t]{{0,{MAX_SPACE}}}/",
    "INT": r"/-?(0|[1-9][0-9]{0,30})/",
    "NUMBER": r"/-?(0|[1-9][0-9]{0,30})(\.[0-9]{1,30})?([eE][+-]?([0-9]{1,2}|[12][0-9]{2}))?/",
    "STRING": rf'/"([^"\\\x00-\x1f]|\\["\\\/bfnrt]|{_UNICODE})*"/',
    # A free key may escape only control characters: otherwise it could repeat a declared key in a different spelling.
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
    return json.dumps(text, ensure_ascii=False)


class GrammarWriter:
    def __init__(self) -> None:
        self.rules: list[str] = []
        self.used: dict[str, None] = {}
        self.own_terminals: dict[str, str] = {}
        self.known: dict[tuple[Any, ...], str] = {}
        self.count = 0

    def name(self, hint: str = "r") -> str:
        self.count += 1
        return f"{hint}{self.count}"

    def rule(self, body: str, hint: str = "r", option: str = "") -> str:
        """Add a rule and return its name; equal bodies share one rule."""
        key = ("rule", option, body)
        if key not in self.known:
            self.known[key] = self.name(hint)
            self.rules.append(f"{self.known[key]}{option}: {body}")
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
        blank = self.terminal("SP") + "?"
        return f"{blank} {quoted(sign)} {blank}"

    def marker(self, text: str) -> str:
        """A marker: its tags exactly, its white space optional, but required between two words, e.g. ``<function name="``."""
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
        """Any text up to the first of these ends, which is included."""
        return self.lazy(f"/(?s:.*)({'|'.join(map(as_regex, ends))})/", "until")

    def header_until(self, marker: str) -> str:
        """The rest of a block's header, up to a marker: models write more into it than templates do, e.g. a channel."""
        return self.lazy(rf"/[^\n]{{0,{HEADER_SPACE}}}{as_regex(marker.strip())}/", "head")

    def restricted(self, body: str, end: str) -> str:
        """Text that the terminal ``body`` matches, without ``end`` in it; then layout, then ``end``.

        One lexeme: as two, the lexer, which takes the longest, would read the beginning of ``end`` as text.
        """
        ending = f"/[ \\t\\r\\n]{{0,{MAX_SPACE}}}{as_regex(end)}/"
        name = self.new_terminal(f"(({body}) & ~/(?s:.*){as_regex(end)}(?s:.*)/) {ending}", "S")
        return self.lazy(name, "s")

    def lazy(self, terminal: str, hint: str) -> str:
        return self.rule(terminal, hint, "[lazy]")

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
    """``item`` between ``low`` and ``high`` times; a very high limit does not count."""
    if high <= 0:
        return ""
    if high >= MAX_COUNT - 1:
        return f"({item})*" if low == 0 else f"({item}){{{low},}}"
    return f"({item}){{{low},{high}}}"


def as_regex(text: str) -> str:
    """A regular expression that matches exactly this text, for use inside ``/.../``."""
    return "".join(f"\\x{{{ord(c):x}}}" if not (c.isalnum() and c.isascii()) else c for c in text)


def inside_slashes(regex: str) -> str:
    """A regular expression for use inside ``/.../``."""
    return re.sub(r"(?<!\\)/", r"\\/", regex).replace("\n", "\\n")
