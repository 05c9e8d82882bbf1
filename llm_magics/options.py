"""An option, said once: as a field of a dataclass that knows its spellings, its help, its values, and what it configures.

A magic's parser, help and completion, the settings of a load, the engine's configuration and the traits of ``c.LLMMagics`` are
read off such fields, so a new option is one line, e.g. ``seed: int | None = option(None, "--seed", "...", whole(0), "N")``.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, fields, replace
from typing import Any

from .errors import OptionError

_KEY = "option"  # in the metadata of a field


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """One option; without ``names`` it is a word that stands by itself, e.g. the model's name of ``%load_model``.

    Args:
        names: its spellings, the main one first, e.g. ``("--ctx", "--ctx-size")``.
        read: makes the value of the word; raises ValueError, saying what would be right. A plain ``str`` does not tell what was
            typed from what was filled in; ``as_typed`` does.
        metavar: what stands for the value in the help; empty for a flag, which sets ``True``.
        choices: the only values there are.
        free: a word besides those that ``read`` takes, which leaves the choice to us: "auto".
        complete: what kind of names Tab offers, e.g. "models"; ``after`` are the first words behind which it does, none is any.
        many: whether it may be given more than once, giving a tuple.
        varies: whether ``%%compare`` takes several values; ``alone``: whether it does not take the option at all.
        old: spellings that still work but are not shown; whoever writes one is told the main one.
        config: the fields, with blanks between, that it sets of what is below: EngineConfig, or a turn's settings.
        unit: what the value is multiplied with for ``config``, e.g. 2**20 for MiB.
        trait: the help of the trait ``default_...`` of ``c.LLMMagics`` that stands in for it, if there is one.
        field, default: of the dataclass.
    """

    help: str
    names: tuple[str, ...] = ()
    read: Callable[[str], Any] = str
    metavar: str = ""
    choices: tuple[str, ...] = ()
    free: str = ""
    complete: str = ""
    after: tuple[str, ...] = ()
    many: bool = False
    varies: bool = False
    alone: bool = False
    old: tuple[str, ...] = ()
    config: str = ""
    unit: int = 1
    trait: str = ""
    field: str = ""
    default: Any = None

    @property
    def flag(self) -> bool:
        return not self.metavar and not self.choices

    @property
    def usage(self) -> str:
        """E.g. ``--ctx, --ctx-size N|auto``."""
        value = self.metavar or "|".join(self.choices)
        return f"{', '.join(self.names)} {value}".strip()

    def value_of(self, word: str, spelling: str) -> Any:
        """Read one word as this option's value; raises OptionError."""
        if self.free and word == self.free:
            return self.free
        if self.choices and word not in self.choices:
            raise OptionError(f"{spelling} cannot be {word!r}.", near(word, self.choices) or f"Write {self.usage}.")
        try:
            return self.read(word)
        except ValueError as error:
            raise OptionError(f"{spelling} cannot be {word!r}: {error}.", f"Write {self.usage}.") from None

    def check(self, value: Any) -> None:
        """Raise OptionError if a value that was given in Python is none of this option's."""
        if value == self.default or (self.free and value == self.free):
            return
        if self.choices and self.read is str and value not in self.choices:
            raise OptionError(f"{self.field} is {value!r}.", f"Choose one of: {', '.join(self.choices)}.")
        if isinstance(self.read, Number) and not self.read.holds(value):
            other = self.free or self.default
            also = "" if isinstance(other, int) else f", or {other!r}"
            raise OptionError(f"{self.field} is {value!r}.", f"Give {self.read}{also}.")


def option(
    default: Any, names: str, help: str, read: Callable[[str], Any] = str, metavar: str = "", *, old: str = "", **columns: Any
) -> Any:
    """Make a field that is an option; ``names`` and ``old`` have blanks between. The other columns are those of Option."""
    said = Option(names=tuple(names.split()), help=help, read=read, metavar=metavar, old=tuple(old.split()), **columns)
    metadata = {_KEY: said}
    return field(default_factory=dict, metadata=metadata) if default is dict else field(default=default, metadata=metadata)


def word(metavar: str, help: str, default: Any = "", **columns: Any) -> Any:
    """Make a field that is a word without an option's name."""
    return option(default, "", help, metavar=metavar, **columns)


def options_of(table: type) -> tuple[Option, ...]:
    """The options among a dataclass's fields."""
    return tuple(replace(f.metadata[_KEY], field=f.name, default=f.default) for f in fields(table) if _KEY in f.metadata)


def described(table: type) -> str:
    """A line for each option, by the name of its field, for the docstring of the dataclass."""
    return "\n".join(f"    {one.field}: {one.help}" for one in options_of(table))


def configured(given: Any) -> dict[str, Any]:
    """What the options of a dataclass's instance set below, e.g. ``park_memory`` of 1 MiB as 2**20; nothing of what is free."""
    below: dict[str, Any] = {}
    for one in options_of(type(given)):
        value = getattr(given, one.field)
        if value not in (None, (), one.free or None):
            below |= dict.fromkeys(one.config.split(), value if one.unit == 1 else value * one.unit)
    return below


def near(word: str, known: Iterable[str]) -> str:
    """Ask for the nearest known names, e.g. ``Did you mean --temp?``; empty where none is near."""
    names = list(known)
    found = difflib.get_close_matches(word, names, 3, 0.6) or [n for n in names if len(word) > 2 and n.startswith(word)]
    return f"Did you mean {' or '.join(found[:3])}?" if found else ""


# --- readers of values ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Number:
    """A reader of numbers between two bounds."""

    least: float
    most: float = float("inf")
    kind: type[int] | type[float] = float

    def __str__(self) -> str:
        bounds = f"from {self.least:g} to {self.most:g}" if self.most != float("inf") else f"of at least {self.least:g}"
        return f"{'a whole number' if self.kind is int else 'a number'} {bounds}"

    def holds(self, value: Any) -> bool:
        is_number = isinstance(value, int if self.kind is int else (int, float)) and not isinstance(value, bool)
        return is_number and self.least <= value <= self.most

    def __call__(self, word: str) -> Any:
        try:
            value: Any = self.kind(word.replace("_", ""))
        except ValueError:
            value = None
        if not self.holds(value):
            raise ValueError(f"it should be {self}")
        return value


def whole(least: float, most: float = float("inf")) -> Number:
    return Number(least, most, int)


def as_typed(word: str) -> str:
    """Keep the word as it is, also one with a value in it: for values that may name a file or a variable if they were typed."""
    return word


def on_off(word: str) -> bool:
    """Read one of the two choices."""
    return word == "on"


def json_object(word: str) -> dict[str, Any]:
    try:
        value = json.loads(word)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise ValueError("it should be a JSON object in single quotes, e.g. '{\"name\": true}'")
    return value


def numbers(word: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in word.replace("/", ",").split(","))
    except ValueError:
        raise ValueError("it should be numbers with commas between, e.g. 3,1") from None
