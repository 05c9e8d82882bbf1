"""``%tools why``: what was offered in a turn, what the model wrote verbatim, and how that was read."""

from __future__ import annotations

from llm_magics.segments import Step, ToolSegment
from llm_magics.session.history import Turn
from llm_magics.tools.results import shorten

_RAW = 2_000


def explain(turn: Turn | None) -> str:
    """Tell a turn's story for somebody who wonders why a tool was or was not called."""
    if turn is None:
        return "There is no turn yet: ask something with %%chat first."
    trace = turn.trace
    lines = [f"Turn {trace.turn} with {trace.model}, thread {trace.thread}: {shorten(trace.prompt, 200)!r}", _offered(turn)]
    for number, step in enumerate(trace.steps):
        calls = [segment for segment in trace.tools if segment.step == number]
        lines += ["", f"Step {number + 1} ended with {step.finish_reason!r}. The model wrote:", _raw(turn, step, number)]
        lines += [_call(call) for call in calls] or ["This was read as an answer: there is no tool call in it."]
        lines += [f"Note: {note}" for note in step.notes]
    if not trace.steps:
        lines.append("The model finished no step.")
    return "\n".join(lines)


def _offered(turn: Turn) -> str:
    settings = turn.settings
    if settings is None:
        return "It was read back from a notebook; which tools were offered is not known."
    if not settings.tools:
        return "No tool was offered (%%chat -t chooses, @tool and %%tool register)."
    names = ", ".join(f"{tool.name}{tool.signature.text}" for tool in settings.tools)
    return f"Offered: {names}\nTool choice: {settings.tool_choice}"


def _raw(turn: Turn, step: Step, number: int) -> str:
    """The step's text as the model wrote it; the visible text where the model keeps no record of it."""
    raw = step.recording.get("text")
    if not isinstance(raw, str):
        segments = [s for s in turn.trace.segments if getattr(s, "step", -1) == number]
        raw = "".join(s.arguments if isinstance(s, ToolSegment) else getattr(s, "text", "") for s in segments)
    return "\n".join(f"    {line}" for line in shorten(raw, _RAW).split("\n"))


def _call(call: ToolSegment) -> str:
    if call.state == "cut":
        return f"{call.name}: the call was cut off before it was complete, so it did not run."
    how = f"recovered from {call.recovered}" if call.recovered else "written as the model's template wants it"
    trust = ", and asked about because it may be a quotation" if call.ask is not None and not call.trusted else ""
    why = "".join(f" {warning}" for warning in call.warnings)
    return f"{call.name}({call.arguments}): a call, {how}{trust}; {call.state}.{why}"
