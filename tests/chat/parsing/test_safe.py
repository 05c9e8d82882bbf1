"""Finished text is never lost to a parser's error, wherever in the answer it comes and whatever it is."""

from __future__ import annotations

import pytest

from llm_magics import Session, tool
from llm_magics.chat.encodings.writer import write_calls
from llm_magics.chat.format import ChatFormat
from llm_magics.chat.parsing.call import CallReader
from llm_magics.chat.parsing.parser import StreamParser
from llm_magics.chat.parsing.safe import SafeParser
from llm_magics.events import ModelEnd, ModelEvent, Notice, ToolCallEnd, TurnEnd, assemble
from llm_magics.messages import FinishReason, ToolCall, ToolSpec, user
from llm_magics.models.base import Request
from llm_magics.models.guide import make_guide
from llm_magics.models.scripted import ScriptedModel
from tests.chat.formats import OWN, format_of

FORMAT = format_of(OWN / "json.jinja")
LOOK = ToolSpec("look", "", {"type": "object", "properties": {"at": {"type": "string"}}})
CALL = str(write_calls(FORMAT.tools, [ToolCall("look", '{"at": "the sky"}')]))
ANSWER = f"First I look.\n{CALL}\nThen I tell."


class _Failing:
    """A parser that fails at its ``at``-th piece, or at the end."""

    def __init__(self, parser: StreamParser, at: int, error: Exception) -> None:
        self._parser, self._left, self._error = parser, at, error

    def feed(self, text: str) -> list[ModelEvent]:
        self._left -= 1
        if self._left == 0:
            self._parser.feed(text)  # whatever it gives out is lost with the error
            raise self._error
        return self._parser.feed(text)

    def finish(self, reason: FinishReason = "stop") -> list[ModelEvent]:
        if self._left > 0:
            raise self._error
        return self._parser.finish(reason)


@pytest.mark.parametrize(
    "error", [ValueError("no"), RecursionError(), KeyError("x"), MemoryError()], ids=lambda e: type(e).__name__
)
def test_the_text_stays_wherever_the_parser_fails(error: Exception) -> None:
    pieces = [ANSWER[i : i + 3] for i in range(0, len(ANSWER), 3)]
    for at in range(1, len(pieces) + 2):
        reading = SafeParser(_Failing(FORMAT.parser([LOOK]), at, error))
        events = [event for piece in pieces for event in reading.feed(piece)] + reading.finish("stop")
        message = assemble(events)
        assert isinstance(events[-1], ModelEnd)
        assert events[-1].message == message
        assert message.finish_reason == "error"
        assert type(error).__name__ in events[-1].notes[0]
        told = message.text + "".join(call.arguments for call in message.tool_calls)
        for word in ("First I look.", '"the sky"', "Then I tell."):
            assert word in told, (at, message)
        if not message.tool_calls:
            assert "".join(message.text.split()) == "".join(ANSWER.split()), "not a character more or less"


def test_an_answer_that_is_cut_off_stays_cut_off() -> None:
    reading = SafeParser(_Failing(FORMAT.parser(), 2, ValueError("no")))
    events = [*reading.feed("One "), *reading.feed("two "), *reading.feed("three"), *reading.finish("length")]
    assert (assemble(events).text, assemble(events).finish_reason) == ("One two three", "length")


def test_the_guide_lets_no_error_of_the_parser_through(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError("injected")

    monkeypatch.setattr(CallReader, "call", broken)
    request = Request((user("Look."),), (LOOK,))
    guide = make_guide(FORMAT, FORMAT.render(request.messages, tools=[LOOK]), request)
    steps = [guide.start(), *(guide.feed(character) for character in ANSWER), guide.finish("stop")]
    events = [event for step in steps for event in step.events]
    end = events[-1]
    assert isinstance(end, ModelEnd)
    assert end.finish_reason == "error"
    assert "injected" in end.notes[0]
    assert "".join(assemble(events).text.split()) == "".join(ANSWER.split())  # type: ignore[arg-type]


@pytest.mark.parametrize("where", ["feed", "finish"])
def test_a_turn_ends_by_name_with_its_text_and_the_next_one_works(where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    @tool
    def look(at: str) -> str:
        """Look."""
        return at

    session = Session(ScriptedModel([ANSWER, "Better now."], template=FORMAT), tools=[look])
    with monkeypatch.context() as patch:

        def broken(*_: object) -> None:
            raise ValueError("injected")

        patch.setattr(StreamParser, where, broken)
        events = list(session.turn("Look."))
    assert [e.finish_reason for e in events if isinstance(e, TurnEnd)] == ["error"]
    assert any("injected" in e.text for e in events if isinstance(e, Notice))
    assert not any(isinstance(e, ToolCallEnd) for e in events) or where == "finish"
    (said,) = [m for m in session.history if m.role == "assistant"][:1]
    assert "First I look." in said.text
    assert "Then I tell." in said.text
    FORMAT.render(session.history)  # the history is one that the template takes
    assert session.ask("And now?").text == "Better now."


def test_a_near_miss_that_cannot_be_read_keeps_its_text() -> None:
    fmt = ChatFormat.from_template((OWN / "json.jinja").read_text(encoding="utf-8"))
    listed = ToolSpec("f", "", {"type": "object", "properties": {"a": {"type": "array"}}})
    request = Request((user("Call f."),), (listed,))
    guide = make_guide(fmt, fmt.render(request.messages, tools=[listed]), request)
    events = [event for step in (guide.start(), guide.feed("f(a=[true])"), guide.finish("stop")) for event in step.events]
    message = assemble(events)  # type: ignore[arg-type]
    assert message.text == "f(a=[true])" or message.tool_calls
