"""A scripted model whose text goes through the guide that stands beside a real model's sampler."""

from __future__ import annotations

from collections.abc import Iterator

from llm_magics import ScriptedModel
from llm_magics.chat.format import ChatFormat
from llm_magics.events import ModelEvent
from llm_magics.models.base import Request
from llm_magics.models.guide import make_guide


class Guided(ScriptedModel):
    """Reads its text as a local model does: near misses become calls, and where the guide stops it, it writes no further."""

    def _parsed(self, raw: str, request: Request, chat_format: ChatFormat) -> Iterator[ModelEvent]:
        guide = make_guide(chat_format, self._rendered(request, chat_format), request)
        guide.start()
        for at in range(0, len(raw), 3):
            step = guide.feed(raw[at : at + 3])
            yield from step.events  # type: ignore[misc]  # the guide's events are ModelEvents
            if step.stop:
                break
        yield from guide.finish("stop").events  # type: ignore[misc]
