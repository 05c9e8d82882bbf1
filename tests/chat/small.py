"""Small templates for one question each: how calls are written is given, the rest is plain."""

# ruff: noqa: E501 - a template is easier to read on one line

from __future__ import annotations

import json
from typing import Any

from llm_magics.chat.format import ChatFormat
from llm_magics.chat.parsing.parser import StreamParser
from llm_magics.events import ToolCallDelta, ToolCallStart
from llm_magics.messages import ToolCall, ToolSpec, user

LOOK_UP = ToolSpec(
    "look_up",
    "Looks a word up.",
    {"type": "object", "properties": {"word": {"type": "string"}, "n": {"type": "integer"}, "where": {"type": "object"}}},
)
NOW = ToolSpec("now", "Tells the time.", {"type": "object", "properties": {}})
TOOLS = (LOOK_UP, NOW)


def template(each: str = "", *, before: str = "", between: str = "", behind: str = "", thoughts: bool = False) -> str:
    """A template that writes each call by ``each`` (name ``n``, arguments ``a``, call ``c``), a message's calls in a frame."""
    thought = "{% if m.reasoning_content %}{{ '<think>' ~ m.reasoning_content ~ '</think>' }}{% endif %}" if thoughts else ""
    separator = "{{ " + repr(between) + " if not loop.last }}" if between else ""
    calls = (
        "{% if m.tool_calls %}" + before + "{% for c in m.tool_calls %}{% set n = c.function.name %}"
        "{% set a = c.function.arguments %}" + each + separator + "{% endfor %}" + behind + "{% endif %}"
    )  # fmt: skip
    return (
        "{% for m in messages %}{{ '<|' ~ m.role ~ '|>' }}" + thought + "{{ m.content or '' }}"
        "{% if loop.first and tools %}{{ tools | tojson }}{% endif %}" + (calls if each else "") + "{{ '<|end|>' }}{% endfor %}"
        "{{ '<|assistant|>' if add_generation_prompt }}"
    )  # fmt: skip


TAGGED = template(
    "{{ '<do>' ~ n }}{% for k, v in a.items() %}{{ '<key>' ~ k ~ '</key><value>' ~ (v if v is string else v | tojson) ~ '</value>' }}"
    "{% endfor %}{{ '</do>' }}"
)
JSON = template("{{ '<do>' ~ {'name': n, 'arguments': a} | tojson ~ '</do>' }}", thoughts=True)
SECTION = template(
    "{{ '<one>' ~ n ~ '<args>' ~ a | tojson ~ '</one>' }}", before="<all>", behind="</all>", thoughts=True
)
BARE = template("{{ {'name': n, 'parameters': a} | tojson }}")
ARRAY = template("{{ {'name': n, 'arguments': a} | tojson }}", before="[", between=", ", behind="]")
MARKED_ARRAY = template("{{ {'name': n, 'arguments': a} | tojson }}", before="[DO]", between=", ", behind="")
_KEYWORDS = (
    "{{ n ~ '(' }}{% for k, v in a.items() %}{{ k ~ '=' ~ (v | tojson) ~ (', ' if not loop.last else '') }}{% endfor %}{{ ')' }}"
)
LIST = template(_KEYWORDS, before="[", between=", ", behind="]")
MARKED_LIST = template(_KEYWORDS, before="<do>[", between=", ", behind="]</do>")
LINES = template(
    "{{ '<do>\\n<fn=' ~ n ~ '>\\n' }}{% for k, v in a.items() %}{{ '<p=' ~ k ~ '>\\n' ~ v ~ '\\n</p>\\n' }}{% endfor %}"
    "{{ '</fn>\\n</do>' }}"
)


def unfinished(parser: StreamParser) -> ToolCall | None:
    """The call that had begun when the answer was cut off, with the arguments so far."""
    begun = next((e for e in parser._events if isinstance(e, ToolCallStart) and e.index == parser.calls.open), None)
    if begun is None:
        return None
    pieces = [e.text for e in parser._events if isinstance(e, ToolCallDelta) and e.index == begun.index]
    return ToolCall(begun.name, "".join(pieces), begun.id)


def read(source: str, text: str, tools: tuple[ToolSpec, ...] = TOOLS, **options: Any) -> StreamParser:
    """What a model's text means under a template: read whole and character by character, which must agree."""
    fmt = ChatFormat.from_template(source)
    prompt = fmt.render([user("hi")], tools=tools)
    parsers = []
    for pieces in ([text], list(text)):
        parser = fmt.parser(tools, prompt=prompt, **options)
        for piece in pieces:
            parser.feed(piece)
        parser.finish()
        assert "".join(said for _, said in parser.segments) == text
        parsers.append(parser)
    assert parsers[0].message == parsers[1].message
    return parsers[0]


def calls_of(parser: StreamParser) -> list[tuple[str, Any]]:
    """Names and arguments of the calls that were read."""
    return [(call.name, json.loads(call.arguments)) for call in parser.message.tool_calls]
