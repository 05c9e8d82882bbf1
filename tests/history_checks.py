"""What must be true of every history, whatever happened: shared by the tests of the session, of tools and of kernels."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from llm_magics.events import Event, ModelEnd, TurnEnd, TurnStart, assemble
from llm_magics.messages import Message, ToolCall


def broken_calls(messages: Sequence[Message]) -> list[str]:
    """Law 5: name every call that has not exactly one result right behind it, and every result without a call."""
    faults: list[str] = []
    waiting: list[ToolCall] = []
    for message in messages:
        if message.role == "tool":
            if not waiting or (waiting[0].id, waiting[0].name) != (message.tool_call_id, message.name):
                faults.append(f"result without its call: {message}")
            else:
                waiting.pop(0)
        else:
            faults += [f"call without result: {call}" for call in waiting]
            waiting = list(message.tool_calls)
    return faults + [f"call without result: {call}" for call in waiting]


def broken_order(messages: Sequence[Message]) -> list[str]:
    """Name each place where user and assistant do not take turns, which many templates demand (tool messages aside)."""
    speakers = [m.role for m in messages if m.role != "tool"]
    faults = [f"{a} after {a} at {i}" for i, (a, b) in enumerate(itertools.pairwise(speakers)) if a == b == "user"]
    if messages and messages[-1].role != "assistant":
        faults.append(f"ends with {messages[-1].role}")
    return faults


def broken_steps(events: Sequence[Event]) -> list[str]:
    """Law 3: name each step whose events do not assemble to its ModelEnd's message."""
    faults: list[str] = []
    step: list[Event] = []
    for event in events:
        step.append(event)
        if isinstance(event, ModelEnd):
            if assemble(step) != event.message:
                faults.append(f"{assemble(step)} is not {event.message}")
            step = []
    return faults


def broken_frame(events: Sequence[Event]) -> list[str]:
    """Name what is wrong with a turn's first and last event; a turn that was cut from outside need not have a last one."""
    faults = []
    if events and not isinstance(events[0], TurnStart):
        faults.append(f"begins with {events[0]}")
    ends = [i for i, event in enumerate(events) if isinstance(event, TurnEnd)]
    if ends and ends != [len(events) - 1]:
        faults.append(f"TurnEnd at {ends} of {len(events)}")
    return faults
