"""An encoding that the project does not have, in one module: arguments as YAML-like lines, ``city: "Oslo"``."""

from __future__ import annotations

import json
from dataclasses import dataclass

from llm_magics.chat.encodings.encoding import Around, Emit, Encoding, Sample, dumps, members_of, outside
from llm_magics.chat.encodings.typed import json_of
from llm_magics.chat.grammar.text import GrammarWriter, quoted
from llm_magics.chat.grammar.values import ValueWriter, other_name
from llm_magics.chat.scan.reader import Malformed, Reader, Reading, Truncated, decoded, scanner_of
from llm_magics.schema.nodes import Node, Normalised, is_never, properties_of

_BARE = r"/[^\s\"\[{][^\n]*/"  # a string without quotes, e.g. Oslo


@dataclass(frozen=True, slots=True)
class YamlLines(Encoding):
    """A line for each argument: the key, ``assign``, a value as JSON. Strings without quotes are read as well."""

    label = "line"
    closes = False

    assign: str = ": "

    @property
    def kind(self) -> str:
        return "name + lines"

    @property
    def markers(self) -> tuple[str, ...]:
        return (self.assign,)

    @classmethod
    def find(cls, sample: Sample) -> tuple[YamlLines, int, int] | None:
        gaps = sample.gaps()
        if gaps is None or gaps.numbers is None or gaps.to_key != "\n" or gaps.numbers[1] != "\n" or '"\n' not in gaps.rest:
            return None
        return cls(gaps.numbers[0]), sample.at + 1, len(sample.text) - len(gaps.rest) + len('"\n')

    def write(self, arguments: str) -> list[str]:
        members = members_of(arguments)
        return [piece for key, value in members.items() for piece in (outside(key), self.assign, dumps(value), "\n")]

    def read(self, reader: Reader, around: Around, emit: Emit) -> Reading[None]:
        schema, seen = around.parameters, list[str]()
        ends = scanner_of([closer.strip() for closer in around.closers])
        while True:
            ahead = yield from reader.space_ahead()
            if not (yield from reader.peek(ahead)) or (yield from reader.which(ends, ahead)) is not None:
                emit("}" if seen else "{}")
                return
            yield from reader.space("call")
            key = (yield from self._until(reader, self.assign.strip())).strip()
            value = (yield from self._until(reader, "\n")).strip()
            if not key or "\n" in key or key in seen:
                raise Malformed(f"{key!r} is no argument's name")
            emit((", " if seen else "{") + quoted(key) + ": " + _json_of(value, schema.types(schema.member(schema.root, key))))
            seen.append(key)

    def _until(self, reader: Reader, end: str) -> Reading[str]:
        pieces: list[str] = []
        found = yield from reader.until(scanner_of([end]), "call", pieces.append)
        if found is None:
            raise Truncated("the text ends in a line")
        reader.take(found.end, "call")
        return "".join(pieces)

    def constrain(self, writer: GrammarWriter, schema: Normalised, end: str) -> str:
        values, node = ValueWriter(writer, schema), schema.object()

        def line(key: str, sub: Node) -> str:
            bare = f" | {writer.new_terminal(_BARE, 'BARE')}" if sub in ({}, {"type": "string"}) else ""
            break_ = writer.new_terminal(r"/[ \t]*\n/", "BREAK")
            return f"{key} {writer.assign(self.assign.strip())} ({values.value(sub)}{bare}) {break_}"

        members = {key: line(quoted(key), sub) for key, sub in properties_of(node).items()}
        rest = node.get("additionalProperties", {})
        extra = "" if is_never(rest) else line(other_name(writer, members), rest)
        close = writer.rule(f"{writer.gap} {end}", "end")
        return f"{writer.gap} {values.members(members, extra, close, writer.gap, node)}"


def _json_of(text: str, types: frozenset[str]) -> str:
    """A value's JSON text: what it is, or a string without quotes where one is admitted."""
    if text.startswith('"'):
        return json.dumps(decoded(text), ensure_ascii=False)
    return json_of(text, types)
