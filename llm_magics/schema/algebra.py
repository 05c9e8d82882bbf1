"""The algebra of schema nodes (see ``schema/normal.py``): intersection, union, and emptiness.

:class:`Algebra` holds the definitions that nodes refer to. A definition is made when it is first needed, not when it is read,
so recursion in a schema is not recursion here. The last pass (:meth:`Algebra.tidy`) drops empty nodes, e.g. an object that
requires itself and all that require it, and widens limits that the constraint engine cannot take. The result compiles as a
grammar.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import zip_longest
from typing import Any

from llm_magics.errors import SchemaError

from .leaves import enforceable, linear_search, within
from .nodes import TYPES, Node, canonical, inside, is_never, json_type, never, properties_of, property_of

MAX_DEPTH = 64  # nesting of the schema as written, and of references to references
MAX_NODES = 20_000
MAX_OPTIONS = 64  # of one union after it is multiplied out
_LIMITS: dict[str, Callable[[list[Any]], Any]] = {
    **dict.fromkeys(("minimum", "exclusiveMinimum", "minLength", "minItems", "minProperties"), max),
    **dict.fromkeys(("maximum", "exclusiveMaximum", "maxLength", "maxItems", "maxProperties"), min),
}  # the stricter of two


def disjoint(nodes: list[Node]) -> bool:
    """Whether the types or enum values of these nodes show that no value satisfies two of them."""
    types: set[str] = set()
    constants: dict[str, str] = {}  # with their types
    for node in nodes:
        if "enum" not in node and "type" not in node:
            return False
        values = {canonical(v): json_type(v) for v in node.get("enum", [])}
        kinds = set() if "enum" in node else {node["type"], *(["integer"] if node["type"] == "number" else [])}
        if values.keys() & constants.keys() or types.intersection(values.values()):
            return False
        if kinds & types or kinds.intersection(constants.values()):
            return False
        constants |= values
        types |= kinds
    return True


def _fits(node: Node, size: int, what: str) -> bool:
    return bool(node.get(f"min{what}", 0) <= size <= node.get(f"max{what}", size))


def _rank(node: Node) -> int:
    """References first, then unions, then constants: the order in which :meth:`Algebra.meet` resolves them."""
    return next((i for i, keyword in enumerate(("$ref", "anyOf", "enum")) if keyword in node), 3)


class Algebra:
    """Nodes and the definitions that they refer to; ``unenforced`` collects the keywords that nodes cannot express."""

    def __init__(self) -> None:
        self.definitions: dict[str, Node] = {}
        self.pending: dict[str, Callable[[], Node]] = {}
        self.names: dict[str, str] = {}
        self.unenforced: dict[str, None] = {}
        self.made = 0

    def define(self, key: str, make: Callable[[], Node]) -> Node:
        """A reference to the definition of this key, which is made later unless it exists."""
        if key not in self.names:
            name = self.names[key] = f"d{len(self.names)}"
            self.pending[name] = make
        return {"$ref": self.names[key]}

    def resolve(self, name: str, path: tuple[str, ...] = ()) -> Node:
        if name in self.pending:
            if len(path) > MAX_DEPTH:
                raise SchemaError("A $ref leads through too many other references.", "Simplify the schema.")
            make = self.pending.pop(name)
            self.definitions[name] = {"$ref": name}  # while it is made
            self.definitions[name] = make()
        return self.definitions[name]

    def count(self, depth: int, path: str, made: int = 1) -> None:
        self.made += made
        if depth > MAX_DEPTH or self.made > MAX_NODES:
            raise SchemaError(f"The JSON schema has too many levels or combinations at {path[:80]}.", "Simplify it.")

    def loose(self, path: str, keyword: str) -> None:
        self.unenforced[f"{path}/{keyword}"] = None

    # --- intersection and union ---------------------------------------------------------------------------------------------

    def meet(self, a: Node, b: Node, path: str) -> Node:
        """The intersection of two nodes."""
        self.count(0, path)
        if not a or is_never(b):
            return b
        if not b or is_never(a) or (a == b and canonical(a) == canonical(b)):  # to Python, 1 is true
            return a
        a, b = sorted((a, b), key=_rank)
        if "$ref" in a:  # a new definition, made later: the target may not be finished yet
            return self.define(f"{a['$ref']}&{canonical(b)}", lambda: self.meet(self.solid(a), b, path))
        if "anyOf" in a:
            return self.union([self.meet(option, b, path) for option in a["anyOf"]], path)
        if "enum" in a and "enum" in b:
            common = {canonical(value) for value in b["enum"]}
            return {"enum": [value for value in a["enum"] if canonical(value) in common]}
        if "enum" in a:
            return {"enum": [value for value in a["enum"] if self.admits(b, value, path)]}
        if a["type"] == b["type"] or {a["type"], b["type"]} == {"integer", "number"}:
            return self.meet_typed(a, b, path)
        return never()

    def solid(self, node: Node) -> Node:
        """Follow references to another kind of node; a circle of references admits no value."""
        seen: set[str] = set()
        while "$ref" in node:
            if node["$ref"] in seen:
                return never()
            seen.add(node["$ref"])
            node = self.resolve(node["$ref"], tuple(seen))
        return node

    def meet_typed(self, a: Node, b: Node, path: str) -> Node:
        node: Node = {"type": "integer" if "integer" in (a["type"], b["type"]) else a["type"]}
        for keyword, stricter in _LIMITS.items():
            if limits := [x[keyword] for x in (a, b) if keyword in x]:
                node[keyword] = stricter(limits)
        if node["type"] == "array":
            return self.meet_arrays(node, a, b, path)
        if node["type"] == "object":
            return self.meet_objects(node, a, b, path)
        once = {keyword: [x[keyword] for x in (a, b) if keyword in x] for keyword in ("multipleOf", "format")}
        if len(set(once["multipleOf"])) == 2:
            self.loose(path, "multipleOf")
        if len(set(once["format"])) == 2:
            return never()
        node |= {keyword: found[0] for keyword, found in once.items() if found}
        patterns = list(dict.fromkeys(a.get("patterns", []) + b.get("patterns", [])))
        return node | ({"patterns": patterns} if patterns else {})

    def meet_arrays(self, node: Node, a: Node, b: Node, path: str) -> Node:
        rest_a, rest_b = a.get("items", {}), b.get("items", {})
        pairs = zip_longest(a.get("prefixItems", []), b.get("prefixItems", []))
        prefix = [self.meet(rest_a if x is None else x, rest_b if y is None else y, path) for x, y in pairs]
        items = self.meet(rest_a, rest_b, path)
        return node | ({"prefixItems": prefix} if prefix else {}) | ({"items": items} if items else {})

    def meet_objects(self, node: Node, a: Node, b: Node, path: str) -> Node:
        keys = dict.fromkeys([*a.get("properties", {}), *b.get("properties", {})])
        props = {key: self.meet(property_of(a, key), property_of(b, key), path) for key in keys}
        found: Node = {}
        for x, y in ((a, b), (b, a)):
            theirs = y.get("patternProperties", {})
            rest = {} if theirs else y.get("additionalProperties", {})  # keys may match patterns of both
            for pattern, sub in x.get("patternProperties", {}).items():
                found[pattern] = self.meet(sub, theirs.get(pattern, rest), path)
        if len(found) > 1:
            self.loose(path, "patternProperties")
        extra = self.meet(a.get("additionalProperties", {}), b.get("additionalProperties", {}), path)
        required = list(dict.fromkeys(a.get("required", []) + b.get("required", [])))
        parts = (("properties", props), ("patternProperties", found), ("required", required), ("additionalProperties", extra))
        return node | {k: v for k, v in parts if v}

    def union(self, options: list[Node], path: str) -> Node:
        """The union of nodes."""
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
            raise SchemaError(f"{path[:80]} combines to more than {MAX_OPTIONS} alternatives.", "Simplify its unions.")
        return nodes[0] if len(nodes) == 1 else {"anyOf": nodes} if nodes else never()

    def admits(self, node: Node, value: Any, path: str) -> bool:
        """Whether a node admits this constant. Filters enums, so it is True if unsure."""
        if not node:
            return True
        if "enum" in node:
            return canonical(value) in map(canonical, node["enum"])
        if "anyOf" in node:
            return any(self.admits(option, value, path) for option in node["anyOf"])
        if "$ref" in node:
            return self.admits(self.solid(node), value, path)
        kind = json_type(value)
        if kind != node["type"] and (kind, node["type"]) != ("integer", "number"):
            return False
        if kind == "string":
            return _fits(node, len(value), "Length") and all(linear_search(p, value) for p in node.get("patterns", []))
        if kind in ("integer", "number"):
            return within(node, value)
        if kind == "array":
            prefix, rest = node.get("prefixItems", []), node.get("items", {})
            subs = [*prefix[: len(value)], *[rest] * (len(value) - len(prefix))]
            return _fits(node, len(value), "Items") and all(self.admits(s, v, path) for s, v in zip(subs, value, strict=True))
        if kind == "object":
            return all(k in value for k in node.get("required", [])) and all(
                self.admits(property_of(node, k), v, path) for k, v in value.items()
            )
        return True

    def close(self, node: Node, path: str) -> Node:
        """Forbid properties that the merged node does not declare.

        Each of several objects may have the keys of all, because a value may satisfy more than one.
        """
        if "$ref" in node:
            return self.define(f"close {node['$ref']}", lambda: self.close(self.solid(node), path))
        options: list[Node] = node.get("anyOf", [node] if node else [{"type": n} for n in TYPES if n != "integer"])
        objects = [option for option in options if option.get("type") == "object"]
        said = any(o.get("additionalProperties") and not is_never(o["additionalProperties"]) for o in objects)
        unknown = said or any("$ref" in option for option in options)
        if unknown or len(objects) > 1:
            self.loose(path, "unevaluatedProperties")
        if unknown:
            return node
        closed = [dict(option) for option in options]
        for option in closed:
            if option.get("type") == "object":
                option["additionalProperties"] = never()
                for keyword in ("properties", "patternProperties"):
                    keys: Node = {key: {} for other in objects for key in other.get(keyword, {})}
                    option |= {keyword: keys | option.get(keyword, {})} if keys else {}
        return self.union(closed, path)

    # --- the last pass --------------------------------------------------------------------------------------------------------

    def prune(self) -> None:
        """Replace definitions without a finite value, e.g. an object that requires itself, by the empty node."""
        finite: set[str] = set()
        while new := {n for n, node in self.definitions.items() if n not in finite and _finite(node, finite)}:
            finite |= new
        self.definitions = {name: node if name in finite else never() for name, node in self.definitions.items()}
        for name in self.definitions:
            self.refuse_circle(name)
        empty, known = set[str](), None
        while empty != known:  # a definition may be empty because another one is
            known = empty
            self.definitions |= {name: self.tidy(node) for name, node in self.definitions.items()}
            empty = {name for name, node in self.definitions.items() if is_never(node)}

    def refuse_circle(self, name: str) -> None:
        """Refuse a definition that refers to itself directly: a check of "a string or this again" never ends."""
        seen, stack = {name}, [self.definitions[name]]
        while stack:
            node = stack.pop()
            stack.extend(node.get("anyOf", []))
            target = node.get("$ref")
            if target == name:
                raise SchemaError("A definition of the JSON schema refers to itself directly.", "Refer to it from a property.")
            if target is not None and target not in seen:
                seen.add(target)
                stack.append(self.definitions[target])

    def tidy(self, node: Node) -> Node:
        """Drop empty options of unions; make a node empty if a required part is."""
        if "$ref" in node:
            target = self.definitions[node["$ref"]]
            return target if is_never(target) else node
        if "anyOf" in node:
            return self.union([self.tidy(option) for option in node["anyOf"]], "#")
        if node.get("type") == "array":
            return self.tidy_array(node)
        if node.get("type") == "object":
            for keyword in node.keys() & {"properties", "patternProperties"}:
                node = {**node, keyword: {k: self.tidy(v) for k, v in node[keyword].items()}}
            if "additionalProperties" in node:
                node = {**node, "additionalProperties": self.tidy(node["additionalProperties"])}
            dead = any(is_never(property_of(node, key)) for key in node.get("required", []))
            closed = all(map(is_never, [node.get("additionalProperties", {}), *node.get("patternProperties", {}).values()]))
            room = min(node.get("maxProperties", MAX_NODES), len(properties_of(node)) if closed else MAX_NODES)
            return never() if dead or max(node.get("minProperties", 0), len(node.get("required", []))) > room else node
        return self.tidy_leaf(node) if node.get("type") in ("string", "integer", "number") else node

    def tidy_leaf(self, node: Node) -> Node:
        """Drop the limits that the constraint engine refuses, so that every grammar compiles."""
        kept, loose = enforceable(node)
        for keyword in loose:
            self.loose("#", keyword)
        return never() if kept is None else kept

    def tidy_array(self, node: Node) -> Node:
        prefix = [self.tidy(n) for n in node.get("prefixItems", [])]
        items = self.tidy(node.get("items", {}))
        empty = [i for i, sub in enumerate([*prefix, items]) if is_never(sub)]
        room = min([node.get("maxItems", MAX_NODES), *empty])
        parts = (("prefixItems", prefix[:room]), ("items", {} if is_never(items) else items))
        kept = {k: v for k, v in node.items() if k in ("type", "minItems")} | {k: v for k, v in parts if v}
        return never() if node.get("minItems", 0) > room else kept | ({"maxItems": room} if room < MAX_NODES else {})

    def reachable(self, root: Node) -> dict[str, Node]:
        """The definitions to which a node leads."""
        found: dict[str, Node] = {}
        stack = [root]
        while stack:
            node = stack.pop()
            if "$ref" in node and node["$ref"] not in found:
                found[node["$ref"]] = self.definitions[node["$ref"]]
                stack.append(found[node["$ref"]])
            stack += inside(node)
        return found


def _finite(node: Node, known: set[str]) -> bool:
    """Whether a node admits a finite value, given the definitions known to."""
    if "$ref" in node:
        return node["$ref"] in known
    if "anyOf" in node:
        return any(_finite(option, known) for option in node["anyOf"])
    if node.get("type") == "object":
        return all(_finite(property_of(node, key), known) for key in node.get("required", []))
    if node.get("type") == "array":
        prefix, least = node.get("prefixItems", []), node.get("minItems", 0)
        needed = prefix[:least] + ([node["items"]] if least > len(prefix) and "items" in node else [])
        return all(_finite(sub, known) for sub in needed)
    return not is_never(node)
