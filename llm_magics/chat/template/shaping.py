"""Messages, shaped to what a template can take.

:class:`Repairs` says how; :mod:`.probe` finds it out by rendering. No word of a conversation is lost: text may move to another
message, and calls become text if the template cannot write them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Literal

from llm_magics.chat.encodings.encoding import members_of
from llm_magics.chat.encodings.syntax import ToolSyntax
from llm_magics.chat.encodings.writer import write_calls
from llm_magics.chat.syntax.origin import concat, join, mark, marked
from llm_magics.messages import Message, TextPart, ToolCall, ToolSpec

from .environment import PROBED_AT
from .switch import YES_NO, Switch, variables

PARTS = "content parts"  # the value of ``Repairs.reasoning`` if a thought is a part of the content


@dataclass(frozen=True, slots=True)
class Repairs:
    """How messages must be shaped for one template. The defaults are for a template that takes everything as it is."""

    lenient: bool = False  # undefined names are empty text
    parts: bool = False  # content is a list of typed parts
    arguments: Literal["object", "text"] = "object"  # "text": as JSON text
    empty: Literal["", "none", "absent"] = ""  # the content of a message without any
    system: Literal["role", "user"] = "role"  # "user": part of the first user message
    system_later: bool = True  # a system message may follow others
    merge: bool = False  # roles must alternate, so neighbours are merged
    split_calls: bool = False  # one call per message
    split_content: Literal["", "before", "after"] = ""  # text of a calling message goes before it, or into the answer after it
    tools: Literal["template", "system"] = "template"  # "system": we describe the tools, in the system message
    calls: Literal["template", "text"] = "template"  # "text": we write the calls, into the content
    results: Literal["tool", "user"] = "tool"  # the role that sends tool results
    answer_results: str | None = None  # an answer that must stand between results and a question, e.g. of an interrupted turn
    reasoning: str = ""  # the message key for a thought, or PARTS; "" if there is none
    switch: Switch = YES_NO

    def thinking(self, on: bool) -> dict[str, Any]:
        """The variables that switch thinking on, or off."""
        return variables(self.switch, on)

    @property
    def described(self) -> tuple[str, ...]:
        """The repairs that are in use, as short phrases for people."""
        said = {
            "undefined names count as empty text": self.lenient,
            "content is given as typed parts": self.parts,
            "arguments are given as JSON text": self.arguments == "text" and self.calls == "template",
            "missing content is given as none": self.empty == "none",
            "missing content is left out": self.empty == "absent",
            "the system message is put into the first user message": self.system == "user",
            "a later system message is sent as a user message": not self.system_later,
            "neighbouring messages of one role are merged": self.merge,
            "parallel calls are split into several messages": self.split_calls,
            "text before calls becomes a separate message": self.split_content == "before",
            "text before calls is moved into the answer after them": self.split_content == "after",
            "tools are described in the system message": self.tools == "system",
            "calls are written as text": self.calls == "text",
            "tool results are sent as user messages": self.results == "user",
            "tool results without an answer get an empty one": self.answer_results is not None,
        }
        return tuple(phrase for phrase, holds in said.items() if holds)


def template_variables(
    repairs: Repairs,
    messages: Sequence[Message],
    tools: Sequence[ToolSpec],
    syntax: ToolSyntax | None = None,
    now: datetime = PROBED_AT,
) -> dict[str, Any]:
    """The template's variables for a conversation: fresh copies, in which every string is marked with its origin.

    ``syntax`` says how to write calls if the template cannot write them, and ids if they must carry the name.
    """
    shaped = _with_tools(repairs, messages, tools, syntax) if repairs.tools == "system" and tools else list(messages)
    if repairs.calls == "text" and syntax is not None:
        shaped = [_calls_as_text(m, syntax) if m.tool_calls else m for m in shaped]
    if syntax is not None and syntax.named.id_place == "carries":
        shaped = _ids_named(shaped, syntax)
    if repairs.split_content:
        shaped = _content_apart(shaped, repairs.split_content)
    if repairs.split_calls:
        shaped = _calls_apart(shaped)
    if repairs.results == "user":
        shaped = [_result_as_user(m) if m.role == "tool" else m for m in shaped]
    if repairs.answer_results is not None:
        shaped = _results_answered(shaped, repairs.answer_results)
    shaped = _system_placed(repairs, shaped)
    if repairs.merge:
        shaped = _merged(shaped)
    variables: dict[str, Any] = {"messages": [_as_dict(m, repairs) for m in shaped]}
    specs = [_tool_dict(t) for t in tools]
    if specs and repairs.tools == "template":
        variables["tools"] = specs
    # these names are Firefunction's; other templates do not see them
    variables["functions"] = mark(json.dumps([s["function"] for s in specs], ensure_ascii=False), "tools") if specs else ""
    variables["datetime"] = now.strftime("%Y-%m-%d")
    return variables


def _as_dict(message: Message, repairs: Repairs) -> dict[str, Any]:
    made: dict[str, Any] = {"role": "system" if message.role == "developer" else message.role}
    text = _text_of(message)
    if repairs.parts:
        made["content"] = [{"type": "text", "text": text}]
    elif text or not message.tool_calls or repairs.empty == "":
        made["content"] = text
    elif repairs.empty == "none":
        made["content"] = None
    if message.reasoning and repairs.reasoning == PARTS:  # the form of Mistral's reasoning models
        thought = {"type": "thinking", "thinking": mark(message.reasoning, "assistant")}
        made["content"] = [thought, {"type": "text", "text": text}] if text else [thought]
    elif message.reasoning and repairs.reasoning:
        made[repairs.reasoning] = mark(message.reasoning, "assistant")
    if message.tool_calls:
        made["tool_calls"] = [_call_dict(c, repairs) for c in message.tool_calls]
    if message.role == "tool":
        made["tool_call_id"] = mark(message.tool_call_id, "assistant")
        if message.name:
            made["name"] = mark(message.name, "assistant")
    return made


def _text_of(message: Message) -> str:
    """The content as one text, marked with its origin unless it has one already."""
    origin = "system" if message.role == "developer" else message.role
    if isinstance(message.content, str):
        return message.content if type(message.content) is not str else mark(message.content, origin)
    return mark("".join(p.text if isinstance(p, TextPart) else p.description or "[image]" for p in message.content), origin)


def _call_dict(call: ToolCall, repairs: Repairs) -> dict[str, Any]:
    arguments: Any = mark(call.arguments or "{}", "assistant")
    if repairs.arguments == "object":
        arguments = marked(members_of(call.arguments), "assistant")
    function = {"name": mark(call.name, "assistant"), "arguments": arguments}
    return {"id": mark(call.id, "assistant"), "type": "function", "function": function}


def _tool_dict(tool: ToolSpec) -> dict[str, Any]:
    function = {"name": tool.name, "description": tool.description, "parameters": _plain(tool.parameters)}
    return {"type": "function", "function": marked(function, "tools")}


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    return [_plain(v) for v in value] if isinstance(value, list | tuple) else value


def _with_tools(
    repairs: Repairs, messages: Sequence[Message], tools: Sequence[ToolSpec], syntax: ToolSyntax | None
) -> list[Message]:
    """Describe the tools at the end of the system message, and how to call them if the template cannot."""
    listed = [json.dumps(_plain(_tool_dict(t)), ensure_ascii=False) for t in tools]
    pieces = ["You can call these tools. Each line describes one, as JSON:\n", mark("\n".join(listed), "tools")]
    if syntax is not None and repairs.calls == "text":
        example = write_calls(syntax, [ToolCall("TOOL_NAME", '{"ARGUMENT": "VALUE"}')])
        pieces += ["\n\nTo call a tool, answer with this and nothing else:\n", str.__str__(example)]
    first = messages[0] if messages and messages[0].role in ("system", "developer") else None
    before = [_text_of(first), "\n\n"] if first else []
    made = Message("system", concat([*before, *pieces]))
    return [made, *(messages[1:] if first else messages)]


def _calls_as_text(message: Message, syntax: ToolSyntax) -> Message:
    text = _text_of(message)
    pieces = [text, "\n" if text and syntax.ours else "", write_calls(syntax, message.tool_calls)]
    return replace(message, content=concat(pieces), tool_calls=())


def _ids_named(messages: Sequence[Message], syntax: ToolSyntax) -> list[Message]:
    """Give each call an id that carries its name, and its result the same id."""
    made: list[Message] = []
    named: dict[str, str] = {}
    count = 0
    for message in messages:
        calls = []
        for call in message.tool_calls:
            if call.name not in call.id:
                named[call.id] = syntax.named.id_form.format(name=call.name, index=count)
            calls.append(replace(call, id=named.get(call.id, call.id)))
            count += 1
        known = named.get(message.tool_call_id, message.tool_call_id)
        made.append(replace(message, tool_calls=tuple(calls), tool_call_id=known))
    return made


def _content_apart(messages: Sequence[Message], where: Literal["before", "after"]) -> list[Message]:
    """Take the text out of messages that call tools: into a message before it, or into the answer after it."""
    made: list[Message] = []
    for i, message in enumerate(messages):
        if message.tool_calls and message.text and not (where == "after" and _answered(messages[i + 1 :])):
            made.append(replace(message, tool_calls=(), token_ids=()))
            message = replace(message, content="", reasoning="", token_ids=())
        made.append(message)
    return _texts_moved(made) if where == "after" else made


def _answered(messages: Sequence[Message]) -> bool:
    """Whether a plain answer comes before the next question."""
    following = next((m for m in messages if m.role != "tool" and not m.tool_calls), None)
    return following is not None and following.role == "assistant"


def _texts_moved(messages: Sequence[Message]) -> list[Message]:
    """Move the text of calling messages into the next plain answer."""
    made: list[Message] = []
    waiting: list[str] = []
    for message in messages:
        if message.tool_calls and message.text:
            waiting += [_text_of(message), "\n\n"]
            message = replace(message, content="", token_ids=())
        elif message.role == "assistant" and waiting and not message.tool_calls:
            message = replace(message, content=concat([*waiting, _text_of(message)]), token_ids=())
            waiting = []
        made.append(message)
    return made


def _calls_apart(messages: Sequence[Message]) -> list[Message]:
    """One call per message, each followed by its own result."""
    made: list[Message] = []
    waiting = [m for m in messages if m.role == "tool"]
    for message in messages:
        if len(message.tool_calls) > 1:
            for i, call in enumerate(message.tool_calls):
                content, reasoning = (message.content, message.reasoning) if i == 0 else ("", "")
                made.append(replace(message, content=content, reasoning=reasoning, tool_calls=(call,)))
                answer = next((m for m in waiting if m.tool_call_id == call.id), None)
                if answer is not None:
                    waiting.remove(answer)
                    made.append(answer)
        elif message.role != "tool":
            made.append(message)
        elif any(message is m for m in waiting):
            waiting = [m for m in waiting if m is not message]
            made.append(message)
    return made


def _result_as_user(message: Message) -> Message:
    named = f"Result of {message.name}:\n" if message.name else "Result:\n"
    return Message("user", concat([named, _text_of(message)]))


def _results_answered(messages: Sequence[Message], answer: str) -> list[Message]:
    made: list[Message] = []
    for message in messages:
        if message.role == "user" and made and made[-1].role == "tool":
            made.append(Message("assistant", answer))
        made.append(message)
    return made


def _system_placed(repairs: Repairs, messages: Sequence[Message]) -> list[Message]:
    made: list[Message] = []
    folded: list[str] = []
    for i, message in enumerate(messages):
        if message.role not in ("system", "developer"):
            if folded and message.role == "user":
                message = replace(message, content=concat([*folded, _text_of(message)]))
                folded = []
            made.append(message)
        elif i == 0 and repairs.system == "user":
            folded = [_text_of(message), "\n\n"]
        else:
            kept = i == 0 or repairs.system_later
            made.append(message if kept else replace(message, role="user", content=_text_of(message)))
    return [Message("user", concat(folded[:1])), *made] if folded else made


def _merged(messages: Sequence[Message]) -> list[Message]:
    made: list[Message] = []
    for message in messages:
        last = made[-1] if made else None
        if last is None or last.role != message.role or message.role == "tool" or last.tool_calls:
            made.append(message)
            continue
        content = join("\n\n", filter(None, (_text_of(last), _text_of(message))))
        reasoning = "\n\n".join(r for r in (last.reasoning, message.reasoning) if r)
        made[-1] = replace(last, content=content, reasoning=reasoning, tool_calls=message.tool_calls)
    return made
