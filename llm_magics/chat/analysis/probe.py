"""Find out what a template can take, by rendering.

Each ability is a small conversation with marker words. A template has the ability if all the words come out as they went in.
:func:`find_repairs` asks in an order in which later questions build on earlier answers.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import product
from typing import Any

from llm_magics.chat.syntax.compare import common_prefix
from llm_magics.chat.syntax.tags import tags, whole_tags
from llm_magics.chat.template.budget import PROBING, LimitError
from llm_magics.chat.template.shaping import PARTS, Repairs, template_variables
from llm_magics.chat.template.switch import find_switch
from llm_magics.chat.template.template import ChatTemplate
from llm_magics.errors import TemplateError
from llm_magics.messages import Message, ToolCall, ToolSpec

_REASONING_FIELDS = ("reasoning_content", "reasoning", "thinking", PARTS)
_KNOWN_KEYS = {
    "role", "content", "name", "tool_calls", "tool_call_id", "function", "arguments", "type", "text", "image",
    "image_url", "parameters", "properties", "required", "description", "items", "enum", "startswith", "endswith",
    "split", "strip", "lstrip", "rstrip", "first", "last", "index", "index0", "length", "append", "replace", "get",
    "keys", "values", "title", "upper", "lower", "join", "format", "tojson",
}
_MAX_KEYS = 12
_WRITTEN_PART = re.compile("""['"]thinking['"]""")  # a part that was printed, not understood

_SYSTEM = Message("system", "qsysa")
_USER = Message("user", "quserb")
_USER2 = Message("user", "quserc")
_ANSWER = Message("assistant", "qansd")
_PARAMETERS = {"type": "object", "properties": {"qkeyg": {"type": "string", "description": "qdesch"}}, "required": ["qkeyg"]}
_TOOL = ToolSpec("qtoole", "qdescf", _PARAMETERS)
_CALL = ToolCall("qtoole", '{"qkeyg": "qvali"}', id="qidj00001")
_CALL2 = ToolCall("qtoole", '{"qkeyg": "qvalk"}', id="qidl00002")
_RESULT = Message("tool", "qresm", tool_call_id="qidj00001", name="qtoole")
_RESULT2 = Message("tool", "qresn", tool_call_id="qidl00002", name="qtoole")
_CALLING = Message("assistant", "", tool_calls=(_CALL,))


class Probe:
    """Asks one template questions and remembers the answers as Repairs."""

    def __init__(self, template: ChatTemplate, extra: Mapping[str, Any] | None = None) -> None:
        self.template = template
        self.source = template.source
        self._extra = extra or {}
        self.repairs = Repairs()

    def text(
        self, messages: Sequence[Message], tools: Sequence[ToolSpec] = (), repairs: Repairs | None = None, **extra: Any
    ) -> str:
        """Render, or "" if the template refuses. Raises LimitError: a template that runs away is not asked again."""
        repairs = repairs or self.repairs
        given = {"add_generation_prompt": True, **self._extra, **template_variables(repairs, messages, tools), **extra}
        try:
            return str.__str__(self.template.render(given, lenient=repairs.lenient, limits=PROBING))
        except LimitError:
            raise
        except TemplateError:
            return ""

    def generation_prompt(self, variables: Mapping[str, Any]) -> str:
        """The end of a prompt that opens the assistant's turn, with these variables added."""
        plain, asked = (self.text([_USER], add_generation_prompt=final, **variables) for final in (False, True))
        return asked[len(whole_tags(common_prefix(plain, asked), asked)) :]


    def choose(
        self, messages: Sequence[Message], words: str, *changes: Mapping[str, Any], tools: Sequence[ToolSpec] = ()
    ) -> bool:
        """Adopt the first change with which all the words come out; change nothing if there is none."""
        for change in ({}, *changes):
            tried = replace(self.repairs, **change)
            text = self.text(messages, tools, tried)
            if text and all(word in text for word in words.split()):
                self.repairs = tried
                return True
        return False


def find_repairs(template: ChatTemplate) -> Repairs:
    """Find out what a template can take. Raises TemplateError if the template cannot render even one user message.

    e.g. of ``{% if m.role == 'system' %}{{ raise_exception('no system') }}{% endif %}``: ``system="user"``.
    """
    asked = Probe(template)
    if not asked.choose([_USER], "quserb", {"lenient": True}, {"parts": True}, {"lenient": True, "parts": True}):
        variables = template_variables(asked.repairs, [_USER], ())
        template.render({"add_generation_prompt": True, **variables}, limits=PROBING)  # raises the template's own error, if any
        raise TemplateError("The chat template does not write the user's message.", "Give another one with --template FILE.")
    plain, later = [_USER, _ANSWER, _USER2], [_USER, _ANSWER, _SYSTEM, _USER2]
    asked.choose([_SYSTEM, *plain], "qsysa quserb qansd quserc", {"system": "user"}, {"lenient": True})
    asked.choose(later, "qsysa quserb qansd quserc", {"system_later": False})
    asked.choose([_USER, _USER2, _ANSWER, _ANSWER, _USER], "quserb quserc qansd", {"merge": True})
    asked.choose(later, "qsysa quserb qansd quserc", {"system_later": False, "merge": True})
    described = ({"tools": "system"}, {"tools": "system", "system": "user"})
    asked.choose([_USER], "quserb qtoole qkeyg", {"lenient": True}, *described, tools=[_TOOL])
    _probe_calls(asked)
    asked.repairs = replace(asked.repairs, switch=find_switch(asked.source, asked.generation_prompt))
    _probe_reasoning(asked)
    return asked.repairs


def _probe_calls(asked: Probe) -> None:
    """How calls and results are given, e.g. ``{{ c.function.arguments | tojson }}`` takes arguments as objects, not as text."""
    history = [_USER, _CALLING, _RESULT, _ANSWER, _USER2]
    names, lenient = ("results", "lenient", "arguments", "empty"), {asked.repairs.lenient, True}
    ways: Iterable[Any] = product(("tool", "user"), lenient, ("object", "text"), ("", "none", "absent"))
    tried = (replace(asked.repairs, **dict(zip(names, way, strict=True))) for way in ways)
    asked.repairs = next((t for t in tried if _clean(asked, t, history)), replace(asked.repairs, calls="text"))
    if asked.repairs.calls == "template":
        pair = [_USER, replace(_CALLING, tool_calls=(_CALL, _CALL2)), _RESULT, _RESULT2, _ANSWER, _USER2]
        asked.choose(pair, "qvali qvalk qresm qresn", {"split_calls": True}, tools=[_TOOL])
        said = [_USER, replace(_CALLING, content="qsaid"), _RESULT, _ANSWER, _USER2]
        asked.choose(said, "qsaid qvali qresm", {"split_content": "before"}, {"split_content": "after"}, tools=[_TOOL])
    results = [_USER, _ANSWER if asked.repairs.calls == "text" else _CALLING, *history[2:]]
    asked.choose(results, "quserb qresm quserc", {"results": "user"}, {"results": "user", "merge": True}, tools=[_TOOL])
    interrupted = [*results[:3], _USER2]
    asked.choose(interrupted, "quserb qresm quserc", {"answer_results": ""}, {"answer_results": "..."}, tools=[_TOOL])


def _clean(asked: Probe, repairs: Repairs, history: Sequence[Message]) -> bool:
    """Whether a call comes out whole, and its arguments neither as JSON inside JSON nor as a printed Python dictionary."""
    text = asked.text(history, [_TOOL], repairs)
    whole = all(word in text for word in ("qtoole", "qkeyg", "qvali", "qresm"))
    return whole and not re.search(r"""\\"qkeyg|\{'qkeyg': 'qvali""", text)


def _probe_reasoning(asked: Probe) -> None:
    """The message's key for a thought, e.g. "thoughts" of ``{% if m.thoughts %}<think>{{ m.thoughts }}</think>{% endif %}``."""
    said = [_USER, Message("assistant", "qansd", reasoning="qthinko")]
    called = [_USER, replace(_CALLING, reasoning="qthinko"), _RESULT]
    for field in (*_REASONING_FIELDS, *_other_keys(asked.source)):
        tried = replace(asked.repairs, reasoning=field)
        texts = [asked.text(said, (), tried, add_generation_prompt=final, **tried.thinking(True)) for final in (False, True)]
        texts.append(asked.text(called, [_TOOL], tried, **tried.thinking(True)))
        written = [text for text in texts if "qthinko" in text and not _WRITTEN_PART.search(text)]
        if any(field in _REASONING_FIELDS or _framed(text) for text in written):
            asked.repairs = tried
            return


def _framed(text: str) -> bool:
    """Whether a thought stands between two tags, as no other member of a message does."""
    before, _, behind = text.partition("qthinko")
    opened, closed = before.rstrip(), behind.lstrip()
    return any(opened.endswith(tag) for tag in tags(opened)[-1:]) and any(closed.startswith(tag) for tag in tags(closed)[:1])


def _other_keys(source: str) -> list[str]:
    """Unusual keys that a template reads, e.g. "thoughts" of ``{{ m.get('thoughts') }}``: one may be its name for a thought."""
    found = re.findall(r"""(?:\.|\[\s*['"]|\.get\(\s*['"])([a-z_]{4,40})\b""", source)
    return [key for key in dict.fromkeys(found) if key not in _KNOWN_KEYS and key not in _REASONING_FIELDS][:_MAX_KEYS]
