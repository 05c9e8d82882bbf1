"""The findings about one chat template, as text for people: ``llm-magics formats show``."""

from __future__ import annotations

from collections.abc import Collection

from llm_magics.chat.encodings.syntax import JsonCall, ToolSyntax
from llm_magics.chat.encodings.writer import write_calls
from llm_magics.chat.syntax.tags import tags
from llm_magics.chat.template.template import Prompt
from llm_magics.messages import Message, ToolCall, ToolSpec

from .format import ChatFormat

_PARAMETERS = {"type": "object", "properties": {"city": {"type": "string"}, "days": {"type": "integer"}}, "required": ["city"]}
_TOOL = ToolSpec("get_weather", "Tells the weather.", _PARAMETERS)
_CALL = ToolCall("get_weather", '{"city": "Oslo", "days": 3}', "call00001")
_EXAMPLE = (
    Message("system", "Be brief."),
    Message("user", "Weather in Oslo?"),
    Message("assistant", "", tool_calls=(_CALL,)),
    Message("tool", "Rain.", tool_call_id=_CALL.id, name=_CALL.name),
)


def show(source: str, bos_token: str = "", eos_token: str = "", control_tokens: Collection[str] | None = None) -> str:
    """Describe a template: markers, shape of calls, reasoning, repairs, an example with the origin of each part, warnings.

    The arguments and errors are those of :meth:`ChatFormat.from_template`. With the vocabulary's ``control_tokens``, markers
    that are none of them get a warning.
    """
    fmt = ChatFormat.from_template(source, bos_token, eos_token)
    sections = [
        ("Turn", _turn(fmt)),
        ("Tool calls", _calls(fmt.tools)),
        ("Reasoning", _reasoning(fmt)),
        ("Repairs", list(fmt.repairs.described) or ["none: the template takes messages as they are"]),
        ("Example", _example(fmt.render(_EXAMPLE, tools=[_TOOL]))),
        ("Warnings", warnings(fmt, control_tokens) or ["none"]),
    ]
    return "\n\n".join(title + "\n" + "\n".join(f"  {line}" for line in lines) for title, lines in sections)


def warnings(fmt: ChatFormat, control_tokens: Collection[str] | None = None) -> list[str]:
    """What a user of this template should know, in sentences; ``control_tokens`` as in :func:`show`."""
    lost = fmt.reasoning is not None and not fmt.reasoning.field
    said = {
        "The template does not write tool calls: they go into the content as text.": fmt.repairs.calls == "text",
        "The template loses tool results: they are sent as user messages.": fmt.repairs.results == "user",
        "The template does not describe tools: they are described in the system message.": fmt.repairs.tools == "system",
        "The template does not take reasoning back: later turns do not see earlier thoughts.": lost,
        "No marker announces a tool call: an answer is read as calls only if it begins with a call.": not fmt.tools.has_marker,
    }
    plain = [tag for tag in _tags(fmt) if tag not in control_tokens] if control_tokens is not None else []
    ordinary = [f"{tag} is not one token of this vocabulary: it is written and read as ordinary text." for tag in plain]
    return [*fmt.analysis.notes, *(sentence for sentence, holds in said.items() if holds), *ordinary]


def _tags(fmt: ChatFormat) -> list[str]:
    texts = [*fmt.tools.markers, *((*fmt.reasoning.openers, *fmt.reasoning.closers) if fmt.reasoning else ())]
    return list(dict.fromkeys(tag for text in texts for tag in tags(text) if not any(c.isspace() for c in tag)))


def _turn(fmt: ChatFormat) -> list[str]:
    turn = fmt.turn
    return [
        *_line("generation prompt", turn.generation_prompt),
        *_line("content", turn.content_start, turn.content_end),
        *_line("end", turn.end, *turn.extra_ends),
    ]


def _calls(syntax: ToolSyntax) -> list[str]:
    named = syntax.named
    parts = {
        "section": (syntax.section_start, syntax.section_end),
        "call": (syntax.call_start, syntax.call_end),
        "between calls": (syntax.separator,),
        "behind the name": (named.index_start, named.name_again, named.name_end),
        "behind the id": (named.id_end,),
        syntax.arguments.label: syntax.arguments.markers,
        "block": (syntax.blocks.start, syntax.blocks.header_end, *syntax.blocks.ends) if syntax.blocks else (),
    }
    lines = [f"{'shape':18} {syntax.shape}{', in one list' if syntax.array else ''}"]
    if isinstance(syntax.call, JsonCall):
        lines += _line("keys", *(".".join(getattr(syntax.call, part)) for part in syntax.call.order))
    for name, texts in parts.items():
        lines += _line(name, *texts)
    lines.append(f"{'parallel calls':18} {'yes' if syntax.parallel else 'one per message'}")
    if syntax.blocks is None:
        lines += _line("looks like", str.__str__(write_calls(syntax, [_CALL])))
    return lines


def _reasoning(fmt: ChatFormat) -> list[str]:
    if (reasoning := fmt.reasoning) is None:
        return ["none found"]
    markers = _line("markers", reasoning.start, reasoning.end, *reasoning.closers[1:])
    return [*markers, f"{'found because':18} {reasoning.derived}"]


def _example(prompt: Prompt) -> list[str]:
    parts = ((origin, text if len(text) <= 200 else f"{text[:120]} ... {text[-60:]}") for origin, text in prompt.parts)
    return [f"{origin:18} {text!r}" for origin, text in parts]


def _line(name: str, *texts: str) -> list[str]:
    """One line of quoted texts; no line if all are empty."""
    return [f"{name:18} {'  '.join(repr(t) for t in texts if t)}"] if any(texts) else []
