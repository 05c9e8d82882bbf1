"""What a server says of itself: its models, its context, its template; and a turn over real sockets where it has no room."""

from __future__ import annotations

from contextlib import closing
from typing import Any

import pytest

from llm_magics import Session, tool
from llm_magics.errors import ContextFullError, OptionError
from llm_magics.events import assemble
from llm_magics.models.remote.model import connect
from llm_magics.models.remote.settings import ServerSettings
from tests.history_checks import broken_calls, broken_order
from tests.models.remote.standin import Reply, StandIn, call, calls, json_reply, says

from .test_model import HELLO, OSLO, asked


@pytest.mark.parametrize(
    ("item", "context"),
    [
        ({"max_model_len": 4096}, 4096),
        ({"meta": {"n_ctx": 2048, "n_ctx_train": 32768}}, 2048),
        ({"context_length": 8192}, 8192),
        ({"meta": {"n_ctx_train": 32768}}, 0),
        ({"max_model_len": "long"}, 0),
        ({}, 0),
    ],
)
def test_the_context_is_what_the_server_says(item: dict[str, Any], context: int) -> None:
    with StandIn([says("hi")], listing=[{"id": "m", **item}]) as server:
        with closing(connect(server.url)) as model:
            assert (model.name, model.context_size) == ("m", context)
        with closing(connect(server.url, ServerSettings(ctx=512))) as model:
            assert model.context_size == 512


def test_a_llama_server_tells_its_slots_and_its_template() -> None:
    template = (
        "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% for c in m.tool_calls or [] %}<call>"
        "{{ c.function | tojson }}</call>{% endfor %}{% endfor %}{% if tools %}{{ tools | tojson }}{% endif %}"
    )
    with StandIn([says("hi")], listing=[{"id": "m.gguf", "owned_by": "llamacpp", "meta": {"n_ctx": 64}}]) as server:
        about = {"default_generation_settings": {"n_ctx": 4096}, "total_slots": 2, "chat_template": template}
        server.others["/props"] = json_reply(about)
        with closing(connect(server.url)) as model:
            assert (model.context_size, model.parallel) == (4096, 2)
            assert model.about.syntax.call_start.strip() == "<call>"
            list(model.stream(HELLO))
            assert server.asked[-1].body["return_progress"] is True
        server.others["/props"] = json_reply({"error": "off"}, 501)
        with closing(connect(server.url)) as model:
            assert model.context_size == 64


def test_which_model_is_chosen() -> None:
    with StandIn([says("hi")], listing=[{"id": "org/one:7b"}, {"id": "two"}]) as server:
        with pytest.raises(OptionError, match=r"2 models: org/one:7b, two\. Name one: --model"):
            connect(server.url)
        with closing(connect(server.url, ServerSettings(model="org/one:7b"))) as model:
            assert model.name == "one:7b"
    with StandIn([says("hi")], listing=Reply(status=404)) as server:
        with pytest.raises(OptionError, match="does not list its models"):
            connect(server.url)
        with closing(connect(server.url, ServerSettings(model="x"))) as model:
            assert assemble(model.stream(HELLO)).text == "hi"


def test_a_prompt_that_the_server_has_no_room_for_is_a_full_context() -> None:
    llama = {
        "error": {"code": 400, "type": "exceed_context_size_error", "message": "too long", "n_prompt_tokens": 70, "n_ctx": 64}
    }
    vllm = {"message": "This model's maximum context length is 64 tokens. However, you requested 70 tokens.", "code": 400}
    openai = {"error": {"code": "context_length_exceeded", "message": "too long"}}
    for body in (llama, vllm, openai):
        with pytest.raises(ContextFullError, match="server's context") as caught:
            asked([json_reply(body, 400)])
    with pytest.raises(ContextFullError) as caught:
        asked([json_reply(llama, 400)])
    assert (caught.value.n_prompt, caught.value.n_ctx) == (70, 64)


def test_results_that_the_server_has_no_room_for_are_answered_in_words() -> None:
    @tool
    def read() -> str:
        """Read it."""
        return "long " * 100

    full = json_reply({"error": {"code": "context_length_exceeded", "message": "too long"}}, 400)
    slow = Reply([0.5, *_raw(full)], status=0)
    script: list[Reply | bytes] = [calls(call("read", "{}")), slow, says("In short.")]
    with StandIn(script, listing=[{"id": "m", "max_model_len": 4096}]) as server, closing(connect(server.url)) as model:
        assert Session(model, tools=[read]).ask("Read it.").text == "In short."
    assert ["tools" in one.body for one in server.asked] == [True, True, False]


def _raw(reply: Reply) -> list[Any]:
    """The same reply as bytes, for a head that comes late."""
    return [b"HTTP/1.1 %d Told\r\nConnection: close\r\n\r\n" % reply.status, *reply.pieces]


def test_a_turn_with_tools_runs_here_and_its_history_is_valid() -> None:
    @tool
    def weather(city: str) -> str:
        """Tell it."""
        return f"rain in {city}"

    script: list[Reply | bytes] = [calls(call("weather", OSLO, id="a")), says("It rains.")]
    with StandIn(script) as server, closing(connect(server.url)) as model:
        session = Session(model, tools=[weather])
        reply = session.ask("How is Oslo?")
    assert reply.text == "It rains."
    assert [m["role"] for m in server.asked[1].body["messages"]] == ["user", "assistant", "tool"]
    assert server.asked[1].body["messages"][2]["content"] == "rain in Oslo"
    assert broken_calls(session.history) == broken_order(session.history) == []
