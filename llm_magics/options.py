"""An option as one field of a dataclass, e.g. ``seed: int | None = option(None, "--seed", "...", whole(0), "N")``.

Parsers, help, completion, load settings, the engine's configuration and the traits of ``c.LLMMagics`` derive from such fields.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal

from .errors import OptionError

_KEY = "option"  # in the metadata of a field


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """One option, or, without ``names``, a positional word, e.g. the model's name of ``%load_model``.

    Args:
        names: its spellings, the main one first, e.g. ``("--ctx", "--ctx-size")``; ``old`` ones still work, with a notice.
        read: turns the word into a value, or raises ValueError with what is expected. ``as_typed`` keeps the difference between
            typed and filled-in text; a plain ``str`` does not.
        metavar: the value's name in the help; empty for a flag, which sets ``True``.
        choices: the allowed values; empty allows all. ``free`` is a word that leaves the choice to llm_magics: "auto".
        complete: the kind of names that Tab offers, e.g. "models"; ``after``: only behind these first words, if given.
        many: may be given more than once, for a tuple.
        varies: ``%%compare`` takes several values; ``alone``: ``%%compare`` does not take the option.
        config: the fields of EngineConfig or TurnSettings that the option sets, separated by blanks; ``unit`` is the factor
            from the value to them, e.g. 2**20 for MiB.
        trait: the help of the trait ``default_...`` of ``c.LLMMagics``, if there is one.
        loads: which models a load's option is for: "here" in this kernel, "server", or "both".
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
    loads: Literal["here", "server", "both"] = "here"
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
        """Raise OptionError if a value given in Python is not valid for this option."""
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
    """Make a field that is an option; blanks separate ``names`` and ``old``. For ``columns`` see Option."""
    said = Option(names=tuple(names.split()), help=help, read=read, metavar=metavar, old=tuple(old.split()), **columns)
    metadata = {_KEY: said}
    return field(default_factory=dict, metadata=metadata) if default is dict else field(default=default, metadata=metadata)


def word(metavar: str, help: str, default: Any = "", **columns: Any) -> Any:
    return option(default, "", help, metavar=metavar, **columns)


def options_of(table: type) -> tuple[Option, ...]:
    return tuple(replace(f.metadata[_KEY], field=f.name, default=f.default) for f in fields(table) if _KEY in f.metadata)


def described(table: type) -> str:
    """One line of help for each option, for the docstring of the dataclass."""
    return "\n".join(f"    {one.field}: {one.help}" for one in options_of(table))


def configured(given: Any) -> dict[str, Any]:
    """The ``config`` fields that an instance's options set, e.g. ``park_memory`` of 1 MiB as 2**20; none for a free option."""
    below: dict[str, Any] = {}
    for one in options_of(type(given)):
        value = getattr(given, one.field)
        if value not in (None, (), one.free or None):
            below |= dict.fromkeys(one.config.split(), value if one.unit == 1 else value * one.unit)
    return below


def near(word: str, known: Iterable[str]) -> str:
    """Suggest the nearest known names, e.g. ``Did you mean --temp?``; empty if none is near."""
    names = list(known)
    found = difflib.get_close_matches(word, names, 3, 0.6) or [n for n in names if len(word) > 2 and n.startswith(word)]
    return f"Did you mean {' or '.join(found[:3])}?" if found else ""


@dataclass(frozen=True, slots=True)
class Number:
    """Reads a number between two bounds."""

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
            raise ValueError(f"expected {self}")
        return value


def whole(least: float, most: float = float("inf")) -> Number:
    return Number(least, most, int)


def as_typed(word: str) -> str:
    """Keep the word, also a Filled one: for values that may name a file or a variable only if they were typed."""
    return word


def on_off(word: str) -> bool:
    return word == "on"


def json_object(word: str) -> dict[str, Any]:
    try:
        value = json.loads(word)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise ValueError("expected a JSON object in single quotes, e.g. '{\"name\": true}'")
    return value


def numbers(word: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in word.replace("/", ",").split(","))
    except ValueError:
        raise ValueError("expected numbers separated by commas, e.g. 3,1") from None
