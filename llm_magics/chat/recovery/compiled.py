"""The grammars of near misses, compiled once for the same tools."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from llm_magics.chat.encodings.syntax import ToolSyntax
from llm_magics.messages import ToolSpec
from llm_magics.schema.leaves import byte_tokenizer

from .bodies import Reading
from .wrappers import Wrapper, near_miss_grammar, wrappers


@lru_cache(maxsize=32)
def compiled(grammar: str) -> Any:
    from llguidance import LLMatcher

    return LLMatcher(byte_tokenizer(), grammar, log_level=0)


@lru_cache(maxsize=32)
def text_of(key: Offer, reading: Reading, parallel: bool, unlike: str = "{}") -> str:
    return near_miss_grammar(key.syntax, key.tools, reading, parallel=parallel, unlike=json.loads(unlike))


@dataclass(frozen=True, slots=True)
class Offer:
    """Tools by their content: their schemas are dictionaries, and the same tools in the next turn have the same grammar."""

    syntax: ToolSyntax
    known: tuple[Wrapper, ...]
    schemas: str
    tools: tuple[ToolSpec, ...] = field(compare=False)

    @classmethod
    def of(cls, syntax: ToolSyntax, tools: tuple[ToolSpec, ...]) -> Offer:
        schemas = json.dumps([[t.name, dict(t.parameters)] for t in tools], sort_keys=True, default=str)
        return cls(syntax, wrappers(), schemas, tools)


def matchers(key: Offer) -> tuple[Any, Any]:
    """A fresh matcher for "is it still a prefix of a near miss?", and the shared one for "can it only be a call?"."""
    return compiled(text_of(key, "any", True)).deep_copy(), compiled(text_of(key, "opened", True))
