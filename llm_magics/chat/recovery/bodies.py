"""How a near miss spells its calls: each kind is written as a grammar, and read back here.

``opened`` grammars end at the first argument, where the text can only be a call, and take any text behind it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, TypeAlias

from llm_magics.chat.encodings.encoding import Around
from llm_magics.chat.encodings.json import JsonArguments
from llm_magics.chat.encodings.literal import LiteralArguments
from llm_magics.chat.encodings.shape import field_sets
from llm_magics.chat.encodings.syntax import JsonCall, ToolSyntax
from llm_magics.chat.grammar.text import GrammarWriter, quoted
from llm_magics.chat.grammar.values import PYTHON, ValueWriter
from llm_magics.chat.scan.reader import Reader
from llm_magics.messages import ToolSpec
from llm_magics.schema.nodes import Normalised, properties_of
from llm_magics.schema.normal import parameters
from llm_magics.schema.other import others

Reading = Literal["any", "opened", "strict"]
Unlike: TypeAlias = Mapping[str, Sequence[Mapping[str, Any]]]
"""Arguments that a tool may not be given again, by its name."""
_ID_KEYS = ("id", "tool_call_id", "call_id", "index")


@dataclass(frozen=True, slots=True)
class FoundCall:
    """One call of a near miss: its arguments as JSON, and what was wrong with its wrapper."""

    name: str
    arguments: str
    wrapper: str = ""


@dataclass(frozen=True, slots=True)
class Scope:
    """What a near miss's rules are written for: the template's syntax, how strictly, and into which grammar."""

    writer: GrammarWriter
    syntax: ToolSyntax
    reading: Reading
    unlike: Unlike = field(default_factory=dict)

    def schemas(self, tool: ToolSpec) -> list[Normalised]:
        """The schemas of a tool's arguments; none if it may not be called, because each call would be like one before."""
        schema, given = parameters(tool.parameters), self.unlike.get(tool.name)
        return others(schema, given) if given and self.reading == "strict" else [schema]

    def arguments(self, tool: ToolSpec) -> str:
        """A call's arguments as a JSON object; empty if there can be none."""
        if self.reading == "opened":
            return f'"{{" {self.writer.terminal("TEXT")}'
        known = ("arguments", tool.name if self.reading == "strict" else "")
        if known not in self.writer.known:
            schemas = self.schemas(tool) if self.reading == "strict" else [parameters({})]
            self.writer.known[known] = " | ".join(JsonArguments().constrain(self.writer, schema) for schema in schemas)
            if len(schemas) > 1:
                self.writer.known[known] = self.writer.rule(self.writer.known[known], "other")
        return self.writer.known[known]


class Body(Protocol):
    """One way to spell calls inside a wrapper. ``listed``: several calls may stand in a row or in an array."""

    @property
    def listed(self) -> bool: ...

    def first(self, names: Sequence[str]) -> str:
        """A regular expression for the beginning of a call, e.g. ``{``."""
        ...

    def rules(self, scope: Scope, tool: ToolSpec) -> list[str]:
        """The ways to write one call of a tool."""
        ...

    def take(self, found: re.Match[str], syntax: ToolSyntax, names: Sequence[str]) -> tuple[FoundCall | None, int]:
        """Read the call that begins at a match of ``first``, if it is one, and where it ends. Raises ValueError, Malformed."""
        ...




@dataclass(frozen=True, slots=True)
class Objects:
    """Calls as JSON objects with fields, e.g. ``{"name": "f", "parameters": {}}``, or under their name: ``{"f": {}}``."""

    listed: bool = True

    def first(self, names: Sequence[str]) -> str:
        return r"\{"

    def rules(self, scope: Scope, tool: ToolSpec) -> list[str]:
        w, gap = scope.writer, scope.writer.gap
        end = "" if scope.reading == "opened" else f' {gap} "}}"'
        name, given = quoted(json.dumps(tool.name, ensure_ascii=False)), scope.arguments(tool)
        if not given:
            return []
        objects = [self._members(scope, fields, name, given) for fields in field_sets(scope.syntax)]
        return [w.rule(body + end, "o") for body in [*objects, f'"{{" {gap} {name} {gap} ":" {gap} {given}']]

    def _members(self, scope: Scope, fields: JsonCall, name: str, arguments: str) -> str:
        """An object with name and arguments in either order, and the constants and ids that models add."""
        w, gap = scope.writer, scope.writer.gap

        def member(key: str) -> str:
            return f'{quoted(json.dumps(key, ensure_ascii=False))} {gap} ":" {gap}'

        comma = f'{gap} "," {gap}'
        named, given = f"{member(fields.name[-1])} {name}", f"{member(fields.arguments[-1])} {arguments}"
        fixed = " ".join(f"({member(path[-1])} {quoted(text)} {comma})?" for path, text in fields.constants)
        extra = f"({' | '.join(member(key) for key in _ID_KEYS)}) ({w.terminal('STRING')} | {w.terminal('INT')})"
        heads = "".join(f'{member(key)} "{{" {gap} ' for key in fields.name[:-1])
        start = f'"{{" {gap} {fixed} ({extra} {comma})? {heads}'
        if scope.reading == "opened":  # arguments that come first do not say yet whose they are
            return f"{start} {named} {comma} {given}"
        inner = f"({named} {comma} {given} | {given} {comma} {named})"
        ends = f'{gap} "}}" ' * len(fields.name[:-1])
        return f"{start} {inner} {ends} ({comma} {extra})?"

    def take(self, found: re.Match[str], syntax: ToolSyntax, names: Sequence[str]) -> tuple[FoundCall | None, int]:
        fields = field_sets(syntax)
        expected = fields[0].arguments[-1]
        members, end = _members(found.string, found.start())
        for candidate in fields:
            name, arguments = (_at_path(found.string, members, path) for path in (candidate.name, candidate.arguments))
            if name and arguments and json.loads(name) in names:
                key = candidate.arguments[-1]
                return FoundCall(json.loads(name), arguments, f", {key!r} for {expected!r}" if key != expected else ""), end
        return next((FoundCall(key, found.string[a:b]) for key, (a, b) in members.items() if key in names), None), end


_Members = dict[str, tuple[int, int]]


def _at_path(text: str, members: _Members, path: Sequence[str]) -> str:
    """The JSON text under a path of keys; empty if there is none."""
    start, end = members.get(path[0], (0, 0))
    if end == 0 or len(path) == 1:
        return text[start:end]
    return _at_path(text, _members(text, start)[0], path[1:]) if text[start] == "{" else ""


_DECODER = json.JSONDecoder()
_SPACE = re.compile(r"[ \t\r\n]*")


def _members(text: str, at: int) -> tuple[_Members, int]:
    """Where the value of each member of the object at ``at`` stands, and where the object ends."""
    members: _Members = {}
    at = _skip(text, at + 1)
    while text[at] != "}":
        key, at = _DECODER.raw_decode(text, at)
        start = _skip(text, _skip(text, at) + 1)
        _, at = _DECODER.raw_decode(text, start)
        members[key] = (start, at)
        at = _skip(text, at)
        at = _skip(text, at + 1) if text[at] == "," else at
    return members, at + 1


def _skip(text: str, at: int) -> int:
    found = _SPACE.match(text, at)
    return found.end() if found else at


@dataclass(frozen=True, slots=True)
class Keywords:
    """Calls as Python writes them, e.g. ``f(a=1, b="x")``; names may be dotted, and constants may be JSON's."""

    listed: bool = True

    def first(self, names: Sequence[str]) -> str:
        return rf"(?<![\w.\"])(?:{'|'.join(re.escape(name) for name in names)})\s*\("

    def rules(self, scope: Scope, tool: ToolSpec) -> list[str]:
        w, gap = scope.writer, scope.writer.gap
        start = f'{quoted(tool.name)} "(" {gap}'
        if scope.reading == "opened":
            keys = " | ".join(quoted(key) for key in properties_of(parameters(tool.parameters).object()))
            return [f'{start} (")" | ({keys}) {gap} "=" {w.terminal("TEXT")})' if keys else f'{start} ")"']
        return [f"{start} {self._members(scope, schema)}" for schema in scope.schemas(tool)]

    def _members(self, scope: Scope, schema: Normalised) -> str:
        w, gap, strict = scope.writer, scope.writer.gap, scope.reading == "strict"
        values, node = ValueWriter(w, schema, PYTHON), schema.object()
        known = properties_of(node)
        members = {k: f'{quoted(k)} {gap} "=" {gap} {values.value(sub if strict else {})} {gap}' for k, sub in known.items()}
        return values.members(members, "", quoted(")"), f'"," {gap}', node if strict else {})

    def take(self, found: re.Match[str], syntax: ToolSyntax, names: Sequence[str]) -> tuple[FoundCall | None, int]:
        start, pieces, reader = found.end() - 1, list[str](), Reader()
        reader.feed(found.string[start:])
        reader.closed = True
        for _ in LiteralArguments().read(reader, Around(), pieces.append):
            pass
        arguments = json.dumps(json.loads("".join(pieces)), ensure_ascii=False)
        return FoundCall(found.group()[:-1].strip(), arguments), start + reader.at
