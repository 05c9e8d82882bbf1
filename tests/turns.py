"""Random well-formed turns, as hypothesis strategies: what a session yields, event by event, and the messages it means."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st

from llm_magics.events import (
    Event,
    ModelEnd,
    Notice,
    PromptProgress,
    ReasoningDelta,
    TextDelta,
    ToolAsk,
    ToolCallDelta,
    ToolCallEnd,
    ToolCallStart,
    ToolEnd,
    ToolProgress,
    ToolStart,
    TurnEnd,
    TurnStart,
    Usage,
)
from llm_magics.messages import Message, ToolCall, ToolResult, tool_message, user

words = st.text(max_size=30)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**40), 2**40) | st.floats(allow_nan=False, allow_infinity=False) | words,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3),
    max_leaves=6,
)
bundles = st.dictionaries(st.sampled_from(["text/plain", "image/png", "text/html"]), words, min_size=1, max_size=2)


@dataclass(frozen=True)
class Turn:
    events: tuple[Event, ...]
    messages: tuple[Message, ...]


@st.composite
def cut(draw: st.DrawFn, text: str) -> list[str]:
    """Split a text at random places; empty pieces may occur, as they do in real streams."""
    places = sorted(draw(st.lists(st.integers(0, len(text)), max_size=4)))
    return [text[a:b] for a, b in zip([0, *places], [*places, len(text)], strict=True)]


@st.composite
def said(draw: st.DrawFn) -> list[Event]:
    kind = draw(st.sampled_from([TextDelta, ReasoningDelta]))
    return [kind(piece) for piece in draw(cut(draw(words)))]


@st.composite
def notices(draw: st.DrawFn) -> list[Event]:
    return [Notice(draw(words), draw(st.sampled_from(["info", "warning", "error"])))]


@st.composite
def written_call(draw: st.DrawFn, index: int, cut_off: bool) -> tuple[list[Event], ToolCall]:
    call = ToolCall(draw(words), draw(words), f"call_{draw(st.integers(0, 999))}", draw(st.sampled_from(["", "fenced JSON"])))
    events: list[Event] = [ToolCallStart(index, call.id, call.name, call.recovered)]
    events += [ToolCallDelta(index, piece) for piece in draw(cut(call.arguments))]
    return (events if cut_off else [*events, ToolCallEnd(index, call)]), call


@st.composite
def run_call(draw: st.DrawFn, index: int, call: ToolCall) -> tuple[list[Event], Message]:
    state = draw(st.sampled_from(["done", "failed", "refused", "interrupted"]))
    result = ToolResult(call.id, call.name, draw(words), state != "done")
    events: list[Event] = []
    if draw(st.booleans()):
        events.append(ToolAsk(index, call, draw(words), draw(words), draw(words)))
    if state != "refused":
        events.append(ToolStart(index, call, draw(words)))
        for text in draw(st.lists(words, max_size=2)):
            events.append(ToolProgress(index, text))
    outputs: Any = tuple(draw(st.lists(bundles, max_size=2)))
    events.append(ToolEnd(index, result, state, 0.5, outputs, tuple(draw(st.lists(words, max_size=1)))))
    return events, tool_message(result)


@st.composite
def step(draw: st.DrawFn) -> Turn:
    """One model step and the run of its calls."""
    events: list[Event] = [PromptProgress(n, 2) for n in range(draw(st.integers(0, 2)))]
    for chunk in draw(st.lists(said() | notices(), max_size=4)):
        events += chunk
    calls: list[ToolCall] = []
    for index in range(draw(st.integers(0, 3))):
        written, call = draw(written_call(index, cut_off=False))
        events += written
        calls.append(call)
    reason = "tool_calls" if calls else "stop"
    if draw(st.integers(0, 4)) == 0:
        events += draw(written_call(len(calls), cut_off=True))[0]
        reason = "length"
    answer = Message(
        "assistant",
        "".join(e.text for e in events if isinstance(e, TextDelta)),
        reasoning="".join(e.text for e in events if isinstance(e, ReasoningDelta)),
        tool_calls=tuple(calls),
        token_ids=tuple(draw(st.lists(st.integers(0, 99), max_size=4))),
        finish_reason=reason,  # type: ignore[arg-type]
    )
    record, recording = (draw(st.dictionaries(words, json_values, max_size=2)) for _ in range(2))
    notes = tuple(draw(st.lists(words, max_size=1)))
    doubted = tuple(draw(st.lists(st.integers(0, len(calls) - 1), max_size=1))) if calls else ()
    stopped = draw(words)
    events.append(ModelEnd(answer, reason, Usage(3, 1, 2, 4), record, notes, doubted, stopped, recording))  # type: ignore[arg-type]
    messages = [answer]
    for index, call in enumerate(calls):
        ran, message = draw(run_call(index, call))
        events += ran
        messages.append(message)
    return Turn(tuple(events), tuple(messages))


@st.composite
def turns(draw: st.DrawFn) -> Turn:
    prompt = draw(words)
    steps = draw(st.lists(step(), min_size=1, max_size=3))
    events: list[Event] = [TurnStart("t1", "main", "scripted", prompt, draw(st.booleans()))]
    for one in steps:
        events += one.events
    events.append(TurnEnd(steps[-1].messages[0].finish_reason or "stop", Usage(9, 3, 6, 12), 1.5, len(steps)))
    return Turn(tuple(events), (user(prompt), *(m for one in steps for m in one.messages)))
