"""JSON is complete and valid within its limit of tokens, whatever is written. A token is one byte here; no model is needed."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from llguidance import LLMatcher

from llm_magics.chat.analysis.reasoning import ReasoningSyntax
from llm_magics.chat.constraint import Frame, build_constraint
from llm_magics.engine.closing import END, SOFT_LIMIT, Allowed, Closer
from llm_magics.engine.values import JsonText
from llm_magics.errors import SchemaError
from llm_magics.schema.leaves import byte_tokenizer
from llm_magics.schema.validate import validate

WORDS = {"type": "string"}
SCHEMAS: dict[str, Mapping[str, Any]] = {
    "a recipe": {
        "type": "object",
        "properties": {"title": WORDS, "minutes": {"type": "integer"}, "ingredients": {"type": "array", "items": WORDS}},
        "required": ["title", "minutes", "ingredients"],
        "additionalProperties": False,
    },
    "an open object with required keys": {"type": "object", "properties": {"name": WORDS}, "required": ["name", "age"]},
    "a list": {"type": "array", "items": {"type": "number"}, "minItems": 3},
    "a map": {"type": "object", "additionalProperties": {"type": "integer"}},
    "a union": {
        "type": "array",
        "items": {"anyOf": [{"type": "null"}, WORDS, {"type": "array", "items": {"type": "boolean"}}]},
    },
    "a tree": {
        "$ref": "#/$defs/node",
        "$defs": {
            "node": {
                "type": "object",
                "properties": {"label": WORDS, "children": {"type": "array", "items": {"$ref": "#/$defs/node"}}},
                "required": ["label", "children"],
                "additionalProperties": False,
            }
        },
    },
    "restricted strings": {
        "type": "object",
        "properties": {
            "day": {"type": "string", "pattern": r"^\d{4}-\d\d-\d\d$"},
            "code": {"type": "string", "minLength": 5, "maxLength": 9},
            "kind": {"enum": ["a rather long name", "short"]},
            "mail": {"type": "string", "format": "email"},
        },
        "required": ["day", "code", "kind", "mail"],
        "additionalProperties": False,
    },
    "anything": {},
}


class Text:
    """A text that is written byte by byte, by anybody, under a schema and with a limit."""

    def __init__(self, schema: Mapping[str, Any], limit: int, *, soft: int | None = None, frame: Frame | None = None) -> None:
        constraint = build_constraint(None, (), response_schema=schema, frame=frame)
        assert constraint.json is not None
        self.matcher = LLMatcher(byte_tokenizer(), constraint.start, log_level=0)
        json = constraint.json
        text = JsonText(json.required, *json.reasoning, json.calls, json.values)
        tokens = {byte: byte for byte in range(256)}
        allowed, prelude = Allowed(limit, limit if soft is None else soft), tuple(text.prelude_end.encode())
        self.closer = Closer(self.matcher, lambda t: bytes([t]), tokens, lambda t: tuple(t.encode()), text, allowed, prelude)
        self.closer.begin()
        self.limit = limit
        self.written = bytearray()

    def allowed(self) -> list[int]:
        mask = self.matcher.compute_bitmask()
        return [byte for byte in range(256) if mask[byte // 8] >> byte % 8 & 1]

    def force(self) -> None:
        """Write what the grammar forces, as an engine does."""
        forced = self.matcher.compute_ff_tokens()
        for token in forced if forced and self.closer.may_force(forced) else ():
            assert self.matcher.consume_token(token)
            self.closer.took(token)
            self.written.append(token)

    def write(self, wishes: Iterator[int], *, forcing: bool = False) -> str:
        """Write what is wished for, as far as the grammar and the limit allow, to the end."""
        for wish in wishes:
            if forcing:
                self.force()
            if self.matcher.is_stopped() or self.closer.over or len(self.written) >= self.limit:
                break
            choices = self.allowed()
            if not choices:
                break
            token = wish if wish in choices else choices[wish % len(choices)]
            assert self.matcher.consume_token(token)
            other = self.closer.instead(token)
            if other == END:
                break
            if other is not None:
                assert self.matcher.consume_token(other)
                self.closer.took(other)
            self.written.append(token if other is None else other)
        assert self.matcher.is_accepting(), self.written.decode("utf-8", "replace")
        return self.written.decode()


def at_random(seed: int) -> Iterator[int]:
    """What somebody wishes for who knows no limit: much of everything, brackets above all."""
    draw = random.Random(seed)
    while True:
        yield draw.choice(b'[{,"a1: ') if draw.random() < 0.7 else draw.randrange(256)


def repeated(text: str) -> Iterator[int]:
    while True:
        yield from text.encode()


@pytest.mark.parametrize("name", SCHEMAS)
def test_whatever_is_written_the_json_is_complete_and_valid_at_the_limit(name: str) -> None:
    for seed in range(20):
        value = json.loads(Text(SCHEMAS[name], 120).write(at_random(seed)))
        assert not validate(value, SCHEMAS[name])


def numbers() -> Iterator[int]:
    return iter(("[" + ", ".join(map(str, range(1, 10_000)))).encode())


@pytest.mark.parametrize(("limit", "soft", "ends", "why"), [(80, None, 60, "limit"), (10_000, 500, 375, "soft")])
def test_an_array_without_end_ends_after_three_quarters_of_the_limit(limit: int, soft: int | None, ends: int, why: str) -> None:
    text = Text({"type": "array", "items": {"type": "integer"}}, limit, soft=soft)
    value = json.loads(text.write(numbers()))
    assert value == list(range(1, len(value) + 1))
    assert ends <= len(text.written) < ends + 10
    assert text.closer.hurried == why


def test_a_text_that_repeats_itself_is_brought_to_its_end_before_the_limit() -> None:
    text = Text(SCHEMAS["a recipe"], 5_000)
    wishes = iter(b'{"ingredients": [')
    value = json.loads(text.write(chain(wishes, repeated('"peas", "salt", '))))
    assert value["ingredients"][:4] == ["peas", "salt", "peas", "salt"]
    assert len(text.written) < 200
    assert text.closer.hurried == "repeats"


def chain(*parts: Iterator[int]) -> Iterator[int]:
    for part in parts:
        yield from part


def test_a_string_that_goes_on_is_closed_when_the_text_is_to_end() -> None:
    words = map(ord, "".join(f"{n} and " for n in range(999)))
    value = json.loads(Text(WORDS, 10_000, soft=SOFT_LIMIT).write(chain(iter(b'"'), words)))
    assert value.startswith("0 and 1 and 2 and 3")
    assert 375 <= len(value) < 410


def test_a_limit_below_the_shortest_text_is_refused_before_anything_is_written() -> None:
    with pytest.raises(SchemaError, match=r"shortest JSON .* takes about \d+ tokens; 20 are allowed"):
        Text(SCHEMAS["a recipe"], 20)


def test_what_is_thought_before_the_json_leaves_room_for_it() -> None:
    frame = Frame(reasoning=ReasoningSyntax("<think>", "</think>"))
    text = Text(SCHEMAS["a recipe"], 150, frame=frame)
    said = text.write(chain(iter(b"<think>"), repeated("Let me see. ")))
    thought, _, answer = said.partition("</think>")
    assert thought.startswith("<think>Let me see. Let me see.")
    assert text.closer.hurried == "limit"
    assert set(json.loads(answer)) == {"title", "minutes", "ingredients"}


def test_what_is_written_far_from_the_limit_stands() -> None:
    wanted = '{"title": "Pancakes", "minutes": 20, "ingredients": ["flour", "eggs", "milk"]}'
    text = Text(SCHEMAS["a recipe"], 500)
    assert text.write(iter(wanted.encode())) == wanted
    assert text.closer.hurried == ""


def test_what_is_thought_counts_nothing_towards_a_limit_that_nobody_asked_for() -> None:
    frame = Frame(reasoning=ReasoningSyntax("<think>", "</think>"))
    text = Text(SCHEMAS["a list"], 10_000, soft=SOFT_LIMIT, frame=frame)
    thought = "<think>" + " ".join(map(str, range(400))) + "</think>"
    said = text.write(chain(iter(thought.encode()), numbers()))
    assert said.startswith(thought)
    assert SOFT_LIMIT * 3 // 4 <= len(said) - len(thought) < SOFT_LIMIT


def test_a_schema_whose_shortest_text_is_long_has_a_longer_soft_limit() -> None:
    members = {f"a_rather_long_name_{n}": WORDS for n in range(20)}
    schema = {"type": "object", "properties": members, "required": list(members), "additionalProperties": False}
    text = Text(schema, 10_000, soft=SOFT_LIMIT)
    wanted = json.dumps(dict.fromkeys(members, "some words more"))
    assert SOFT_LIMIT < len(wanted) < 1_000
    assert text.write(iter(wanted.encode())) == wanted
    assert text.closer.hurried == ""


def test_a_complete_text_that_would_go_on_beyond_its_limit_ends_instead() -> None:
    text = Text({}, 2)
    assert text.write(iter(b"0e5")) == "0"
    assert text.closer.hurried == "limit"
