"""JSON schema, brought into a normal form that a grammar can enforce.

A schema as people and pydantic write it has siblings beside ``$ref``, ``allOf``, conditions and typeless keywords. The grammar
writer wants none of that, so :func:`normalise` rewrites a schema into this form, and everything downstream reads only this:

    node := {}                                            any value
          | {"enum": [...]}                               one of these; [] is the node that nothing satisfies
          | {"type": "null" | "boolean"}
          | {"type": "integer" | "number", bounds}        minimum maximum exclusiveMinimum exclusiveMaximum multipleOf
          | {"type": "string", limits}                    minLength maxLength format patterns (a list: all must be found)
          | {"type": "array", "prefixItems": [node], "items": node, "minItems": n, "maxItems": n}
          | {"type": "object", "properties": {key: node}, "required": [key], "patternProperties": {regex: node},
             "additionalProperties": node, "minProperties": n, "maxProperties": n}
          | {"anyOf": [node, ...]}                        no siblings
          | {"$ref": name}                                into ``Normalised.definitions``, no siblings

**What is enforced afterwards only.** The normal form admits every value that the schema admits, and more than those where a
keyword has no grammar: ``not``, ``uniqueItems``, ``contains``, ``oneOf``'s "only one", ``if`` without its negation, patterns with
look-around or back-references, overlapping ``patternProperties``, ``propertyNames`` other than an enum or one pattern, property
counts on an object with free keys, ``dependentRequired`` beyond a few, and ``unevaluatedItems``. ``Normalised.unenforced`` names each
such keyword by its place; :func:`llm_magics.chat.validation.validate` checks them all on the finished value. A ``format`` that the
constraint engine knows is enforced, any other is an annotation, as the specification has it.

Hostile schemas are bounded in depth, in nodes and in products; what goes beyond is refused with SchemaError.
Sources: JSON Schema 2020-12 (core, validation), draft-07 for ``items`` lists and ``definitions``, OpenAPI 3.0 for ``nullable``.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias
from urllib.parse import unquote

from ..errors import SchemaError
from .regex import has_linear_regex, linear_search

Node: TypeAlias = dict[str, Any]

TYPES = ("null", "boolean", "integer", "number", "string", "array", "object")
FORMATS = frozenset({"date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid", "uri"})
NUMBER_BOUNDS = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf")

MAX_DEPTH = 64  # nesting of the schema as written
MAX_NODES = 20_000  # nodes made while normalising
MAX_OPTIONS = 64  # of one union after multiplying out
MAX_DEPENDENCIES = 3  # each doubles the union


@dataclass(frozen=True, slots=True)
class Normalised:
    """A schema in normal form: ``root`` and ``definitions`` hold nodes, ``unenforced`` what only validation can check."""

    root: Node
    definitions: Mapping[str, Node]
    unenforced: tuple[str, ...] = ()


def normalise(schema: Mapping[str, Any] | bool) -> Normalised:
    """Bring a JSON schema into the normal form that the head of this file describes.

    Raises SchemaError for what is no schema, points outside itself, admits no value at all, or is beyond the bounds.
    """
    check_size(schema)
    return _Normaliser(schema).run()


def check_size(schema: object) -> None:
    """Refuse, without recursion, a schema that nests or sprawls beyond reason."""
    stack, count = [(schema, 0)], 0
    while stack:
        value, depth = stack.pop()
        count += 1
        if depth > 3 * MAX_DEPTH or count > 5 * MAX_NODES:
            raise SchemaError("The JSON schema is nested too deeply or is too large.", "Simplify it.")
        if isinstance(value, Mapping):
            stack.extend((v, depth + 1) for v in value.values())
        elif isinstance(value, list | tuple):
            stack.extend((v, depth + 1) for v in value)


def never() -> Node:
    """The node that no value satisfies."""
    return {"enum": []}


def is_never(node: Node) -> bool:
    return node.get("enum") == []


def same(a: object, b: object) -> bool:
    """Compare two JSON values as JSON does: ``1`` is ``1.0`` but not ``true``."""
    return canonical(a) == canonical(b)


def canonical(value: object) -> str:
    """A text that is the same for equal JSON values."""
    return json.dumps(_plain(value), sort_keys=True, ensure_ascii=True)


def _plain(value: Any) -> Any:
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    return value


def json_type(value: object) -> str:
    """Name the JSON type of a Python value; a float without a fraction is an integer."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int) or (isinstance(value, float) and value.is_integer()):
        return "integer"
    names: tuple[tuple[type | tuple[type, ...], str], ...] = ((float, "number"), (str, "string"), (Mapping, "object"))
    for kind, name in (*names, ((list, tuple), "array")):
        if isinstance(value, kind):
            return name
    raise SchemaError(f"{type(value).__name__} is no JSON value.", "Use JSON values in const, enum and default.")


class _Normaliser:
    """One run over one schema. References become definitions, worked off from a list, so that recursion needs no stack."""

    def __init__(self, schema: Mapping[str, Any] | bool) -> None:
        self.schema = schema
        self.definitions: dict[str, Node] = {}
        self.pending: dict[str, Callable[[], Node]] = {}
        self.names: dict[str, str] = {}
        self.unenforced: dict[str, None] = {}
        self.made = 0

    def run(self) -> Normalised:
        root = self.node(self.schema, "#", 0)
        while self.pending:
            self.resolve(next(iter(self.pending)))
        self.prune()
        root = self.tidy(root)
        if is_never(root):
            raise SchemaError("No value satisfies this JSON schema.", "Look for contradicting keywords or endless recursion.")
        used = self.reachable(root)
        return Normalised(root, {name: self.definitions[name] for name in used}, tuple(self.unenforced))

    # --- reading ------------------------------------------------------------------------------------------------------------

    def node(self, schema: Any, path: str, depth: int) -> Node:
        """Normalise one schema: its own keywords, then every applicator beside them, intersected."""
        self.count(depth, path)
        if schema is True:
            return {}
        if schema is False:
            return never()
        if not isinstance(schema, Mapping):
            raise SchemaError(f"{path} should be a schema, not {type(schema).__name__}.", "A schema is an object, true or false.")
        node = self.own(schema, path, depth)
        for part in self.applicators(schema, path, depth):
            node = self.meet(node, part, path)
        if schema.get("unevaluatedProperties") is False:
            node = self.close(node, path)
        return node

    def count(self, depth: int, path: str) -> None:
        self.made += 1
        if depth > MAX_DEPTH or self.made > MAX_NODES:
            raise SchemaError(f"The JSON schema is nested too deeply or multiplies out too far at {path[:80]}.", "Simplify it.")

    def own(self, schema: Mapping[str, Any], path: str, depth: int) -> Node:
        """The node for a schema's plain keywords: one option per type it allows."""
        types = _types(schema, path)
        for keyword in ("uniqueItems", "not", "contains", "unevaluatedItems"):
            if schema.get(keyword) not in (None, False) or (keyword == "not" and keyword in schema):
                self.loose(path, keyword)
        options = [self.typed(name, schema, path, depth) for name in types]
        restricted = any(len(option) > 1 for option in options)
        node: Node = {} if set(types) == set(TYPES) - {"integer"} and not restricted else self.union(options, path)
        if "const" in schema:
            node = self.meet(node, {"enum": [schema["const"]]}, path)
        if "enum" in schema:
            values = schema["enum"]
            if not isinstance(values, list | tuple):
                raise SchemaError(f"{path}/enum should be a list.", "Write the allowed values as a JSON array.")
            node = self.meet(node, {"enum": list(values)}, path)
        return node

    def typed(self, name: str, schema: Mapping[str, Any], path: str, depth: int) -> Node:
        match name:
            case "integer" | "number":
                return {"type": name, **_bounds(schema, path)}
            case "string":
                return self.string(schema, path)
            case "array":
                return self.array(schema, path, depth)
            case "object":
                return self.object(schema, path, depth)
        return {"type": name}

    def string(self, schema: Mapping[str, Any], path: str) -> Node:
        node: Node = {"type": "string", **_sizes(schema, ("minLength", "maxLength"), path)}
        if schema.get("format") in FORMATS:
            node["format"] = schema["format"]
        if "pattern" in schema:
            pattern = schema["pattern"]
            if not isinstance(pattern, str):
                raise SchemaError(f"{path}/pattern should be a string.", "Write a regular expression.")
            if has_linear_regex(pattern):
                node["patterns"] = [pattern]
            else:
                self.loose(path, "pattern")
        return node

    def array(self, schema: Mapping[str, Any], path: str, depth: int) -> Node:
        prefix, rest = schema.get("prefixItems", []), schema.get("items", True)
        if isinstance(rest, list | tuple):  # draft-07 spelt it so
            prefix, rest = rest, schema.get("additionalItems", True)
        if not isinstance(prefix, list | tuple):
            raise SchemaError(f"{path}/prefixItems should be a list.", "Write one schema per position.")
        node: Node = {"type": "array", **_sizes(schema, ("minItems", "maxItems"), path)}
        if prefix:
            node["prefixItems"] = [self.node(s, f"{path}/prefixItems/{i}", depth + 1) for i, s in enumerate(prefix)]
        items = self.node(rest, f"{path}/items", depth + 1)
        if items:
            node["items"] = items
        if "contains" in schema and schema.get("minContains", 1) != 0:
            node["minItems"] = max(node.get("minItems", 0), 1)
        return node

    def object(self, schema: Mapping[str, Any], path: str, depth: int) -> Node:
        node: Node = {"type": "object", **_sizes(schema, ("minProperties", "maxProperties"), path)}
        properties = _mapping(schema, "properties", path)
        patterns = _mapping(schema, "patternProperties", path)
        required = schema.get("required", [])
        if isinstance(required, bool):  # draft-03 put it on the property; many tool definitions still do
            required = []
        if not isinstance(required, list | tuple) or not all(isinstance(k, str) for k in required):
            raise SchemaError(f"{path}/required should be a list of names.", "Write the names of the required properties.")
        props = {str(k): self.node(s, f"{path}/properties/{_escape(str(k))}", depth + 1) for k, s in properties.items()}
        found = {p: self.node(s, f"{path}/patternProperties/{_escape(p)}", depth + 1) for p, s in patterns.items()}
        extra = self.node(schema.get("additionalProperties", True), f"{path}/additionalProperties", depth + 1)
        if any(not has_linear_regex(p) for p in found):
            self.loose(path, "patternProperties")
            found, extra = {}, {}
        for key in props:
            for pattern, sub in found.items():
                if linear_search(pattern, key):
                    props[key] = self.meet(props[key], sub, path)
        node |= {k: v for k, v in (("properties", props), ("patternProperties", found)) if v}
        if required:
            node["required"] = list(dict.fromkeys(required))
        if extra:
            node["additionalProperties"] = extra
        return self.named(node, schema, path)

    def named(self, node: Node, schema: Mapping[str, Any], path: str) -> Node:
        """Apply ``propertyNames`` where it is an enum or one pattern; leave the rest to validation."""
        if "propertyNames" not in schema:
            return node
        names = schema["propertyNames"]
        extra = node.get("additionalProperties", {})
        allowed = names.get("enum") if isinstance(names, Mapping) and set(names) <= {"enum", "type", "pattern"} else None
        pattern = names.get("pattern") if isinstance(names, Mapping) and set(names) <= {"pattern", "type"} else None
        if isinstance(allowed, list) and "pattern" not in names and "patternProperties" not in node:
            keys = [k for k in allowed if isinstance(k, str)]
            props = {k: node.get("properties", {}).get(k, extra) for k in keys}
            return {**node, "properties": props, "additionalProperties": never()}
        if isinstance(pattern, str) and has_linear_regex(pattern) and "patternProperties" not in node:
            props = {k: v for k, v in node.get("properties", {}).items() if linear_search(pattern, k)}
            return {**node, "properties": props, "patternProperties": {pattern: extra}, "additionalProperties": never()}
        if names is not True:
            self.loose(path, "propertyNames")
        return node

    def applicators(self, schema: Mapping[str, Any], path: str, depth: int) -> list[Node]:
        """What stands beside a schema's own keywords and must hold as well."""
        parts: list[Node] = []
        for keyword in ("$ref", "$dynamicRef"):
            if keyword in schema:
                parts.append(self.reference(schema[keyword], path))
        for keyword in ("allOf", "anyOf", "oneOf"):
            if keyword not in schema:
                continue
            subs = schema[keyword]
            if not isinstance(subs, list | tuple) or not subs:
                raise SchemaError(f"{path}/{keyword} should be a list of schemas.", "Write at least one schema.")
            nodes = [self.node(s, f"{path}/{keyword}/{i}", depth + 1) for i, s in enumerate(subs)]
            if keyword == "allOf":
                parts.extend(nodes)
                continue
            if keyword == "oneOf" and not _disjoint(nodes):
                self.loose(path, "oneOf")
            parts.append(self.union(nodes, path))
        if "if" in schema:
            parts.append(self.condition(schema, path, depth))
        parts.extend(self.dependencies(schema, path, depth))
        return parts

    def condition(self, schema: Mapping[str, Any], path: str, depth: int) -> Node:
        """``if c then t else e`` holds where c and t hold, or where e holds; that e needs "not c" is left to validation."""
        self.loose(path, "if")
        test = self.node(schema["if"], f"{path}/if", depth + 1)
        then = self.node(schema.get("then", True), f"{path}/then", depth + 1)
        other = self.node(schema.get("else", True), f"{path}/else", depth + 1)
        return self.union([self.meet(test, then, path), other], path)

    def dependencies(self, schema: Mapping[str, Any], path: str, depth: int) -> list[Node]:
        """Each dependency is a choice: the key is absent, or what it asks for holds."""
        rules: dict[str, Any] = {}
        for keyword in ("dependentRequired", "dependentSchemas", "dependencies"):
            for key, needs in _mapping(schema, keyword, path).items():
                rules[f"{keyword}/{key}"] = (key, {"required": list(needs)} if isinstance(needs, list | tuple) else needs)
        if len(rules) > MAX_DEPENDENCIES:
            self.loose(path, "dependentRequired")
            return []
        parts = []
        for place, (key, needs) in rules.items():
            absent = {"type": "object", "properties": {key: never()}}
            present = self.meet(self.node(needs, f"{path}/{place}", depth + 1), {"type": "object", "required": [key]}, path)
            other = [{"type": name} for name in ("null", "boolean", "number", "string", "array")]
            parts.append(self.union([absent, present, *other], path))
        return parts

    # --- references ---------------------------------------------------------------------------------------------------------

    def reference(self, ref: Any, path: str) -> Node:
        if not isinstance(ref, str):
            raise SchemaError(f"{path}/$ref should be a string.", "Point into the same document, e.g. #/$defs/item.")
        if ref not in self.names:
            target = self.target(ref, path)
            self.names[ref] = self.define(lambda: self.node(target, ref, 0))
        return {"$ref": self.names[ref]}

    def target(self, ref: str, path: str) -> Any:
        """Find what a reference points to, inside this document only."""
        here = self.schema
        base = here.get("$id", "") if isinstance(here, Mapping) else ""
        local = ref.removeprefix(base) if isinstance(base, str) and base else ref
        if local in ("", "#"):
            return here
        if local.startswith("#/"):
            value: Any = here
            for step in local[2:].split("/"):
                key = unquote(step).replace("~1", "/").replace("~0", "~")
                if isinstance(value, Mapping) and key in value:
                    value = value[key]
                elif isinstance(value, list | tuple) and key.isdecimal() and int(key) < len(value):
                    value = value[int(key)]
                else:
                    raise SchemaError(f"{path}/$ref points to {ref}, which is not there.", "Correct the reference.")
            return value
        found = _anchor(here, local)
        if found is None:
            raise SchemaError(f"{path}/$ref points outside the schema: {ref[:80]}.", "Copy the definition into $defs.")
        return found

    def define(self, make: Callable[[], Node], name: str = "") -> str:
        name = name or f"d{len(self.definitions) + len(self.pending)}"
        self.pending[name] = make
        return name

    def resolve(self, name: str, path: tuple[str, ...] = ()) -> Node:
        if name in self.pending:
            if len(path) > MAX_DEPTH:
                raise SchemaError("A $ref leads through too many others.", "Simplify the schema.")
            make = self.pending.pop(name)
            self.definitions[name] = {"$ref": name}  # while it is being made it can only be itself
            self.definitions[name] = make()
        return self.definitions[name]

    # --- intersection and union ---------------------------------------------------------------------------------------------

    def meet(self, a: Node, b: Node, path: str) -> Node:
        """The node that admits what both admit."""
        self.count(0, path)
        if not a or is_never(b):
            return b
        if not b or is_never(a) or a == b:
            return a
        for x, y in ((a, b), (b, a)):
            if "$ref" in x:
                return self.meet_ref(x, y, path)
        for x, y in ((a, b), (b, a)):
            if "anyOf" in x:
                return self.union([self.meet(option, y, path) for option in x["anyOf"]], path)
        for x, y in ((a, b), (b, a)):
            if "enum" in x:
                return {"enum": [value for value in x["enum"] if self.admits(y, value, path)]}
        if a["type"] == b["type"] or {a["type"], b["type"]} == {"integer", "number"}:
            return self.meet_typed(a, b, path)
        return never()

    def meet_ref(self, ref: Node, other: Node, path: str) -> Node:
        """Intersecting with a reference is a new definition, made later: the target may not be finished yet."""
        key = f"{ref['$ref']}&{canonical(other)}"
        if key not in self.names:
            self.names[key] = self.define(lambda: self.meet(self.solid(ref), other, path))
        return {"$ref": self.names[key]}

    def solid(self, node: Node) -> Node:
        """Follow references until something else comes; a circle of nothing but references admits no value."""
        seen: set[str] = set()
        while "$ref" in node:
            if node["$ref"] in seen:
                return never()
            seen.add(node["$ref"])
            node = self.resolve(node["$ref"], tuple(seen))
        return node

    def meet_typed(self, a: Node, b: Node, path: str) -> Node:
        node: Node = {"type": "integer" if "integer" in (a["type"], b["type"]) else a["type"]}
        for keyword in ("minimum", "exclusiveMinimum", "minLength", "minItems", "minProperties"):
            node |= _pick(max, keyword, a, b)
        for keyword in ("maximum", "exclusiveMaximum", "maxLength", "maxItems", "maxProperties"):
            node |= _pick(min, keyword, a, b)
        if node["type"] in ("integer", "number"):
            return self.meet_multiples(node, a, b, path)
        if node["type"] == "string":
            return self.meet_strings(node, a, b, path)
        if node["type"] == "array":
            return self.meet_arrays(node, a, b, path)
        if node["type"] == "object":
            return self.meet_objects(node, a, b, path)
        return node

    def meet_multiples(self, node: Node, a: Node, b: Node, path: str) -> Node:
        steps = [x["multipleOf"] for x in (a, b) if "multipleOf" in x]
        if len(steps) == 2 and not same(*steps):
            self.loose(path, "multipleOf")
        return node | ({"multipleOf": steps[0]} if steps else {})

    def meet_strings(self, node: Node, a: Node, b: Node, path: str) -> Node:
        formats = list(dict.fromkeys(x["format"] for x in (a, b) if "format" in x))
        if len(formats) == 2:
            return never()
        patterns = list(dict.fromkeys(a.get("patterns", []) + b.get("patterns", [])))
        return node | ({"format": formats[0]} if formats else {}) | ({"patterns": patterns} if patterns else {})

    def meet_arrays(self, node: Node, a: Node, b: Node, path: str) -> Node:
        heads = [x.get("prefixItems", []) for x in (a, b)]
        rests = [x.get("items", {}) for x in (a, b)]
        length = max(len(h) for h in heads)
        prefix = []
        for i in range(length):
            left, right = (head[i] if i < len(head) else rest for head, rest in zip(heads, rests, strict=True))
            prefix.append(self.meet(left, right, path))
        items = self.meet(rests[0], rests[1], path)
        return node | ({"prefixItems": prefix} if prefix else {}) | ({"items": items} if items else {})

    def meet_objects(self, node: Node, a: Node, b: Node, path: str) -> Node:
        keys = dict.fromkeys([*a.get("properties", {}), *b.get("properties", {})])
        props = {key: self.meet(_property(a, key), _property(b, key), path) for key in keys}
        found: Node = {}
        for x, y in ((a, b), (b, a)):
            for pattern, sub in x.get("patternProperties", {}).items():
                other = y.get("patternProperties", {}).get(pattern, y.get("additionalProperties", {}))
                found[pattern] = self.meet(sub, other, path)
        extra = self.meet(a.get("additionalProperties", {}), b.get("additionalProperties", {}), path)
        required = list(dict.fromkeys(a.get("required", []) + b.get("required", [])))
        parts = (("properties", props), ("patternProperties", found), ("required", required), ("additionalProperties", extra))
        return node | {k: v for k, v in parts if v}

    def union(self, options: list[Node], path: str) -> Node:
        """The node that admits what any of them admits."""
        flat: dict[str, Node] = {}
        for option in options:
            for node in option.get("anyOf", [option]):
                if not node:
                    return {}
                if not is_never(node):
                    flat[canonical(node)] = node
        if '{"type": "number"}' in flat:
            flat.pop('{"type": "integer"}', None)
        nodes = list(flat.values())
        if len(nodes) > MAX_OPTIONS:
            raise SchemaError(f"{path[:80]} multiplies out to more than {MAX_OPTIONS} alternatives.", "Simplify anyOf and oneOf.")
        return nodes[0] if len(nodes) == 1 else {"anyOf": nodes} if nodes else never()

    def admits(self, node: Node, value: Any, path: str) -> bool:
        """Is this constant admitted by a node? Used to filter an enum, so what is unsure counts as admitted."""
        if not node:
            return True
        if "enum" in node:
            return any(same(value, v) for v in node["enum"])
        if "anyOf" in node:
            return any(self.admits(option, value, path) for option in node["anyOf"])
        if "$ref" in node:
            return self.admits(self.solid(node), value, path)
        kind, wanted = json_type(value), node["type"]
        if kind != wanted and (kind, wanted) != ("integer", "number"):
            return False
        if kind == "string":
            return _fits(node, len(value), "Length") and all(linear_search(p, value) for p in node.get("patterns", []))
        if kind in ("integer", "number"):
            return _within(node, value)
        if kind == "array":
            prefix, rest = node.get("prefixItems", []), node.get("items", {})
            subs = [*prefix[: len(value)], *[rest] * (len(value) - len(prefix))]
            return _fits(node, len(value), "Items") and all(self.admits(s, v, path) for s, v in zip(subs, value, strict=True))
        if kind == "object":
            return all(k in value for k in node.get("required", [])) and all(
                self.admits(_property(node, k), v, path) for k, v in value.items()
            )
        return True

    def close(self, node: Node, path: str) -> Node:
        """Forbid further properties, after everything beside them has been merged in."""
        if "anyOf" in node:
            return self.union([self.close(option, path) for option in node["anyOf"]], path)
        if "$ref" in node:
            key = f"close {node['$ref']}"
            if key not in self.names:
                self.names[key] = self.define(lambda: self.close(self.solid(node), path))
            return {"$ref": self.names[key]}
        return {**node, "additionalProperties": never()} if node.get("type") == "object" else node

    # --- what can never end -------------------------------------------------------------------------------------------------

    def prune(self) -> None:
        """Replace definitions without any finite value, e.g. an object that requires itself, by the empty node."""
        finite: set[str] = set()
        grown = True
        while grown:
            new = {n for n, node in self.definitions.items() if n not in finite and _finite(node, finite)}
            grown = bool(new)
            finite |= new
        for name in self.definitions:
            if name not in finite:
                self.definitions[name] = never()
        for name in self.definitions:
            self.definitions[name] = self.tidy(self.definitions[name])

    def tidy(self, node: Node) -> Node:
        """Drop what nothing satisfies from unions, and take empty required parts through to the whole."""
        if "$ref" in node:
            target = self.definitions[node["$ref"]]
            return target if is_never(target) else node
        if "anyOf" in node:
            return self.union([self.tidy(option) for option in node["anyOf"]], "#")
        if node.get("type") == "array":
            return self.tidy_array(node)
        if node.get("type") == "object":
            node = dict(node)
            for keyword in ("properties", "patternProperties"):
                if keyword in node:
                    node[keyword] = {k: self.tidy(v) for k, v in node[keyword].items()}
            if node.get("additionalProperties"):
                node["additionalProperties"] = self.tidy(node["additionalProperties"])
            dead = any(is_never(_property(node, key)) for key in node.get("required", []))
            crossed = node.get("minProperties", 0) > node.get("maxProperties", MAX_NODES)
            return never() if dead or crossed else node
        return never() if _crossed(node) else node

    def tidy_array(self, node: Node) -> Node:
        node = dict(node)
        prefix = [self.tidy(n) for n in node.get("prefixItems", [])]
        items = self.tidy(node.get("items", {}))
        room = node.get("maxItems", MAX_NODES)
        for i, sub in enumerate([*prefix, items]):
            if is_never(sub):
                room = min(room, i)
                break
        node["prefixItems"] = prefix = prefix[:room]
        if is_never(items) or not items:
            node.pop("items", None)
        else:
            node["items"] = items
        if not prefix:
            del node["prefixItems"]
        if room < MAX_NODES:
            node["maxItems"] = room
        return never() if node.get("minItems", 0) > room else node

    def reachable(self, root: Node) -> list[str]:
        found: dict[str, None] = {}
        stack: list[Any] = [root]
        while stack:
            value = stack.pop()
            if isinstance(value, dict):
                name = value.get("$ref")
                if isinstance(name, str) and len(value) == 1 and name not in found:
                    found[name] = None
                    stack.append(self.definitions[name])
                stack.extend(v for k, v in value.items() if k != "enum")
            elif isinstance(value, list):
                stack.extend(value)
        return list(found)

    def loose(self, path: str, keyword: str) -> None:
        self.unenforced[f"{path}/{keyword}"] = None
