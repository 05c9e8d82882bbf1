"""A model on a server, with the same face as one in this kernel: a Request in, ModelEvents out.

The server renders, samples and parses. History, tools, limits and traces stay here, and tools run in this kernel.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import replace
from typing import Any

from llm_magics.errors import EngineError, ServerError, WireError
from llm_magics.events import ModelEnd, ModelEvent, TextDelta, Usage
from llm_magics.messages import Message
from llm_magics.models.base import Mappable, PromptPart, Request, Sampling
from llm_magics.models.meter import Meter, Metered
from llm_magics.models.settings import load_settings
from llm_magics.wire import tools_to_openai

from .address import read_address
from .asking import Server, opened, values
from .discovery import About, discover
from .exchange import open_client
from .key import Key
from .question import Question, tool_ran
from .reading import AnswerReader
from .settings import ServerSettings
from .trouble import reported

_USUAL_SLOTS = 4  # requests at once, if a server does not say how many it takes


class RemoteModel(Mappable):
    """A model on a server. Made by :func:`connect`; ``close`` ends it here, not on the server.

    Holds the name of the key's variable and never the key. May be asked from several threads.
    """

    def __init__(self, server: Server, about: About, settings: ServerSettings, name: str = "") -> None:
        self.about = about
        self.address = server.address
        self.settings = settings
        self.sampling = Sampling(seed=settings.seed)
        self.name = name or about.model.rstrip("/").rpartition("/")[2] or about.model
        self._server = server
        self._spelt: tuple[str, ...] = ()  # fields that the server wants in their second spelling
        self._closed = threading.Event()

    def __repr__(self) -> str:
        return f"<RemoteModel {self.name!r}: {self.description}>"

    @property
    def description(self) -> str:
        return f"{self.about.model} at {self.address.names[-1]}"

    @property
    def rows(self) -> list[tuple[str, str]]:
        """The server in words, for a card."""
        plain = self.address.scheme == "http" and not self.address.loopback
        key = f"from ${self._server.key.variable}" + (", sent without encryption" if plain else "")
        rows = [("model", self.about.model), ("server", self.address.base), ("key", key if self._server.key.variable else "")]
        return [*rows, ("requests at once", str(self.parallel))]

    @property
    def context_size(self) -> int:
        return self.settings.ctx or self.about.context

    @property
    def parallel(self) -> int:
        return self.settings.slots or self.about.slots or _USUAL_SLOTS

    def close(self) -> None:
        """End the model here: what runs breaks off at its next event, and further requests raise EngineError."""
        self._closed.set()
        self._server.client.close()

    def preview(self, request: Request) -> tuple[PromptPart, ...]:
        """The tools and messages, without token ids: the server renders and counts them."""
        tools = json.dumps(tools_to_openai(request.tools), ensure_ascii=False) if request.tools else ""
        parts = [PromptPart("tools", tools, ())] if tools and request.tool_choice != "none" else []
        return (*parts, *(PromptPart(message.role, _written(message), ()) for message in request.messages))

    def room(self, request: Request) -> int:
        """The whole context: the server alone can count a prompt, and refuses one that does not fit."""
        return self.context_size

    def stream(self, request: Request) -> Iterator[ModelEvent]:
        """Answer one request. Raises ServerError; ContextFullError, if the server counts more tokens than it has room for."""
        return Metered(lambda meter: self._stream(request, meter), Meter(self.context_size))

    def _stream(self, request: Request, meter: Meter) -> Generator[ModelEvent, None, None]:
        self._check_open()
        more = {"return_progress": True} if self.about.progress else {}
        asked = Question.of(request, self.about.model, self.sampling, self.settings.template_kwargs, **more)
        reader, began, first = AnswerReader.of(request, self.about.syntax), time.perf_counter(), 0.0
        with closing(self._values(asked.changing(self._spelt), reader, tool_ran(request.messages))) as came:
            for value in came:
                self._check_open()
                if value is None:
                    yield TextDelta("")  # nothing new, but the reader may have had enough
                    continue
                events = self._read(reader, value)
                if reader.n_pieces > meter.generated:
                    first = first or time.perf_counter()
                    meter.wrote(reader.n_pieces - meter.generated)
                yield from events
                if reader.stopped or reader.idle:
                    break
        last, end = reader.finish()
        yield from last
        times = (began, first or time.perf_counter(), time.perf_counter())
        usage, notes = self._usage(end.usage, reader, times)
        record = self._record(request, asked, reader)
        yield replace(end, usage=usage, notes=(*end.notes, *notes), record=record, recording=_recording(end, reader))

    def _check_open(self) -> None:
        if self._closed.is_set():
            raise EngineError(f"The model {self.name!r} is closed.", "Load it again.")

    def _values(self, question: Question, reader: AnswerReader, once: bool) -> Generator[Any, None, None]:
        """The values of the answer, and None while there are none."""
        exchange, head, accepted = yield from opened(self._server, question, once)
        self._spelt = accepted.changed
        try:
            yield from values(exchange, head, self._server, lambda: reader.finished)
        finally:
            exchange.close()

    def _read(self, reader: AnswerReader, value: Any) -> list[ModelEvent]:
        key = self._server.key
        error = value.get("error") if isinstance(value, dict) else None
        if error:
            raise reported(error, key)
        try:
            events = reader.feed(value)
        except WireError as wrong:
            what = f"The server's answer cannot be read: {key.masked(wrong.what)}"
            raise ServerError(what, "See the server's log.") from None
        if reader.foreign.finished == "error":
            raise reported("the answer ended with an error, and without a reason", key)
        return events

    def _usage(self, told: Usage, reader: AnswerReader, times: tuple[float, float, float]) -> tuple[Usage, tuple[str, ...]]:
        """The server's counts with the times that this side measured. A stream that was stopped here has no counts."""
        began, first, ended = times
        notes: tuple[str, ...] = ()
        if not told.completion_tokens and not told.prompt_tokens:
            told = Usage(completion_tokens=reader.n_pieces)
            counted = reader.n_pieces and not (reader.stopped or reader.idle)
            notes = ("the server did not count tokens, so the pieces of the answer were counted",) if counted else ()
        usage = replace(
            told,
            prompt_seconds=first - began,
            completion_seconds=ended - first,
            time_to_first_token=first - began,
            context_used=told.prompt_tokens + told.completion_tokens if told.prompt_tokens else 0,
            context_size=self.context_size,
        )
        return usage, notes

    def _record(self, request: Request, asked: Question, reader: AnswerReader) -> dict[str, Any]:
        """What the answer depends on besides the conversation, as far as this side knows."""
        model = {"name": self.name, "server": self.address.base, "model": self.about.model, "answered": reader.foreign.about}
        return {
            "model": model,
            "template_kwargs": {**self.settings.template_kwargs, **request.template_kwargs},
            "sampling": {name: asked.body[name] for name in Sampling.__slots__ if name in asked.body},
            "max_tokens": request.max_tokens,
            "stop": list(request.stop),
            "tool_choice": request.tool_choice,
            "thinking": request.thinking,
        }


def _written(message: Message) -> str:
    calls = "".join(f"\n{call.name}({call.arguments})" for call in message.tool_calls)
    return f"{message.reasoning}{message.text}{calls}"


def _recording(end: ModelEnd, reader: AnswerReader) -> dict[str, Any]:
    """The answer's text; a server tells no token ids. Log-probabilities as it wrote them."""
    recording: dict[str, Any] = {"text": end.message.text}
    return {**recording, "logprobs": reader.foreign.logprobs} if reader.foreign.logprobs else recording


def connect_model(url: str, *, alias: str = "", **settings: Any) -> RemoteModel:
    """Use a model of a server, e.g. ``connect_model("http://localhost:8080/v1", model="qwen2.5-coder")``.

    Args:
        url: the address of any service with OpenAI's chat completions.
        alias: the model's name here; by default the server's.
        settings: the fields of :class:`~llm_magics.models.settings.LoadSettings` that are for a server: ``model, api_key_env,
            ctx, slots, seed, chat_template_kwargs, connect_timeout, first_timeout, gap_timeout``.

    Raises OptionError for an address, a model or a key that cannot be used; ServerError if the server does not answer.
    """
    return connect(url, ServerSettings.of(load_settings(**settings)), alias)


def connect(url: str, settings: ServerSettings | None = None, alias: str = "") -> RemoteModel:
    """Like :func:`connect_model`, with the settings as one value."""
    settings, address = settings or ServerSettings(), read_address(url)
    key = Key(settings.api_key_env)
    key.check()
    client = open_client(address, settings.waits)
    server = Server(client, address, key, settings.waits)
    try:
        return RemoteModel(server, discover(server, settings.model), settings, alias)
    except BaseException:  # also an interrupt must not leave the client open
        client.close()
        raise
