"""How a turn's next step is asked for: with everything, in words without tools, or with shorter results if the context is full.

The results of a long turn can outgrow the context. The turn then ends with an answer, not an error: the model is asked for
words, without tools (whose definitions take room too), from results that are cut as far as needed. The question and earlier
turns are never cut here: if those do not fit, the caller gets the error.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from llm_magics.messages import Message
from llm_magics.models.base import Model, Request, room_for
from llm_magics.segments import ToolSegment
from llm_magics.tools.results import shorten
from llm_magics.tools.run.execute import ANSWER, FAILED, GO_ON

_CUTS = (2_000, 500, 120)  # characters of each result, if not all of them fit
_LEAST_ROOM = 256  # tokens to leave for an answer, or an eighth of a small context


@dataclass(frozen=True, slots=True)
class Asking:
    """One way to ask. ``final``: words are asked for, and calls in the answer do not run. ``remark`` tells the reader why."""

    request: Request
    final: bool = False
    remark: str = ""


def ways_to_ask(model: Model, request: Request, n_own: int, tools: tuple[ToolSegment, ...], in_words: bool) -> list[Asking]:
    """The ways that leave room for an answer, the fullest first; if none does, the shortest way alone.

    The last ``n_own`` messages are the turn's own after its question; only those may be left out.
    """
    ways = list(_ways(request, n_own, tools, in_words))
    fitting = (at for at, way in enumerate(ways) if _fits(model, way.request))
    return ways[next(fitting, len(ways) - 1) :]


def _fits(model: Model, request: Request) -> bool:
    room = room_for(model, request)
    least = min(_LEAST_ROOM, model.context_size // 8, request.max_tokens or _LEAST_ROOM)
    return room is None or room >= max(least, 1)


def _ways(request: Request, n_own: int, tools: tuple[ToolSegment, ...], in_words: bool) -> Iterator[Asking]:
    if not in_words:
        yield Asking(request)
    if not n_own:
        return
    words = replace(request, messages=tuple(_for_words(request.messages, tools)), tool_choice="none", in_words=True)
    yield Asking(words, final=True, remark="" if in_words else "the model was asked to answer from the results so far")
    for most in _CUTS:
        remark = f"the model was asked to answer from {most:,} characters of each result"
        yield Asking(_cut(words, most), final=True, remark=remark)
    question = replace(words, messages=request.messages[: len(request.messages) - n_own])
    yield Asking(question, final=True, remark="the model was asked to answer without the results, which leave no room")


def _cut(request: Request, most: int) -> Request:
    """The request with every tool result cut, including those of earlier turns."""
    return replace(
        request, messages=tuple(replace(m, content=shorten(m.text, most)) if m.role == "tool" else m for m in request.messages)
    )


def _for_words(messages: tuple[Message, ...], tools: tuple[ToolSegment, ...]) -> Iterator[Message]:
    """Leave out all calls that did not run but the last, because a small model continues what it sees itself do; and ask for
    words after the last result."""
    unrun = [tool.id for tool in tools if tool.state == "refused" and not tool.is_error]
    left_out = set(unrun[:-1])
    last = max((at for at, message in enumerate(messages) if message.role != "assistant"), default=-1)
    for at, message in enumerate(messages):
        if message.tool_call_id in unrun:
            message = replace(message, content=message.text.replace(GO_ON, ANSWER))
        if at == last and message.role == "tool" and not message.text.endswith(ANSWER):
            message = replace(message, content=f"{message.text}\n{FAILED if message.is_error else ANSWER}")
        calls = tuple(call for call in message.tool_calls if call.id not in left_out)
        silent = message.role == "assistant" and not (calls or message.text.strip() or message.reasoning)
        if message.tool_call_id in left_out or silent:
            continue
        yield message if calls == message.tool_calls else replace(message, tool_calls=calls, token_ids=())
