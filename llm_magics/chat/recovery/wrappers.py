"""The wrong wrappers that models put right calls into, as one grammar; and how to read the calls out again.

The same description serves three ends: *is this text still a prefix of some call* (``any arguments``), *can it be nothing else
any more* (``opened``: up to the first argument, then whatever), and *what may follow* (``strict``: the schemas enforced). The
notations are those that are understood anywhere: the JSON of the OpenAI API, the template's own field names, a keyword call.

    wrapper        e.g.
    fenced JSON    ```json\\n{"name": "f", "arguments": {}}\\n```
    bare JSON      {"name": "f", "parameters": {}}
    wrong tag      <tools>\\n{"name": "f", "arguments": {}}\\n</tools>
    keyword call   f(a=1, b="x")
    fenced call    ```tool_code\\nf(a=1)\\n```
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from llm_magics.chat.constraint import json_value, parameters_schema
from llm_magics.chat.encodings.tagged_grammar import properties_of, solid_object
from llm_magics.chat.grammar.text import MAX_CALLS, GrammarWriter, quoted
from llm_magics.chat.grammar.values import PYTHON, ValueWriter
from llm_magics.chat.syntax.syntax import JsonFields, Shape, ToolSyntax
from llm_magics.messages import ToolSpec

Reading = Literal["any", "opened", "strict"]

_ID_KEYS = ("id", "tool_call_id", "call_id", "index")
_LANGUAGE = r"/[A-Za-z_]{1,20}/"  # e.g. json, tool_call
_CALLING = r"/[A-Za-z_]{0,12}(tool|call|function)[A-Za-z_]{0,12}/"  # e.g. tool_code: such a fence holds no example of code
_TAG = r"/<[A-Za-z_|][A-Za-z0-9_|:.-]{0,40}>/"  # e.g. <tools>
_CLOSING_TAG = r"/<\/[A-Za-z_|][A-Za-z0-9_|:.-]{0,40}>/"


@dataclass(frozen=True, slots=True)
class FoundCall:
    """One call read out of a near miss: the arguments as the model wrote them, and what was wrong with the wrapper."""

    name: str
    arguments: str
    wrapper: str


def field_sets(syntax: ToolSyntax) -> list[JsonFields]:
    """The field names that a call may use: the template's own, then those of the OpenAI API and of Llama."""
    sets = [syntax.fields] if syntax.fields is not None else []
    for arguments in ("arguments", "parameters"):
        sets.append(JsonFields(arguments=(arguments,)))
        function = ((("type",), '"function"'),)
        sets.append(JsonFields(("function", "name"), ("function", arguments), constants=function))
    unique = {(f.name, f.arguments, f.constants, f.arguments_as_text): f for f in sets}
    return list(unique.values())


def near_miss_grammar(syntax: ToolSyntax, tools: Sequence[ToolSpec], reading: Reading, *, parallel: bool = True) -> str:
    """Write the grammar of a message's end that is nothing but calls in a wrong wrapper."""
    return _NearMisses(syntax, tools, reading, parallel).text()


class _NearMisses:
    def __init__(self, syntax: ToolSyntax, tools: Sequence[ToolSpec], reading: Reading, parallel: bool) -> None:
        self.syntax = syntax
        self.tools = tools
        self.reading = reading
        self.several = parallel
        self.writer = GrammarWriter()
        self.schemas = {tool.name: parameters_schema(tool) for tool in tools}
        self.any_object = parameters_schema(ToolSpec(""))
        self.written: dict[str, str] = {}

    def text(self) -> str:
        w = self.writer
        wrapped = [self.fenced(), self.tagged(), self.bare()]
        if self.syntax.shape is not Shape.PYTHONIC:
            wrapped.append(self.keyword_calls())
        one = w.rule(" | ".join(wrapped), "wrapped")
        if self.reading == "opened":
            return w.text(f"{w.gap} {one}")
        again = f"({w.gap} {one}){{0,{MAX_CALLS // 2 - 1}}}" if self.several else ""
        return w.text(f"{w.gap} {one} {again} {w.gap}")

    @property
    def open_end(self) -> str:
        """What follows the first argument's place: anything, once it is sure that there is a call."""
        return self.writer.terminal("TEXT")

    def fenced(self) -> str:
        w = self.writer
        objects = f'({w.new_terminal(_LANGUAGE, "LANG")})? {w.gap} {self.objects()}'
        calls = f'{w.new_terminal(_CALLING, "CALLING")} {w.gap} {self.keyword_calls()}'
        end = "" if self.reading == "opened" else f'{w.gap} "```"'
        return f'"```" ({objects} | {calls}) {end}'.strip()

    def tagged(self) -> str:
        w = self.writer
        start = f"{w.new_terminal(_TAG, 'TAG')} {w.gap}"
        if self.reading == "opened":
            return f"{start} {self.objects()}"
        return f"{start} {self.objects()} {w.gap} ({w.new_terminal(_CLOSING_TAG, 'END')})?"

    def bare(self) -> str:
        """Objects with no wrapper at all, or with the closing half of the template's own."""
        w = self.writer
        closing = "" if self.reading == "opened" else w.marker(self.syntax.call_end + self.syntax.section_end)
        return f"{self.objects()} ({w.gap} {closing})?" if closing else self.objects()

    def objects(self) -> str:
        """One or several calls as JSON objects, in an array or not."""
        if "objects" not in self.written:
            self.written["objects"] = self._objects()
        return self.written["objects"]

    def _objects(self) -> str:
        w = self.writer
        one = w.rule(" | ".join(self.object(tool, fields) for tool in self.tools for fields in self.fields), "object")
        if self.reading == "opened":
            return w.rule(f'("[" {w.gap})? {one}', "objects")
        comma = f'{w.gap} ("," {w.gap})?'
        several = w.rule(f"{one} ({comma} {one}){{0,{MAX_CALLS // 2 - 1}}}" if self.several else one, "several")
        return w.rule(f'{several} | "[" {w.gap} {several} {w.gap} "]"', "objects")

    @property
    def fields(self) -> list[JsonFields | None]:
        return [*field_sets(self.syntax), None]  # None: the name itself is the key

    def object(self, tool: ToolSpec, fields: JsonFields | None) -> str:
        """One call as a JSON object; constants may be left out, as models do."""
        w, gap = self.writer, self.writer.gap
        arguments = self.arguments(tool)
        name = quoted(json.dumps(tool.name, ensure_ascii=False))
        if fields is None:
            pieces = [f'"{{" {gap} {name} {gap} ":" {gap} {arguments}']
            depth = 1
        else:
            pieces = self.members(fields, name, arguments)
            depth = 1 if self.reading == "opened" else 0
        if self.reading != "opened":
            pieces += [f'{gap} "}}"'] * depth
        return w.rule(" ".join(pieces), "o")

    def members(self, fields: JsonFields, name: str, arguments: str) -> list[str]:
        """An object with name and arguments in either order, with constants and an id that models copy from elsewhere."""
        w, gap = self.writer, self.writer.gap
        comma = f'{gap} "," {gap}'
        named, given = f"{self.member(fields.name[-1])} {name}", f"{self.member(fields.arguments[-1])} {arguments}"
        fixed = " ".join(f"({self.member(path[-1])} {quoted(text)} {comma})?" for path, text in fields.constants)
        keys = " | ".join(self.member(key) for key in _ID_KEYS)
        extra = f"({keys}) ({w.terminal('STRING')} | {w.terminal('INT')})"
        heads = "".join(f'{self.member(key)} "{{" {gap} ' for key in fields.name[:-1])
        start = f'"{{" {gap} {fixed} ({extra} {comma})? {heads}'
        if self.reading == "opened":  # with the arguments first, nothing says yet whose they are
            return [f"{start} {named} {comma} {given}"]
        inner = f"({named} {comma} {given} | {given} {comma} {named})"
        ends = f'{gap} "}}" ' * len(fields.name[:-1])
        return [f'{start} {inner} {ends} ({comma} {extra})? {gap} "}}"']

    def member(self, key: str) -> str:
        return f'{quoted(json.dumps(key, ensure_ascii=False))} {self.writer.gap} ":" {self.writer.gap}'

    def arguments(self, tool: ToolSpec) -> str:
        if self.reading == "opened":
            return f'"{{" {self.open_end}'
        key = tool.name if self.reading == "strict" else ""
        if f"arguments of {key}" not in self.written:
            self.written[f"arguments of {key}"] = json_value(self.writer, self.schemas[key] if key else self.any_object)
        return self.written[f"arguments of {key}"]

    def keyword_calls(self) -> str:
        w = self.writer
        one = w.rule(" | ".join(self.keyword_call(tool) for tool in self.tools), "call")
        if self.reading == "opened":
            return w.rule(f'("[" {w.gap})? {one}', "calls")
        comma = f'{w.gap} ("," {w.gap})?'
        several = w.rule(f"{one} ({comma} {one}){{0,{MAX_CALLS // 2 - 1}}}" if self.several else one, "calls")
        return w.rule(f'{several} | "[" {w.gap} {several} {w.gap} "]"', "calls")

    def keyword_call(self, tool: ToolSpec) -> str:
        w, gap = self.writer, self.writer.gap
        schema = self.schemas[tool.name]
        values = ValueWriter(w, schema, PYTHON)
        node = solid_object(schema)
        known = properties_of(node)
        start = f'{quoted(tool.name)} "(" {gap}'
        if self.reading == "opened":
            keys = " | ".join(quoted(key) for key in known)
            return f'{start} (")" | ({keys}) {gap} "=" {self.open_end})' if keys else f'{start} ")"'
        strict = self.reading == "strict"
        members = {k: f'{quoted(k)} {gap} "=" {gap} {values.value(sub if strict else {})} {gap}' for k, sub in known.items()}
        required = node.get("required", []) if strict else []
        comma = f'"," {gap}'
        body = values.members(members, required, "", quoted(")"), comma, node if strict else {})
        return f"{start} {body}"


# --- reading ------------------------------------------------------------------------------------------------------------------


def read_calls(text: str, syntax: ToolSyntax, names: Sequence[str]) -> list[FoundCall]:
    """Read the calls out of a complete near miss, in order."""
    body = text.strip()
    wrapper = "fenced JSON" if body.startswith("```") else "wrong tag" if body.startswith("<") else "bare JSON"
    closing = (syntax.call_end + syntax.section_end).strip()
    if wrapper == "bare JSON" and closing and body.endswith(closing):
        wrapper = "missing opening tag"
    starts = [i for i in (body.find("{"), _name_at(body, names)) if i >= 0]
    if starts and min(starts) == _name_at(body, names):
        return list(_keyword_calls(body, names))
    return list(_json_calls(body, field_sets(syntax), names, wrapper))


def _name_at(text: str, names: Sequence[str]) -> int:
    """Where a keyword call begins, e.g. ``get_weather(``; -1 where none does."""
    found = re.search(r"(?<![\w.\"])(" + "|".join(re.escape(n) for n in names) + r")\s*\(", text)
    return found.start() if found else -1


def _json_calls(text: str, fields: Sequence[JsonFields], names: Sequence[str], wrapper: str) -> Iterator[FoundCall]:
    at = text.find("{")
    while at >= 0:
        members, end = _members(text, at)
        call = _call_of(text, members, fields, names)
        if call is not None:
            name, arguments, keys = call
            expected = fields[0].arguments[-1]
            renamed = f", {keys[-1]!r} for {expected!r}" if keys and keys[-1] != expected else ""
            yield FoundCall(name, arguments, wrapper + renamed)
        at = text.find("{", end)


_Members = dict[str, tuple[int, int]]


def _call_of(
    text: str, members: _Members, fields: Sequence[JsonFields], names: Sequence[str]
) -> tuple[str, str, tuple[str, ...]] | None:
    """Name, argument text and the key of the arguments, by the first field set that fits."""
    for candidate in fields:
        name, arguments = _at_path(text, members, candidate.name), _at_path(text, members, candidate.arguments)
        if name and arguments and json.loads(name) in names:
            return json.loads(name), arguments, candidate.arguments
    for key in members:
        if key in names:
            start, end = members[key]
            return key, text[start:end], ()
    return None


def _at_path(text: str, members: _Members, path: Sequence[str]) -> str:
    """The JSON text under a path of keys; empty where there is none."""
    for i, key in enumerate(path):
        if key not in members:
            return ""
        start, end = members[key]
        if i == len(path) - 1:
            return text[start:end]
        if text[start] != "{":
            return ""
        members = _members(text, start)[0]
    return ""


_DECODER = json.JSONDecoder()
_SPACE = re.compile(r"[ \t\r\n]*")


def _members(text: str, at: int) -> tuple[_Members, int]:
    """Where each member's value of the object at ``at`` stands, and where the object ends."""
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


def _keyword_calls(text: str, names: Sequence[str]) -> Iterator[FoundCall]:
    """Read ``f(a=1)`` and ``[f(a=1), g()]`` as Python would; names may be dotted, and constants JSON's."""
    at = _name_at(text, names)
    while at >= 0:
        end = _closed(text, text.index("(", at))
        try:
            node = ast.parse(text[at:end].strip(), mode="eval").body
            arguments = {str(k.arg): _literal(k.value) for k in node.keywords} if isinstance(node, ast.Call) else {}
        except (SyntaxError, ValueError, RecursionError):
            return
        if isinstance(node, ast.Call) and not node.args:
            name = text[at : text.index("(", at)].strip()
            yield FoundCall(name, json.dumps(arguments, ensure_ascii=False), "keyword call")
        rest = _name_at(text[end:], names)
        at = end + rest if rest >= 0 else -1


_BRACKETS = re.compile(r"""[()\[\]{}]|"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'""", re.S)


def _closed(text: str, at: int) -> int:
    """Where the bracket that opens at ``at`` is closed, or the text's end; brackets in strings are text."""
    depth = 0
    for found in _BRACKETS.finditer(text, at):
        depth += (found.group() in "([{") - (found.group() in ")]}")
        if depth == 0:
            return found.end()
    return len(text)


class _Constants(ast.NodeTransformer):
    """``true``, ``false`` and ``null`` as JSON has them, at any depth."""

    def visit_Name(self, node: ast.Name) -> ast.expr:
        words = {"true": True, "false": False, "null": None}
        return ast.Constant(words[node.id]) if node.id in words else node


def _literal(node: ast.expr) -> Any:
    """A literal's value. Raises ValueError for what is none."""
    return ast.literal_eval(_Constants().visit(node))
