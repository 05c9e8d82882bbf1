"""Read calls that are JSON objects, with name and arguments as members, or with the name as the only key."""

from __future__ import annotations

import json
from collections.abc import Mapping

from llm_magics.chat.encodings.encoding import Around
from llm_magics.chat.encodings.json import JsonArguments, fence
from llm_magics.chat.encodings.syntax import JsonCall, ToolSyntax
from llm_magics.chat.scan.reader import Malformed, Reader, Reading, decoded
from llm_magics.messages import ToolSpec
from llm_magics.schema.nodes import properties_of

from .callevents import OneCall


class ObjectReader:
    def __init__(self, reader: Reader, syntax: ToolSyntax, tools: Mapping[str, ToolSpec]) -> None:
        self._in = reader
        self._syntax = syntax
        self._tools = tools
        self._spare: dict[str, str] = {}  # objects that may be the arguments under a wrong key

    def fields(self, one: OneCall, fields: JsonCall) -> Reading[None]:
        """Read an object that holds name and arguments, and start the call."""
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
        yield from self._in.exactly("{", "call")
        seen: list[str] = []
        while True:
            yield from self._in.space("call")
            if (yield from self._in.peek()) == "}":
                self._in.take(1, "call")
                break
            if seen:
                yield from self._in.exactly(",", "call")
            seen.append((yield from self._in.json_string()))
            yield from self._in.space("call")
            yield from self._in.exactly(":", "call")
            yield from self._in.space("call")
            yield from self._member(one, fields, (*above, seen[-1]))
        if len(fields.arguments) == len(above) + 1 and fields.arguments[:-1] == above and fields.arguments[-1] not in seen:
            self._no_arguments(one, fields, seen)

    def _no_arguments(self, one: OneCall, fields: JsonCall, seen: list[str]) -> None:
        """The arguments are missing: there are none, or they are the only other object, if its keys are the tool's."""
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
        """Whether the call is one object deeper, e.g. ``{"type": "function", "function": {...}}``."""
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
            value = decoded((yield from self._in.json_value(lambda _: None)))
            one.id = value if isinstance(value, str) else json.dumps(value)
            one.start()
        elif any(path == p[: len(path)] for p in (fields.name, fields.arguments, fields.id)):
            yield from self._object(one, fields, path)
        else:
            value = yield from self._in.json_value(lambda _: None)
            if path[:-1] == fields.arguments[:-1] and isinstance(decoded(value), dict):
                self._spare[path[-1]] = value

    def check_name(self, name: str) -> None:
        """Raise Malformed for a name that is not a tool's, if no marker shows that this is a call."""
        if not name or (not self._syntax.has_marker and name not in self._tools):
            raise Malformed(f"there is no tool {name!r}")

    def keyed(self, one: OneCall) -> Reading[None]:
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
