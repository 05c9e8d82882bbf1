"""Services of other makers: messages as strict ones accept them, and chunks as lax ones send them.

What they do, seen in llama-server, vLLM, Ollama and LM Studio: a call whole in one delta; no index, or index 0 for every call;
no id; the name in every delta; arguments as an object; content as a list of parts; reasoning under another name; a finish
reason that is an empty string; null for whatever is not there.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from llm_magics.events import ModelEvent
from llm_magics.messages import Message

from .chunks import ChunkDecoder, is_json
from .conversation import REASONING_KEYS, messages_to_openai
from .reading import EXTENSION, Json, as_list, as_object


def foreign_messages(messages: Iterable[Message]) -> list[Json]:
    """Write messages without anything that OpenAI's form does not know, except ``reasoning_content``."""
    return [_plain(item) for item in messages_to_openai(messages)]


def _plain(item: Json) -> Json:
    bare = {key: value for key, value in item.items() if key != EXTENSION}
    if "tool_calls" in bare:
        bare["tool_calls"] = [{key: value for key, value in call.items() if key != EXTENSION} for call in bare["tool_calls"]]
    if isinstance(bare["content"], list):
        bare["content"] = [_part(part) for part in bare["content"]]
    return bare


def _part(part: Json) -> Json:
    return {"type": "image_url", "image_url": {"url": part["image_url"]["url"]}} if part["type"] == "image_url" else part


@dataclass(slots=True)
class _Call:
    id: str
    pieces: list[str] = field(default_factory=list)

    @property
    def complete(self) -> bool:
        return is_json("".join(self.pieces))


@dataclass(slots=True)
class ForeignDecoder:
    """Reads a foreign stream like :class:`ChunkDecoder`. A call ends as soon as another begins behind its whole arguments.

    ``finished`` is the finish reason, "" as long as there is none; ``about`` are the chunks' id, model and fingerprint.
    """

    finished: str = ""
    about: Json = field(default_factory=dict)
    logprobs: list[Json] = field(default_factory=list)
    _decoder: ChunkDecoder = field(default_factory=ChunkDecoder)
    _calls: list[_Call] = field(default_factory=list)
    _places: dict[int, int] = field(default_factory=dict)  # the server's index -> ours, of its latest call

    def feed(self, value: object) -> list[ModelEvent]:
        """Read one chunk; raises WireError for one that no reading makes sense of, or that carries the server's error."""
        chunk = dict(as_object(value, "chunk"))
        self.about |= {key: chunk[key] for key in ("id", "model", "system_fingerprint") if isinstance(chunk.get(key), str)}
        chunk.pop(EXTENSION, None)  # what this package says to itself is not taken from others
        chunk["usage"] = _usage(chunk.get("usage"))
        n_before = len(self._calls)
        choices = as_list(chunk.get("choices") or [], "choices")[:1]
        chunk["choices"] = [self._choice(as_object(one, "choices[0]")) for one in choices]
        ended = self._decoder.end_complete() if len(self._calls) > n_before else []
        return [*ended, *self._decoder.feed(chunk)]

    def finish(self) -> list[ModelEvent]:
        return self._decoder.finish()

    def _choice(self, choice: Mapping[str, Any]) -> Json:
        delta = dict(as_object(choice.get("delta") or choice.get("message") or {}, "delta"))
        if isinstance(delta.get("content"), list):
            delta["content"] = "".join(str(part.get("text") or "") for part in delta["content"] if isinstance(part, Mapping))
        for key in REASONING_KEYS:
            if not isinstance(delta.get(key), str):
                delta.pop(key, None)
        calls = as_list(delta.get("tool_calls") or [], "delta.tool_calls")
        if not calls and isinstance(delta.get("function_call"), Mapping):  # the older form, of one call
            calls = [{"index": 0, "function": delta["function_call"]}]
        delta["tool_calls"] = [self._call(as_object(call, "delta.tool_calls[]")) for call in calls]
        finish = choice.get("finish_reason")
        self.finished = finish if isinstance(finish, str) and finish else self.finished
        found = choice.get("logprobs")
        if isinstance(found, Mapping) and isinstance(found.get("content"), list):
            self.logprobs += [dict(item) for item in found["content"] if isinstance(item, Mapping)]
        return {"index": 0, "delta": delta, "finish_reason": finish or None}

    def _call(self, delta: Mapping[str, Any]) -> Json:
        function = dict(as_object(delta.get("function") or {}, "delta.tool_calls[].function"))
        text = function.get("arguments")
        function["arguments"] = text if isinstance(text, str) else "" if text is None else json.dumps(text, ensure_ascii=False)
        given, name = str(delta.get("id") or ""), function.get("name")
        index = delta.get("index") if isinstance(delta.get("index"), int) else None
        at = self._place(index, given, bool(name))
        if at == len(self._calls):
            self._calls.append(_Call(given))
        self._calls[at].pieces.append(function["arguments"])
        if index is not None:
            self._places[index] = at
        return {"index": at, "id": self._calls[at].id, "function": function}

    def _place(self, index: int | None, given: str, named: bool) -> int:
        """Which of our calls a delta continues; their number, if it begins another."""
        known = self._places.get(index) if index is not None else (len(self._calls) - 1 if self._calls else None)
        if known is None:
            return len(self._calls)
        other = bool(given) and bool(self._calls[known].id) and given != self._calls[known].id
        again = named and not (given and given == self._calls[known].id) and self._calls[known].complete
        return len(self._calls) if named and (other or again) else known


def _usage(value: object) -> Json | None:
    """Usage whose counts are counts; others are as good as none."""
    if not isinstance(value, Mapping) or not (value.get("prompt_tokens") or value.get("completion_tokens")):
        return None
    details = value.get("prompt_tokens_details")
    cached = _count(details.get("cached_tokens")) if isinstance(details, Mapping) else 0
    prompt = _count(value.get("prompt_tokens"))
    counts = {"prompt_tokens": prompt, "completion_tokens": _count(value.get("completion_tokens"))}
    return {**counts, "prompt_tokens_details": {"cached_tokens": min(cached, prompt)}}


def _count(value: object) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else 0
