"""Read calls that are JSON objects: the one with name and arguments as members, and the one whose only key is the name."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from llm_magics.chat.encodings.encoding import Around
from llm_magics.chat.encodings.json import JsonArguments, fence
from llm_magics.chat.encodings.syntax import JsonCall, ToolSyntax
from llm_magics.chat.scan.reader import Malformed, Reader, Reading, decoded
from llm_magics.messages import ToolSpec
from llm_magics.schema.nodes import properties_of

from .callevents import OneCall


class ObjectReader:
    """Reads the JSON values of one syntax's calls, member by member."""

    def __init__(self, reader: Reader, syntax: ToolSyntax, tools: Mapping[str, ToolSpec]) -> None:
        self._in = reader
        self._syntax = syntax
        self._tools = tools
        self._spare: dict[str, str] = {}

    def fields(self, one: OneCall, fields: JsonCall) -> Reading[None]:
        """Read an object that holds name and arguments, and say that the call has begun."""
        self._spare = {}
        yield from self._in.space()
        fenced = yield from fence(self._in)
        yield from self._object(one, fields, ())
        if fenced:
            yield from self._in.optional("```", "call")
        if not one.name:
            raise Malformed("the call has no name")
        one.start()

    def _object(self, one: OneCall, fields: JsonCall, above: tuple[str, ...]) -> Reading[None]:
        """Read an object, picking name, arguments and id as they come by."""
        yield from self._in.exactly("{", "call")
        seen: list[str] = []
        while True:
            yield from self._in.space("call")
            char = yield from self._in.peek()
            if char == "}":
                self._in.take(1, "call")
                break
            if seen:
                yield from self._in.exactly(",", "call")
            key = yield from self._in.json_string()
            seen.append(key)
            yield from self._in.space("call")
            yield from self._in.exactly(":", "call")
            yield from self._in.space("call")
            yield from self._member(one, fields, (*above, key))
        if len(fields.arguments) == len(above) + 1 and fields.arguments[:-1] == above and fields.arguments[-1] not in seen:
            self._no_arguments(one, fields, seen)

    def _no_arguments(self, one: OneCall, fields: JsonCall, seen: list[str]) -> None:
        """The arguments' member is not there: none are meant, or the only other object is them, if the tool takes such."""
        if not one.name and self._within(one, fields):
            return
        known = {fields.name[-1], fields.name[0], *(fields.id[-1:]), *(p[-1] for p, _ in fields.constants)}
        extra = set(seen) - known
        spare = self._spare.get(next(iter(extra)), "") if len(extra) == 1 else ""
        declared = properties_of(Around(self._tools.get(one.name)).parameters.object())
        if spare and set(json.loads(spare)) <= set(declared):
            one.emit(spare)
        elif extra:
            raise Malformed(f"the call has no {fields.arguments[-1]!r}")

    def _within(self, one: OneCall, fields: JsonCall) -> bool:
        """Whether the call stands one object deeper, as ``{"type": "function", "function": {...}}`` has it."""
        values = [json.loads(text) for text in self._spare.values()]
        inner = [v for v in values if v.get(fields.name[-1]) in self._tools and isinstance(v.get(fields.arguments[-1]), dict)]
        if len(inner) != 1:
            return False
        one.name = inner[0][fields.name[-1]]
        one.emit(json.dumps(inner[0][fields.arguments[-1]], ensure_ascii=False))
        return True

    def _member(self, one: OneCall, fields: JsonCall, path: tuple[str, ...]) -> Reading[None]:
        if path == fields.name:
            one.name = yield from self._in.json_string()
            self.check_name(one.name)
            one.start()
        elif path == fields.arguments:
            yield from JsonArguments().read(self._in, Around(), one.emit)
        elif path == fields.id:
            value = decoded((yield from self._in.json_value(_ignore)))
            one.id = value if isinstance(value, str) else json.dumps(value)
            one.start()
        elif any(path == p[: len(path)] for p in (fields.name, fields.arguments, fields.id)):
            yield from self._object(one, fields, path)
        else:
            value = yield from self._in.json_value(_ignore)
            if path[:-1] == fields.arguments[:-1] and isinstance(decoded(value), dict):
                self._spare[path[-1]] = value

    def check_name(self, name: str) -> None:
        """Where nothing else says that this is a call, its name must be a tool's."""
        if not name or (not self._syntax.has_marker and name not in self._tools):
            raise Malformed(f"there is no tool {name!r}")

    def keyed(self, one: OneCall) -> Reading[None]:
        """Read an object whose only key is the name."""
        yield from self._in.space()
        yield from self._in.exactly("{", "call")
        one.name = yield from self._in.json_string()
        self.check_name(one.name)
        one.start()
        yield from self._in.space("call")
        yield from self._in.exactly(":", "call")
        yield from JsonArguments().read(self._in, Around(), one.emit)
        yield from self._in.space("call")
        yield from self._in.exactly("}", "call")


def _ignore(_: Any) -> None:
    """Take a piece of a value that nobody wants."""
