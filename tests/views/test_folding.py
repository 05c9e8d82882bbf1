"""Calls that did not run are one quiet row with their number in every form; what a person denied, and errors, are not."""

from __future__ import annotations

import html
import io
import re
from typing import Any

import pytest
from hypothesis import given, settings

from llm_magics import ScriptedModel, Session
from llm_magics.events import Event
from llm_magics.messages import ToolCall
from llm_magics.segments import NoticeSegment, Segment, TextSegment, ToolSegment
from llm_magics.tools.define.tool import make_tool
from llm_magics.tools.policy import Decision
from llm_magics.transcript import Transcript
from llm_magics.views.folding import NotRun, folded
from llm_magics.views.html import GrowingHtml, transcript_html
from llm_magics.views.text.plain import transcript_markdown, transcript_plain
from llm_magics.views.text.terminal import TerminalView
from tests.turns import Turn, turns


def call(city: str, state: Any = "done", *, index: int = 0, is_error: bool = False) -> ToolSegment:
    return ToolSegment(index, "weather", "c1", f'{{"city": "{city}"}}', state, result=f"rain in {city}", is_error=is_error)


def unrun(city: str = "Oslo") -> ToolSegment:
    return call(city, "refused")


def shape(segments: list[Segment]) -> list[str]:
    return [item.line if isinstance(item, NotRun) else type(item).__name__ for item in folded(segments)]


@pytest.mark.parametrize(
    ("segments", "rows"),
    [
        ([call("Oslo"), unrun()], ["ToolSegment", "1 repeated call, not run"]),
        ([call("Oslo"), unrun(), unrun(), unrun(), unrun()], ["ToolSegment", "4 repeated calls, not run"]),
        ([call("Oslo"), unrun("Rome")], ["ToolSegment", "1 call, not run"]),
        ([call("Oslo"), unrun(), unrun("Rome")], ["ToolSegment", "2 calls, not run"]),
        ([call("Oslo"), unrun(), TextSegment("\n"), unrun()], ["ToolSegment", "2 repeated calls, not run"]),
        ([call("Oslo"), unrun(), TextSegment("\n"), call("Rome")],
         ["ToolSegment", "1 repeated call, not run", "TextSegment", "ToolSegment"]),
        ([call("Oslo"), unrun(), TextSegment("Hm."), unrun()],
         ["ToolSegment", "1 repeated call, not run", "TextSegment", "1 repeated call, not run"]),
        ([call("Oslo"), unrun(), TextSegment(" ")], ["ToolSegment", "1 repeated call, not run", "TextSegment"]),
        ([call("Oslo"), call("Oslo", "refused", is_error=True)], ["ToolSegment", "ToolSegment"]),
        ([NoticeSegment("a")], ["NoticeSegment"]),
        ([], []),
    ],
)  # fmt: skip
def test_neighbouring_calls_that_did_not_run_are_one_row(segments: list[Segment], rows: list[str]) -> None:
    assert shape(segments) == rows


def test_spacing_of_the_arguments_makes_no_other_call() -> None:
    spaced = ToolSegment(0, "weather", "c2", '{ "city":"Oslo" }', "refused")
    assert shape([call("Oslo"), spaced]) == ["ToolSegment", "1 repeated call, not run"]


REPEATED = Transcript(state="stop", segments=(call("Oslo"), unrun(), unrun(), TextSegment("It rains.", 1)))


def test_html_folds_them_and_unfolds_to_show_them() -> None:
    written = transcript_html(REPEATED)
    (row,) = re.findall(r'<details class="lm-notrun"><summary>(.*?)</summary>(.*?</details>\n)</details>', written, re.DOTALL)
    assert row[0] == "2 repeated calls, not run"
    inside = html.unescape(re.sub(r"<[^>]*>", " ", row[1]))
    assert inside.count('weather(city="Oslo")') == 2
    assert inside.count("not run") == 2
    assert "refused" not in re.sub(r"<style>.*?</style>|<[^>]*>", "", written, flags=re.DOTALL)


@pytest.mark.parametrize("write", [transcript_markdown, transcript_plain])
def test_other_forms_say_it_in_one_line_and_name_them(write: Any) -> None:
    written = write(REPEATED)
    assert written.count("2 repeated calls, not run") == 1
    assert written.count("weather(city=") == 3
    assert written.count("rain in Oslo") == 1  # of the call that ran


def rows(written: str) -> list[str]:
    return re.findall(r"<summary>(.*?)</summary>", written, re.DOTALL)


@given(turns())
@settings(max_examples=60, deadline=None)
def test_growing_html_folds_as_the_whole_does(turn: Turn) -> None:
    growing, transcript = GrowingHtml(), Transcript()
    for event in turn.events:
        transcript = transcript.fold(event)
        assert rows(growing.html(transcript)) == rows(transcript_html(transcript))


# --- real turns -------------------------------------------------------------------------------------------------------------

A = ToolCall("look", '{"at": "a"}')


def events_of(steps: list[Any], **options: Any) -> list[Event]:
    tool = make_tool(lambda at: f"{at} is green", name="look", **options)
    return list(Session(ScriptedModel(steps), [tool], asker=lambda ask: Decision("deny", ask.digest)).turn("go"))


def in_terminal(events: list[Event]) -> str:
    from rich.console import Console

    console = Console(file=io.StringIO(), width=100, highlight=False)
    view = TerminalView(console)
    for event in events:
        view.handle(view.transcript.fold(event), event)
    view.close(view.transcript)
    return console.file.getvalue()  # type: ignore[attr-defined]


def test_a_terminal_tells_them_in_one_line() -> None:
    lines = in_terminal(events_of([A, A, [A, A], "It is green."])).splitlines()
    assert [line for line in lines if line.startswith("→")] == ['→ look(at="a")']
    assert [line.strip() for line in lines if "not run" in line] == ["3 repeated calls, not run"]
    assert lines.index("  3 repeated calls, not run") < lines.index("It is green.")


def test_a_call_that_was_denied_is_a_row_of_its_own_and_says_so() -> None:
    events = events_of([A, "ok"], approve="ask")
    transcript = Transcript.of(events)
    assert shape(list(transcript.segments)) == ["ToolSegment", "TextSegment"]
    for written in (transcript_html(transcript), transcript_markdown(transcript), transcript_plain(transcript)):
        assert "denied by you" in written
        assert "repeated" not in written
    terminal = in_terminal(events)
    assert "→ look" in terminal
    assert "denied by you" in terminal


def test_a_row_says_that_nobody_could_be_asked() -> None:
    tool = make_tool(lambda at: f"{at} is green", name="look", approve="ask")
    events = list(Session(ScriptedModel([A, "ok"]), [tool]).turn("go"))
    for written in (transcript_html(Transcript.of(events)), transcript_plain(Transcript.of(events)), in_terminal(events)):
        assert "nobody could be asked" in written
        assert "denied" not in written


def test_calls_behind_a_limit_are_folded_with_the_reason_below() -> None:
    events = events_of([A, A, A, [A, ToolCall("look", '{"at": "b"}')]])
    transcript = Transcript.of(events)
    assert shape(list(transcript.segments)) == ["ToolSegment", "4 calls, not run", "NoticeSegment"]
