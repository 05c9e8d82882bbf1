"""Chat templates, understood: render conversations, read answers, constrain them. Pure: no IPython, no llama.cpp.

:class:`ChatFormat` is the way in. It analyses one template (:mod:`.analysis`) into declarative syntax (:mod:`.syntax`), on
which rendering, the streaming parser and the constraint build. Nothing is imported before it is used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from llm_magics.chat.template.template import Prompt as Prompt
    from llm_magics.chat.template.template import Span as Span

    from .format import ChatFormat as ChatFormat

__all__ = ["ChatFormat", "Prompt", "Span"]

_HOMES = {"ChatFormat": "format", "Prompt": "template.template", "Span": "template.template"}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f".{_HOMES[name]}", __name__), name)
