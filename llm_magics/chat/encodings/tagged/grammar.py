"""Write tagged arguments as grammar rules: bare text for strings, JSON for the rest, tags again if they nest.

Tagged text is untyped, so the types of a node decide how its value is written: a string is any text up to its closing tag, an
enum of strings is one of those texts, and a value that may be a string or something else is any text too, unless the tag says
the type. White space around a value is free.
"""

from __future__ import annotations

import json

from llm_magics.chat.grammar.text import GrammarWriter, as_regex, quoted
from llm_magics.chat.grammar.values import JSON, PYTHON, ValueWriter, other_name, raw_regex
from llm_magics.chat.syntax.syntax import escape
from llm_magics.schema.nodes import Node, Normalised, is_never, properties_of

from .tags import Tags


class TagWriter:
    def __init__(self, writer: GrammarWriter, schema: Normalised, tags: Tags) -> None:
        self.writer = writer
        self.schema = schema
        self.tags = tags
        self.values = ValueWriter(writer, schema, JSON)
        # Templates that do not dump a value print it: None, True, and whole lists, as Python does.
        self.notations = [self.values, ValueWriter(writer, schema, PYTHON)]
        self.nested: dict[tuple[str, str], str] = {}

    def arguments(self, end: str) -> str:
        """All arguments in any order, then the call's end."""
        close = self.writer.rule(f"{self.writer.gap} {end}".strip(), "end") if end else '""'
        return f"{self.writer.gap} {self.members(self.schema.object(), close)}"

    def members(self, node: Node, close: str) -> str:
        w = self.writer
        members = {key: self.tag(key, sub) for key, sub in properties_of(node).items()}
        extra = ""
        if not is_never(node.get("additionalProperties", {})):
            extra = w.rule(self.tag("", {}, name=other_name(w, members)), "x")
        separator = w.marker(self.tags.separator) or w.gap
        return self.values.members(members, extra, close, separator, node)

    def tag(self, key: str, node: Node, name: str = "") -> str:
        """``start KEY [type_start TYPE] key_end VALUE end [KEY end_tail]``, with any layout between."""
        w, t = self.writer, self.tags
        key = escape(key, t.escapes)
        free = t.end_has_key and name  # the closing tag of a free key cannot be compared with it, so it takes any name
        end_text = t.end.strip() + (key + t.end_tail.strip() if t.end_has_key and not name else "")
        head = f"{w.marker(t.start)} {name or quoted(key)}"
        tail = f"{name} {w.marker(t.end_tail)}" if free else ""
        written = []
        for types, value in self.options(node, end_text):
            if not t.type_start:
                written.append(value)
                continue
            names = dict.fromkeys(n for kind, n in t.type_names if kind in types)
            kinds = f"({' | '.join(quoted(n) for n in names)})" if names else f"{w.terminal('WORD')}?"
            written.append(f"{w.marker(t.type_start)} {kinds} {w.marker(t.key_end)} {value}")
        body = w.rule(" | ".join(dict.fromkeys(written)), "v")
        key_end = "" if t.type_start else w.marker(t.key_end)
        return f"{head} {key_end} {body} {tail} {w.gap}"

    def options(self, node: Node, end: str) -> list[tuple[tuple[str, ...], str]]:
        """The ways to write a value of this node and its closing tag, each with its JSON types."""
        w = self.writer
        if "$ref" in node:
            return self.recursive(node, end) if self.tags.nested else self.options(self.schema.definitions[node["$ref"]], end)
        if "anyOf" in node and self.tags.type_start:
            return [option for sub in node["anyOf"] for option in self.options(sub, end)]
        types = self.schema.types(node)
        kinds = tuple(types)
        if not node and self.tags.type_start:
            return [(("string",), self.string({"type": "string"}, end)), (tuple(types - {"string"}), self.json(node, end))]
        if "string" in types:
            if "enum" in node:
                texts = [v if isinstance(v, str) else json.dumps(v, ensure_ascii=False) for v in node["enum"]]
                body = w.new_terminal("/" + "|".join(as_regex(text) for text in texts) + "/", "E")
                return [(kinds, f"{w.gap} {w.restricted(body, end)}")]
            return [(kinds, self.string(node, end) if types == {"string"} else w.until(end))]
        if self.tags.nested and types <= {"object", "array"} and node.get("type") in ("object", "array"):
            return [(kinds, self.nest(node, end))]
        return [(kinds, self.json(node, end))]

    def json(self, node: Node, end: str) -> str:
        value = self.values.choice([values.value(node) for values in self.notations])
        empty = "?" if self.tags.nested and "null" in self.schema.types(node) else ""  # null may be empty
        return f"{self.writer.gap} ({value}){empty} {self.writer.gap} {quoted(end)}"

    def string(self, node: Node, end: str) -> str:
        body, w = raw_regex(node), self.writer
        if body is not None:
            return f"{w.gap} {w.restricted(body, end)}"
        if not self.tags.raw_start:
            return w.until(end)
        raw = f"{w.marker(self.tags.raw_start)} {w.until(self.tags.raw_end)} {w.gap} {quoted(end)}"
        return w.rule(f"{raw} | {w.until(end)}", "s")

    def nest(self, node: Node, end: str) -> str:
        """An object as tags, or an array as one tag per element."""
        w = self.writer
        close = w.rule(f"{w.gap} {quoted(end)}", "end")
        if node["type"] == "object":
            return f"{w.gap} {self.members(node, close)}"
        item = self.tag(self.tags.item, node.get("items", {}))
        low, high = node.get("minItems", 0), node.get("maxItems")
        count = "*" if not low and high is None else f"{{{low},{'' if high is None else high}}}"
        return f"{w.gap} ({item}){count} {close}"

    def recursive(self, node: Node, end: str) -> list[tuple[tuple[str, ...], str]]:
        """A reference inside nested tags: one rule per target and closing tag."""
        key = (node["$ref"], end)
        target = self.schema.definitions[node["$ref"]]
        if key not in self.nested:
            self.nested[key] = rule = self.writer.name("n")
            self.writer.rules.append(f"{rule}: {' | '.join(value for _, value in self.options(target, end))}")
        return [(tuple(self.schema.types(target)), self.nested[key])]
