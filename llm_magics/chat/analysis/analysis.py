"""From a template's source to everything it implies: one analysis, from which rendering, parsing and constraining follow.

The questions are asked in :mod:`.probe` (what does it take), :mod:`.frame` (how is a turn framed), :mod:`.reasoning` (where is
reasoning) and :mod:`.calls` (how are calls written). Each answer is read off differences between renders; nothing looks for a
known marker or a model's name.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from llm_magics.chat.encodings import encodings
from llm_magics.chat.encodings.encoding import PROBE_NAMES, Encoding
from llm_magics.chat.encodings.syntax import JsonCall, ToolSyntax
from llm_magics.chat.syntax.compare import common_suffix
from llm_magics.chat.syntax.syntax import TurnSyntax
from llm_magics.chat.syntax.tags import tag_spans, tags
from llm_magics.chat.template.shaping import Repairs
from llm_magics.chat.template.template import ChatTemplate

from .callprobe import CallRenderer
from .calls import find_calls, find_meant, shown_in_instructions
from .frame import CALLING, TOOL, USER, Frame, find_frame
from .overrides import OVERRIDES, Override
from .probe import Probe, find_repairs
from .reasoning import NO_REASONING, Finder, ReasoningSyntax, finders

GENERIC_TOOLS = ToolSyntax(JsonCall(ours=True), call_start="<tool_call>\n", call_end="\n</tool_call>", separator="\n")
"""How calls are written where a template knows none: what most models have seen most of."""

BUILT_IN = "builtin_tools"
"""The template variable that names tools which the model was trained with."""


@dataclass(frozen=True, slots=True)
class Analysis:
    """What was found in one template.

    ``alternates`` are further ways in which calls are written, e.g. of tools that the model was trained with. ``notes`` are
    remarks for people: overrides that were used, what could not be read.
    """

    repairs: Repairs
    turn: TurnSyntax
    reasoning: ReasoningSyntax
    tools: ToolSyntax
    notes: tuple[str, ...] = ()
    alternates: tuple[ToolSyntax, ...] = ()


def analyse(template: ChatTemplate, overrides: Sequence[Override] = OVERRIDES) -> Analysis:
    """Analyse a template, or take what is known of it.

    Raises TemplateError where the template cannot render a single user message.
    """
    return _analyse(template, tuple(overrides), finders(), encodings())


@lru_cache(maxsize=64)
def _analyse(
    template: ChatTemplate, overrides: Sequence[Override], ways: Sequence[Finder], known: Sequence[type[Encoding]]
) -> Analysis:
    asked = Probe(template)
    asked.repairs = find_repairs(template)
    frame = find_frame(asked)
    reasoning = next((way for find in ways if (way := find(asked, frame))), NO_REASONING)
    turn = _find_turn(asked, frame, reasoning)
    render = CallRenderer(asked, frame, turn, reasoning, known)
    tools, ends = find_calls(render) if asked.repairs.calls == "template" else (None, ())
    notes: list[str] = []
    meant = find_meant(render, tools) if asked.repairs.calls == "template" else None
    written, tools = (tools, meant) if meant else (None, tools)
    if written is not None:
        notes.append("The template writes calls as JSON with a mistake: proper JSON is read as well.")
    if tools is None and asked.repairs.calls == "template":
        notes.append("The template writes tool calls in a way that could not be read off.")
    for override in overrides:
        if all(text in template.source for text in override.contains):
            if tools is None and override.tools is not None:
                tools = override.tools
                notes.append(f"Tool calls are from the table of overrides: {override.reason}")
            if not reasoning and override.reasoning:
                reasoning = override.reasoning
                notes.append(f"Reasoning markers are from the table of overrides: {override.reason}")
    if ends:
        turn = TurnSyntax(turn.generation_prompt, turn.content_start, turn.content_end, turn.end, (*turn.extra_ends, *ends))
    found = tools or GENERIC_TOOLS
    alternates = (written,) if written else _alternates(render, found)
    return Analysis(asked.repairs, turn, reasoning, found, tuple(notes), alternates)


def _alternates(render: CallRenderer, known: ToolSyntax) -> tuple[ToolSyntax, ...]:
    """Other ways in which calls are written: as the instructions show them (Phi-4), and those of tools that the caller declares
    as built in, where that makes a difference (Llama 3.1)."""
    asked = render.probe
    if asked.repairs.calls != "template":
        return ()
    shown = shown_in_instructions(asked, known)
    if shown is not None or BUILT_IN not in asked.source:
        return (shown,) if shown is not None else ()
    again = Probe(asked.template, {BUILT_IN: list(PROBE_NAMES)})
    again.repairs = asked.repairs
    found, _ = find_calls(CallRenderer(again, render.frame, render.turn, render.reasoning, render.encodings))
    return (found,) if found is not None and found != known and found.has_marker else ()


# --- the turn ---------------------------------------------------------------------------------------------------------------


def _find_turn(probe: Probe, frame: Frame, reasoning: ReasoningSyntax) -> TurnSyntax:
    """The frame of a plain answer: what opens and closes its content, and what ends the turn.

    e.g. ``<text>``, ``</text>`` and ``<|end|>`` of ``<|assistant|><text>...</text><|end|>``.
    """
    start = _content_start(frame, reasoning)
    called = frame.turn_of(probe, [USER, CALLING], [TOOL]) if probe.repairs.calls == "template" else ""
    last = frame.ends[0] if frame.ends else ""
    end, content_end = last, ""
    if start:
        shared = common_suffix(called, last) if called else ""
        shared = last[_tag_start(last, len(last) - len(shared)) :]
        last_tag = (tags(start) or [""])[-1]
        if last_tag and shared.startswith(last_tag) and start.endswith(last_tag):
            shared = shared[len(last_tag) :]  # markers of this template end alike
        if shared.strip() and shared != last:
            content_end, end = last[: len(last) - len(shared)], shared
    return TurnSyntax(frame.prompt_on, start, content_end, end, tuple(e for e in frame.ends if e != last))


def _content_start(frame: Frame, reasoning: ReasoningSyntax) -> str:
    """What stands between the generation prompt, or an empty thought, and a plain answer."""
    marker = next((marker for marker in (*reasoning.closers, *reasoning.openers) if marker in frame.head), "")
    head = frame.head.rpartition(marker)[2] if marker else frame.head
    return head if head.strip() else ""


def _tag_start(text: str, at: int) -> int:
    return next((end for start, end in tag_spans(text) if start < at < end), at)
