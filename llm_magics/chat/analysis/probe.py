"""What a template can take, found out by rendering.

No list of model names: each ability is a small conversation with marker words in it. A template has the ability if all of them
come out, spelt as they went in. :func:`find_repairs` asks once per template, in an order in which later questions can build on
earlier answers.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
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
_WRITTEN_PART = re.compile("""['"]thinking['"]""")  # a part that was printed instead of understood

_SYSTEM = Message("system", "qsysa")
_USER = Message("user", "quserb")
_USER2 = Message("user", "quserc")
_ANSWER = Message("assistant", "qansd")
_TOOL = ToolSpec(
    "qtoole",
    "qdescf",
    {"type": "object", "properties": {"qkeyg": {"type": "string", "description": "qdesch"}}, "required": ["qkeyg"]},
)
_CALL = ToolCall("qtoole", '{"qkeyg": "qvali"}', id="qidj00001")
_CALL2 = ToolCall("qtoole", '{"qkeyg": "qvalk"}', id="qidl00002")
_RESULT = Message("tool", "qresm", tool_call_id="qidj00001", name="qtoole")
_RESULT2 = Message("tool", "qresn", tool_call_id="qidl00002", name="qtoole")
_CALLING = Message("assistant", "", tool_calls=(_CALL,))


class Probe:
    """Asks one template questions; remembers the answers as Repairs."""

    def __init__(self, template: ChatTemplate, extra: Mapping[str, Any] | None = None) -> None:
        self.template = template
        self.source = template.source
        self._extra = extra or {}
        self.repairs = Repairs()

    def text(
        self, messages: Sequence[Message], tools: Sequence[ToolSpec] = (), repairs: Repairs | None = None, **extra: Any
    ) -> str:
        """Render, or "" where the template refuses. Raises LimitError: what runs away once is not asked again."""
        repairs = repairs or self.repairs
        variables = template_variables(repairs, messages, tools)
        given = {"add_generation_prompt": True, **self._extra, **variables, **extra}
        try:
            return str.__str__(self.template.render(given, lenient=repairs.lenient, limits=PROBING))
        except LimitError:
            raise
        except TemplateError:
            return ""

    def generation_prompt(self, variables: Mapping[str, Any]) -> str:
        """The end of a prompt that opens the assistant's turn, under these further variables."""
        plain, asked = (self.text([_USER], add_generation_prompt=final, **variables) for final in (False, True))
        return asked[len(whole_tags(common_prefix(plain, asked), asked)) :]

    def keeps(
        self, messages: Sequence[Message], words: str, tools: Sequence[ToolSpec] = (), repairs: Repairs | None = None
    ) -> bool:
        """Whether all the words come out."""
        text = self.text(messages, tools, repairs)
        return bool(text) and all(word in text for word in words.split())

    def choose(
        self, messages: Sequence[Message], words: str, *changes: Mapping[str, Any], tools: Sequence[ToolSpec] = ()
    ) -> bool:
        """Adopt the first change under which all the words come out; keep things as they are where none does."""
        for change in ({}, *changes):
            tried = replace(self.repairs, **change)
            if self.keeps(messages, words, tools, tried):
                self.repairs = tried
                return True
        return False


def find_repairs(template: ChatTemplate) -> Repairs:
    """Find out what a template can take. Raises TemplateError where it cannot even render one user message."""
    asked = Probe(template)
    if not asked.choose([_USER], "quserb", {"lenient": True}, {"parts": True}, {"lenient": True, "parts": True}):
        variables = template_variables(asked.repairs, [_USER], ())
        template.render({"add_generation_prompt": True, **variables}, limits=PROBING)  # for the template's own words
        raise TemplateError("The chat template does not write the user's message.", "Use another one with --template FILE.")
    plain = [_USER, _ANSWER, _USER2]
    later = [_USER, _ANSWER, _SYSTEM, _USER2]
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
    history = [_USER, _CALLING, _RESULT, _ANSWER, _USER2]
    changes: list[dict[str, Any]] = [
        {"arguments": arguments, "empty": empty, "lenient": lenient}
        for lenient in ({asked.repairs.lenient, True})
        for arguments in ("object", "text")
        for empty in ("", "none", "absent")
    ]
    good = [c for c in changes if _clean(asked, replace(asked.repairs, **c), history)]
    if good:
        asked.repairs = replace(asked.repairs, **good[0])
    elif good := [c for c in changes if _clean(asked, replace(asked.repairs, **c, results="user"), history)]:
        asked.repairs = replace(asked.repairs, **good[0], results="user")
    else:
        asked.repairs = replace(asked.repairs, calls="text")
    if asked.repairs.calls == "template":
        pair = [_USER, replace(_CALLING, tool_calls=(_CALL, _CALL2)), _RESULT, _RESULT2, _ANSWER, _USER2]
        asked.choose(pair, "qvali qvalk qresm qresn", {"split_calls": True}, tools=[_TOOL])
        said = [_USER, replace(_CALLING, content="qsaid"), _RESULT, _ANSWER, _USER2]
        asked.choose(said, "qsaid qvali qresm", {"split_content": "before"}, {"split_content": "after"}, tools=[_TOOL])
    results = [_USER, _CALLING, _RESULT, _ANSWER, _USER2]
    if asked.repairs.calls == "text":
        results[1] = _ANSWER
    if not asked.choose(results, "quserb qresm quserc", {"results": "user"}, tools=[_TOOL]):
        asked.choose(results, "quserb qresm quserc", {"results": "user", "merge": True}, tools=[_TOOL])
    interrupted = [*results[:3], _USER2]
    asked.choose(interrupted, "quserb qresm quserc", {"answer_results": ""}, {"answer_results": "..."}, tools=[_TOOL])


def _clean(asked: Probe, repairs: Repairs, history: Sequence[Message]) -> bool:
    """Whether a call comes out whole, and neither as JSON inside JSON nor as Python's spelling of a dictionary."""
    text = asked.text(history, [_TOOL], repairs)
    whole = all(word in text for word in ("qtoole", "qkeyg", "qvali", "qresm"))
    return whole and not re.search(r"""\\"qkeyg|\{'qkeyg': 'qvali""", text)


def _probe_reasoning(asked: Probe) -> None:
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
    """Whether a thought stands between two tags, which no other member of a message does."""
    before, _, behind = text.partition("qthinko")
    opened, closed = before.rstrip(), behind.lstrip()
    return any(opened.endswith(tag) for tag in tags(opened)[-1:]) and any(closed.startswith(tag) for tag in tags(closed)[:1])


def _other_keys(source: str) -> list[str]:
    """The keys that a template asks for besides those that every message has: one may be its own name for a thought."""
    found = re.findall(r"""(?:\.|\[\s*['"]|\.get\(\s*['"])([a-z_]{4,40})\b""", source)
    return [key for key in dict.fromkeys(found) if key not in _KNOWN_KEYS and key not in _REASONING_FIELDS][:_MAX_KEYS]
