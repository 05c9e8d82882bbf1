"""An argument encoding: a frozen value that finds, writes, reads and constrains one way to write arguments.

An encoding is found by rendering calls whose every word is known (:class:`Sample`). :mod:`llm_magics.chat.encodings` lists all
of them; only an encoding's own module knows which one it is.
"""

from __future__ import annotations

import json
import math
import re
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, Self

from llm_magics.chat.grammar.text import GrammarWriter
from llm_magics.chat.scan.reader import Kind, Malformed, Reader, Reading, Truncated, scanner_of
from llm_magics.chat.syntax.origin import mark
from llm_magics.chat.syntax.syntax import Escapes
from llm_magics.messages import ToolSpec
from llm_magics.schema.nodes import Normalised

from .typed import typed_arguments

Emit = Callable[[str], None]
MAX_KEY = 256

PROBE_NAMES = FIRST, SECOND = "qfirsttool", "qsecondtool"
KEYS = ("qkeya", "qkeyb", "qkeyc")
VALUES = {"qkeya": "qvala", "qkeyb": "qvalb"}


class Gaps(NamedTuple):
    """The text around the two arguments of a sample: ``to_key KEY to_value VALUE to_next KEY ... VALUE rest``.

    ``numbers``: ``to_value`` and ``to_next`` around a number. ``quoted``: strings have quotes, and numbers do not.
    """

    to_key: str
    to_value: str
    to_next: str
    rest: str
    numbers: tuple[str, str] | None
    quoted: bool


@dataclass(frozen=True, slots=True)
class Sample:
    """The text of a call of ``FIRST`` with ``VALUES``, where its name ends, and how to render other calls."""

    text: str
    at: int
    calls: Callable[..., str]

    def gaps(self) -> Gaps | None:
        """The text around keys and values; None if they are out of order."""
        first, key2 = (self.text.find(word, self.at) for word in KEYS[:2])
        value, value2 = (self.text.find(word, self.at) for word in VALUES.values())
        if not self.at <= first < value < key2 < value2:
            return None
        to_value = self.text[first + len(KEYS[0]) : value]
        to_next = self.text[value + len(VALUES["qkeya"]) : key2]
        match = re.search(r"qkeya(.*?)31259(.*?)qkeyb", self.calls((FIRST, {"qkeya": 31259, "qkeyb": 41259})), re.S)
        numbers: tuple[str, str] | None = (match.group(1), match.group(2)) if match else None
        quote = to_value[-1:]
        if not numbers and quote in ("'", '"') and to_next.startswith(quote) and to_next[1:]:
            numbers = (to_value[:-1], to_next[1:])  # this template cannot write numbers
        lead, tail = numbers or (to_value, "")
        quoted = to_value != lead and to_value.startswith(lead) and to_next.endswith(tail)
        return Gaps(self.text[self.at : first], to_value, to_next, self.text[value2 + len(VALUES["qkeyb"]) :], numbers, quoted)


@dataclass(frozen=True, slots=True)
class Around:
    """What the reader of arguments must know of their call: the tool, the call's end, and every text that may follow."""

    tool: ToolSpec | None = None
    call_end: str = ""
    closers: tuple[str, ...] = ()

    @property
    def parameters(self) -> Normalised:
        return typed_arguments(self.tool)


class Encoding(ABC):
    """One way to write arguments. Subclasses are frozen dataclasses, so that a syntax can be compared and hashed."""

    __slots__ = ()
    label: ClassVar[str] = "arguments"  # the name of its markers, for people
    closes: ClassVar[bool] = True  # whether the arguments' own text ends them, as a bracket does

    @property
    @abstractmethod
    def kind(self) -> str:
        """The name of calls with such arguments, for people."""

    @property
    def opening(self) -> str:
        """The bracket that tells a call without a marker from a word, e.g. ``(`` of ``f(a=1)``."""
        return ""

    @property
    def tags(self) -> tuple[str, ...]:
        """The markers at the start and the end of each argument, if the reader must tell them from the call's."""
        return ()

    @property
    def markers(self) -> tuple[str, ...]:
        """The markers inside arguments, for display and for tokenising."""
        return ()

    @classmethod
    @abstractmethod
    def find(cls, sample: Sample) -> tuple[Self, int, int] | None:
        """The template's encoding, and where arguments begin and end in the sample; None if it is a different one."""

    def with_escapes(self, escapes: Escapes) -> Encoding:
        """The same encoding, with the template's escapes for awkward characters of keys."""
        return self

    @abstractmethod
    def write(self, arguments: str) -> list[str]:
        """Write arguments, given as JSON text, in pieces; the model's own text is marked as such."""

    @abstractmethod
    def read(self, reader: Reader, around: Around, emit: Emit) -> Reading[None]:
        """Read arguments and emit their JSON object piece by piece. Raises Malformed."""

    @abstractmethod
    def constrain(self, writer: GrammarWriter, schema: Normalised, end: str) -> str:
        """The rule for arguments that are valid under a schema, and then the rule ``end``."""


_PYTHON = {True: "True", False: "False", None: "None"}


def escaped(text: str) -> str:
    """Text as the inside of a JSON string."""
    return json.dumps(text, ensure_ascii=False)[1:-1]


def outside(text: str) -> str:
    """Mark text as the model's own."""
    return mark(text, "assistant")


def dumps(value: Any, constants: str = "json") -> str:
    """A value as the model's JSON; with constants "python", True, False and None as a template prints them."""
    if constants == "python" and (value is None or isinstance(value, bool)):
        return _PYTHON[value]
    return outside(json.dumps(value, ensure_ascii=False))


def text_until(reader: Reader, stops: list[str], name: str, most: float = math.inf, kind: Kind = "call") -> Reading[str]:
    """Consume text up to the first of these stops. Raises Malformed if the text, e.g. "a value", is too long or has no end."""
    pieces: list[str] = []

    def collect(piece: str) -> None:
        nonlocal most
        pieces.append(piece)
        most -= len(piece)
        if most < 0:
            raise Malformed(f"{name} is too long")

    if (yield from reader.until(scanner_of(stops), kind, collect)) is None:
        raise Truncated(f"the text ends in {name}")
    return "".join(pieces)


def members_of(arguments: str) -> dict[str, Any]:
    """The members of arguments given as JSON text; text that is not an object (a call cut off) is one member without a name."""
    try:
        value = json.loads(arguments or "{}")
    except ValueError:
        value = arguments
    return value if isinstance(value, dict) else {"": value}
