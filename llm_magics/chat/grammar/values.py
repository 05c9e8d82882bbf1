"""Write schema nodes as grammar rules: the values inside a call, in the notation of the model's syntax.

Properties may come in any order. A rule carries a 64-bit number, one bit per property seen ("parametric grammars")::

    obj:     "{" WS? obj_0::0
    obj_0::_: "}"                       %if is_ones([0:1])          required properties have the lowest bits
            | m0 obj_1::set_bit(0)
            | m1 obj_1::set_bit(1)
    obj_1::_: "}"                       %if is_ones([0:1])
            | "," WS? m0 obj_1::set_bit(0)  %if bit_clear(0)
            ...

An object with more than 60 properties has them in the schema's order. White space is free wherever JSON allows it.

Strings with a pattern, a format or a length go to llguidance as JSON schemas if the notation quotes as JSON does. In others
(Python's quotes, bare text between tags) the grammar enforces lengths and whole-text patterns, and validation the rest.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from llm_magics.schema.leaves import beside_whole, leaf_schema
from llm_magics.schema.nodes import Node, Normalised, is_never, json_type, properties_of

from .text import MAX_COUNT, GrammarWriter, as_regex, inside_slashes, quoted, repeat, when

MAX_FREE_ORDER = 60  # properties; the parameter of a rule has 64 bits


@dataclass(frozen=True, slots=True)
class Notation:
    """How values are written; JSON by default.

    ``quotes``: the pairs of opening and closing quotes. ``strings``: the terminal of a whole string for each pair, if quotes
    are plain text. ``key``: the terminal of an undeclared key. ``bare_keys``: the keys of objects are unquoted.
    """

    constants: tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]] = (("true",), ("false",), ("null",))
    quotes: tuple[tuple[str, str], ...] = (('"', '"'),)
    strings: tuple[str, ...] = ("STRING",)
    key: str = "KEY"
    bare_keys: bool = False
    assign: str = ":"
    separator: str = ","
    escape: int = 1  # how often a string is JSON-escaped

    @property
    def is_json(self) -> bool:
        return self.strings == ("STRING",) and not self.bare_keys


JSON = Notation()
JSON_IN_STRING = Notation(quotes=(('\\"', '\\"'),), strings=("NESTED",), key="NESTED", escape=2)
PYTHON_CONSTANTS = (("True", "true"), ("False", "false"), ("None", "null"))  # templates and models mix them
PYTHON = Notation(PYTHON_CONSTANTS, (('"', '"'), ("'", "'")), ("DOUBLE", "SINGLE"), "ANY_KEY")


class ValueWriter:
    def __init__(self, writer: GrammarWriter, schema: Normalised, notation: Notation = JSON) -> None:
        self.writer = writer
        self.schema = schema
        self.notation = notation
        self.references: dict[str, str] = {}

    def value(self, node: Node) -> str:
        if not node:
            return self.anything()
        if "enum" in node:
            return self.choice([self.constant(v) for v in node["enum"]])
        if "anyOf" in node:
            return self.choice([self.value(option) for option in node["anyOf"]])
        if "$ref" in node:
            return self.reference(node["$ref"])
        match node["type"]:
            case "null":
                return self.constant(None)
            case "boolean":
                return self.choice([quoted(c) for words in self.notation.constants[:2] for c in words])
            case "integer" | "number":
                return self.number(node)
            case "string":
                return self.string(node)
            case "array":
                return self.array(node)
        return self.object(node)

    def choice(self, options: Sequence[str]) -> str:
        options = list(dict.fromkeys(options))
        return options[0] if len(options) == 1 else self.writer.rule(" | ".join(options), "c")

    def reference(self, name: str) -> str:
        if name not in self.references:
            rule = self.references[name] = self.writer.name("d")
            self.writer.rules.append(f"{rule}: {self.value(self.schema.definitions[name])}")
        return self.references[name]

    def anything(self) -> str:
        key = ("any", self.notation)
        if key not in self.writer.known:
            self.writer.known[key] = rule = self.writer.name("any")
            w, gap, n = self.writer, self.writer.gap, self.notation
            strings = self.any_string()
            keys = w.terminal("WORD") if n.bare_keys else strings
            member = f"({keys}) {w.assign(n.assign)} {rule} {gap}"
            comma = f"{quoted(n.separator.strip())} {gap}"
            scalars = [strings, w.terminal("NUMBER"), *(quoted(c) for words in n.constants for c in words)]
            array = f'"[" {gap} ({rule} {gap} ({comma} {rule} {gap})*)? "]"'
            w.rules.append(f'{rule}: {" | ".join([*scalars, array])} | "{{" {gap} ({member} ({comma} {member})*)? "}}"')
        return self.writer.known[key]

    def constant(self, value: Any) -> str:
        true, false, null = self.notation.constants
        match json_type(value):
            case "null":
                return self.choice([quoted(c) for c in null])
            case "boolean":
                return self.choice([quoted(c) for c in (true if value else false)])
            case "string":
                return self.choice(self.spelled(value))
            case "array":
                items = [{"enum": [v]} for v in value]
                return self.array({"type": "array", "prefixItems": items, "minItems": len(items), "maxItems": len(items)})
            case "object":
                properties = {k: {"enum": [v]} for k, v in value.items()}
                closed: Node = {"additionalProperties": {"enum": []}}
                return self.object({"type": "object", "properties": properties, "required": list(value), **closed})
        return self.choice([quoted(json.dumps(n)) for n in ([value, int(value)] if value == value // 1 else [value])])

    def spelled(self, text: str) -> list[str]:
        return [quoted(opening + self.escaped(text, closing) + closing) for opening, closing in self.notation.quotes]

    def escaped(self, text: str, quote: str) -> str:
        if quote == "'" and self.notation.escape:
            return json.dumps(text, ensure_ascii=False)[1:-1].replace('\\"', '"').replace("'", "\\'")
        for _ in range(self.notation.escape):
            text = json.dumps(text, ensure_ascii=False)[1:-1]
        return text

    def number(self, node: Node) -> str:
        if "unlike" in node:
            taken = "|".join(rf"{as_regex(f'{value:g}')}(\.0*)?" for value in node["unlike"] if isinstance(value, int | float))
            base = self.writer.terminal("INT" if node["type"] == "integer" else "NUMBER")
            return self.writer.new_terminal(f"{base} & ~/{taken}/", "N") if taken else base
        if len(node) == 1:
            return self.writer.terminal("INT" if node["type"] == "integer" else "NUMBER")
        own = beside_whole(node)
        return self.writer.new_terminal(own, "N") if own else self.leaf(node)

    def leaf(self, node: Node) -> str:
        """A restricted string or number, left to llguidance."""
        return self.writer.rule(f"%json {json.dumps(leaf_schema(node), ensure_ascii=False)}", "leaf")

    def any_string(self) -> str:
        """A quoted string: a terminal, or any text up to a closing quote that is not plain text."""
        w, n = self.writer, self.notation
        return self.choice([w.terminal(t) for t in n.strings] or [f"{quoted(a)} {w.until(b)}" for a, b in n.quotes])

    def string(self, node: Node) -> str:
        w = self.writer
        if "unlike" in node:
            return self.unlike([value for value in node["unlike"] if isinstance(value, str) and value])
        if len(node) == 1:
            return self.any_string()
        if self.notation.is_json:
            return self.leaf(node)
        body = raw_regex(node)
        if body is None or self.notation.escape > 1:
            return self.any_string()
        backslash = f" & ~/(?s:.*){as_regex(chr(92))}(?s:.*)/" if self.notation.escape else ""
        return self.choice([f"{quoted(a)} {w.restricted(body + backslash, b)}" for a, b in self.notation.quotes])

    def unlike(self, taken: Sequence[str]) -> str:
        """A string that holds none of these, in any case: a model that may not write "Tim" again would write "Tim." instead.

        Texts of one or two characters may be part of it.
        """
        n = self.notation
        if not taken or not n.strings:
            return self.any_string()
        alike = "|".join(f"(?s:.*){as_regex(text)}(?s:.*)" if len(text) > 2 else as_regex(text) for text in taken)
        kinds = [(self.writer.terminal(kind), *quotes) for kind, quotes in zip(n.strings, n.quotes, strict=True)]
        bodies = [f"{kind} & ~/{as_regex(start)}(?i:{alike}){as_regex(end)}/" for kind, start, end in kinds]
        return self.choice([self.writer.new_terminal(body, "U") for body in bodies])

    def array(self, node: Node) -> str:
        gap = self.writer.gap
        comma = f"{quoted(self.notation.separator.strip())} {gap}"
        prefix = [f"{self.value(n)} {gap}" for n in node.get("prefixItems", [])]
        low = min(node.get("minItems", 0), MAX_COUNT)
        high = node.get("maxItems", MAX_COUNT)
        body = ""
        if high > len(prefix):
            item = f"{self.value(node.get('items', {}))} {gap}"
            if prefix:
                body = repeat(f"{comma} {item}", max(low - len(prefix), 0), high - len(prefix))
            else:
                rest = repeat(f"{comma} {item}", max(low - 1, 0), high - 1)
                body = f"{item} {rest}".strip() if low > 0 else f"({item} {rest})?"
        for i in reversed(range(len(prefix))):
            lead = f"{comma} " if i else ""
            body = f"{lead}{prefix[i]} {body}".strip()
            body = body if i < low else f"({body})?"
        return self.writer.rule(f'"[" {gap} {body} "]"', "a")

    def object(self, node: Node) -> str:
        w, n, gap = self.writer, self.notation, self.writer.gap
        members = {k: f"{self.key(k)} {w.assign(n.assign)} {self.value(sub)} {gap}" for k, sub in properties_of(node).items()}
        body = self.members(members, self.extra_member(node), '"}"', f"{quoted(n.separator.strip())} {gap}", node)
        return w.rule(f'"{{" {gap} {body}', "o")

    def key(self, key: str) -> str:
        return quoted(key) if self.notation.bare_keys else self.choice(self.spelled(key))

    def extra_member(self, node: Node) -> str:
        """A member whose key is not declared; empty if the schema forbids it."""
        n, w = self.notation, self.writer
        keys: dict[str | None, Node] = {None: node.get("additionalProperties", {}), **node.get("patternProperties", {})}
        options = []
        for pattern, sub in keys.items():
            if not is_never(sub):
                leaf: Node = {"type": "string", "patterns": [pattern]}
                key = self.leaf(leaf) if pattern is not None and n.is_json else self.free_key(node)
                options.append(f"{key} {w.assign(n.assign)} {self.value(sub)} {w.gap}")
        return self.choice(options) if options else ""

    def free_key(self, node: Node) -> str:
        """Any key except the declared ones, which have their own rules."""
        n, w = self.notation, self.writer
        declared = dict.fromkeys([*node.get("properties", {}), *node.get("required", [])])
        if not (n.bare_keys or n.key):
            return self.any_string()
        base = w.terminal("WORD" if n.bare_keys else n.key)
        taken = [one for key in declared for one in ([quoted(key)] if n.bare_keys else self.spelled(key))]
        return w.new_terminal(f"{base} & ~({' | '.join(taken)})", "K") if taken else base

    def members(self, members: Mapping[str, str], extra: str, close: str, separator: str, node: Node) -> str:
        """The start expression for members in any order, each declared one at most once, and then ``close``."""
        if not members and not extra:
            return close
        required = node.get("required", [])
        if len(members) > MAX_FREE_ORDER:
            return self.in_order(members, required, extra, close, separator)
        keys = list(dict.fromkeys([*(k for k in required if k in members), *members]))
        least, most = node.get("minProperties", 0), node.get("maxProperties", len(keys) + 1)
        done = [f"is_ones([0:{len(set(required))}])"] if required else []
        if not extra and least > len(required):
            done.append(f"bit_count_ge([0:64], {least})")
        room = [f"bit_count_lt([0:64], {most})"] if not extra and most < len(keys) else []
        first, more = self.writer.name("m"), self.writer.name("m")
        rules: dict[str, list[str]] = {first: [], more: []}
        for name in (more,) if extra and least > 0 else (first, more):
            rules[name].append(when(close, done))
        for i, key in enumerate(keys):
            member = self.writer.rule(members[key], "p")
            rules[first].append(when(f"{member} {more}::set_bit({i})", room))
            rules[more].append(when(f"{separator} {member} {more}::set_bit({i})", [f"bit_clear({i})", *room]))
        if extra:
            rules[first].append(f"{extra} {more}::_")
            rules[more].append(f"{separator} {extra} {more}::_")
        for name, options in rules.items():
            self.writer.rules.append(f"{name}::_ : " + "\n    | ".join(options))
        return f"{first}::0"

    def in_order(self, members: Mapping[str, str], required: Sequence[str], extra: str, close: str, separator: str) -> str:
        """More properties than a parameter has bits: one rule per position, with and without a member before it."""
        tail_first = self.writer.rule(f"({extra} ({separator} {extra})*)? {close}" if extra else close, "t")
        tail_more = self.writer.rule(f"({separator} {extra})* {close}" if extra else close, "t")
        for key in reversed(list(members)):
            member = self.writer.rule(members[key], "p")
            skip = key not in required
            first = f"{member} {tail_more}" + (f" | {tail_first}" if skip else "")
            more = f"{separator} {member} {tail_more}" + (f" | {tail_more}" if skip else "")
            tail_first, tail_more = self.writer.rule(first, "t"), self.writer.rule(more, "t")
        return tail_first


def raw_regex(node: Node) -> str | None:
    """A terminal for the bare characters of a restricted string; None if only validation can check it."""
    low, high = node.get("minLength", 0), node.get("maxLength", MAX_COUNT)
    limit = f"{{{low},{high}}}" if high < MAX_COUNT else f"{{{low},}}"
    parts = [f"/(?s:.{limit})/"] if low or high < MAX_COUNT else []
    for pattern in node.get("patterns", []):
        whole = re.fullmatch(r"\^(.*)\$", pattern, re.S)
        if whole and not re.search(r"(?<!\\)[\^$|]", re.sub(r"\[(\\.|[^\]])*\]", "", whole[1])):
            parts.append(f"/{inside_slashes(whole[1])}/")
    return " & ".join(parts) if parts else None


def other_name(writer: GrammarWriter, declared: Mapping[str, Any]) -> str:
    """Any bare name except the declared ones."""
    writer.terminal("WORD")
    taken = " | ".join(quoted(key) for key in declared)
    return writer.new_terminal(f"WORD & ~({taken})", "K") if taken else "WORD"
