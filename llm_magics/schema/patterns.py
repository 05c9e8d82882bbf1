"""Regular expressions in linear time: those of JSON schemas, which anybody may have written.

Python's ``re`` backtracks, so a hostile pattern can hang whoever validates with it. The constraint engine's regex engine works
with derivatives and cannot; the same engine that enforces a ``pattern`` therefore also checks it. It has no look-around and no
back-references: :func:`has_linear_regex` says whether it can express a pattern at all.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from llm_magics.errors import SchemaError

MAX_PATTERN = 2_000  # characters
_EMPTY = re.compile(r"at \d+\(\d+\): failed to compile JSON schema: Unsatisfiable schema: ")


def has_linear_regex(pattern: str) -> bool:
    """Can the constraint engine express this pattern?"""
    return len(pattern) <= MAX_PATTERN and not leaf_problem({"type": "string", "patterns": [pattern]})


def leaf_schema(node: Mapping[str, Any]) -> dict[str, Any]:
    """Write a string or number node of the normal form as the JSON schema that the constraint engine takes."""
    schema = {k: v for k, v in node.items() if k != "patterns"}
    patterns = node.get("patterns", [])
    if len(patterns) == 1:
        schema["pattern"] = patterns[0]
    elif patterns:
        schema["allOf"] = [{"type": "string", "pattern": p} for p in patterns]
    return {**schema, "x-guidance": {"whitespace_flexible": False}}


def leaf_problem(node: Mapping[str, Any]) -> str:
    """Why the constraint engine refuses a string or number node; empty where it takes it."""
    return _problem(json.dumps(leaf_schema(node), ensure_ascii=False))


def admits_nothing(problem: str) -> bool:
    """Does a problem of :func:`leaf_problem` say that no value satisfies the node? Its head decides: it repeats the schema."""
    return _EMPTY.match(problem) is not None


@lru_cache(maxsize=1024)
def _problem(schema: str) -> str:
    from llguidance import LLMatcher

    return str(LLMatcher.validate_grammar(f"%llguidance {{}}\nstart: %json {schema}\n"))


def linear_search(pattern: str, text: str) -> bool:
    """Is ``pattern`` found anywhere in ``text``? Raises SchemaError where the pattern is beyond the linear engine."""
    matcher = _matcher(pattern).deep_copy()
    quoted = json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
    data = quoted.encode("utf-8", "replace")
    return bool(matcher.consume_tokens(list(data)) and matcher.is_accepting())


@lru_cache(maxsize=256)
def _matcher(pattern: str) -> Any:
    from llguidance import LLMatcher

    if not has_linear_regex(pattern):
        raise SchemaError(f"The pattern {pattern[:80]!r} cannot be checked in linear time.", "Drop look-around from it.")
    schema = json.dumps(leaf_schema({"type": "string", "patterns": [pattern]}), ensure_ascii=False)
    return LLMatcher(byte_tokenizer(), f"%llguidance {{}}\nstart: %json {schema}\n", log_level=0)


class _Bytes:
    """A vocabulary of the 256 bytes and one end token: enough to run a grammar over text without any model."""

    eos_token_id = 256
    bos_token_id = None
    special_token_ids = (256,)
    tokens = (*(bytes([i]) for i in range(256)), b"<|end|>")

    def __call__(self, text: bytes | str) -> list[int]:
        return list(text.encode() if isinstance(text, str) else text)


@lru_cache(maxsize=1)
def byte_tokenizer() -> Any:
    """The constraint engine's tokenizer over single bytes."""
    from llguidance import LLTokenizer, TokenizerWrapper

    return LLTokenizer(TokenizerWrapper(_Bytes()), n_vocab=257, slices=[])
