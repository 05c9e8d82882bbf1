"""What a server says about itself: its models, their context, its slots, and with llama-server the chat template."""

from __future__ import annotations

import json
from collections.abc import Generator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from llm_magics.chat.analysis.analysis import GENERIC_TOOLS
from llm_magics.chat.encodings.syntax import ToolSyntax
from llm_magics.errors import ModelError, OptionError, TemplateError
from llm_magics.options import near

from .asking import Server, body_of, head_of
from .exchange import Head
from .trouble import failed, refused

# Where a list of models tells a model's context in tokens: vLLM, llama-server, and services with many models
_CONTEXT = (("max_model_len",), ("meta", "n_ctx"), ("context_length",), ("max_context_length",), ("context_window",))
_MOST = 16 * 2**20
_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class About:
    """One model of a server. 0 is unknown; ``listed`` are the names of all its models, None if it does not list them.

    ``progress``: the server tells how much of the prompt it has read, if asked.
    """

    model: str
    context: int = 0
    slots: int = 0
    listed: tuple[str, ...] | None = None
    syntax: ToolSyntax = GENERIC_TOOLS
    template: str = ""
    progress: bool = False


def discover(server: Server, model: str) -> About:
    """Ask a server for its models, and choose one. Raises ServerError, OptionError."""
    server.key.check()
    listing = _get(server, f"{server.address.base}/models", needed=True)
    data = listing.get("data") if isinstance(listing, Mapping) else None
    found = data if isinstance(data, list) else []
    items = [one for one in found if isinstance(one, Mapping) and isinstance(one.get("id"), str)]
    names = tuple(one["id"] for one in items)
    if not model and len(names) != 1:
        if not names:
            raise OptionError("The server does not list its models.", "Name one: --model NAME.")
        shown = ", ".join(names[:10]) + (", ..." if len(names) > 10 else "")
        raise OptionError(f"The server has {len(names)} models: {shown}.", "Name one: --model NAME.")
    own = next((one for one in items if one["id"] == (model or names[0])), {})
    about = About(model or names[0], _context(own), listed=None if data is None else names)
    return _as_llama_server(server, about) if own.get("owned_by") == "llamacpp" else about


def unlisted(about: About) -> str:
    """A remark if the server lists models, but not this one; many servers know more names than they list."""
    if not about.listed or about.model in about.listed:
        return ""
    return f"The server does not list {about.model!r}. {near(about.model, about.listed)}".strip()


def _as_llama_server(server: Server, about: About) -> About:
    """More, from a llama-server's own description."""
    props = _get(server, f"{server.address.root}/props", needed=False)
    if not isinstance(props, Mapping):
        return about
    settings = props.get("default_generation_settings")
    template = props.get("chat_template_tool_use", props.get("chat_template"))
    context = _positive(settings.get("n_ctx")) if isinstance(settings, Mapping) else 0
    about = replace(about, context=context or about.context, slots=_positive(props.get("total_slots")), progress=True)
    if not isinstance(template, str) or not template.strip():
        return about
    from llm_magics.chat.format import ChatFormat

    bos, eos = (str(props.get(name) or "") for name in ("bos_token", "eos_token"))
    try:
        return replace(about, syntax=ChatFormat.from_template(template, bos, eos).tools, template=template)
    except TemplateError:  # the server renders it, and its tool calls are read; only near misses are read by a usual syntax
        return about


def _context(item: Mapping[str, Any]) -> int:
    for path in _CONTEXT:
        value: Any = item
        for key in path:
            value = value.get(key) if isinstance(value, Mapping) else None
        if _positive(value):
            return int(value)
    return 0


def _positive(value: object) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else 0


def _get(server: Server, url: str, *, needed: bool) -> Any:
    """The JSON at a URL; None if it has none. ``needed``: raise for a server that cannot be reached or wants a key."""
    waiting = _fetched(server, url)
    while True:
        try:
            next(waiting)
        except StopIteration as done:
            return done.value
        except ModelError:
            if needed:
                raise
            return None


def _fetched(server: Server, url: str) -> Generator[None, None, Any]:
    exchange = server.get(url)
    try:
        came = yield from head_of(exchange, replace(server.waits, first=min(server.waits.first, _SECONDS)))
        if not isinstance(came, Head):
            raise failed(came, server.address)
        body = yield from body_of(exchange, _MOST, _SECONDS)
    finally:
        exchange.close()
    if came.status in (404, 405, 501):  # a server need not list its models
        return None
    if came.status != 200:
        raise refused(came, body, server.key)
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None
