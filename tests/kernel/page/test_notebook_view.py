"""The notebook's and the terminal's view of a turn: what is sent, how often, and how it ends."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import pytest
from rich.console import Console

from llm_magics.events import (
    Event,
    ModelEnd,
    Notice,
    ReasoningDelta,
    TextDelta,
    ToolCallEnd,
    ToolCallStart,
    ToolEnd,
    ToolProgress,
    ToolStart,
    TurnEnd,
    TurnStart,
    Usage,
)
from llm_magics.kernel.page.notebook import NotebookView, Pace
from llm_magics.messages import ToolCall, ToolResult, assistant
from llm_magics.transcript import MIME_TYPE, Transcript
from llm_magics.views.card import bar_text, bytes_text, card_bundle, table_bundle
from llm_magics.views.preview import preview_bundle, shares
from llm_magics.views.text.terminal import TerminalView

CALL = ToolCall("weather", '{"city": "Oslo"}', "c1")
TURN = [
    TurnStart("t1", "main", "tiny", "How is the weather?"),
    ReasoningDelta("It asks."),
    TextDelta("Let me look."),
    ToolCallStart(0, "c1", "weather"),
    ToolCallEnd(0, CALL),
    ModelEnd(assistant("Let me look.", tool_calls=(CALL,)), "tool_calls"),
    ToolStart(0, CALL),
    ToolProgress(0, "asking\n"),
    ToolEnd(0, ToolResult("c1", "weather", "rain"), seconds=0.5),
    Notice("Quick."),
    TextDelta("Rain\x1b[2J."),
    ModelEnd(assistant("Rain."), "stop", Usage(completion_tokens=2)),
    TurnEnd("stop", Usage(completion_tokens=11), 1.5, 2),
]


class Front:
    """A front end that keeps what it is sent, and a clock that a test moves."""

    def __init__(self) -> None:
        self.sent: list[tuple[dict[str, Any], dict[str, Any], bool]] = []
        self.now = 0.0

    def publish(self, data: dict[str, Any], *, transient: dict[str, Any], update: bool) -> None:
        self.sent.append((data, transient, update))

    def view(self, **options: Any) -> NotebookView:
        return NotebookView(self.publish, pace=Pace(clock=lambda: self.now), **options)


def drawn_by(view: NotebookView | TerminalView) -> Callable[[Event], None]:
    """Folds each event that it is given, as a session does, and has ``view`` draw the turn so far."""

    def draw(event: Event) -> None:
        view.handle(view.transcript.fold(event), event)

    return draw


def test_one_display_is_updated_and_ends_complete() -> None:
    front = Front()
    view = front.view()
    draw = drawn_by(view)
    for event in TURN:
        front.now += 1.0
        draw(event)
    view.close(view.transcript)
    (first, transient, update), *others = front.sent
    assert not update
    assert all(update for _, _, update in others)
    assert {t["display_id"] for _, t, _ in front.sent} == {transient["display_id"]}
    assert first[MIME_TYPE]["turn"] == "t1"
    assert "steps" not in first[MIME_TYPE]
    last = front.sent[-1][0]
    assert set(last) == {"text/html", "text/markdown", "text/plain", MIME_TYPE}
    assert Transcript.from_json(last[MIME_TYPE]) == Transcript.of(TURN)


def test_a_view_draws_the_trace_that_it_is_given_and_adds_nothing_to_it() -> None:
    front = Front()
    view, trace = front.view(), Transcript.of(TURN[:3])
    view.handle(trace, Notice("not in the trace"))
    assert "Let me look." in front.sent[-1][0]["text/html"]
    assert "not in the trace" not in front.sent[-1][0]["text/html"]
    assert view.transcript is trace


def test_deltas_are_drawn_at_the_pace_and_changes_of_state_at_once() -> None:
    front = Front()
    view = front.view()
    draw = drawn_by(view)
    draw(TURN[0])
    for _ in range(50):
        front.now += 0.01
        draw(TextDelta("word "))
    assert 5 <= len(front.sent) - 1 <= 10
    before = len(front.sent)
    draw(ToolCallStart(0, "c1", "weather"))
    draw(ToolCallEnd(0, CALL))
    assert len(front.sent) == before + 2


def test_updates_become_rarer_as_the_text_grows_and_the_wire_stays_quiet() -> None:
    front = Front()
    view = front.view()
    draw = drawn_by(view)
    draw(TURN[0])
    for _ in range(4_000):
        front.now += 0.01
        draw(TextDelta("some words "))
    sizes = sum(len(data["text/html"]) + len(str(data.get(MIME_TYPE, ""))) for data, _, _ in front.sent)
    assert sizes / front.now < 100_000
    assert len(front.sent) > 2 * front.now / 5


@pytest.mark.parametrize(
    ("n_bytes", "drawing", "wait"),
    [(100, 0.0, 0.05), (16_000, 0.0, 0.2), (100, 0.003, 0.3), (0, 9.0, 0.5)],
    ids=["the rate", "the wire", "the time", "still twice a second"],
)
def test_the_pace_minds_rate_wire_and_time(n_bytes: int, drawing: float, wait: float) -> None:
    now = [0.0]
    pace = Pace(rate=20, wire=80_000, share=0.01, clock=lambda: now[0])
    now[0] = drawing
    pace.spent(0.0, n_bytes)
    for moment, due in ((wait - 0.01, False), (wait + 0.01, True)):
        now[0] = moment
        assert pace.due() == due


def test_without_updates_there_is_one_display_at_the_end() -> None:
    front = Front()
    view = front.view(updates=False)
    draw = drawn_by(view)
    for event in TURN:
        draw(event)
    assert front.sent == []
    view.close(view.transcript)
    ((data, transient, update),) = front.sent
    assert (transient, update) == ({}, False)
    assert MIME_TYPE in data


def test_a_turn_without_an_end_is_closed_as_it_ended() -> None:
    front = Front()
    view = front.view()
    draw = drawn_by(view)
    for event in TURN[:3]:
        draw(event)
    view.close(view.transcript, "interrupted")
    assert front.sent[-1][0][MIME_TYPE]["state"] == "interrupted"
    assert "Let me look." in front.sent[-1][0]["text/plain"]
    assert "interrupted" in front.sent[-1][0]["text/plain"]


def test_a_terminal_gets_lines_and_no_control_characters_of_the_model_s() -> None:
    out = io.StringIO()
    view = TerminalView(Console(file=out, force_terminal=False, width=80))
    draw = drawn_by(view)
    for event in TURN:
        draw(event)
    view.close(view.transcript)
    lines = out.getvalue().splitlines()
    assert 'Let me look.' in lines[0]
    assert '→ weather(city="Oslo")' in lines
    assert "  done · 0.50 s" in lines
    assert "rain" in lines
    assert any(line.startswith("Rain\ufffd[2J.") for line in lines)
    assert lines[-1].startswith("11 tokens")
    assert "\x1b" not in out.getvalue()


def test_a_terminal_gets_markdown_drawn_and_nothing_that_drives_it() -> None:
    out = io.StringIO()
    view = TerminalView(Console(file=out, force_terminal=True, width=80, color_system="standard", legacy_windows=False))
    draw = drawn_by(view)
    text = "It is **cold** in <b>Oslo</b>\x1b[2J, see [here](https://x.y).\n\n```python\nif cold:\n\n    stay()\n```\n\n- one"
    for event in (*(TextDelta(letter) for letter in text), ModelEnd(assistant(text), "stop"), *TURN[3:9], *TURN[-1:]):
        draw(event)
    view.close(view.transcript)
    drawn = out.getvalue()
    assert "\x1b[1mcold\x1b[0m" in drawn
    assert "<b>Oslo</b>" in drawn
    assert "https://x.y" in drawn
    assert "•" in drawn
    assert "→ weather" in drawn
    assert "\x1b[2J" not in drawn
    assert "\x1b]8;" not in drawn  # no hyperlink that hides its address
    assert drawn.count("\x1b[?25l") == drawn.count("\x1b[?25h")  # the cursor is there again


def test_an_interrupt_leaves_what_came_drawn_and_the_cursor_visible() -> None:
    out = io.StringIO()
    view = TerminalView(Console(file=out, force_terminal=True, width=80, color_system="standard", legacy_windows=False))
    draw = drawn_by(view)
    draw(TextDelta("It is **cold**"))
    view.close(view.transcript)
    assert "\x1b[1mcold\x1b[0m" in out.getvalue()
    assert "interrupted" in out.getvalue()
    assert out.getvalue().rindex("\x1b[?25h") > out.getvalue().rindex("\x1b[?25l")


def test_a_preview_gives_every_token_and_each_part_s_share() -> None:
    parts = [("template", "<|im_start|>", (1,)), ("user", "hi <b>", (2, 3, 4)), ("template", "<|im_end|>", (5,))]
    assert shares(parts) == [("template", 2), ("user", 3)]
    bundle = preview_bundle(parts, 100)
    assert bundle["text/plain"].startswith("5 tokens would be sent, of a context of 100: template 2 (40%), user 3 (60%)")
    assert "&lt;|im_start|&gt;" in bundle["text/html"]
    assert "<b>" not in bundle["text/html"]
    assert "2 3 4" in bundle["text/html"]


def test_cards_and_tables_are_plain_text_in_both_forms() -> None:
    card = card_bundle("tiny <1>", [("model", "a & b"), ("empty", "")], "note")
    assert "tiny &lt;1&gt;" in card["text/html"]
    assert "empty" not in card["text/plain"]
    table = table_bundle(["a", "long column"], [["<x>", "1"]])
    assert "<x>" not in table["text/html"]
    assert table["text/plain"].splitlines()[0] == "a    long column"
    assert table_bundle(["a"], [], "nothing")["text/plain"] == "nothing"


def test_progress_is_one_line() -> None:
    assert bar_text("fetching", 50_000_000, 100_000_000) == "fetching  [##########..........]  50 %  50 MB of 100 MB"
    assert bar_text("checking", 0, 0) == "checking"
    assert bytes_text(4_100_000_000) == "4.1 GB"


def test_a_preview_of_one_token_says_so() -> None:
    assert preview_bundle([("user", "Hi", (7,))])["text/plain"].startswith("1 token would be sent: user 1 (100%)")
