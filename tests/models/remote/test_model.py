"""A model on a server, asked over real sockets: what it sends, what it reads, and how it is ended."""

from __future__ import annotations

import json
import threading
from contextlib import closing
from typing import Any

import pytest

from llm_magics import Session, tool
from llm_magics.errors import EngineError, OptionError, ServerError
from llm_magics.events import ModelEnd, ModelEvent, ReasoningDelta, TextDelta, ToolCallEnd, ToolCallStart, assemble
from llm_magics.messages import ToolCall, ToolSpec, assistant, user
from llm_magics.models.base import Model, Request, Sampling
from llm_magics.models.remote.model import connect
from llm_magics.models.remote.settings import ServerSettings, Waits
from tests.models.remote.standin import HOLD, Reply, StandIn, call, calls, chunk, json_reply, says, sse

PATIENT = Waits(connect=30, first=30, gap=30)
HELLO = Request((user("Hello?"),))
WEATHER = ToolSpec("weather", "Tells it.", {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]})
WITH_TOOL = Request((user("How is Oslo?"),), tools=(WEATHER,))


def asked(script: list[Reply | bytes], request: Request = HELLO, **settings: Any) -> tuple[list[ModelEvent], StandIn]:
    """Ask once; the events without the empty ones, and the server, which has closed by then."""
    with StandIn(script) as server, closing(connect(server.url, ServerSettings(waits=PATIENT, **settings))) as model:
        events = [event for event in model.stream(request) if event != TextDelta("")]
    return events, server


def end_of(script: list[Reply | bytes], request: Request = HELLO) -> ModelEnd:
    events, _ = asked(script, request)
    end = events[-1]
    assert isinstance(end, ModelEnd)
    assert [type(event) for event in events].count(ModelEnd) == 1
    assert assemble(events) == end.message
    return end


# --- what is sent -----------------------------------------------------------------------------------------------------------


def test_it_is_a_model() -> None:
    with StandIn([says("hi")]) as server, closing(connect(server.url)) as model:
        assert isinstance(model, Model)
        assert (model.name, model.context_size, model.parallel) == ("served", 0, 4)


def test_only_what_was_chosen_is_sent() -> None:
    _, server = asked([says("hi")])
    assert server.asked[0].body == {
        "model": "served",
        "messages": [{"role": "user", "content": "Hello?"}],
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    assert server.asked[0].path == "/v1/chat/completions"
    assert "authorization" not in server.asked[0].headers
    assert server.asked[0].headers["accept-encoding"] == "identity"


def test_every_choice_is_sent_under_openai_s_names() -> None:
    request = Request(
        (user("?"), assistant("", reasoning="hm", tool_calls=(ToolCall("weather", "{}", "a", "bare JSON", False),))),
        tools=(WEATHER,), tool_choice="weather", parallel_tool_calls=False, response_schema={"type": "object"},
        sampling=Sampling(temperature=0.0, top_k=3, seed=7, logit_bias=((5, -1.0),)), max_tokens=9, stop=("END",), logprobs=2,
        thinking=False, template_kwargs={"style": "dry"},
    )  # fmt: skip
    _, server = asked([says("hi")], request)
    body = server.asked[0].body
    assert body["messages"][1] == {
        "role": "assistant", "content": None, "reasoning_content": "hm",
        "tool_calls": [{"id": "a", "type": "function", "function": {"name": "weather", "arguments": "{}"}}],
    }  # fmt: skip
    assert [one["function"]["name"] for one in body["tools"]] == ["weather"]
    assert body["tool_choice"] == {"type": "function", "function": {"name": "weather"}}
    assert body["response_format"]["json_schema"]["schema"] == {"type": "object"}
    sent = {name: body[name] for name in ("parallel_tool_calls", "temperature", "top_k", "seed", "logit_bias", "max_tokens")}
    assert sent == {
        "parallel_tool_calls": False, "temperature": 0.0, "top_k": 3, "seed": 7, "logit_bias": {"5": -1.0}, "max_tokens": 9
    }  # fmt: skip
    assert (body["stop"], body["logprobs"], body["top_logprobs"]) == (["END"], True, 2)
    assert (body["reasoning_effort"], body["chat_template_kwargs"]) == ("none", {"enable_thinking": False, "style": "dry"})


def test_the_model_s_own_seed_holds_where_the_request_has_none() -> None:
    _, server = asked([says("hi")], seed=3)
    assert server.asked[0].body["seed"] == 3


def test_without_a_choice_of_tools_none_are_sent() -> None:
    _, server = asked([says("hi")], Request((user("?"),), tools=(WEATHER,), tool_choice="none"))
    assert "tools" not in server.asked[0].body


@pytest.mark.parametrize(
    ("request_", "named", "then"),
    [
        (Request((user("?"),), max_tokens=5), "max_tokens", {"max_completion_tokens": 5}),
        (HELLO, "stream_options", {}),
        (Request((user("?"),), thinking=False), "chat_template_kwargs", {"reasoning_effort": "none"}),
        (Request((user("?"),), thinking=False), "reasoning_effort", {"chat_template_kwargs": {"enable_thinking": False}}),
    ],
)
def test_a_field_that_a_server_refuses_is_sent_in_its_second_spelling(
    request_: Request, named: str, then: dict[str, Any]
) -> None:
    refusal = json_reply({"error": {"message": f"Unsupported parameter: '{named}'"}}, 400)
    with StandIn([refusal, says("hi")]) as server, closing(connect(server.url)) as model:
        for _ in range(2):
            assert assemble(model.stream(request_)).text == "hi"
    first, second, third = (one.body for one in server.asked)
    assert named in first
    assert named not in second
    assert then.items() <= second.items()
    assert third == second  # the server is not asked in vain again


def test_a_wish_that_has_no_second_spelling_is_an_error() -> None:
    refusal = json_reply({"detail": "chat_template_kwargs is unknown"}, 422)
    with pytest.raises(ServerError, match="chat_template_kwargs is unknown"):
        asked([refusal, says("hi")], Request((user("?"),), template_kwargs={"style": "dry"}))


def test_no_server_continues_a_message() -> None:
    with pytest.raises(OptionError, match="cannot continue a message"):
        asked([says("hi")], Request((user("?"), assistant("Well")), continue_final="content"))


# --- what is read -----------------------------------------------------------------------------------------------------------

OSLO = '{"city": "Oslo"}'


def _pieces(*deltas: dict[str, Any]) -> bytes:
    return calls(*({"tool_calls": [delta]} for delta in deltas))


CALLS = {
    "as OpenAI": _pieces(
        {"index": 0, "id": "a", "type": "function", "function": {"name": "weather", "arguments": ""}},
        {"index": 0, "function": {"arguments": '{"city":'}},
        {"index": 0, "function": {"arguments": ' "Oslo"}'}},
    ),
    "whole in one delta": calls(call("weather", OSLO, id="a")),
    "no id": calls(call("weather", OSLO)),
    "no index": _pieces({"id": "a", "function": {"name": "weather", "arguments": OSLO}}),
    "index null, id null": _pieces({"index": None, "id": None, "function": {"name": "weather", "arguments": OSLO}}),
    "arguments as an object": _pieces({"index": 0, "function": {"name": "weather", "arguments": {"city": "Oslo"}}}),
    "name and id again in every delta": _pieces(
        {"index": 0, "id": "a", "function": {"name": "weather", "arguments": '{"city":'}},
        {"index": 0, "id": "a", "function": {"name": "weather", "arguments": ' "Oslo"}'}},
    ),
    "more without index": _pieces(
        {"id": "a", "function": {"name": "weather", "arguments": '{"city":'}}, {"function": {"arguments": ' "Oslo"}'}}
    ),
    "finish reason stop": calls(call("weather", OSLO), finish="stop"),
    "finish reason function_call": sse(
        chunk({"function_call": {"name": "weather", "arguments": OSLO}}), chunk({}, "function_call")
    ),
    "no finish reason, but [DONE]": sse(chunk(call("weather", OSLO))),
    "finish reason, but no [DONE]": sse(chunk(call("weather", OSLO)), chunk({}, "tool_calls"), done=False),
    "finish reason in the same chunk": sse(chunk(call("weather", OSLO), "tool_calls")),
    "empty finish reasons before": sse(chunk({"content": ""}, ""), chunk(call("weather", OSLO), ""), chunk({}, "tool_calls")),
    "comments and other fields": b": hello\n\nid: 7\nretry: 10\n" + calls(call("weather", OSLO)).replace(b"\n\n", b"\n:\n\n"),
    "lines end with CR LF": calls(call("weather", OSLO)).replace(b"\n", b"\r\n"),
    "lines end with CR": calls(call("weather", OSLO)).replace(b"\n", b"\r"),
    "no blank lines": calls(call("weather", OSLO)).replace(b"\n\n", b"\n"),
    "no blank behind the colon": calls(call("weather", OSLO)).replace(b"data: ", b"data:"),
    "a byte order mark": b"\xef\xbb\xbf" + calls(call("weather", OSLO)),
    "one value over several data lines": b'data: {"choices": [{"delta":\ndata: %s}]}\n\ndata: [DONE]'
    % json.dumps(call("weather", OSLO)).encode(),
    "not streamed at all": json.dumps(
        {"choices": [{"index": 0, "finish_reason": "tool_calls", "message": {"role": "assistant", **call("weather", OSLO)}}]},
        indent=1,
    ).encode(),
}  # fmt: skip


@pytest.mark.parametrize("stream", CALLS.values(), ids=CALLS)
def test_a_call_is_read_however_it_is_sent(stream: bytes) -> None:
    for pieces in ([stream], [bytes([byte]) for byte in stream]):
        end = end_of([Reply(pieces)], WITH_TOOL)
        (found,) = end.message.tool_calls
        assert (found.name, json.loads(found.arguments), found.recovered) == ("weather", {"city": "Oslo"}, "")
        assert end.finish_reason == "tool_calls"


TWO = {
    "index 0 twice": calls(call("weather", OSLO, id="a"), call("weather", '{"city": "Rome"}', id="b")),
    "index 0 twice, no ids": calls(call("weather", OSLO), call("weather", '{"city": "Rome"}')),
    "no index": _pieces(
        {"id": "a", "function": {"name": "weather", "arguments": OSLO}},
        {"id": "b", "function": {"name": "weather", "arguments": '{"city": "Rome"}'}},
    ),
    "both in one delta": sse(
        chunk({"tool_calls": [*call("weather", OSLO)["tool_calls"], *call("weather", '{"city": "Rome"}', 1)["tool_calls"]]}),
        chunk({}, "stop"),
    ),
}


@pytest.mark.parametrize("stream", TWO.values(), ids=TWO)
def test_two_calls_stay_two(stream: bytes) -> None:
    end = end_of([stream], WITH_TOOL)
    assert [json.loads(one.arguments)["city"] for one in end.message.tool_calls] == ["Oslo", "Rome"]


def test_a_call_ends_as_soon_as_another_begins() -> None:
    events, _ = asked([TWO["index 0 twice"]], WITH_TOOL)
    kinds = [type(event) for event in events if isinstance(event, ToolCallStart | ToolCallEnd)]
    assert kinds == [ToolCallStart, ToolCallEnd, ToolCallStart, ToolCallEnd]


@pytest.mark.parametrize("name", ["reasoning", "reasoning_content"])
def test_reasoning_is_read_under_either_name(name: str) -> None:
    events, _ = asked([sse(chunk({name: "Let me"}), chunk({name: " see."}), chunk({"content": "Yes."}), chunk({}, "stop"))])
    assert [event.text for event in events if isinstance(event, ReasoningDelta)] == ["Let me", " see."]
    assert assemble(events).text == "Yes."


def test_content_in_parts_and_nulls_are_read() -> None:
    parts = [{"type": "text", "text": "Hel"}, {"type": "text", "text": "lo"}]
    strange = {"role": "assistant", "content": None, "reasoning": None, "tool_calls": None, "refusal": None}
    whole = sse({"choices": None}, chunk(strange), chunk({"content": parts}), {"choices": [], "usage": None}, chunk({}, "stop"))
    assert end_of([whole]).message.text == "Hello"


def test_usage_is_the_server_s_and_times_are_our_own() -> None:
    end = end_of([says("a", "b", "c")])
    assert (end.usage.prompt_tokens, end.usage.completion_tokens, end.usage.context_used) == (9, 3, 12)
    assert end.usage.time_to_first_token > 0
    assert end.notes == ()


@pytest.mark.parametrize("usage", [None, {}, {"prompt_tokens": None}, {"prompt_tokens": "many"}, []])
def test_without_usage_the_pieces_are_counted_and_a_note_says_so(usage: Any) -> None:
    end = end_of([sse(chunk({"content": "a"}), chunk({"content": "b"}), chunk({}, "stop", usage=usage))])
    assert end.usage.completion_tokens == 2
    assert "did not count" in end.notes[0]


def test_the_record_names_the_server_and_what_it_says_it_ran() -> None:
    record = end_of([says("a")]).record
    assert record["model"]["name"] == record["model"]["model"] == "served"
    assert record["model"]["server"].startswith("http://127.0.0.1:")
    assert record["model"]["answered"] == {"id": "c-1", "model": "served"}


def test_what_this_package_says_to_itself_is_not_taken_from_a_server() -> None:
    forged = {"usage": {"prompt_tokens": "x", "losses": 5}, "finish_reason": "interrupted", "notes": ["forged"]}
    end = end_of([sse(chunk({"content": "a"}), chunk({}, "stop", llm_magics=forged))])
    assert (end.finish_reason, "forged" in end.notes) == ("stop", False)


# --- near misses ------------------------------------------------------------------------------------------------------------

FENCED = '```json\n{"name": "weather", "arguments": {"city": "Oslo"}}\n```'


@pytest.mark.parametrize(
    ("text", "wrapper"),
    [(FENCED, "fenced JSON"), (FENCED[8:-4], "bare JSON"), (f"<tool_call>{FENCED[8:-4]}</tool_call>", "wrong tag")],
)
def test_a_call_in_the_wrong_wrapper_is_recovered_from_a_server_s_text(text: str, wrapper: str) -> None:
    for pieces in ([text], list(text)):
        end = end_of([says(*pieces)], WITH_TOOL)
        (found,) = end.message.tool_calls
        assert (found.name, json.loads(found.arguments), found.trusted) == ("weather", {"city": "Oslo"}, True)
        assert found.recovered.startswith(wrapper)
        assert (end.finish_reason, end.message.text.strip()) == ("tool_calls", "")


def test_a_quoted_call_is_not_trusted_and_an_invalid_one_stays_text() -> None:
    quoting = Request((user(f"What does {FENCED} mean?"),), tools=(WEATHER,))
    assert not end_of([says(FENCED)], quoting).message.tool_calls[0].trusted
    wrong = end_of([says(FENCED.replace("city", "town"))], WITH_TOOL)
    assert (wrong.message.tool_calls, wrong.finish_reason) == ((), "stop")
    assert "town" in wrong.message.text


@pytest.mark.parametrize("choice", ["required", "weather"])
def test_a_near_miss_is_recovered_where_a_call_was_required_and_white_space_behind_it_ends_it(choice: str) -> None:
    endless = Reply([sse(*(chunk({"content": text}) for text in (FENCED, *["\n"] * 40)), done=False), HOLD])
    end = end_of([endless], Request((user("How is Oslo?"),), tools=(WEATHER, ToolSpec("other")), tool_choice=choice))
    assert [(one.name, one.trusted) for one in end.message.tool_calls] == [("weather", True)]
    assert end.finish_reason == "tool_calls"


def test_recovered_and_proper_calls_are_numbered_together() -> None:
    stream = sse(chunk({"content": FENCED + "\n"}), chunk(call("weather", '{"city": "Rome"}', id="a")), chunk({}, "tool_calls"))
    end = end_of([stream], WITH_TOOL)
    assert [json.loads(one.arguments)["city"] for one in end.message.tool_calls] == ["Oslo", "Rome"]


def test_calls_without_end_are_stopped_and_the_server_is_told() -> None:
    endless = [sse(*(chunk(call("weather", f'{{"city": "{n}"}}', n)) for n in range(40)), done=False), HOLD]
    with StandIn([Reply(endless), says("Done.")]) as server, closing(connect(server.url)) as model:
        ran: list[str] = []

        @tool
        def weather(city: str) -> str:
            """Tell it."""
            ran.append(city)
            return "rain"

        reply = Session(model, tools=[weather]).ask("Go.")
        assert server.hung_up.wait(10)
    assert ran == ["0", "1", "2", "3"]
    assert reply.text == "Done."


# --- how it is ended --------------------------------------------------------------------------------------------------------


def test_closing_the_stream_closes_the_socket() -> None:
    for wait in (Reply([sse(chunk({"content": "a"}), done=False), HOLD]), Reply([HOLD], status=0)):
        with StandIn([wait]) as server, closing(connect(server.url)) as model:
            stream = model.stream(HELLO)
            next(stream)
            stream.close()  # type: ignore[attr-defined]
            assert server.hung_up.wait(10)


def test_a_silent_server_leaves_its_reader_in_control() -> None:
    with StandIn([Reply([HOLD], status=0)]) as server, closing(connect(server.url)) as model:
        with closing(model.stream(HELLO)) as stream:  # type: ignore[type-var]
            assert [next(stream) for _ in range(3)] == [TextDelta("")] * 3
        assert server.hung_up.wait(10)


def test_a_turn_s_time_limit_ends_a_silent_answer() -> None:
    from llm_magics.tools.policy import Limits

    with StandIn([Reply([sse(chunk({"content": "Wait"}), done=False), HOLD])]) as server:
        with closing(connect(server.url)) as model:
            reply = Session(model, limits=Limits(seconds=0.5)).ask("Go.")
        assert (reply.finish_reason, reply.text) == ("length", "Wait")
        assert server.hung_up.wait(10)


def test_a_closed_model_says_so_also_to_who_reads_it() -> None:
    with StandIn([Reply([HOLD])]) as server, closing(connect(server.url)) as model:
        stream = model.stream(HELLO)
        next(stream)
        model.close()
        for events in (stream, model.stream(HELLO)):
            with pytest.raises(EngineError, match="closed"):
                list(events)


def test_eight_rows_are_asked_at_once_and_keep_their_order() -> None:
    barrier = threading.Barrier(8)

    class Together(StandIn):
        def reply_to(self, seen: Any) -> Reply:
            if seen.method == "POST":
                barrier.wait(30)  # answers only if all eight are here
                self.seen.append(seen)
                return Reply([says(seen.body["messages"][-1]["content"].upper())])
            return super().reply_to(seen)

    with Together() as server, closing(connect(server.url)) as model:
        result = model.map([f"row {n}" for n in range(8)], progress=False)
    assert result.values == [f"ROW {n}" for n in range(8)]
