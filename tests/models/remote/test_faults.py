"""Whatever a server does, a turn ends with the right answer or a named error; its history is valid, and no tool runs twice.

A turn has two steps: the model calls a tool, then it answers from the result. A fault hits one of them. After it, the same
session asks a sound server again. ``LLM_MAGICS_FAULTS=all`` cuts the streams at each byte; without, at every 41st.
"""

from __future__ import annotations

import json
import os
import re
import socket
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest

from llm_magics import Session, tool
from llm_magics.errors import LLMMagicsError, ServerError
from llm_magics.models.remote import asking, events
from llm_magics.models.remote.model import connect
from llm_magics.models.remote.settings import ServerSettings, Waits
from tests.history_checks import broken_calls, broken_order
from tests.models.remote.standin import HOLD, RESET, Reply, StandIn, chunk, json_reply, says, sse

PATIENT, QUICK = Waits(connect=30, first=30, gap=30), Waits(connect=30, first=1, gap=0.8)
RECORDED = Path(__file__).parent / "recorded"
NEAR_MISS = (RECORDED / "near_miss.sse").read_bytes()  # of llama-server with a small model, whose call it passes on as text
CALLS = (RECORDED / "call.sse").read_bytes()
ANSWER = (RECORDED / "answer.sse").read_bytes()
STEP = 1 if os.environ.get("LLM_MAGICS_FAULTS") == "all" else 41


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a turn went: its answer or its error, and the cities that the tool was asked for."""

    text: str
    error: LLMMagicsError | None
    ran: list[str]
    n_asked: int


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Retries come at once."""
    monkeypatch.setattr(asking, "FIRST_DELAY", 0.01)


def turn(*script: Reply | bytes, waits: Waits = PATIENT) -> Outcome:
    """Run a turn against a script, check what must always hold, and ask once more."""
    ran: list[str] = []

    @tool
    def weather(city: str) -> str:
        """Tell the weather of a city."""
        ran.append(city)
        return "rain"

    sound = says("I am well.")
    error: LLMMagicsError | None = None
    with StandIn(script) as server, closing(connect(server.url, ServerSettings(waits=waits))) as model:
        session = Session(model, tools=[weather])
        try:
            session.ask("How is the weather in Oslo?")
        except LLMMagicsError as caught:
            error = caught
        assert error is None or (error.what.strip() and error.next_action.strip())
        n_asked, reply = len(server.asked), session.reply
        assert reply is not None
        assert broken_calls(session.history) == broken_order(session.history) == []
        assert len(ran) <= 1
        assert reply.finish_reason == ("error" if error else "stop")
        server.script = [Reply([sound])]
        assert session.ask("And you?").text == "I am well."
        assert broken_calls(session.history) == broken_order(session.history) == []
    return Outcome(reply.text, error, ran, n_asked)


def right(outcome: Outcome) -> bool:
    return outcome.error is None and outcome.ran == ["Oslo"] and outcome.text == _text_of(ANSWER)


def _text_of(stream: bytes) -> str:
    values = [json.loads(line[6:]) for line in stream.decode().splitlines() if line.startswith("data: {")]
    deltas = [one["choices"][0]["delta"] for one in values if one.get("choices")]
    return "".join(delta.get("content") or "" for delta in deltas)


def _complete_from(stream: bytes) -> int:
    """How many bytes are enough: up to the end of the value with the finish reason."""
    line = next(line for line in stream.split(b"\n") if b'"finish_reason":"' in line.replace(b" ", b""))
    return stream.index(line) + len(line)


def test_without_a_fault_it_is_right() -> None:
    assert right(turn(CALLS, ANSWER))


# --- cut streams ------------------------------------------------------------------------------------------------------------

ENDINGS = {"closed": {}, "reset": {}, "chunked": {"chunked": True, "cut": True}}


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("step", ["call", "answer"])
def test_a_stream_cut_at_any_byte_is_a_truncation_or_complete(step: str, ending: str) -> None:
    stream = CALLS if step == "call" else ANSWER
    enough = _complete_from(stream)
    places = {*range(0, len(stream), STEP), enough - 1, enough, enough + 1, len(stream)}
    for at in sorted(places):
        cut = Reply([stream[:at], *([RESET] if ending == "reset" else [])], **ENDINGS[ending])
        outcome = turn(cut, ANSWER) if step == "call" else turn(CALLS, cut)
        if at >= enough and ending != "reset":
            assert right(outcome), at
        elif ending == "reset" and at >= enough:  # a reset may take bytes with it that were sent before
            assert right(outcome) or isinstance(outcome.error, ServerError), at
        else:
            assert isinstance(outcome.error, ServerError), at
            assert outcome.ran == ([] if step == "call" else ["Oslo"]), at


def test_a_recorded_stream_cut_at_any_byte_is_a_truncation_or_complete() -> None:
    enough = _complete_from(NEAR_MISS)
    for at in sorted({*range(0, len(NEAR_MISS), 5 * STEP if STEP > 1 else 1), enough - 1, enough, len(NEAR_MISS)}):
        outcome = turn(Reply([NEAR_MISS[:at]], chunked=at % 2 == 0, cut=True), ANSWER)
        assert right(outcome) if at >= enough else isinstance(outcome.error, ServerError), at
        assert outcome.ran == (["Oslo"] if at >= enough else []), at


# --- all other faults -------------------------------------------------------------------------------------------------------

_HTML = {"Content-Type": "text/html"}
_JSON = {"Content-Type": "application/json"}


def _drip(stream: bytes, seconds: float) -> list[Any]:
    return [piece for byte in stream for piece in (bytes([byte]), seconds)]


def _delta(**delta: Any) -> bytes:
    return sse(chunk(delta), chunk({}, "stop"))


def _tool_calls(*made: Any) -> bytes:
    return sse(chunk({"tool_calls": list(made)}), chunk({}, "tool_calls"))


HALF = sse(chunk({"content": "Half an"}), done=False)

# what a server does instead of its first answer -> what the error says; a second request finds the sound answers
ERRORS: dict[str, tuple[Reply | bytes, str]] = {
    "nothing at all": (Reply([HOLD], status=0), "silent for 1 s before its answer"),
    "a head, then nothing": (Reply([HOLD]), "silent for 1 s before its answer"),
    "comments for ever": (Reply([b": wait\n\n", 0.1] * 20), "silent for 1 s"),
    "silence in mid-answer": (Reply([HALF, HOLD]), "silent for 0.8 s in its answer"),
    "comments in mid-answer": (Reply([HALF, *[b": wait\n\n", 0.1] * 20]), "silent for 0.8 s in its answer"),
    "a line that drips without end": (Reply([HALF, *_drip(b"data: " + b"x" * 40, 0.05)]), "silent for 0.8 s"),
    "an empty body": (Reply([]), "ended before the answer did"),
    "only [DONE] is missing, and the reason": (Reply([HALF]), "ended before the answer did"),
    "a page": (
        Reply([b"<html><body>Welcome to nginx!</body></html>"], headers=_HTML),
        "answers with text/html.*Welcome to nginx",
    ),
    "a page as a stream": (Reply([b"<!doctype html><title>Proxy</title>"]), "instead of a completion"),
    "plain text": (Reply([b"OK"], headers={"Content-Type": "text/plain"}), "text/plain instead of a completion: OK"),
    "an array": (Reply([b"[1, 2]"], headers=_JSON), "application/json instead of a completion"),
    "a picture": (Reply([b"\x89PNG\r\n\x1a\n\0\0"], headers={"Content-Type": "image/png"}), "image/png instead"),
    "no content type": (Reply([b"hello"], headers={}), "no content type instead"),
    "compressed": (Reply([b"\x1f\x8b\x08"], headers={"Content-Encoding": "gzip"}), "compresses its answer"),
    "half of a JSON body": (Reply([b'{"choices": [{"mess'], headers=_JSON), "ended before the answer did"),
    "a JSON body without a reason": (json_reply({"choices": [{"message": {"content": "hi"}}]}), "ended before the answer"),
    "an error with status 200": (json_reply({"error": {"message": "no such model"}}), "reports an error: no such model"),
    "an error as a text": (sse({"error": "overloaded"}), "reports an error: overloaded"),
    "an error in mid-stream": (HALF + sse({"error": {"message": "out of memory", "code": 500}}), "error: out of memory"),
    "an error event": (HALF + b'event: error\ndata: {"message": "broken"}\n\n', "reports an error: broken"),
    "an error event in words": (HALF + b"event: error\ndata: it broke\n\n", "reports an error: it broke"),
    "an error as a field": (HALF + b'error: {"code": 500, "message": "slot lost"}\n\n', "reports an error: slot lost"),
    "an error as a finish reason": (sse(chunk({"content": "a"}), chunk({}, "error")), "ended with an error"),
    "data that are not JSON": (HALF + b"data: {oops}\n\n", r"not JSON: '\{oops\}'"),
    "deep JSON": (b"data: " + b"[" * 100_000 + b"\n\n", "not JSON"),
    "a number as a chunk": (b"data: 5\n\n", "must be an object"),
    "choices that are an object": (sse({"choices": {"a": 1}}), "choices must be an array"),
    "a choice that is a text": (sse({"choices": ["a"]}), "must be an object"),
    "a delta that is a text": (sse({"choices": [{"delta": "a"}]}), "delta must be an object"),
    "content that is a number": (_delta(content=5), "content must be a string"),
    "calls that are an object": (_delta(tool_calls={"a": 1}), "tool_calls must be an array"),
    "a call that is a text": (_tool_calls("weather"), "must be an object"),
    "a call without a name": (_tool_calls({"index": 0, "function": {"arguments": "{}"}}), "name must be a string"),
    "a name that is a number": (_tool_calls({"index": 0, "function": {"name": 5, "arguments": "{}"}}), "name must be"),
    "a function that is a text": (_tool_calls({"index": 0, "function": "weather"}), "function must be an object"),
    "a reason that is a number": (
        sse(chunk({"content": "a"}), {"choices": [{"delta": {}, "finish_reason": 5}]}),
        "finish_reason",
    ),
    "progress that is a text": (sse({"prompt_progress": "half"}), "prompt_progress must be an object"),
    "no HTTP": (Reply([b"SSH-2.0-OpenSSH_9.2\r\n"], status=0), "broke off"),
    "half a head": (Reply([b"HTTP/1.1 200 OK\r\nContent-Ty"], status=0), "broke off"),
    "a status that is a word": (Reply([b"HTTP/1.1 fine\r\n\r\n"], status=0), "broke off"),
    "a head without end": (Reply([b"HTTP/1.1 200 OK\r\n" + b"X-A: b\r\n" * 40_000], status=0), "broke off"),
    "fewer bytes than promised": (Reply([HALF], headers={"Content-Length": "9999"}), "broke off"),
    "a chunk size that is none": (Reply([b"zz\r\n"], headers={"Transfer-Encoding": "chunked"}), "broke off"),
    "reset after the head": (Reply([0.05, RESET]), "broke off"),
    "reset in mid-answer": (Reply([HALF, 0.05, RESET]), "broke off"),
    "a whole call, then a reset": (
        Reply([CALLS[: CALLS.rindex(b"data: {", 0, _complete_from(CALLS))], 0.05, RESET]),
        "broke off",
    ),
}
for _status in (301, 302, 303, 307, 308):
    _there = {"Location": "http://127.0.0.1:1/v1/chat/completions?key=secret"}
    ERRORS[f"{_status} to another host"] = Reply(status=_status, headers=_there), r"redirects to 127\.0\.0\.1 \(HTTP"
    ERRORS[f"{_status} on this host"] = Reply(status=_status, headers={"Location": "/v2"}), r"redirects \(HTTP"
    ERRORS[f"{_status} to nowhere"] = Reply(status=_status, headers={}), r"redirects \(HTTP"
for _status in (400, 401, 403, 404, 405, 409, 410, 413, 418, 422, 501, 505):
    ERRORS[f"{_status} in JSON"] = json_reply({"error": {"message": "not so"}}, _status), rf"HTTP {_status}\): not so"
    ERRORS[f"{_status} as a page"] = Reply([b"<h1>No</h1>"], _status, _HTML), rf"HTTP {_status}\): No"
    ERRORS[f"{_status} as detail"] = json_reply({"detail": [{"msg": "not so"}]}, _status), rf"HTTP {_status}\): .*not so"
    ERRORS[f"{_status} without a word"] = Reply([], _status), rf"HTTP {_status}\)"
    ERRORS[f"{_status}, then silence"] = Reply([b"Not", HOLD], _status), rf"HTTP {_status}\)"


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asking.body_of, "__defaults__", (64 * 1024, 0.3))


@pytest.mark.parametrize("name", ERRORS)
def test_a_fault_in_the_first_step_is_a_named_error(name: str, impatient: None) -> None:
    fault, said = ERRORS[name]
    outcome = turn(fault if isinstance(fault, Reply) else Reply([fault]), CALLS, ANSWER, waits=waits_for(said))
    if name in RETRIED:  # it came before the first byte, so that the request was sent again, and the sound answers came
        assert right(outcome)
        return
    assert isinstance(outcome.error, ServerError)
    assert_said(outcome, said)
    assert (outcome.ran, outcome.n_asked) == ([], 1)


@pytest.mark.parametrize("name", ERRORS)
def test_a_fault_in_the_second_step_is_a_named_error_and_nothing_runs_again(name: str, impatient: None) -> None:
    fault, said = ERRORS[name]
    outcome = turn(CALLS, fault if isinstance(fault, Reply) else Reply([fault]), ANSWER, waits=waits_for(said))
    assert isinstance(outcome.error, ServerError)
    assert_said(outcome, said)
    assert (outcome.ran, outcome.n_asked) == (["Oslo"], 2)


RETRIED = ("no HTTP", "half a head", "a status that is a word", "a head without end")


def waits_for(said: str) -> Waits:
    """Short time-outs for what they are to end; elsewhere a slow machine must not meet them."""
    return QUICK if "silent" in said else PATIENT


def assert_said(outcome: Outcome, said: str) -> None:
    assert re.search(said, str(outcome.error)), outcome.error
    assert "secret" not in str(outcome.error)


BUSY = {
    "429": Reply([], 429),
    "429, again in no time": json_reply({"error": "slow down"}, 429, Retry_After="0"),
    "429, until a date": json_reply({}, 429, Retry_After=format_datetime(datetime.now(UTC) - timedelta(hours=1))),
    "429, until nobody knows when": json_reply({}, 429, Retry_After="soon"),
    "429, in negative time": json_reply({}, 429, Retry_After="-5"),
    "503": Reply([b"loading"], 503),
}
LOST = {
    "408": Reply([], 408), "500": Reply([b"oops"], 500), "500 as a page": Reply([b"<h1>Oops</h1>"], 500, _HTML),
    "502": Reply([], 502), "504": Reply([], 504), "reset before the head": Reply([RESET], status=0),
    "closed before the head": Reply([], status=0),
}  # fmt: skip


@pytest.mark.parametrize("name", [*BUSY, *LOST])
def test_what_comes_before_the_first_byte_is_tried_again_and_not_for_ever(name: str) -> None:
    fault = {**BUSY, **LOST}[name]
    assert right(turn(fault, CALLS, ANSWER))
    assert right(turn(fault, fault, CALLS, ANSWER))
    outcome = turn(fault)
    assert isinstance(outcome.error, ServerError)
    assert outcome.n_asked == asking.ATTEMPTS


@pytest.mark.parametrize("name", BUSY)
def test_behind_a_tool_s_result_a_request_is_sent_again_if_the_server_did_not_take_it(name: str) -> None:
    outcome = turn(CALLS, BUSY[name], ANSWER)
    assert right(outcome)
    assert outcome.n_asked == 3


@pytest.mark.parametrize("name", LOST)
def test_behind_a_tool_s_result_nothing_else_is_sent_again(name: str) -> None:
    outcome = turn(CALLS, LOST[name], ANSWER)
    assert isinstance(outcome.error, ServerError)
    assert (outcome.ran, outcome.n_asked) == (["Oslo"], 2)


@pytest.mark.parametrize("after", ["31", "86400", "two days from now"])
def test_a_server_that_wants_too_long_a_wait_is_not_waited_for(after: str) -> None:
    after = after if after.isdigit() else format_datetime(datetime.now(UTC) + timedelta(days=2))
    outcome = turn(json_reply({"error": "later"}, 429, Retry_After=after), CALLS, ANSWER)
    assert "asks to wait" in str(outcome.error)
    assert outcome.n_asked == 1


SOUND = {
    "slow drips": Reply(_drip(CALLS, 0.0005)),
    "pauses shorter than the gap": Reply([CALLS[:200], 0.05, CALLS[200:400], 0.05, CALLS[400:]]),
    "the wrong content type": Reply([CALLS], headers=_HTML),
    "no content type": Reply([CALLS], headers={}),
    "chunked": Reply([CALLS[:99], CALLS[99:]], chunked=True),
    "silence behind the finish reason": Reply([CALLS[: _complete_from(CALLS)] + b"\n\n", HOLD]),
    "more behind [DONE]": Reply([CALLS + b"data: {oops}\n\n"]),
    "a reset behind [DONE]": Reply([CALLS, 0.3, RESET]),
    "bytes that are no UTF-8 in a comment": Reply([b": \xff\xfe\n\n" + CALLS]),
    "a long comment": Reply([b": " + b"x" * 1_000_000 + b"\n\n" + CALLS]),
    "a content length": Reply([CALLS], headers={"Content-Length": str(len(CALLS))}),
}


@pytest.mark.parametrize("name", SOUND)
def test_what_is_only_strange_is_read(name: str) -> None:
    assert right(turn(SOUND[name], ANSWER))


def test_text_that_is_no_utf_8_is_marked_and_read() -> None:
    outcome = turn(CALLS, says("a~b").replace(b"~", b"\xff"))
    assert outcome.text == "a\ufffdb"


def test_lines_and_answers_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    huge = b"x" * (events.MAX_LINE + 1)
    for fault in (b"data: " + huge, HALF + b'data: {"choices": "' + huge, b": " + huge, b"{" + huge):
        outcome = turn(Reply([fault, HOLD]), CALLS, ANSWER)
        assert isinstance(outcome.error, ServerError)
        assert "silent" not in str(outcome.error)
    monkeypatch.setattr(events, "MAX_REPLY", 50_000)
    endless = Reply([sse(*[chunk({"content": "again "})] * 20, done=False)] * 60)
    assert "longer than" in str(turn(endless).error)


def test_a_port_where_nobody_listens_is_said_at_once() -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{bound.getsockname()[1]}/v1"
        with pytest.raises(ServerError, match=r"No server can be reached at 127\.0\.0\.1:\d+: .*refused"):
            connect(url)


def test_a_server_that_dies_between_two_steps_is_a_named_error() -> None:
    ran: list[str] = []
    with StandIn([CALLS]) as server, closing(connect(server.url, ServerSettings(waits=PATIENT))) as model:

        @tool
        def weather(city: str) -> str:
            """Tell it."""
            ran.append(city)
            server.__exit__()
            return "rain"

        session = Session(model, tools=[weather])
        with pytest.raises(ServerError, match="No server can be reached"):
            session.ask("How is Oslo?")
    assert ran == ["Oslo"]
    assert broken_calls(session.history) == broken_order(session.history) == []


def test_there_are_enough_faults() -> None:
    n_cuts = 2 * len(ENDINGS) * len(range(0, min(len(CALLS), len(ANSWER)), STEP))
    assert 2 * len(ERRORS) + 3 * len(BUSY) + 2 * len(LOST) + len(SOUND) + n_cuts >= 200
