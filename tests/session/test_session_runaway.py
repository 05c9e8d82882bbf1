"""Turns that run away: calls without end in one answer, and loops that outgrow the context. Each ends, and ends well."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_magics import ScriptedModel, Session
from llm_magics.errors import ContextFullError, ModelError, OptionError
from llm_magics.events import Event, ModelEnd, ModelEvent, Notice, TextDelta, ToolCallEnd, ToolCallStart, TurnEnd
from llm_magics.messages import Message, ToolCall
from llm_magics.models.base import Request
from llm_magics.segments import NoticeSegment
from llm_magics.tools.define.tool import make_tool
from llm_magics.tools.policy import Limits
from llm_magics.tools.runaway import is_series
from tests.history_checks import broken_calls, broken_frame, broken_order, broken_steps

from .test_session_tools import HERMES

CITIES = ["Oslo", "Rome", "Lima", "Cairo", "Delhi", "Quito", "Perth", "Tokyo", "Paris", "Sofia", "Minsk", "Accra"]


def calculate(expression: str) -> str:
    return f"= {expression}"


def weather(city: str) -> str:
    return f"rain in {city}"


def sums(n: int, recovered: str = "") -> list[ToolCall]:
    """e.g. ``calculate(expression="sqrt(144) + 3100")``, then 3125, 3150, ..."""
    texts = [json.dumps({"expression": f"sqrt(144) + {3100 + 25 * i}"}) for i in range(n)]
    return [ToolCall("calculate", text, recovered=recovered) for text in texts]


def cities(n: int, recovered: str = "") -> list[ToolCall]:
    names = [f"{CITIES[i % 12]}{'ab'[i // 12 % 2] * (i // 12)}" for i in range(n)]
    return [ToolCall("weather", json.dumps({"city": name}), recovered=recovered) for name in names]


def notices(reply: Any) -> list[str]:
    return [s.text for s in reply.trace.segments if isinstance(s, NoticeSegment)]


# --- calls without end in one answer ------------------------------------------------------------------------------------------


class Endless:
    """A model whose first answer writes calls as long as anybody reads; it counts them, and knows that it was closed."""

    name = "endless"
    context_size = 0

    def __init__(self, calls: Iterator[ToolCall], then: str = "done") -> None:
        self.calls, self.then = calls, then
        self.begun = 0
        self.closed = False
        self.requests: list[Request] = []

    def stream(self, request: Request) -> Iterator[ModelEvent]:
        self.requests.append(request)
        if len(self.requests) > 1:
            yield from ScriptedModel([self.then]).stream(request)
            return
        try:
            for index, call in enumerate(self.calls):
                self.begun += 1
                yield ToolCallStart(index, f"c{index}", call.name, call.recovered)
                yield ToolCallEnd(index, call)
        finally:
            self.closed = True

    def preview(self, request: Request) -> tuple[()]:
        return ()

    def close(self) -> None:
        pass


@pytest.mark.parametrize(
    ("calls", "ran", "said"),
    [
        (sums(1000), 4, "4 calls in a row differ in one number only"),
        (sums(1000, "fenced JSON"), 4, "4 calls in a row differ in one number only"),
        (cities(1000), 32, "after 32 calls"),
        (cities(1000, "fenced JSON"), 8, "after 8 calls"),
    ],
)
def test_an_answer_that_calls_for_ever_is_stopped_there_and_what_came_before_runs(
    calls: list[ToolCall], ran: int, said: str
) -> None:
    model = Endless(iter(calls))
    session = Session(model, [calculate, weather])
    events = list(session.turn("go"))
    reply = session.reply
    assert reply is not None
    assert (model.begun, model.closed) == (ran + 1, True)  # nobody read on
    assert [segment.state for segment in reply.trace.tools] == ["done"] * ran
    assert (reply.text, reply.finish_reason) == ("done", "stop")
    assert len(reply.messages[1].tool_calls) == ran
    assert [text for text in notices(reply) if said in text] == notices(reply)
    assert len(notices(reply)) == 1
    assert broken_calls(session.history) + broken_order(session.history) + broken_steps(events) + broken_frame(events) == []


def test_the_model_is_told_behind_the_last_result_that_it_was_stopped() -> None:
    model = Endless(iter(cities(100, "fenced JSON")))
    Session(model, [weather]).ask("go")
    results = [m.text for m in model.requests[-1].messages if m.role == "tool"]
    assert results[:-1] == [f"rain in {json.loads(call.arguments)['city']}" for call in cities(7)]
    assert results[-1].startswith("rain in Tokyo\n[Your answer was stopped here.")


@pytest.mark.parametrize("calls", [cities(10), sums(4), cities(7, "bare JSON"), [*sums(3), *cities(3), *sums(3)]])
def test_calls_that_are_meant_are_not_stopped(calls: list[ToolCall]) -> None:
    reply = Session(ScriptedModel([calls, "done"]), [calculate, weather]).ask("go")
    assert [segment.state for segment in reply.trace.tools] == ["done"] * len(calls)
    assert notices(reply) == []


def test_the_series_goes_on_in_the_next_answer() -> None:
    series = sums(10)
    model = ScriptedModel([series, series[4:], series[8:], "done"])
    reply = Session(model, [calculate]).ask("go")
    assert [segment.arguments for segment in reply.trace.tools] == [call.arguments for call in series]
    assert reply.text == "done"


def test_asking_a_clock_in_answer_after_answer_is_no_series() -> None:
    ticks = itertools.count()
    clock = make_tool(lambda: next(ticks), name="clock", repeats=True)
    reply = Session(ScriptedModel([*[ToolCall("clock", "{}")] * 8, "done"]), [clock]).ask("go")
    assert [segment.state for segment in reply.trace.tools] == ["done"] * 8
    assert (reply.text, notices(reply)) == ("done", [])


def of(name: str, values: Iterable[Any]) -> list[str]:
    return [json.dumps({name: value}) for value in values]


@pytest.mark.parametrize(
    ("arguments", "series"),
    [
        (of("n", range(4)), True),
        (of("path", ("log1.txt", "log2.txt", "log3.txt", "log4.txt")), True),
        (of("x", ("1 + 5", "1 + 6.5", "1 + -7", "1 + 8e3")), True),
        (of("n", range(3)), False),
        ([json.dumps({"a": n, "b": n}) for n in range(4)], False),
        (['{"a": 1, "b": 1}', '{"a": 2, "b": 1}', '{"a": 2, "b": 2}', '{"a": 3, "b": 2}'], False),
        (of("city", CITIES[:4]), False),
        (['{"n": 1}', '{"n": 2}', '{"n": 3}', '{"m": 4}'], False),
        (['{"n": 1, "m": 0}', '{"m": 0, "n": 2}', '{"n":3,"m":0}', '{"n": 4, "m": 0}'], True),  # spacing and order do not count
        (["no JSON 1", "no JSON 2", "no JSON 3", "no JSON 4"], True),
    ],
)
def test_a_series_differs_in_one_number_only(arguments: list[str], series: bool) -> None:
    assert is_series([ToolCall("f", text) for text in arguments]) is series


def test_calls_of_different_tools_are_no_series() -> None:
    assert not is_series([ToolCall("fg"[n % 2], f'{{"n": {n}}}') for n in range(4)])


def test_max_calls_is_a_limit_of_the_session_and_of_the_turn() -> None:
    session = Session(ScriptedModel([cities(12), "done"] * 2 + [cities(12, "bare JSON"), "done"]), [weather], max_calls=5)
    assert len(session.ask("go").trace.tools) == 5
    assert len(session.ask("go", max_calls=2).trace.tools) == 2
    assert len(session.ask("go", max_calls=11).trace.tools) == 11
    with pytest.raises(OptionError, match="calls must be a positive number"):
        session.ask("go", max_calls=0)


def test_the_native_syntax_of_a_template_is_stopped_too() -> None:
    text = "".join(f'<tool_call>\n{{"name": "weather", "arguments": {call.arguments}}}\n</tool_call>\n' for call in cities(60))
    session = Session(ScriptedModel([text, "done"], template=HERMES), [weather])
    reply = session.ask("go")
    assert [segment.state for segment in reply.trace.tools] == ["done"] * 32
    assert broken_calls(session.history) == []


# --- loops that outgrow the context -------------------------------------------------------------------------------------------


def reading(sizes: Iterator[int]) -> Any:
    def read(page: str) -> str:
        """Read a page."""
        return f"{page}: " + "words " * next(sizes)

    return read


def pages() -> Iterator[ToolCall]:
    return (ToolCall("read", json.dumps({"page": "page " + "x" * n})) for n in itertools.count(1))


def answers_in_words(calls: Iterator[ToolCall]) -> Any:
    """Call for ever, but answer where no tool may be called."""
    return lambda request: "the answer" if request.tool_choice == "none" else next(calls)


def test_a_turn_that_outgrows_the_context_by_itself_is_asked_for_its_answer() -> None:
    model = ScriptedModel(itertools.repeat(answers_in_words(pages())), context_size=1_000)
    session = Session(model, [reading(itertools.repeat(150))])
    reply = session.ask("Read it all.")
    assert (reply.text, reply.finish_reason) == ("the answer", "stop")
    assert 2 < len(reply.trace.tools) < 9
    assert [text for text in notices(reply) if "context of 1,000 tokens is nearly full" in text]
    assert model.requests[-1].messages[-1].text.endswith("in words.")
    assert broken_calls(session.history) + broken_order(session.history) == []


def test_results_that_leave_no_room_together_are_cut_and_the_reader_is_told() -> None:
    calls = [call for call, _ in zip(pages(), range(6), strict=False)]
    model = ScriptedModel([calls, answers_in_words(pages())], context_size=600)
    session = Session(model, [reading(itertools.repeat(2_000))])
    reply = session.ask("Read it all.")
    assert (reply.text, reply.finish_reason) == ("the answer", "stop")
    assert [text for text in notices(reply) if "characters of each result" in text]
    asked = [m.text for m in model.requests[-1].messages if m.role == "tool"]
    assert len(asked) == 6
    assert all("characters left out" in text for text in asked)
    assert len(reply.trace.tools[0].result or "") > len(asked[0])  # the record keeps what the tool gave


def test_a_question_that_does_not_fit_is_the_users_to_know() -> None:
    session = Session(ScriptedModel(["never said"], context_size=50))
    with pytest.raises(ContextFullError):
        session.ask("many words " * 100)
    assert session.history == ()


class Unknowing(ScriptedModel):
    """A model that does not say how large its context is, and refuses what is larger: as a server may."""

    @property
    def context_size(self) -> int:
        return 0


def test_a_model_that_does_not_know_its_context_is_asked_with_less_where_it_refuses() -> None:
    model = Unknowing(itertools.repeat(answers_in_words(pages())), context_size=800)
    reply = Session(model, [reading(itertools.repeat(150))]).ask("Read it all.")
    assert (reply.text, reply.finish_reason) == ("the answer", "stop")


limits = st.builds(Limits, steps=st.integers(1, 7), calls=st.integers(1, 5), recovered_calls=st.integers(1, 5),
                   result_chars=st.sampled_from([50, 8_000]))  # fmt: skip


@st.composite
def answers(draw: st.DrawFn) -> Any:
    """One answer of a model that never ends a turn by itself."""
    argument = st.integers(0, 3) | st.text("ab", max_size=3)
    call = st.builds(
        lambda page, recovered: ToolCall("read", json.dumps({"page": str(page)}), recovered=recovered),
        argument, st.sampled_from(["", "bare JSON"]),
    )  # fmt: skip
    calls = draw(st.lists(call, min_size=1, max_size=9))
    words = draw(st.sampled_from(["", "Let me see. ", "long " * 60]))
    return Message("assistant", words, reasoning=draw(st.sampled_from(["", "Hm. " * 40])), tool_calls=tuple(calls))


@given(st.lists(answers(), min_size=1, max_size=5), st.lists(st.integers(0, 3_000), min_size=1, max_size=5), limits,
       st.integers(60, 2_000), st.booleans())  # fmt: skip
@settings(max_examples=200, deadline=None)
def test_a_model_that_calls_for_ever_ends_every_turn_well(
    script: list[Any], sizes: list[int], limit: Limits, context_size: int, known: bool
) -> None:
    kind = ScriptedModel if known else Unknowing
    model = kind(itertools.cycle(script), context_size=context_size)
    session = Session(model, [make_tool(reading(itertools.cycle(sizes)), name="read")], limits=limit)
    events: list[Event] = list(session.turn("Go on."))
    end = events[-1]
    assert isinstance(end, TurnEnd)
    assert end.finish_reason in ("stop", "length", "tool_calls", "error")
    trace = session.turns[-1].trace
    assert len([event for event in events if isinstance(event, ModelEnd)]) <= limit.steps
    assert len(trace.tools) <= limit.steps * (limit.calls + limit.recovered_calls)
    faults = broken_calls(session.history) + broken_order(session.history) + broken_steps(events) + broken_frame(events)
    assert faults == []
    assert all(broken_calls(request.messages) == [] for request in model.requests)


# --- a stream that breaks off -------------------------------------------------------------------------------------------------


class Breaking:
    """A model whose stream raises behind what it has said."""

    name = "breaking"
    context_size = 0

    def __init__(self, *events: ModelEvent, error: Exception) -> None:
        self.events, self.error = events, error

    def stream(self, request: Request) -> Iterator[ModelEvent]:
        yield from self.events
        raise self.error

    def preview(self, request: Request) -> tuple[()]:
        return ()

    def close(self) -> None:
        pass


@pytest.mark.parametrize("error", [ValueError("the parser is confused"), ModelError("gone")])
def test_what_was_said_before_a_stream_broke_off_is_kept(error: Exception) -> None:
    call = ToolCall("weather", '{"city": "Oslo"}', "c0")
    said = [TextDelta("It is "), TextDelta("raining."), ToolCallStart(0, "c0", "weather"), ToolCallEnd(0, call)]
    session = Session(Breaking(*said, error=error), [weather])
    events: list[Event] = []
    with pytest.raises(type(error)):
        for event in session.turn("go"):
            events.append(event)
    assert isinstance(events[-1], TurnEnd)
    assert events[-1].finish_reason == "error"
    assert session.reply is not None
    assert session.reply.trace.text == "It is raining."
    assert [m.text for m in session.history][:2] == ["go", "It is raining."]
    assert broken_calls(session.history) + broken_order(session.history) == []
    session.model = ScriptedModel(["Fine."])
    assert session.ask("and now?").text == "Fine."


def test_a_turn_that_failed_before_anything_was_said_is_no_part_of_the_conversation() -> None:
    session = Session(ScriptedModel(["one", "two"], context_size=80))
    session.ask("first")
    with pytest.raises(ContextFullError):
        session.ask("many words " * 100, turn="failed")
    assert [turn.trace.prompt for turn in session.turns] == ["first"]
    assert session.reply is not None
    assert (session.reply.finish_reason, session.reply.trace.prompt[:10]) == ("error", "many words")
    assert session.reply_to("failed") == session.reply
    assert session.ask("second").text == "two"
    assert session.reply.text == "two"


def test_notices_are_for_the_reader_alone() -> None:
    model = Endless(iter(sums(100)))
    events = list(Session(model, [calculate]).turn("go"))
    told = next(event.text for event in events if isinstance(event, Notice))
    assert not any(told in message.text for request in model.requests for message in request.messages)
