"""From a template's source to everything it implies: one analysis, from which rendering, parsing and constraining follow.

The questions are asked in :mod:`probe <llm_magics.chat.analysis.probe>` (what does it take), :mod:`turns
<llm_magics.chat.analysis.frame>` (how is a turn framed, where is reasoning) and :mod:`calls <llm_magics.chat.analysis.calls>`
(how are calls written). Each answer is read off differences between renders; nothing looks for a known marker or a model's
name.
"""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

from llm_magics.chat.syntax.syntax import JsonFields, ReasoningSyntax, Shape, ToolSyntax, TurnSyntax
from llm_magics.chat.template.shaping import Repairs
from llm_magics.chat.template.template import ChatTemplate

from .callprobe import PROBE_NAMES
from .calls import find_calls, find_meant, shown_in_instructions
from .frame import Frame, find_frame, find_reasoning, find_turn
from .overrides import OVERRIDES, Override
from .probe import Probe, find_repairs

GENERIC_TOOLS = ToolSyntax(
    Shape.GENERIC, call_start="<tool_call>\n", call_end="\n</tool_call>", separator="\n", fields=JsonFields()
)
"""How calls are written where a template knows none: what most models have seen most of."""

BUILT_IN = "builtin_tools"
"""The template variable that names tools which the model was trained with."""

_CACHE_SIZE = 64


@dataclass(frozen=True, slots=True)
class Analysis:
    """What was found in one template.

    ``alternates`` are further ways in which calls are written, e.g. of tools that the model was trained with. ``notes`` are
    remarks for people: overrides that were used, what could not be read.
    """

    repairs: Repairs
    turn: TurnSyntax
    reasoning: ReasoningSyntax | None
    tools: ToolSyntax
    notes: tuple[str, ...] = ()
    alternates: tuple[ToolSyntax, ...] = ()


_cache: OrderedDict[str, Analysis] = OrderedDict()
_lock = threading.Lock()


def analyse(template: ChatTemplate, overrides: Sequence[Override] = OVERRIDES) -> Analysis:
    """Analyse a template, or take what is known of it: results are kept by the source's hash.

    Raises TemplateError where the template cannot render a single user message.
    """
    said = "\0".join([template.source, template.bos_token, template.eos_token, *map(repr, overrides)])
    key = hashlib.sha256(said.encode(errors="surrogatepass")).hexdigest()
    with _lock:
        known = _cache.get(key)
    if known is None:
        known = _analyse(template, overrides)
        with _lock:
            _cache[key] = known
            while len(_cache) > _CACHE_SIZE:
                _cache.popitem(last=False)
    return known


def clear_cache() -> None:
    """Forget all analyses; for benchmarks."""
    with _lock:
        _cache.clear()


def _analyse(template: ChatTemplate, overrides: Sequence[Override]) -> Analysis:
    asked = Probe(template)
    asked.repairs = find_repairs(template)
    frame = find_frame(asked)
    reasoning = find_reasoning(asked, frame)
    turn = find_turn(asked, frame, reasoning)
    tools, ends = find_calls(asked, frame, turn, reasoning) if asked.repairs.calls == "template" else (None, ())
    notes: list[str] = []
    meant = find_meant(asked, frame, turn, reasoning, tools) if asked.repairs.calls == "template" else None
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
            if reasoning is None and override.reasoning is not None:
                reasoning = override.reasoning
                notes.append(f"Reasoning markers are from the table of overrides: {override.reason}")
    if ends:
        turn = TurnSyntax(turn.generation_prompt, turn.content_start, turn.content_end, turn.end, (*turn.extra_ends, *ends))
    found = tools or GENERIC_TOOLS
    alternates = (written,) if written else _alternates(asked, frame, turn, reasoning, found)
    return Analysis(asked.repairs, turn, reasoning, found, tuple(notes), alternates)


def _alternates(
    asked: Probe, frame: Frame, turn: TurnSyntax, reasoning: ReasoningSyntax | None, known: ToolSyntax
) -> tuple[ToolSyntax, ...]:
    """Other ways in which calls are written: as the instructions show them (Phi-4), and those of tools that the caller declares
    as built in, where that makes a difference (Llama 3.1)."""
    if asked.repairs.calls != "template":
        return ()
    shown = shown_in_instructions(asked, known)
    if shown is not None or BUILT_IN not in asked.source:
        return (shown,) if shown is not None else ()
    again = Probe(asked.template, {BUILT_IN: list(PROBE_NAMES)})
    again.repairs = asked.repairs
    found, _ = find_calls(again, frame, turn, reasoning)
    return (found,) if found is not None and found != known and found.has_marker else ()
