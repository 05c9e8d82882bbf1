"""From a template's tool syntax and the tools themselves: the grammars that hold a model to them.

One grammar covers a message's calls from the first marker to the last, and everything else is built around it:

    ===================  ======================================================================================
    tool_choice          what holds
    ===================  ======================================================================================
    auto                 nothing, until a call begins; then ``calls``, starting with what is already written
    required, a name     ``start``: reasoning where the model reasons, then calls; from the first token
    none                 ``start``: any text in which no call begins
    with response_schema ``start``: reasoning, then JSON valid under the schema (under ``auto`` with tools: or calls)
    ===================  ======================================================================================

The grammar is as wide as the syntax: properties in any order, layout at the markers free, white space where JSON leaves it.
What a schema says beyond that is enforced, except what ``schema/normal.py`` and ``chat/grammar/values.py`` name; in tagged
syntaxes a value that may be a string is any text up to its closing tag.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from llm_magics.chat.analysis.reasoning import NO_REASONING, ReasoningSyntax
from llm_magics.chat.encodings.tagged_grammar import TagWriter, other_name
from llm_magics.chat.grammar.text import MAX_CALLS, GrammarWriter, as_regex, quoted
from llm_magics.chat.grammar.values import JSON, JSON_IN_STRING, PYTHON_CONSTANTS, Notation, ValueWriter
from llm_magics.chat.syntax.syntax import (
    JsonFields,
    LiteralArguments,
    Shape,
    TaggedArguments,
    ToolSyntax,
    TurnSyntax,
    escape,
)
from llm_magics.messages import JsonSchema, ToolSpec
from llm_magics.schema.nodes import Normalised, is_never, properties_of
from llm_magics.schema.normal import normalise, parameters
from llm_magics.schema.shortest import shortest_values

ID = r"/[A-Za-z0-9_.:-]{1,64}/"


@dataclass(frozen=True, slots=True)
class JsonAnswer:
    """An answer under a response schema: the keys that some object requires, the markers around ``reasoning`` (the first
    empty if it is open), the beginnings of ``calls`` in its place, and the shortest ``values`` of the schema's nodes."""

    required: tuple[str, ...] = ()
    reasoning: tuple[str, str] = ("", "")
    calls: tuple[str, ...] = ()
    values: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Constraint:
    """The grammars of one request, as text; empty where nothing is to hold.

    ``start`` is armed before the first token. ``calls`` is armed when a call has begun; it starts with the section's or the
    call's first marker. ``unenforced`` says, by tool, which keywords only validation can check. ``json`` is there if ``start``
    holds the answer to a response schema.
    """

    start: str = ""
    calls: str = ""
    unenforced: tuple[str, ...] = ()
    json: JsonAnswer | None = None


@dataclass(frozen=True, slots=True)
class Frame:
    """What stands around a message's calls. ``reasoning_open``: the prompt has already opened the reasoning.

    ``ends`` are the texts of the tokens that end a generation: a closing marker that is one of them need not be written.
    """

    reasoning: ReasoningSyntax = NO_REASONING
    reasoning_open: bool = False
    turn: TurnSyntax = field(default_factory=TurnSyntax)
    ends: frozenset[str] = frozenset()


def build_constraint(
    syntax: ToolSyntax | None,
    tools: Sequence[ToolSpec],
    *,
    tool_choice: str = "auto",
    parallel: bool = True,
    response_schema: JsonSchema | None = None,
    frame: Frame | None = None,
) -> Constraint:
    """Write the grammars for one request.

    Raises SchemaError where a tool's parameters or the response schema cannot be used. ``tool_choice`` is "auto", "none",
    "required" or the name of one of the tools.
    """
    frame = frame or Frame()
    chosen = [t for t in tools if tool_choice in ("auto", "none", "required", t.name)]
    if syntax is None or not chosen or tool_choice == "none":
        if response_schema is not None:
            return _response(response_schema, frame, None)
        return Constraint(start="" if syntax is None or not chosen else _no_calls(syntax, frame))
    calls = _Calls(syntax, chosen, parallel, frame)
    unenforced = tuple(f"{name}: {place}" for name, schema in calls.schemas.items() for place in schema.unenforced)
    if tool_choice != "auto":
        return Constraint(calls.after_reasoning(), unenforced=unenforced)
    answer = _response(response_schema, frame, calls) if response_schema is not None else Constraint()
    return replace(answer, calls=_Calls(syntax, chosen, parallel, frame).alone(), unenforced=unenforced)


def _response(schema: JsonSchema, frame: Frame, calls: _Calls | None) -> Constraint:
    """JSON under a schema, after the reasoning; or calls, where there are any.

    Nothing stands around the JSON where nothing must: white space is what a model writes that would rather write prose.
    """
    writer = calls.writer if calls else GrammarWriter()
    normal = normalise(schema)
    value = ValueWriter(writer, normal).value(normal.root)
    opening, closing = (writer.marker(m) for m in (frame.turn.content_start, frame.turn.content_end))
    body = f"{optional(opening)} {value} {optional(closing)}"
    if calls:
        body = f"({body}) | {calls.body()}"
    reasoning, opened = frame.reasoning, frame.reasoning_open
    thought = reasoning.rule(writer, opened=opened, answers=True)
    start = writer.text(f"{thought} ({body})")
    begins = first_tag(calls.syntax.section_start) or first_tag(calls.syntax.call_start) if calls else ""
    if calls and not begins:
        return Constraint(start)  # JSON and a call begin alike
    markers = ("" if opened else reasoning.start.strip(), reasoning.end.strip()) if thought else ("", "")
    json = JsonAnswer(normal.required_keys(), markers, (begins,) if begins else (), shortest_values(normal))
    return Constraint(start, json=json)


def _no_calls(syntax: ToolSyntax, frame: Frame) -> str:
    """Any text without the marker that begins a call. Reasoning may mention it."""
    if syntax.shape is Shape.GENERIC:
        return ""  # such a model knows calls from our instructions only, and under "none" it is not given them
    openings = {first_tag(m) for m in (syntax.section_start, syntax.call_start) if m.strip()}
    if syntax.blocks is not None:
        openings = {syntax.blocks.call.strip()} if syntax.blocks.call.strip() else openings
    if openings:
        forbidden = "|".join(as_regex(o) for o in sorted(openings))
        text = f"/(?s:.*)/ & ~/(?s:.*)({forbidden})(?s:.*)/"
    else:  # no marker: a call can only be how the text begins
        first = {Shape.JSON: r"\[?\s*\{", Shape.KEYED: r"\[?\s*\{", Shape.PYTHONIC: r"\[?\s*[A-Za-z_.]+\("}.get(syntax.shape)
        if first is None:
            return ""
        text = rf"/(?s:.*)/ & ~/\s*{first}(?s:.*)/"
    writer = GrammarWriter()
    return writer.text(writer.new_terminal(f"{frame.reasoning.terminal(opened=frame.reasoning_open)} ({text})"))


def first_tag(marker: str) -> str:
    """The first run of a marker without white space, e.g. ``<tool_call>`` of ``<tool_call>\\n<function=``."""
    return marker.split()[0] if marker.strip() else ""


def optional(expression: str) -> str:
    return f"({expression})?" if expression else ""


class _Calls:
    """Writes the rules for a message's calls in one syntax."""

    def __init__(self, syntax: ToolSyntax, tools: Sequence[ToolSpec], parallel: bool, frame: Frame) -> None:
        self.syntax = syntax
        self.tools = tools
        self.several = parallel and syntax.parallel
        self.frame = frame
        self.writer = GrammarWriter()
        self.schemas = {tool.name: parameters(tool.parameters) for tool in tools}

    def after_reasoning(self) -> str:
        blocks, reasoning = self.syntax.blocks, self.frame.reasoning
        if blocks is not None:
            thoughts = reasoning.in_blocks(self.writer, blocks, self.syntax.call_end)
            return self.writer.text(f"{thoughts} {self.body()}")
        thought = reasoning.rule(self.writer, opened=self.frame.reasoning_open)
        start, end = (self.writer.marker(m) for m in (self.frame.turn.content_start, self.frame.turn.content_end))
        silence = f"({start} {end} {self.writer.gap})?" if start and end else ""  # a frame around no content
        return self.writer.text(f"{thought} {silence} {self.body()}")

    def alone(self) -> str:
        return self.writer.text(self.body())

    def body(self) -> str:
        """All calls of a message, and layout after them."""
        s, w = self.syntax, self.writer
        call = w.rule(" | ".join(self.call(tool) for tool in self.tools), "call")
        between = f"{w.gap} {w.marker(s.separator.strip() or (',' if s.array else ''))} {w.gap}"
        end = ""
        if s.blocks is not None:  # every call is a block of its own
            end = optional(" | ".join(quoted(e.strip()) for e in s.blocks.ends if e.strip()))
            between = f"{w.gap} {end} {w.gap} {w.marker(s.blocks.start)}"
        more = f"({between} {call}){{0,{MAX_CALLS - 1}}}" if self.several else ""
        calls = f'"[" {w.gap} {call} {more} {w.gap} "]"' if s.array else f"{call} {more}"
        return w.rule(f"{w.marker(s.section_start)} {calls} {end} {self.closing(s.section_end)} {self.tail()}".strip(), "calls")

    def tail(self) -> str:
        """What may follow the calls: layout, and where the turn's end has several tags, those of them that are written out."""
        tags = re.findall(r"<[^<>]*>|\[[^\[\]]*\]|[^<>\[\]\s]+", self.frame.turn.end)
        if len(tags) < 2:
            return self.writer.gap
        return f"({self.writer.gap} ({' | '.join(quoted(tag) for tag in dict.fromkeys(tags))}))* {self.writer.gap}"

    def closing(self, marker: str) -> str:
        """A closing marker; from a token on that would end the generation, it need not be written."""
        cuts = [i for end in self.frame.ends if end and (i := marker.find(end)) >= 0]
        if not cuts:
            return self.writer.marker(marker)
        kept, rest = marker[: min(cuts)], marker[min(cuts) :]
        return f"{self.writer.marker(kept)} {optional(self.writer.marker(rest))}".strip()

    def call(self, tool: ToolSpec) -> str:
        s, w = self.syntax, self.writer
        start = self.block_header() if s.blocks is not None else w.marker(s.call_start)
        if s.shape in (Shape.JSON, Shape.GENERIC):
            body = fields_object(w, s.fields or JsonFields(), tool.name, self.schemas[tool.name])
        elif s.shape is Shape.KEYED:
            arguments = self.json_arguments(tool)
            body = f'"{{" {w.gap} {quoted(json.dumps(tool.name))} {w.assign(":")} {arguments} {w.gap} "}}"'
        elif s.tagged is not None:
            return w.rule(f"{start} {self.header(tool)} {self.tagged(tool, s.tagged)}", "call")
        elif s.literal is not None:
            body = f"{self.header(tool)} {self.literal(tool, s.literal)}"
        else:
            body = f"{self.header(tool)} {self.json_arguments(tool)}"
        return w.rule(f"{start} {body} {self.closing(s.call_end)}", "call")

    def json_arguments(self, tool: ToolSpec) -> str:
        return json_value(self.writer, self.schemas[tool.name], as_text=self.syntax.arguments_as_text)

    def header(self, tool: ToolSpec) -> str:
        """The call's name with whatever stands around it: its id, its index, itself again."""
        s, w = self.syntax, self.writer
        name = quoted(escape(tool.name, s.escapes))
        if s.id_place == "carries":
            before, _, after = s.id_form.format(name="\0", index="\1").partition("\0")
            number = " ".join(w.terminal("INT") if part == "\1" else quoted(part) for part in _split(after, "\1"))
            name_end = self.after_recipient() if s.blocks is not None else w.marker(s.name_end)
            return f"{quoted(before) if before else ''} {name} {number} {name_end}"
        call_id = w.new_terminal(ID, "ID")
        pieces = [call_id, w.marker(s.id_end)] if s.id_place == "before" else []
        pieces.append(name)
        if s.index_start:
            pieces += [w.marker(s.index_start), w.terminal("INT")]
        if s.name_again:
            pieces += [w.marker(s.name_again), name]
        in_header = s.blocks is not None and not s.name_again
        pieces.append(self.after_recipient() if in_header else w.marker(s.name_end))
        if s.id_place == "after":
            pieces += [call_id, w.marker(s.id_end)]
        return " ".join(p for p in pieces if p)

    # --- blocks with headers --------------------------------------------------------------------------------------------------

    def block_header(self) -> str:
        blocks = self.syntax.blocks
        assert blocks is not None
        if not blocks.call.strip():
            return self.writer.marker(self.syntax.call_start)
        return self.writer.header_until(blocks.call)

    def after_recipient(self) -> str:
        """From the recipient to the body."""
        blocks = self.syntax.blocks
        assert blocks is not None
        return self.writer.header_until(blocks.header_end) if blocks.call.strip() else self.writer.marker(self.syntax.name_end)

    # --- arguments that are not JSON ------------------------------------------------------------------------------------------

    def literal(self, tool: ToolSpec, literal: LiteralArguments) -> str:
        """``open key assign VALUE (separator key assign VALUE)* close``."""
        w, schema = self.writer, self.schemas[tool.name]
        values = ValueWriter(w, schema, literal_notation(literal))
        node = schema.object()
        assign = literal.assign.strip() or literal.assign
        members = {
            key: f"{quoted(key)} {w.assign(assign)} {values.value(sub)} {w.gap}"
            for key, sub in properties_of(node).items()
        }
        extra = ""
        if not is_never(node.get("additionalProperties", {})):
            key = other_name(w, members)
            value = values.value(node.get("additionalProperties", {}))
            extra = w.rule(f"{key} {w.assign(assign)} {value} {w.gap}")
        comma = f"{quoted(literal.separator.strip())} {w.gap}"
        body = values.members(members, extra, w.marker(literal.close), comma, node)
        return f"{w.marker(literal.open)} {w.gap} {body}"

    def tagged(self, tool: ToolSpec, tags: TaggedArguments) -> str:
        """Arguments as tags, in any order, up to and with the call's end."""
        writer = TagWriter(self.writer, self.schemas[tool.name], tags)
        end = self.closing(self.syntax.call_end)
        close = self.writer.rule(f"{self.writer.gap} {end}".strip(), "end") if end else '""'
        return f"{self.writer.gap} {writer.members(self.schemas[tool.name].object(), close)}"


# --- pieces shared with near misses and with the response -------------------------------------------------------------------


def json_value(writer: GrammarWriter, schema: Normalised, *, as_text: bool = False) -> str:
    """Any JSON value of a schema; ``as_text``: as a JSON string that holds it."""
    values = ValueWriter(writer, schema, JSON_IN_STRING if as_text else JSON)
    value = values.value(schema.root)
    return f'"\\"" {value} "\\""' if as_text else value


def fields_object(writer: GrammarWriter, fields: JsonFields, name: str, schema: Normalised) -> str:
    """One call as a JSON object with fields for its name, its arguments and its id, in the template's order."""
    parts: dict[str, tuple[tuple[str, ...], str]] = {
        "name": (fields.name, quoted(json.dumps(name, ensure_ascii=False))),
        "arguments": (fields.arguments, json_value(writer, schema, as_text=fields.arguments_as_text)),
        "id": (fields.id, writer.terminal("STRING")),
    }
    members: dict[str, Any] = {}
    pairs = [(path, quoted(text)) for path, text in fields.constants]
    pairs += [parts[key] for key in fields.order if parts[key][0]]
    for path, expression in pairs:
        at = members
        for key in path[:-1]:
            at = at.setdefault(key, {})
        at[path[-1]] = expression
    return _object(writer, members)


def _object(writer: GrammarWriter, members: Mapping[str, Any]) -> str:
    gap = writer.gap
    parts = []
    for key, value in members.items():
        expression = _object(writer, value) if isinstance(value, dict) else value
        parts.append(f'{quoted(json.dumps(key, ensure_ascii=False))} {writer.assign(":")} {expression} {gap}')
    joined = f' "," {gap} '.join(parts)
    return f'"{{" {gap} {joined} "}}"'


def literal_notation(literal: LiteralArguments) -> Notation:
    """The notation of pythonic and other literals. A model that uses one plain quote may use the other as well."""
    opening, closing = literal.quote_start, literal.quote_end
    assign = literal.assign if literal.bare_keys else ":"
    more: dict[str, Any] = {"bare_keys": literal.bare_keys, "assign": assign.strip() or assign}
    more["separator"] = literal.separator.strip()
    escape = 1 if literal.escapes else 0
    if opening in ("'", '"') and opening == closing:
        names = ("DOUBLE", "SINGLE") if literal.escapes else ("DOUBLE_RAW", "SINGLE_RAW")
        quotes: tuple[tuple[str, str], ...] = (('"', '"'), ("'", "'"))
        if opening == "'":
            names, quotes = (names[1], names[0]), (quotes[1], quotes[0])
        return Notation(PYTHON_CONSTANTS, quotes, names, names[0], **more, escape=escape)
    return Notation(PYTHON_CONSTANTS, ((opening, closing),), (), "", **more, escape=escape)


def _split(text: str, mark: str) -> list[str]:
    """Cut a text at a mark, which stays as a piece of its own."""
    pieces: list[str] = []
    for i, part in enumerate(text.split(mark)):
        pieces += [mark] if i else []
        pieces += [part] if part else []
    return pieces


