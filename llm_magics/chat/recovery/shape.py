"""Text in the shape of a call, whatever it calls: no tool may have that name.

Small models answer "Hello!" with ``{"name": "hello", "arguments": {"message": "Hello!"}}``. Nobody can run that, and nobody
wants to read it. It is known for what it is at the key of its arguments.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from llm_magics.chat.encodings.shape import shape_of_call
from llm_magics.chat.encodings.syntax import ToolSyntax
from llm_magics.schema.leaves import byte_tokenizer

_LEAD = r"\s*(```[A-Za-z_]{0,20}\s*)?(<[A-Za-z_|][A-Za-z0-9_|:.-]{0,40}>\s*)?(\[\s*)?"  # a fence, a tag, an array


class Shape:
    """Reads the beginning of a line that may be a call of anything. ``complete``: it is one."""

    def __init__(self, syntax: ToolSyntax) -> None:
        self._matcher = _compiled(shape_of_call(syntax)).deep_copy()
        self.complete = False

    def take(self, text: str) -> bool:
        """Read on; whether the text may still be a call, or is one."""
        for char in text:
            if self.complete:
                return True
            taken = list(char.encode("utf-8", "replace"))
            if self._matcher.try_consume_tokens(taken) < len(taken):
                return False
            self.complete = bool(self._matcher.is_accepting())
        return True


@lru_cache(maxsize=16)
def _compiled(pattern: str) -> Any:
    from llguidance import LLMatcher

    return LLMatcher(byte_tokenizer(), f"%llguidance {{}}\nstart: /{_LEAD}{pattern}/\n", log_level=0)
