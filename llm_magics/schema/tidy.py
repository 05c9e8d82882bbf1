"""The last pass over schema nodes: what admits nothing goes, and what the constraint engine cannot take is widened.

A definition that no finite value satisfies, e.g. an object that requires itself, is the empty node, and so is every part that
requires it. What is left compiles as a grammar.
"""

from __future__ import annotations

from typing import Any

from llm_magics.errors import SchemaError

from .algebra import MAX_NODES, Algebra, Node, is_never, never, property_of
from .numeric import is_empty, widened
from .patterns import admits_nothing, leaf_problem


class Tidy(Algebra):
    """Nodes that are made, and now are tidied."""

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
            self.refuse_circle(name)
        for name in self.definitions:
            self.definitions[name] = self.tidy(self.definitions[name])

    def refuse_circle(self, name: str) -> None:
        """Refuse a definition that is, without anything between, itself: "a string or this again" never ends a check."""
        seen, stack = {name}, [self.definitions[name]]
        while stack:
            node = stack.pop()
            stack.extend(node.get("anyOf", []))
            target = node.get("$ref")
            if target == name:
                raise SchemaError("A definition of the JSON schema refers to itself in a circle.", "Put a property between.")
            if target is not None and target not in seen:
                seen.add(target)
                stack.append(self.definitions[target])

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
            dead = any(is_never(property_of(node, key)) for key in node.get("required", []))
            crossed = node.get("minProperties", 0) > node.get("maxProperties", MAX_NODES)
            return never() if dead or crossed else node
        return self.tidy_leaf(node) if node.get("type") in ("string", "integer", "number") else node

    def tidy_leaf(self, node: Node) -> Node:
        """Keep of a string or number node what the constraint engine takes, so that every grammar compiles."""
        if node["type"] in ("integer", "number"):
            return self.tidy_number(node)
        problem = leaf_problem(node)
        if not problem:
            return node
        if admits_nothing(problem):
            return never()
        for keyword in ("format", "patterns", "maxLength", "minLength"):
            if keyword in node:
                self.loose("#", keyword)
                return self.tidy_leaf({k: v for k, v in node.items() if k != keyword})
        return {"type": node["type"]}

    def tidy_number(self, node: Node) -> Node:
        """The same for a number node: bounds beyond the engine's reach are widened, so that no right value is refused."""
        if is_empty(node):
            return never()
        kept = widened(node)
        for keyword in [k for k in node if kept.get(k) != node[k]]:
            self.loose("#", keyword)
        for keyword in ("multipleOf", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"):
            if keyword in kept and leaf_problem({"type": kept["type"], keyword: kept[keyword]}):
                self.loose("#", keyword)
                del kept[keyword]
        if leaf_problem(kept):  # each alone would do
            for keyword in kept.keys() - {"type"}:
                self.loose("#", keyword)
            return {"type": kept["type"]}
        return kept

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


def _finite(node: Node, known: set[str]) -> bool:
    """Does a node admit some value that ends, given the definitions known to?"""
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
