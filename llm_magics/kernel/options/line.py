"""A magic's line: one table of options gives its parser, its help and its completions.

A line is split like a shell's, but a backslash is literal (Windows paths). Options may stand anywhere: ``--name value``,
``--name=value``, ``-n value``; flags take no value. A magic that asks takes its question behind the options, quotes included.

``{{expression}}`` is filled word by word, once, after the split. A value stays inside its word, whatever blanks, quotes or
braces it holds. It is data: it never becomes an option's name, a file's name or a variable's name.

No argparse: it exits on errors, and knows neither ``{{expression}}`` nor Tab.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import InitVar, dataclass, field
from typing import Any, Generic, TypeAlias, TypeVar, cast

from llm_magics.errors import OptionError
from llm_magics.options import Option, near, options_of

from .braces import Piece, piece_at

Options = TypeVar("Options")
Action = TypeVar("Action")
_HELP = ("--help", "-h")
_WIDTH = 88  # columns of the help: a notebook breaks longer lines inside words
Tell: TypeAlias = Callable[[str], None]


class HelpAsked(OptionError):
    """The line has ``--help`` or ``-h``: the magic shows the help in ``what``."""


class Filled(str):
    """A word with a filled-in value, which begins after the first ``n_typed`` characters."""

    n_typed: int

    def __new__(cls, text: str, n_typed: int = 0) -> Filled:
        word = super().__new__(cls, text)
        word.n_typed = n_typed
        return word


@dataclass(frozen=True)
class Spec(Generic[Options]):
    """One magic's line. Parsing calls ``make``: a dataclass whose fields are options, or else ``table`` lists the options."""

    magic: str
    summary: str
    make: Callable[..., Options]
    body: str = ""
    notes: str = ""
    refused: Mapping[str, str] = field(default_factory=dict)
    table: InitVar[Iterable[Option] | None] = None
    options: tuple[Option, ...] = field(init=False)
    words: tuple[Option, ...] = field(init=False)
    by_name: Mapping[str, Option] = field(init=False)

    def __post_init__(self, table: Iterable[Option] | None) -> None:
        known = tuple(options_of(cast(type, self.make)) if table is None else table)
        object.__setattr__(self, "options", tuple(one for one in known if one.names))
        object.__setattr__(self, "words", tuple(one for one in known if not one.names))
        object.__setattr__(self, "by_name", {name: one for one in known for name in one.names})

    def parse(self, line: str, namespace: Mapping[str, Any] | None = None, tell: Tell | None = None) -> Options:
        """Read a line without a question, filled from ``namespace`` (None: braces are text); raises OptionError. ``tell`` gets
        a notice for each old spelling."""
        given: dict[str, Any] = {}
        rest: list[str] = []
        words = _Words(line, namespace)
        while (word := words.take()) is not None:
            if word == "--" and not isinstance(word, Filled):
                rest += map(str, iter(words.take, None))
            elif _is_option(word):
                self._read_option(given, word, words, tell)
            else:
                rest.append(str(word))
        return self._made(given, rest)

    def parse_question(
        self, line: str, namespace: Mapping[str, Any] | None = None, tell: Tell | None = None
    ) -> tuple[Options, str]:
        """Read options and a question, e.g. ``--temp 0 What's a cell?``; the question is returned as typed."""
        given: dict[str, Any] = {}
        words = _Words(line, namespace)
        while (at := words.at) < len(words.line):
            word = words.take() if words.line.startswith("-", at) else None
            if word is None or not _is_option(word):
                break
            self._read_option(given, word, words, tell)
        return self._made(given, ()), words.line[at:]

    def action(self, said: str, actions: Mapping[str, Action]) -> Action:
        """The action that a line's first word names; raises OptionError for an unknown word."""
        if said not in actions:
            hint = near(said, actions) or f"The actions are {', '.join(self.words[0].choices)}."
            raise OptionError(f"{self.magic} has no action {said!r}.", hint)
        return actions[said]

    def help(self) -> str:
        words = " ".join(f"[{word.metavar}]" for word in self.words)
        usage = " ".join(part for part in (self.magic, words, "[options]" if self.options else "") if part)
        rows = [(one.usage, one.help or ", ".join(one.choices)) for one in (*self.words, *self.options)]
        width = min(max((len(left) for left, _ in rows), default=0), 34)
        below = "\n" + " " * (width + 2)  # behind a usage wider than the column
        entries = (f"  {left:<{width}}{below if len(left) > width else ''}  {right}" for left, right in rows)
        lines = "\n".join(_wrapped(entry, width + 4) for entry in entries)
        parts = [_wrapped(self.summary), usage + (f"\n{_wrapped(self.body)}" if self.body else ""), lines, _wrapped(self.notes)]
        return "\n\n".join(part for part in parts if part)

    def _read_option(self, given: dict[str, Any], word: str, words: _Words, tell: Tell | None) -> None:
        name, equals, value = _parted(word)
        option = self._option(name, tell)
        if option.flag and equals:
            raise OptionError(f"{name} takes no value.", f"Write {name} alone.")
        if option.flag:
            given[option.field] = True
            return
        if not equals:
            following = words.take()
            if following is None:
                raise OptionError(f"{name} needs a value.", f"Write {option.usage}.")
            value = following
        read = option.value_of(value, name)
        if option.many:
            given[option.field] = (*given.get(option.field, ()), read)
        elif given.get(option.field, read) != read:
            raise OptionError(f"{name} is given twice, as {given[option.field]} and {read}.", "Give it once.")
        else:
            given[option.field] = read

    def _option(self, name: str, tell: Tell | None) -> Option:
        if name in self.by_name:
            return self.by_name[name]
        if name in _HELP:
            raise HelpAsked(self.help())
        if name in self.refused:
            raise OptionError(f"{self.magic} has no option {name}.", self.refused[name])
        old = next((option for option in self.options if name in option.old), None)
        if old is None:
            raise OptionError(f"{self.magic} has no option {name}.", near(name, self.by_name) or f"{self.magic}? lists them.")
        if tell is not None:
            tell(f"{self.magic} {name} is now called {old.names[0]}; the old name still works.")
        return old

    def _made(self, given: dict[str, Any], rest: Sequence[str]) -> Options:
        if len(rest) > len(self.words):
            extra = rest[len(self.words)]
            hint = "Write the question on the magic's line or below it, not on both." if self.body else f"See {self.magic}?"
            raise OptionError(f"{self.magic} does not expect {extra!r}.", hint)
        given |= {word.field: value for word, value in zip(self.words, rest, strict=False)}
        return self.make(**given)


class _Words:
    """The words of a line, taken and filled from left to right."""

    def __init__(self, line: str, namespace: Mapping[str, Any] | None = None) -> None:
        self.line = line.strip()
        self.at = 0
        self._namespace = namespace

    def take(self) -> str | None:
        """The next word, a Filled if it holds a value; None at the end of the line."""
        if self.at >= len(self.line):
            return None
        pieces: list[str] = []
        n_typed: int | None = None
        quote = ""
        while self.at < len(self.line):
            letter = self.line[self.at]
            piece = piece_at(self.line, self.at)
            if piece is not None:
                if piece.code is not None and self._namespace is not None and n_typed is None:
                    n_typed = sum(map(len, pieces))
                pieces.append(self._filled(piece))
                self.at = piece.end
                continue
            if letter.isspace() and not quote:
                break
            self.at += 1
            if letter == quote:
                quote = ""
            elif letter in "\"'" and not quote:
                quote = letter
            else:
                pieces.append(letter)
        if quote:
            raise OptionError("A quotation mark on the magic's line is not closed.", "Close it, or write the text below.")
        while self.line[self.at : self.at + 1].isspace():
            self.at += 1
        return "".join(pieces) if n_typed is None else Filled("".join(pieces), n_typed)

    def _filled(self, piece: Piece) -> str:
        return self.line[self.at : piece.end] if self._namespace is None else piece.value(self._namespace)


def split(line: str) -> list[str]:
    """Split a magic's line into words: quotes group words, a backslash is literal."""
    return list(iter(_Words(line).take, None))


def _wrapped(text: str, indent: int = 0) -> str:
    """Break long lines between words, with an indent for what follows."""
    wrapper = textwrap.TextWrapper(_WIDTH, subsequent_indent=" " * indent, break_on_hyphens=False)
    return "\n".join(wrapper.fill(line) for line in text.splitlines())


def _is_option(word: str) -> bool:
    """Whether a word is an option's name, i.e. typed, and not a negative number."""
    if isinstance(word, Filled) and "=" not in word[: word.n_typed]:
        return False
    return word.startswith("-") and len(word) > 1 and not (word[1].isdigit() or word[1] == ".")


def _parted(word: str) -> tuple[str, str, str]:
    """Split ``--name=value``; the value of a Filled is a Filled."""
    name, equals, value = word.partition("=")
    return name, equals, Filled(value, word.n_typed - len(name) - 1) if isinstance(word, Filled) else value
