"""What was read off one chat template, as text for people: ``llm-magics formats show``."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from llm_magics.chat.encodings.syntax import JsonCall, ToolSyntax
from llm_magics.chat.encodings.writer import write_calls
from llm_magics.chat.syntax.tags import tags
from llm_magics.chat.template.template import Prompt
from llm_magics.messages import Message, ToolCall, ToolSpec

from .format import ChatFormat

_TOOL = ToolSpec(
    "get_weather",
    "Tells the weather.",
    {"type": "object", "properties": {"city": {"type": "string"}, "days": {"type": "integer"}}, "required": ["city"]},
)
_CALL = ToolCall("get_weather", '{"city": "Oslo", "days": 3}', "call00001")
_EXAMPLE = (
    Message("system", "Be brief."),
    Message("user", "Weather in Oslo?"),
    Message("assistant", "", tool_calls=(_CALL,)),
    Message("tool", "Rain.", tool_call_id=_CALL.id, name=_CALL.name),
)


def show(source: str, bos_token: str = "", eos_token: str = "", control_tokens: Collection[str] | None = None) -> str:
    """Describe a template: markers, shape of calls, reasoning, repairs, an example with the origin of each part, warnings.

    Args:
        source: the template's jinja2 source.
        bos_token, eos_token: the vocabulary's.
        control_tokens: the vocabulary's control tokens, to warn of markers that are none; None where no vocabulary is known.

    Raises TemplateError as :meth:`ChatFormat.from_template` does.
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
    """What a user of this template should know, one sentence each; ``control_tokens`` as in :func:`show`."""
    found = list(fmt.analysis.notes)
    if fmt.repairs.calls == "text":
        found.append("The template does not write tool calls: they go into the content as text.")
    if fmt.repairs.results == "user":
        found.append("The template loses tool results: they are sent as the user's.")
    if fmt.repairs.tools == "system":
        found.append("The template does not describe tools: they are described in the system message.")
    if fmt.reasoning is not None and not fmt.reasoning.field:
        found.append("The template takes no reasoning back: earlier thoughts are lost in history.")
    if not fmt.tools.has_marker:
        found.append("Nothing announces a tool call: only an answer that begins as one is taken for one.")
    if control_tokens is not None:
        plain = [tag for tag in _tags(fmt) if tag not in control_tokens]
        found += [f"{tag} is not one token of this vocabulary: it is written and read as ordinary text." for tag in plain]
    return found


def _tags(fmt: ChatFormat) -> list[str]:
    texts = [*fmt.tools.markers]
    if fmt.reasoning is not None:
        texts += [*fmt.reasoning.openers, *fmt.reasoning.closers]
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
    reasoning = fmt.reasoning
    if reasoning is None:
        return ["none found"]
    markers = _line("markers", reasoning.start, reasoning.end, *reasoning.closers[1:])
    return [*markers, f"{'found because':18} {reasoning.derived}"]


def _example(prompt: Prompt) -> list[str]:
    return [f"{origin:18} {text!r}" for origin, text in _shortened(prompt.parts)]


def _shortened(parts: tuple[tuple[str, str], ...]) -> Iterator[tuple[str, str]]:
    for origin, text in parts:
        yield origin, text if len(text) <= 200 else f"{text[:120]} ... {text[-60:]}"


def _line(name: str, *texts: str) -> list[str]:
    """One line of quoted texts; none where all are empty."""
    return [f"{name:18} {'  '.join(repr(t) for t in texts if t)}"] if any(texts) else []
