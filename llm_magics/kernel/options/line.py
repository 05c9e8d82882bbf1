"""A magic's line: its parsing and its help, read off the table of its options, as completion is.

A line is split like a shell's, but for backslashes, which mean themselves (Windows paths). Options may stand anywhere:
``--name value``, ``--name=value``, ``-n value``; flags take no value. The same Spec object answers ``%%chat?`` and Tab.

``{{expression}}`` is filled word by word, after the line was split, and once. A value stays inside its word, whatever blanks,
quotes or braces it holds, and it is data: it cannot become an option's name, and what it holds names no file and no variable.

argparse would end a cell in words of its own, knows no ``{{expression}}``, and tells Tab nothing.

A magic that asks a question takes it on its line, too: behind the options stands the question as it is, quotes and all.
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
_WIDTH = 88  # columns of the help: a notebook breaks longer lines in the middle of a word
Tell: TypeAlias = Callable[[str], None]


class HelpAsked(OptionError):
    """A line that asks for its magic's help, with ``--help`` or ``-h``. It is no fault: the magic shows ``what``."""


class Filled(str):
    """A word with a value in it. Its first ``n_typed`` characters were typed on the line; behind them the value begins."""

    n_typed: int

    def __new__(cls, text: str, n_typed: int = 0) -> Filled:
        word = super().__new__(cls, text)
        word.n_typed = n_typed
        return word


@dataclass(frozen=True)
class Spec(Generic[Options]):
    """All there is to say about one magic's line. ``make`` is what parsing gives: a dataclass whose fields are options."""

    magic: str
    summary: str
    make: Callable[..., Options]
    body: str = ""
    notes: str = ""
    refused: Mapping[str, str] = field(default_factory=dict)
    table: InitVar[Iterable[Option] | None] = None
    """The options, if they are not ``make``'s own."""
    options: tuple[Option, ...] = field(init=False)
    words: tuple[Option, ...] = field(init=False)
    by_name: Mapping[str, Option] = field(init=False)

    def __post_init__(self, table: Iterable[Option] | None) -> None:
        known = tuple(options_of(cast(type, self.make)) if table is None else table)
        object.__setattr__(self, "options", tuple(one for one in known if one.names))
        object.__setattr__(self, "words", tuple(one for one in known if not one.names))
        object.__setattr__(self, "by_name", {name: one for one in known for name in one.names})

    def parse(self, line: str, namespace: Mapping[str, Any] | None = None, tell: Tell | None = None) -> Options:
        """Read the whole line, its words filled from ``namespace`` (without one, braces are text); raises OptionError.

        ``tell`` is told of spellings that are old.
        """
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
        """Read a line that ends in a question, e.g. ``--temp 0 What's a cell?``: its options, and the question as it stands."""
        given: dict[str, Any] = {}
        words = _Words(line, namespace)
        while (at := words.at) < len(words.line):
            word = words.take() if words.line.startswith("-", at) else None
            if word is None or not _is_option(word):
                break
            self._read_option(given, word, words, tell)
        return self._made(given, ()), words.line[at:]

    def action(self, said: str, actions: Mapping[str, Action]) -> Action:
        """What a line's first word asks for; raises OptionError for a word that this magic does not know."""
        if said not in actions:
            hint = near(said, actions) or f"It can: {', '.join(self.words[0].choices)}."
            raise OptionError(f"{self.magic} cannot {said!r}.", hint)
        return actions[said]

    def help(self) -> str:
        """Write what ``magic?`` shows."""
        words = " ".join(f"[{word.metavar}]" for word in self.words)
        usage = " ".join(part for part in (self.magic, words, "[options]" if self.options else "") if part)
        rows = [(one.usage, one.help or ", ".join(one.choices)) for one in (*self.words, *self.options)]
        width = min(max((len(left) for left, _ in rows), default=0), 34)
        below = "\n" + " " * (width + 2)  # behind a usage that is wider than the column
        lines = "\n".join(
            _wrapped(f"  {left:<{width}}{below if len(left) > width else ''}  {right}", width + 4) for left, right in rows
        )
        parts = [_wrapped(self.summary), usage + (f"\n{_wrapped(self.body)}" if self.body else ""), lines, _wrapped(self.notes)]
        return "\n\n".join(part for part in parts if part)

    def _read_option(self, given: dict[str, Any], word: str, words: _Words, tell: Tell | None) -> None:
        name, equals, value = _parted(word)
        option = self._option(name, tell)
        if option.flag and equals:
            raise OptionError(f"{name} takes no value.")
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
            raise OptionError(f"{name} is given twice, as {given[option.field]} and {read}.")
        else:
            given[option.field] = read

    def _option(self, name: str, tell: Tell | None) -> Option:
        if name in self.by_name:
            return self.by_name[name]
        if name in _HELP:
            raise HelpAsked(self.help())
        if name in self.refused:
            raise OptionError(f"{self.magic} has no option {name} any more.", self.refused[name])
        old = next((option for option in self.options if name in option.old), None)
        if old is None:
            raise OptionError(f"{self.magic} has no option {name}.", near(name, self.by_name) or f"{self.magic}? lists them.")
        if tell is not None:
            tell(f"{self.magic} {name} still works, but its name is {old.names[0]} now.")
        return old

    def _made(self, given: dict[str, Any], rest: Sequence[str]) -> Options:
        if len(rest) > len(self.words):
            extra = rest[len(self.words)]
            hint = "Write the question on one line alone, or all of it below the line." if self.body else ""
            hint = hint or f"{self.magic}? shows how it is used."
            raise OptionError(f"{self.magic} does not know what to do with {extra!r}.", hint)
        given |= {word.field: value for word, value in zip(self.words, rest, strict=False)}
        return self.make(**given)


class _Words:
    """A line's words, taken from the left and filled one by one."""

    def __init__(self, line: str, namespace: Mapping[str, Any] | None = None) -> None:
        self.line = line.strip()
        self.at = 0
        self._namespace = namespace

    def take(self) -> str | None:
        """The next word, a Filled if there is a value in it; None at the end of the line."""
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
            raise OptionError("A quotation mark in the magic's line is not closed.", "Close it, or write in the cell.")
        while self.line[self.at : self.at + 1].isspace():
            self.at += 1
        return "".join(pieces) if n_typed is None else Filled("".join(pieces), n_typed)

    def _filled(self, piece: Piece) -> str:
        return self.line[self.at : piece.end] if self._namespace is None else piece.value(self._namespace)


def split(line: str) -> list[str]:
    """Split a magic's line into words: quotes hold words together, a backslash is itself."""
    return list(iter(_Words(line).take, None))


def _wrapped(text: str, indent: int = 0) -> str:
    """Break its lines between words, and indent what follows of a line."""
    wrapper = textwrap.TextWrapper(_WIDTH, subsequent_indent=" " * indent, break_on_hyphens=False)
    return "\n".join(wrapper.fill(line) for line in text.splitlines())


def _is_option(word: str) -> bool:
    """Whether a word is an option's name, typed as such, and not a negative number."""
    if isinstance(word, Filled) and "=" not in word[: word.n_typed]:
        return False
    return word.startswith("-") and len(word) > 1 and not (word[1].isdigit() or word[1] == ".")


def _parted(word: str) -> tuple[str, str, str]:
    """Part ``--name=value``; the value of a Filled is one."""
    name, equals, value = word.partition("=")
    return name, equals, Filled(value, word.n_typed - len(name) - 1) if isinstance(word, Filled) else value
