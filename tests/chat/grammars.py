"""Run a grammar over text without any model: over bytes, as the engine runs it over tokens."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from llm_magics.chat.grammar.text import GrammarWriter
from llm_magics.chat.grammar.values import ValueWriter
from llm_magics.schema.leaves import byte_tokenizer
from llm_magics.schema.normal import normalise


def grammar_of(schema: Mapping[str, Any] | bool) -> str:
    """The grammar of a schema's JSON values."""
    normal, writer = normalise(schema), GrammarWriter()
    return writer.text(ValueWriter(writer, normal).value(normal.root))


@lru_cache(maxsize=64)
def _matcher(grammar: str) -> Any:
    from llguidance import LLMatcher

    matcher = LLMatcher(byte_tokenizer(), grammar, log_level=0)
    assert not matcher.is_error(), matcher.get_error()
    return matcher


def accepts(grammar: str, text: str) -> bool:
    """Is the text whole under the grammar?"""
    matcher = _matcher(grammar).deep_copy()
    data = list(text.encode())
    return matcher.try_consume_tokens(data) == len(data) and bool(matcher.is_accepting())


def refused_at(grammar: str, text: str) -> int | None:
    """How much of the text the grammar takes before it refuses; None where it takes all."""
    matcher = _matcher(grammar).deep_copy()
    data = list(text.encode())
    taken = matcher.try_consume_tokens(data)
    return None if taken == len(data) else taken
