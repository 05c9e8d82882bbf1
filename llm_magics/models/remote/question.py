"""A Request as the JSON that a server gets.

Only what OpenAI's form requires is always sent. Every other setting is sent if the user chose it, so that a server which does
not know it never meets it unasked. A few wishes have a second spelling, or can be left out without changing the wish: if a
server refuses a field by its name, :meth:`Question.without` gives the next way to ask.

Source: https://platform.openai.com/docs/api-reference/chat/create
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from llm_magics.errors import OptionError
from llm_magics.messages import Message
from llm_magics.models.base import Request, Sampling
from llm_magics.wire import foreign_messages, response_format_to_openai, tool_choice_to_openai, tools_to_openai

# a field that servers refuse -> what to send instead; None leaves it out
_SECOND = {
    "max_tokens": "max_completion_tokens",  # newer models of OpenAI
    "stream_options": None,  # usage is then not known
    "reasoning_effort": None,  # chat_template_kwargs say it too
    "chat_template_kwargs": None,  # reasoning_effort says it too, unless the user set a variable
    "reasoning_content": None,  # in messages: the model then does not see what it thought before
}


@dataclass(frozen=True, slots=True)
class Question:
    """What is sent, and in which second spellings."""

    body: Mapping[str, Any]
    changed: tuple[str, ...] = ()
    wished: frozenset[str] = field(default=frozenset())  # fields that must not be left out

    @classmethod
    def of(cls, request: Request, model: str, usual: Sampling, template_kwargs: Mapping[str, Any], **more: Any) -> Question:
        """Write a request; ``usual`` are the model's own settings. Raises OptionError for what no server can do."""
        if request.continue_final is not None:
            raise OptionError("A model on a server cannot continue a message.", "Ask it in a new message.")
        variables = {**template_kwargs, **request.template_kwargs}
        body: dict[str, Any] = {
            "model": model,
            "messages": foreign_messages(request.messages),
            "stream": True,
            "stream_options": {"include_usage": True},
            **_sampling(request.sampling, usual),
            **_tools(request),
            **_thinking(request.thinking, variables),
            **more,
        }
        if request.max_tokens is not None:
            body["max_tokens"] = request.max_tokens
        if request.stop:
            body["stop"] = list(request.stop)
        if request.logprobs:
            body |= {"logprobs": True, "top_logprobs": request.logprobs}
        if request.response_schema is not None:
            body["response_format"] = response_format_to_openai(request.response_schema)
        return cls(body, wished=frozenset({"chat_template_kwargs"} if variables else ()))

    @property
    def data(self) -> bytes:
        return json.dumps(self.body, ensure_ascii=False).encode("utf-8", "replace")

    def without(self, complaint: str) -> Question | None:
        """The question without the field that a server's complaint names; None if there is no other way to ask."""
        for name in self._sent() - self.wished - set(self.changed):
            if name in complaint:
                return self.changing((name,))
        return None

    def changing(self, names: tuple[str, ...]) -> Question:
        """The question with these fields in their second spelling."""
        body = dict(self.body)
        for name in names:
            if name == "reasoning_content":
                bare = [{k: v for k, v in message.items() if k != name} for message in body["messages"]]
                body["messages"] = bare
            elif name in body:
                value, second = body.pop(name), _SECOND[name]
                body |= {second: value} if second else {}
        return replace(self, body=body, changed=(*self.changed, *names))

    def _sent(self) -> set[str]:
        found = {name for name in _SECOND if name in self.body}
        if any("reasoning_content" in message for message in self.body["messages"]):
            found.add("reasoning_content")
        if {"reasoning_effort", "chat_template_kwargs"} & set(self.changed):  # the last spelling of the wish
            found -= {"reasoning_effort", "chat_template_kwargs"}
        return found if "reasoning_effort" in self.body else found - {"chat_template_kwargs"}


def _sampling(asked: Sampling, usual: Sampling) -> dict[str, Any]:
    """The settings that are chosen, under the names that all servers share; ``logit_bias`` as OpenAI writes it."""
    chosen: dict[str, Any] = {}
    for layer in (usual, asked):
        given = {name: getattr(layer, name) for name in Sampling.__slots__}
        chosen |= {name: value for name, value in given.items() if value not in (None, ())}
    if "logit_bias" in chosen:
        chosen["logit_bias"] = {str(token): bias for token, bias in chosen["logit_bias"]}
    return chosen


def _tools(request: Request) -> dict[str, Any]:
    """Tools and how they are chosen. Without a choice the tools stay away, as their definitions take room in the context."""
    if not request.tools or request.tool_choice == "none":
        return {}
    fields: dict[str, Any] = {"tools": tools_to_openai(request.tools)}
    if request.tool_choice != "auto":
        fields["tool_choice"] = tool_choice_to_openai(request.tool_choice)
    if not request.parallel_tool_calls:
        fields["parallel_tool_calls"] = False
    return fields


def _thinking(wished: bool | None, variables: Mapping[str, Any]) -> dict[str, Any]:
    """OpenAI's field, which turns reasoning off; and the template's variable, which llama-server and vLLM pass on."""
    fields: dict[str, Any] = {"reasoning_effort": "none"} if wished is False else {}
    if wished is not None:
        variables = {"enable_thinking": wished, **variables}
    return {**fields, "chat_template_kwargs": dict(variables)} if variables else fields


def tool_ran(messages: tuple[Message, ...]) -> bool:
    """Whether a tool ran in the turn that is asked about: such a request is not sent a second time after a failure."""
    return bool(messages) and messages[-1].role == "tool"
