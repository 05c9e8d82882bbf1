"""Derive everything that a template's source implies: one analysis, on which rendering, parsing and constraining build.

:mod:`.probe` asks what the template takes, :mod:`.frame` how a turn is framed, :mod:`.reasoning` where thoughts stand and
:mod:`.calls` how calls are written. Each answer comes from differences between renders, not from known markers or model names.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
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
"""How calls are written if the template has no way: the form that most models have seen most of."""

BUILT_IN = "builtin_tools"  # the template variable that names the tools which the model was trained with


@dataclass(frozen=True, slots=True)
class Analysis:
    """What was found in one template."""

    repairs: Repairs
    turn: TurnSyntax
    reasoning: ReasoningSyntax
    tools: ToolSyntax
    notes: tuple[str, ...] = ()  # for people: the overrides in use, and the gaps in the findings
    alternates: tuple[ToolSyntax, ...] = ()  # further ways to write calls, e.g. of tools that the model was trained with


def analyse(template: ChatTemplate, overrides: Sequence[Override] = OVERRIDES) -> Analysis:
    """Analyse a template; results are cached. Raises TemplateError if the template cannot render one user message.

    e.g. ``{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|end|>{% endfor %}``: a turn ends with ``<|end|>``, nothing is
    reasoning, and calls are written as text.
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
    writes = asked.repairs.calls == "template"
    tools, ends = find_calls(render) if writes else (None, ())
    meant = find_meant(render, tools) if writes else None
    written, tools = (tools, meant) if meant else (None, tools)
    notes = ["The template writes calls as JSON with a mistake. Proper JSON is read as well."] if written is not None else []
    if tools is None and writes:
        notes.append("The analysis could not find how the template writes tool calls.")
    for override in overrides:
        if all(text in template.source for text in override.contains):
            if tools is None and override.tools is not None:
                tools = override.tools
                notes.append(f"Tool calls come from the table of overrides: {override.reason}")
            if not reasoning and override.reasoning:
                reasoning = override.reasoning
                notes.append(f"Reasoning markers come from the table of overrides: {override.reason}")
    turn = replace(turn, extra_ends=(*turn.extra_ends, *ends))
    found = tools or GENERIC_TOOLS
    alternates = (written,) if written else _alternates(render, found)
    return Analysis(asked.repairs, turn, reasoning, found, tuple(notes), alternates)


def _alternates(render: CallRenderer, known: ToolSyntax) -> tuple[ToolSyntax, ...]:
    """Other ways to write calls: as the instructions show them, or those of tools that the caller declares built in.

    e.g. ``{% if t.name in builtin_tools %}<|py|>{{ t.name }}.call({{ args }}){% endif %}``.
    """
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


def _find_turn(probe: Probe, frame: Frame, reasoning: ReasoningSyntax) -> TurnSyntax:
    """The frame of a plain answer: the opener and the closer of its content, and the end of the turn.

    e.g. ``<text>``, ``</text>`` and ``<|end|>`` of ``<|assistant|><text>{{ m.content }}</text><|end|>``.
    """
    start = _content_start(frame, reasoning)
    called = frame.turn_of(probe, [USER, CALLING], [TOOL]) if probe.repairs.calls == "template" else ""
    last = frame.ends[0] if frame.ends else ""
    end, content_end = last, ""
    if start:
        shared = common_suffix(called, last) if called else ""
        at = len(last) - len(shared)
        shared = last[next((b for a, b in tag_spans(last) if a < at < b), at) :]  # begins inside no tag
        last_tag = (tags(start) or [""])[-1]
        if last_tag and shared.startswith(last_tag) and start.endswith(last_tag):
            shared = shared[len(last_tag) :]  # the template's markers end alike
        if shared.strip() and shared != last:
            content_end, end = last[: len(last) - len(shared)], shared
    return TurnSyntax(frame.prompt_on, start, content_end, end, tuple(e for e in frame.ends if e != last))


def _content_start(frame: Frame, reasoning: ReasoningSyntax) -> str:
    """The text between the prompt, or an empty thought, and an answer, e.g. ``<text>`` of ``<text>{{ m.content }}</text>``."""
    marker = next((marker for marker in (*reasoning.closers, *reasoning.openers) if marker in frame.head), "")
    head = frame.head.rpartition(marker)[2] if marker else frame.head
    return head if head.strip() else ""
