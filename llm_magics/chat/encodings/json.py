"""Arguments as a JSON object, e.g. ``{"a": 1}``, or as a string that holds one."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from itertools import islice
from typing import Any

from llm_magics.chat.grammar.text import GrammarWriter
from llm_magics.chat.grammar.values import JSON, JSON_IN_STRING, ValueWriter
from llm_magics.chat.scan.reader import Malformed, Reader, Reading, decoded
from llm_magics.chat.syntax.tags import marks
from llm_magics.schema.nodes import Normalised

from .encoding import VALUES, Around, Emit, Encoding, Sample, outside

MAX_TRIES = 100  # braces before a call beyond which a template is not read


@dataclass(frozen=True, slots=True)
class JsonArguments(Encoding):
    """``as_text``: the arguments are a JSON string that holds JSON."""

    as_text: bool = False

    @property
    def kind(self) -> str:
        return "name + json"

    @classmethod
    def find(cls, sample: Sample) -> tuple[JsonArguments, int, int] | None:
        return json_arguments(sample.text, sample.at, VALUES)

    def write(self, arguments: str) -> list[str]:
        text = arguments or "{}"
        return [outside(json.dumps(text, ensure_ascii=False) if self.as_text else text)]

    def read(self, reader: Reader, around: Around, emit: Emit) -> Reading[None]:
        """Read an object, perhaps in a fence, or a string that holds one; null or the call's end means no arguments."""
        if around.call_end.strip() and (yield from reader.ahead(marks(around.call_end)[:1])):
            return
        yield from reader.space("call")
        fenced = yield from fence(reader)
        char = yield from reader.peek()
        if char == "{":
            yield from reader.json_value(emit)
        elif char == '"':
            emit((yield from reader.json_string()).strip() or "{}")
        elif decoded((yield from reader.json_value(lambda _: None))) is not None:
            raise Malformed("the arguments are not a JSON object")
        if fenced:
            yield from reader.optional("```", "call")

    def constrain(self, writer: GrammarWriter, schema: Normalised, end: str = "") -> str:
        value = ValueWriter(writer, schema, JSON_IN_STRING if self.as_text else JSON).value(schema.root)
        return f'"\\"" {value} "\\"" {end}' if self.as_text else f"{value} {end}"


def json_arguments(text: str, at: int, arguments: dict[str, Any]) -> tuple[JsonArguments, int, int] | None:
    """Where these arguments stand as JSON, e.g. ``{"qkeya": "qvala"}`` after ``<call>qfirsttool<args>``."""
    for match in islice(re.compile(r'[{"]').finditer(text, at), MAX_TRIES):
        try:
            value, end = json.JSONDecoder().raw_decode(text, match.start())
        except (ValueError, RecursionError):
            continue
        if value == arguments or is_text_of(value, arguments):
            return JsonArguments(isinstance(value, str)), match.start(), end
    return None


def is_text_of(value: Any, arguments: dict[str, Any]) -> bool:
    """Whether a value is a string that holds these arguments as JSON."""
    try:
        return isinstance(value, str) and bool(json.loads(value) == arguments)
    except (ValueError, RecursionError):
        return False


def fence(reader: Reader) -> Reading[bool]:
    """Consume the code fence around the JSON, with its language, if there is one; whether there is."""
    size = yield from reader.ahead(("```",))
    if size:
        reader.take(size, "call")
        while (yield from reader.peek()).isalpha():
            reader.take(1, "call")
        yield from reader.space("call")
    return bool(size)
