"""What an argument encoding is: a frozen value that finds, writes, reads and constrains one way of writing arguments.

An encoding is found by rendering calls whose every word is known (:class:`Sample`). All of them are one table in
:mod:`llm_magics.chat.encodings`; nothing outside an encoding's module asks which one it has.
"""

from __future__ import annotations

import json
import re
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, Self

from llm_magics.chat.grammar.text import GrammarWriter
from llm_magics.chat.scan.reader import Reader, Reading
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
    """What stands before and between the two arguments of a sample: ``to_key KEY to_value VALUE to_next KEY ... VALUE rest``.

    ``numbers`` is what stands for ``to_value`` and ``to_next`` where the values are numbers; ``quoted``: strings have quotes
    there, which numbers have not.
    """

    to_key: str
    to_value: str
    to_next: str
    rest: str
    numbers: tuple[str, str] | None
    quoted: bool


@dataclass(frozen=True, slots=True)
class Sample:
    """The text of a call of ``FIRST`` with ``VALUES``, where its name ends, and how to see other calls."""

    text: str
    at: int
    calls: Callable[..., str]

    def gaps(self) -> Gaps | None:
        """The text around keys and values; None where they do not come in their order."""
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
            numbers = (to_value[:-1], to_next[1:])  # of a template that cannot write numbers at all
        lead, tail = numbers or (to_value, "")
        quoted = to_value != lead and to_value.startswith(lead) and to_next.endswith(tail)
        return Gaps(self.text[self.at : first], to_value, to_next, self.text[value2 + len(VALUES["qkeyb"]) :], numbers, quoted)


@dataclass(frozen=True, slots=True)
class Around:
    """What the reader of arguments must know of their call: the tool, the call's end, and all that may follow arguments."""

    tool: ToolSpec | None = None
    call_end: str = ""
    closers: tuple[str, ...] = ()

    @property
    def parameters(self) -> Normalised:
        """The schema of the tool's arguments."""
        return typed_arguments(self.tool)


class Encoding(ABC):
    """One way of writing arguments. Subclasses are frozen dataclasses, so that a syntax can be compared and hashed."""

    __slots__ = ()
    label: ClassVar[str] = "arguments"  # what its markers are called where people see them
    closes: ClassVar[bool] = True  # whether the text itself says where arguments end, as a bracket does

    @property
    @abstractmethod
    def kind(self) -> str:
        """The name of calls whose arguments are so, for people."""

    @property
    def opening(self) -> str:
        """The bracket by which a call that nothing announces is told from a word, e.g. ``(`` of ``f(a=1)``."""
        return ""

    @property
    def tags(self) -> tuple[str, ...]:
        """The markers by which each argument begins and ends, where the reader must tell them from the call's."""
        return ()

    @property
    def markers(self) -> tuple[str, ...]:
        """The markers inside arguments, for display and for tokenising."""
        return ()

    @classmethod
    @abstractmethod
    def find(cls, sample: Sample) -> tuple[Self, int, int] | None:
        """The encoding as a template has it, and where arguments begin and end in the sample; None where it is another."""

    def with_escapes(self, escapes: Escapes) -> Encoding:
        """The same with what the template writes for awkward characters of keys."""
        return self

    @abstractmethod
    def write(self, arguments: str) -> list[str]:
        """Write arguments, given as JSON text, in pieces; what is the model's is marked as its own."""

    @abstractmethod
    def read(self, reader: Reader, around: Around, emit: Emit) -> Reading[None]:
        """Read arguments, emitting the JSON object that they spell piece by piece. Raises Malformed."""

    @abstractmethod
    def constrain(self, writer: GrammarWriter, schema: Normalised, end: str) -> str:
        """The rule for arguments that are valid under a schema, and then ``end``, which is a rule itself."""


# --- pieces of text ---------------------------------------------------------------------------------------------------------


def escaped(text: str) -> str:
    """Text as it stands inside a JSON string."""
    return json.dumps(text, ensure_ascii=False)[1:-1]


def outside(text: str) -> str:
    """Text of the model's own."""
    return mark(text, "assistant")


def dumps(value: Any) -> str:
    """A value as the model's JSON."""
    return outside(json.dumps(value, ensure_ascii=False))


def members_of(arguments: str) -> dict[str, Any]:
    """The members of arguments given as JSON text; what is no object (a call that was cut off) is one member without a name."""
    try:
        value = json.loads(arguments or "{}")
    except ValueError:
        value = arguments
    return value if isinstance(value, dict) else {"": value}
