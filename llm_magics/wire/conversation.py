"""Messages, tools and what is asked for, in OpenAI's JSON."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, cast

from llm_magics.errors import WireError
from llm_magics.messages import ImagePart, JsonSchema, Message, Part, Role, TextPart, ToolCall, ToolChoice, ToolSpec

from .reading import EXTENSION, Json, as_list, as_object, as_string, wrong

REASONING_KEYS = ("reasoning_content", "reasoning")
_ROLES = ("system", "developer", "user", "assistant", "tool")


def messages_from_openai(value: object, path: str = "messages") -> tuple[Message, ...]:
    """Read a list of messages; raises WireError with the path of a wrong part."""
    return tuple(message_from(item, f"{path}[{i}]") for i, item in enumerate(as_list(value, path)))


def messages_to_openai(messages: Iterable[Message]) -> list[Json]:
    """Write messages. ``content`` is null in a message that has calls only, as OpenAI writes it."""
    return [message_to(message) for message in messages]


def message_from(value: object, path: str) -> Message:
    item = as_object(value, path)
    role = item.get("role")
    if role not in _ROLES:
        raise wrong(f"{path}.role", f"one of {', '.join(_ROLES)}", role)
    calls = item.get("tool_calls")
    reasoning = next((item[key] for key in REASONING_KEYS if item.get(key) is not None), None)
    extension = as_object(item.get(EXTENSION) or {}, f"{path}.{EXTENSION}")
    return Message(
        cast(Role, role),
        _content_from(item.get("content"), f"{path}.content"),
        reasoning=as_string(reasoning, f"{path}.reasoning_content", default=""),
        tool_calls=() if calls is None else _calls_from(calls, f"{path}.tool_calls"),
        tool_call_id=as_string(item.get("tool_call_id"), f"{path}.tool_call_id", default=""),
        name=as_string(item.get("name"), f"{path}.name", default=""),
        is_error=extension.get("is_error") is True,
    )


def _content_from(value: object, path: str) -> str | tuple[Part, ...]:
    if value is None or isinstance(value, str):
        return value or ""
    return tuple(_part_from(part, f"{path}[{i}]") for i, part in enumerate(as_list(value, path)))


def _part_from(value: object, path: str) -> Part:
    part = as_object(value, path)
    match part.get("type"):
        case "text" | "input_text" | "output_text":
            return TextPart(as_string(part.get("text"), f"{path}.text"))
        case "refusal":
            return TextPart(as_string(part.get("refusal"), f"{path}.refusal"))
        case "image_url":
            image = as_object(part.get("image_url"), f"{path}.image_url")
            description = as_string(image.get("description"), f"{path}.image_url.description", default="")
            return ImagePart(as_string(image.get("url"), f"{path}.image_url.url"), description)
    raise wrong(f"{path}.type", "text or image_url", part.get("type"))


def _calls_from(value: object, path: str) -> tuple[ToolCall, ...]:
    return tuple(_call_from(item, f"{path}[{i}]") for i, item in enumerate(as_list(value, path)))


def _call_from(value: object, path: str) -> ToolCall:
    item = as_object(value, path)
    function = as_object(item.get("function"), f"{path}.function")
    arguments = function.get("arguments")
    if isinstance(arguments, Mapping):  # wrong, but common
        arguments = json.dumps(arguments, ensure_ascii=False)
    extension = as_object(item.get(EXTENSION) or {}, f"{path}.{EXTENSION}")
    return ToolCall(
        as_string(function.get("name"), f"{path}.function.name"),
        as_string(arguments, f"{path}.function.arguments", default=""),
        as_string(item.get("id"), f"{path}.id", default=""),
        as_string(extension.get("recovered"), f"{path}.{EXTENSION}.recovered", default=""),
        extension.get("trusted") is not False,
    )


def message_to(message: Message) -> Json:
    item: Json = {"role": message.role}
    if isinstance(message.content, str):
        item["content"] = None if message.tool_calls and not message.content else message.content
    else:
        item["content"] = [_part_to(part) for part in message.content]
    if message.reasoning:
        item["reasoning_content"] = message.reasoning
    if message.tool_calls:
        item["tool_calls"] = [_call_to(call) for call in message.tool_calls]
    if message.tool_call_id or message.role == "tool":
        item["tool_call_id"] = message.tool_call_id
    if message.name:
        item["name"] = message.name
    if message.is_error:
        item[EXTENSION] = {"is_error": True}
    return item


def _part_to(part: Part) -> Json:
    if isinstance(part, TextPart):
        return {"type": "text", "text": part.text}
    image = {"url": part.url} | ({"description": part.description} if part.description else {})
    return {"type": "image_url", "image_url": image}


def _call_to(call: ToolCall) -> Json:
    item: Json = {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
    return item | call_extension(call)


def call_extension(call: ToolCall, **more: Any) -> Json:
    extension = dict(more)
    if call.recovered:
        extension["recovered"] = call.recovered
    if not call.trusted:
        extension["trusted"] = False
    return {EXTENSION: extension} if extension else {}


def tools_from_openai(value: object, path: str = "tools") -> tuple[ToolSpec, ...]:
    """Read a list of function tools, whose names must differ; null means none."""
    tools = tuple(_tool_from(item, f"{path}[{i}]") for i, item in enumerate(as_list([] if value is None else value, path)))
    seen: set[str] = set()
    for i, tool in enumerate(tools):
        if tool.name in seen:
            raise WireError(f"{path}[{i}].function.name is {tool.name!r}, as that of an earlier tool.", "Rename one of them.")
        seen.add(tool.name)
    return tools


def tools_to_openai(tools: Iterable[ToolSpec]) -> list[Json]:
    return [
        {"type": "function", "function": {"name": t.name, "description": t.description, "parameters": dict(t.parameters)}}
        for t in tools
    ]


def _tool_from(value: object, path: str) -> ToolSpec:
    item = as_object(value, path)
    if item.get("type", "function") != "function":
        raise wrong(f"{path}.type", '"function"', item.get("type"))
    function = as_object(item.get("function"), f"{path}.function")
    name = as_string(function.get("name"), f"{path}.function.name")
    if not name:
        raise wrong(f"{path}.function.name", "a name", name)
    parameters = function.get("parameters")
    if parameters is None:
        parameters = {"type": "object", "properties": {}}
    description = as_string(function.get("description"), f"{path}.function.description", default="")
    return ToolSpec(name, description, dict(as_object(parameters, f"{path}.function.parameters")))


def tool_choice_from_openai(value: object, tools: Sequence[ToolSpec] = (), path: str = "tool_choice") -> ToolChoice:
    """Read a tool choice: "auto" (also null), "none", "required", or the name of the tool that must be called."""
    if value is None:
        return "auto"
    if isinstance(value, str):
        if value not in ("auto", "none", "required"):
            raise wrong(path, "auto, none, required or a function", value)
        return value
    function = as_object(as_object(value, path).get("function"), f"{path}.function")
    name = as_string(function.get("name"), f"{path}.function.name")
    if tools and name not in {tool.name for tool in tools}:
        raise WireError(f"{path}.function.name is {name!r}, which is not one of the tools.", "Add it, or choose another.")
    return name


def tool_choice_to_openai(choice: ToolChoice) -> str | Json:
    return choice if choice in ("auto", "none", "required") else {"type": "function", "function": {"name": choice}}


def response_format_from_openai(value: object, path: str = "response_format") -> JsonSchema | None:
    """The JSON schema that a response format asks for; None for plain text. ``json_object`` is any object."""
    if value is None:
        return None
    item = as_object(value, path)
    match item.get("type"):
        case "text":
            return None
        case "json_object":
            schema = item.get("schema")  # llama-server's way to give one here
            return {"type": "object"} if schema is None else dict(as_object(schema, f"{path}.schema"))
        case "json_schema":
            described = as_object(item.get("json_schema"), f"{path}.json_schema")
            return dict(as_object(described.get("schema"), f"{path}.json_schema.schema"))
    raise wrong(f"{path}.type", "text, json_object or json_schema", item.get("type"))


def response_format_to_openai(schema: JsonSchema | None, name: str = "answer") -> Json:
    if schema is None:
        return {"type": "text"}
    return {"type": "json_schema", "json_schema": {"name": name, "strict": True, "schema": dict(schema)}}
