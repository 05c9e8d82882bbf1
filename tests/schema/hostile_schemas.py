"""Hostile JSON schemas from a fixed seed, and everything that is done with a tool's schema, done to each.

Ran as a program it is the child process of the test and of the benchmark, because native code that hangs can only be killed::

    python -m tests.schema.hostile_schemas [COUNT] [SEED]

writes a line of JSON before and after each task: the names of schema and task, then the seconds and why it was refused. A
refusal is a SchemaError; any other error is the child's own and ends it.
"""

from __future__ import annotations

import json
import os
import queue
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

SEED = 11
COUNT = int(os.environ.get("LLM_MAGICS_HOSTILE", "120"))  # ``make whole`` tries 500
GUARD = 10  # seconds of the processor that one task with one schema may take
_PATIENCE = 20  # times that, on the clock, on a machine that is busy with other things
Schema = dict[str, Any]
_WORD = "a" * 60 + "!"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one task with one schema; ``refused`` says why it was not done. Seconds are the processor's."""

    schema: str
    task: str
    seconds: float
    refused: str


def hostile_schemas(count: int = COUNT, seed: int = SEED) -> Iterator[tuple[str, Any]]:
    """Name and schema, the known ones first."""
    yield from KNOWN.items()
    dice = random.Random(seed)
    for i in range(count):
        kind = _KINDS[i % len(_KINDS)]
        yield f"{i:03} {kind.__name__.strip('_')}", kind(dice)


KNOWN: dict[str, Any] = {
    "pattern beside unevaluated": {"patternProperties": {"^(a+)+$": {"type": "integer"}}, "unevaluatedProperties": False},
    "look-around beside unevaluated": {"patternProperties": {r"^(?!b)(a*)*c\1$": True}, "unevaluatedProperties": False},
    "backtracking": {"type": "string", "pattern": r"((a|aa)+)\1c"},
    "backtracking names": {"propertyNames": {"pattern": r"(a*)*\1b"}},
    "backtracking under not": {"not": {"anyOf": [{"pattern": r"((a|aa)+)\1c"}]}},
    "unique": {"type": "array", "uniqueItems": True},
}


def _doubling(dice: random.Random) -> Schema:
    """A chain of definitions that each apply the next one several times, over one keyword or many."""
    depth, keywords = dice.choice([8, 14, 30, 60]), dice.sample(_APPLY, dice.choice([1, 1, 2, 4]))
    chain = {f"d{i}": dice.choice(keywords)({"$ref": f"#/$defs/d{i + 1}"}) for i in range(depth)}
    return {"$defs": chain | {f"d{depth}": dice.choice([True, False, {"type": "string"}])}, "$ref": "#/$defs/d0"}


_APPLY: list[Callable[[Any], Schema]] = [
    lambda r: {"allOf": [r, r]},
    lambda r: {"anyOf": [r, r]},
    lambda r: {"oneOf": [r, {"type": "integer"}, r]},
    lambda r: {"not": {"allOf": [r, r]}},
    lambda r: {"if": r, "then": r, "else": r},
    lambda r: {"allOf": [r, r], "unevaluatedProperties": False},
    lambda r: {"anyOf": [r, r], "unevaluatedItems": False},
    lambda r: {"unevaluatedProperties": r, "allOf": [r]},
    lambda r: {"dependentSchemas": {"a": r, "b": r}},
    lambda r: {"properties": {"a": r, "b": r}, "additionalProperties": r},
    lambda r: {"contains": r, "items": r, "minContains": 2},
    lambda r: {"propertyNames": {"allOf": [r, r]}, "minProperties": 1},
    lambda r: {"if": {"properties": {"a": r}}, "then": {"required": ["b"]}, "unevaluatedProperties": False},
]


def _inline(dice: random.Random) -> Schema:
    """The same written out, as deep as fits."""
    apply = dice.sample(_APPLY[:8], dice.choice([1, 2]))
    schema: Any = {"type": dice.choice(["string", "object"])}
    for _ in range(dice.choice([5, 9, 30, 90])):
        made = dice.choice(apply)(schema)
        schema = {k: ([v[0], True] if isinstance(v, list) else v) for k, v in made.items()} if dice.random() < 0.9 else made
    return schema


def _circle(dice: random.Random) -> Schema:
    """Definitions that refer to each other at random, by pointers, anchors, ids and dynamic references."""
    n = dice.randint(1, 12)
    names = [f"d{i}" for i in range(n)]

    def refer() -> Schema:
        name = dice.choice([*names, *names, "nowhere"] if dice.random() < 0.1 else names)
        where = [f"#/$defs/{name}", f"#{name}", f"#/%24defs/{name}", "#", f"item:{name}", "https://example.org/x"]
        return {dice.choice(["$ref", "$ref", "$dynamicRef", "$recursiveRef"]): dice.choices(where, [9, 4, 2, 1, 1, 0.2])[0]}

    defs = {}
    for name in names:
        schema = dice.choice(_APPLY)(refer())
        schema[dice.choice(["$anchor", "$dynamicAnchor", "$id"])] = dice.choice([name, f"item:{name}", f"#{name}"])
        defs[name] = schema
    return {"$defs": defs, **dice.choice(_APPLY)({"$ref": "#/$defs/d0"})}


def _enum(dice: random.Random) -> Schema:
    n = dice.choice([100, 5_000, 30_000, 150_000])
    makers: list[Callable[[int], Any]] = [
        lambda i: i,
        lambda i: f"{'a' * 50}{i}",
        lambda i: {"a": i, "b": [i, None]},
        lambda i: [i] * 3,
        lambda i: float(i) if i % 2 else str(i),
    ]
    make = dice.choice(makers)
    schema: Schema = {"enum": [make(i) for i in range(n)]}
    if dice.random() < 0.5:
        schema |= {"pattern": _pattern(dice), "minLength": 3, "multipleOf": 7}
    return {"allOf": [schema, {"enum": [make(i) for i in range(n // 2, n)]}]} if dice.random() < 0.3 else schema


def _pattern(dice: random.Random, depth: int = 4) -> str:
    """A regular expression that repeats repetitions, with look-around and back-references in between."""
    if depth == 0:
        atoms = ["a", "b", ".", "[ab]", "[^b]", r"\w", r"\d", r"\p{L}", "a?", "", r"\s", "é", "[a-z0-9_]"]
        return dice.choice(atoms)
    inner = [_pattern(dice, depth - 1) for _ in range(dice.randint(1, 3))]
    parts = ["".join(inner), f"({'|'.join(inner)})", f"(?:{''.join(inner)})"]
    piece = dice.choice(parts)
    if dice.random() < 0.15:
        return dice.choice([f"(?={piece})", f"(?!{piece})", f"(?<={piece})", f"({piece})\\1", f"(?>{piece})", f"^{piece}$"])
    many = dice.choice(["", "*", "+", "{0,40}", "{1,300}", "{1000}", "*?", "{3,}"])
    return f"(?:{piece}){many}" if many else piece


def _patterns(dice: random.Random) -> Schema:
    pattern = _pattern(dice, dice.randint(1, 6))
    schemas: list[Schema] = [
        {"type": "string", "pattern": pattern},
        {"patternProperties": {pattern: {"type": "integer"}}, "unevaluatedProperties": False},
        {"patternProperties": {pattern: True, _pattern(dice): False}, "additionalProperties": False},
        {"propertyNames": {"pattern": pattern}},
        {"type": "string", "allOf": [{"pattern": pattern}, {"pattern": _pattern(dice)}], "minLength": 5, "maxLength": 50},
        {"items": {"pattern": pattern}, "contains": {"not": {"pattern": _pattern(dice)}}},
        {"patternProperties": {f"{i}{_pattern(dice, 2)}": {"type": "string"} for i in range(200)}},
        {
            "type": "string",
            "pattern": dice.choice(["[a-z]", r"\p{L}", "(a|b)", "a{9}", "("]) * dice.choice([300, 3_000, 30_000]),
        },
    ]
    return dice.choice(schemas)


def _fan(dice: random.Random) -> Schema:
    """Unions and intersections that multiply out."""
    n, m = dice.choice([3, 12, 60]), dice.choice([2, 12, 40])
    options: list[Schema] = [{"type": "object", "required": [f"k{i}"], "properties": {f"p{i}": {"const": i}}} for i in range(n)]
    options += dice.sample([{"type": "string"}, {"type": "integer"}, {"pattern": "^a"}, {"minimum": 3}], 2)
    union = {dice.choice(["anyOf", "oneOf"]): options}
    return {dice.choice(["allOf", "allOf", "anyOf"]): [union] * m, **dice.choice([{}, {"unevaluatedProperties": False}])}


def _number(dice: random.Random) -> Schema:
    def odd() -> float:
        exponent = dice.choice([0, 1, 12, 20, 53, 300, 308, 400, 4_000])
        sign = dice.choice([1, -1])
        return sign * (10**exponent if exponent > 308 or dice.random() < 0.5 else float(f"1e{dice.choice([1, -1]) * exponent}"))

    keywords = dice.sample(["minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"], dice.randint(1, 4))
    schema: Schema = {"type": dice.choice(["integer", "number"]), **{k: odd() for k in keywords}}
    if "multipleOf" in schema:
        schema["multipleOf"] = abs(schema["multipleOf"])
    return {"allOf": [schema, _number(dice)]} if dice.random() < 0.3 else schema


def _array(dice: random.Random) -> Schema:
    many = dice.choice([0, 3, 1_000, 10**9])
    item: Schema = dice.choice([{"type": "object"}, {"type": "array", "minItems": many}, {"type": "integer"}, _number(dice)])
    schema: Schema = {"type": "array", "items": item, "uniqueItems": dice.random() < 0.6}
    more: list[Schema] = [
        {"minItems": many},
        {"prefixItems": [item] * dice.choice([3, 300, 5_000])},
        {"contains": {"uniqueItems": True}, "minContains": many},
        {"unevaluatedItems": False, "allOf": [{"prefixItems": [item] * 20}]},
        {"maxItems": many},
    ]
    for part in dice.sample(more, dice.randint(1, 3)):
        schema |= part
    return schema


def _contradiction(dice: random.Random) -> Schema:
    parts: list[Schema] = [
        {"type": "string"},
        {"type": ["integer", "null"]},
        {"const": {"a": 1}},
        {"required": ["a"], "properties": {"a": False}},
        {"not": {}},
        {"enum": []},
        {"minLength": 9, "maxLength": 3},
        {"pattern": "^$", "minLength": 1},
        {"minProperties": 9, "maxProperties": 3},
        {"minItems": 9, "maxItems": 3},
        {"not": {"not": {"type": "integer"}}},
        {"format": "date", "maxLength": 3, "type": "string"},
        {"dependentRequired": {f"k{i}": [f"k{i + 1}"] for i in range(50)}},
        {"properties": {f"k{i}": {"type": "integer"} for i in range(500)}, "required": [f"k{i}" for i in range(0, 500, 7)]},
    ]
    return {"allOf": dice.sample(parts, dice.randint(2, 5))}


_KINDS = [_doubling, _inline, _circle, _enum, _patterns, _fan, _number, _array, _contradiction, _patterns, _doubling, _circle]

VALUES: list[Any] = [
    _WORD,
    "a" * 5_000,
    {_WORD: 1, "a": {"a": {"a": 1}}, "b": [1, 2]},
    {f"k{i}": i for i in range(300)},
    [{"a": i} for i in range(4_001)],
    [i if i % 2 else {"a": i} for i in range(4_001)],
    10**300 + 1,
    0.1,
    None,
]


# --- the child ----------------------------------------------------------------------------------------------------------------


def tasks(schema: Any) -> Iterator[tuple[str, Callable[[], object]]]:
    """What is done with a tool's schema: grammars in three syntaxes, for near misses and answers, types, validation."""
    from llm_magics.chat.constraint import build_constraint
    from llm_magics.chat.encodings.typed import typed_arguments
    from llm_magics.chat.recovery.wrappers import near_miss_grammar
    from llm_magics.messages import ToolSpec
    from llm_magics.models.guide import takes
    from llm_magics.schema.validate import validate
    from tests.chat.formats import OWN, format_of

    tool = ToolSpec("f", "", {"type": "object", "properties": {"v": schema}, "required": ["v"]})
    for template in ("json", "tagged", "literal"):
        syntax = format_of(OWN / f"{template}.jinja").tools
        yield f"{template} calls", lambda syntax=syntax: takes(build_constraint(syntax, [tool]).calls, "")
    begun = '{"name": "f", "arguments": {"v": {"a'
    yield "near misses", lambda: takes(near_miss_grammar(syntax, [tool], "strict"), begun)
    yield "an answer", lambda: takes(build_constraint(None, [], response_schema=schema).start, '{"a": [1, "')
    read = typed_arguments(tool)
    yield "types", lambda: read.types(read.member(read.member(read.root, "v"), "a" * 40))
    for i, value in enumerate(VALUES):
        yield f"value {i}", lambda value=value: validate(value, schema)


def main(count: int = COUNT, seed: int = SEED) -> None:
    from llm_magics.errors import SchemaError

    for name, schema in hostile_schemas(count, seed):
        print(json.dumps([name, "the beginning"]), flush=True)
        for task, work in tasks(schema):
            print(json.dumps([name, task]), flush=True)
            began, refused = time.process_time(), ""
            try:
                work()
            except SchemaError as error:
                refused = str(error)
            print(json.dumps([name, task, time.process_time() - began, refused]), flush=True)


# --- the parent ---------------------------------------------------------------------------------------------------------------


class Hung(Exception):
    """The child did not come to an end with a schema, or died of it."""


def run_child(count: int = COUNT, seed: int = SEED, guard: float = GUARD) -> list[Outcome]:
    """Run all schemas in a child process. Raises Hung where a task takes more than ``guard`` seconds or ends the child."""
    command = [sys.executable, "-m", "tests.schema.hostile_schemas", str(count), str(seed)]
    with tempfile.TemporaryFile("w+", encoding="utf-8") as complaints:
        child = subprocess.Popen(command, cwd=Path(__file__).parents[2], stdout=subprocess.PIPE, stderr=complaints, text=True)
        try:
            outcomes, under = _watched(child, guard)
        finally:
            child.kill()
            child.wait()
        complaints.seek(0)
        if len({outcome.schema for outcome in outcomes}) != count + len(KNOWN):
            raise Hung(f"{under}: the child ended with {child.returncode}: {complaints.read()[-2000:]}")
    return outcomes


def _watched(child: subprocess.Popen[str], guard: float) -> tuple[list[Outcome], str]:
    """What the child says, and what it was at last doing."""
    lines: queue.Queue[str] = queue.Queue()
    stdout = child.stdout
    assert stdout is not None
    threading.Thread(target=lambda: [*map(lines.put, stdout), lines.put("")], daemon=True).start()
    process, outcomes, under = psutil.Process(child.pid), list[Outcome](), "the start"
    began, used = time.monotonic(), 0.0
    while True:
        try:
            line = lines.get(timeout=0.2)
        except queue.Empty:
            if _used(process) - used > guard or time.monotonic() - began > _PATIENCE * guard:
                raise Hung(f"{under}: longer than {guard:g} s") from None
            continue
        if not line:
            return outcomes, under
        told = json.loads(line)
        if len(told) > 2:
            outcomes.append(Outcome(*told))
        under, began, used = ": ".join(told[:2]), time.monotonic(), _used(process)


def _used(process: psutil.Process) -> float:
    """The seconds of the processor that the child has used; 0 where it has ended."""
    try:
        times = process.cpu_times()
    except psutil.Error:
        return 0.0
    return float(times.user + times.system)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:3]))
