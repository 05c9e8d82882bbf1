"""The link to the JupyterLab extension: deltas that rebuild the transcript, and messages that arrive while a cell runs."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_magics.events import (
    ModelEnd,
    Notice,
    PromptProgress,
    ReasoningDelta,
    TextDelta,
    ToolAsk,
    ToolCallDelta,
    ToolCallEnd,
    ToolCallStart,
    ToolEnd,
    ToolProgress,
    ToolStart,
    TurnEnd,
    TurnStart,
    Usage,
)
from llm_magics.kernel.page.live import LiveTurn, changes, link_of, notebook_cells
from llm_magics.messages import ToolCall, ToolResult, assistant
from llm_magics.transcript import Transcript
from llm_magics.views.secrets.secrets import MASK, masked

from .fake_kernel import FakeKernel

CALL = ToolCall("weather", '{"city": "Oslo"}', "c1")
TURN = [
    TurnStart("t1", "main", "tiny", "How is the weather?"),
    PromptProgress(3, 9),
    ReasoningDelta("It asks "),
    ReasoningDelta("for weather."),
    TextDelta("Let me "),
    TextDelta("look. ✓"),
    ToolCallStart(0, "c1", "weather"),
    ToolCallDelta(0, '{"city": '),
    ToolCallDelta(0, '"Oslo"}'),
    ToolCallEnd(0, CALL),
    ModelEnd(assistant("Let me look. ✓", tool_calls=(CALL,)), "tool_calls", Usage(completion_tokens=9)),
    ToolAsk(0, CALL, "weather(city='Oslo')", "d1"),
    ToolStart(0, CALL, "def weather(city): ..."),
    ToolProgress(0, "asking\n"),
    ToolProgress(0, data={"image/png": "iVBO"}),
    ToolEnd(0, ToolResult("c1", "weather", "rain"), seconds=0.5),
    Notice("That was quick."),
    TextDelta("Rain."),
    ModelEnd(assistant("Rain."), "stop", Usage(completion_tokens=2)),
    TurnEnd("stop", Usage(completion_tokens=11), 1.5, 2),
]


def apply(data: dict[str, Any], ops: list[list[Any]]) -> dict[str, Any]:
    """What the extension does with a delta, said in Python."""
    segments = [dict(s) for s in data["segments"]]
    head = {key: value for key, value in data.items() if key != "segments"}
    for op, *rest in ops:
        if op == "head":
            head |= rest[0]
            continue
        at = rest[0]
        if at == len(segments):
            segments.append({})
        if op == "+":
            segments[at][rest[1]] += rest[2]
        else:
            segments[at] |= rest[1]
    return {**head, "segments": segments}


@given(st.lists(st.integers(1, len(TURN)), unique=True).map(sorted))
def test_deltas_rebuild_the_transcript_wherever_the_view_flushes(flushes: list[int]) -> None:
    seen = Transcript.of(TURN[:1])
    page = seen.to_json(record=False)
    for end in [*flushes, len(TURN)]:
        now = Transcript.of(TURN[:end])
        page = apply(page, changes(seen, now))
        seen = now
        assert page == now.to_json(record=False)


def test_a_delta_costs_what_is_new_and_not_what_was_there() -> None:
    long = Transcript.of([TURN[0], TextDelta("word " * 10_000)])
    assert changes(long, long.fold(TextDelta("new"))) == [["+", 0, "text", "new"]]


def test_a_turn_that_no_page_asks_for_is_left_to_display_updates(kernel: FakeKernel) -> None:
    turn = LiveTurn(link_of(kernel), "t1", "cell1")
    assert not turn.update(Transcript.of(TURN[:5]))
    assert kernel.kinds() == ["here", "begin"]


def test_a_page_that_says_hello_gets_everything_and_then_deltas(kernel: FakeKernel) -> None:
    turn = LiveTurn(link_of(kernel), "t1", "cell1")
    kernel.receive(kind="hello", turn="t1")
    assert all(turn.update(Transcript.of(TURN[:end])) for end in (5, 6, 6, 7))
    assert kernel.kinds() == ["here", "begin", "snapshot", "delta", "delta"]
    assert [data["n"] for data in kernel.session.sent[2:]] == [1, 2, 3]


def test_a_page_is_given_time_to_say_hello_before_it_matters(kernel: FakeKernel) -> None:
    turn = LiveTurn(link_of(kernel), "t1", "cell1")
    threading.Thread(target=lambda: kernel.receive(kind="hello", turn="t1")).start()
    turn.meet(timeout=30)
    assert turn.update(Transcript.of(TURN[:5]))


def test_a_second_hello_brings_everything_again(kernel: FakeKernel) -> None:
    turn = LiveTurn(link_of(kernel), "t1", "cell1")
    for end in (5, 6):
        kernel.receive(kind="hello", turn="t1")
        turn.update(Transcript.of(TURN[:end]))
    assert kernel.kinds() == ["here", "begin", "snapshot", "snapshot"]


def test_the_hello_of_another_turn_is_not_taken_for_this_one(kernel: FakeKernel) -> None:
    turn = LiveTurn(link_of(kernel), "t1", "cell1")
    LiveTurn(link_of(kernel), "t0", "cell0")
    kernel.receive(kind="hello", turn="t0")
    assert not turn.update(Transcript.of(TURN[:5]))


def test_a_page_that_is_opened_in_the_middle_asks_for_whatever_runs(kernel: FakeKernel) -> None:
    turn = LiveTurn(link_of(kernel), "t1", "cell1")
    kernel.receive(kind="hello", turn="*")
    assert turn.update(Transcript.of(TURN[:5]))
    assert kernel.kinds() == ["here", "begin", "snapshot"]


def test_what_is_loaded_is_told_again_to_a_page_that_comes_later(kernel: FakeKernel) -> None:
    link = link_of(kernel)
    for models in ([], ["tiny"]):
        link.tell("models", models=models)
    kernel.receive(kind="hello", turn="*")
    assert [data["models"] for data in kernel.session.sent if data["kind"] == "models"] == [[], ["tiny"], ["tiny"]]


def test_a_turn_that_ended_unseen_is_kept_until_a_page_has_saved_it(kernel: FakeKernel) -> None:
    turn = LiveTurn(link_of(kernel), "t1", "cell1", session="page")
    turn.finish({"text/plain": "Rain."})
    assert not turn.watched
    kernel.receive(kind="hello", turn="*")
    assert kernel.session.sent[2:] == [
        {"kind": "finished", "turn": "t1", "cell": "cell1", "session": "page", "bundle": {"text/plain": "Rain."}}
    ]
    turn.renew({"text/plain": "Rain. It has left the conversation."})
    kernel.receive(kind="hello", turn="*")
    assert kernel.session.sent[-1]["bundle"] == {"text/plain": "Rain. It has left the conversation."}
    kernel.receive(kind="saved", turn="t1")
    turn.renew({"text/plain": "Rain, once more."})
    kernel.receive(kind="hello", turn="*")
    assert kernel.kinds() == ["here", "begin", "finished", "finished"]


SECRET = ToolCall("login", '{"password": "hunter2"}', "c1")
QUESTION = ToolAsk(0, SECRET, 'login(password="hunter2")', "d1", "it may be a quotation")
ASKING = [*TURN[:6], ToolCallStart(0, "c1", "login"), ToolCallEnd(0, SECRET), QUESTION]


class Asked:
    """A turn whose question is open, asked from a thread as the kernel's main thread would."""

    def __init__(self, kernel: FakeKernel) -> None:
        self.kernel = kernel
        self.turn = LiveTurn(link_of(kernel), "t1", "cell1")
        kernel.receive(kind="hello", turn="t1")
        assert self.turn.update(masked(Transcript.of(ASKING)))
        self.said: list[str] = []
        before = kernel.kinds().count("question")
        self.thread = threading.Thread(target=lambda: self.said.append(self.turn.ask(QUESTION)))
        self.thread.start()
        self.question = self.wait_for("question", before + 1)

    def wait_for(self, kind: str, n: int) -> dict[str, Any]:
        """The ``n``-th message of a kind, waited for."""
        while len(found := [data for data in self.kernel.session.sent if data["kind"] == kind]) < n:
            assert self.thread.is_alive()
            self.thread.join(0.01)
        return found[n - 1]

    def decide(self, **content: Any) -> None:
        self.kernel.receive(**{"kind": "decision", "id": self.question["id"], "digest": "d1", **content})

    def end(self, decision: str = "deny") -> str:
        self.decide(decision=decision)
        self.thread.join()
        (said,) = self.said
        return said


def test_a_question_shows_the_call_as_it_is_and_the_transcript_beside_it_does_not(kernel: FakeKernel) -> None:
    asked = Asked(kernel)
    shown = {name: asked.question[name] for name in ("turn", "cell", "at", "digest", "shown", "reason")}
    assert shown == {
        "turn": "t1", "cell": "cell1", "at": 2, "digest": "d1", "shown": 'login(password="hunter2")',
        "reason": "it may be a quotation",
    }  # fmt: skip
    assert asked.end("always") == "always"
    others = [data for data in kernel.session.sent if data["kind"] != "question"]
    assert others[-1] == {
        "kind": "answered", "turn": "t1", "cell": "cell1", "session": "", "n": 1, "id": asked.question["id"],
    }  # fmt: skip
    assert "hunter2" not in str(others)


def test_a_page_that_comes_while_a_question_is_open_is_asked_too(kernel: FakeKernel) -> None:
    asked = Asked(kernel)
    kernel.receive(kind="hello", turn="*")
    assert asked.wait_for("question", 2) | {"n": 1} == asked.question
    assert asked.wait_for("snapshot", 2)["transcript"]["segments"][2]["ask"]["shown"] == f'login(password="{MASK}")'
    assert asked.end("approve") == "approve"


@pytest.mark.parametrize(
    "content",
    [
        {"decision": "approve", "digest": "d2"},
        {"decision": "approve", "digest": None},
        {"decision": "approve", "id": "another"},
        {"decision": "approve", "id": "d1"},
        {"kind": "reply", "data": "approve"},
        {"kind": "hello", "turn": "t1", "decision": "approve"},
    ],
)
def test_a_decision_counts_only_for_the_question_and_digest_it_names(kernel: FakeKernel, content: dict[str, Any]) -> None:
    asked = Asked(kernel)
    asked.decide(**content)
    assert asked.end("deny") == "deny"


def test_the_first_decision_counts_and_only_once(kernel: FakeKernel) -> None:
    first = Asked(kernel)
    assert first.end("deny") == "deny"
    first.decide(decision="approve")  # a second click, or one from another tab, that comes too late
    second = Asked(kernel)  # the same call once more: the same digest, another question
    first.decide(decision="approve")
    assert second.question["id"] != first.question["id"]
    assert second.end("deny") == "deny"
    link = link_of(kernel)
    question = link.open_question("d1")
    for decision in ("deny", "approve"):
        kernel.receive(kind="decision", id=question, digest="d1", decision=decision)
    assert link.answer(question, 0.0) == "deny"
    link.close_question(question)
    assert link.answer(question, 0.0) is None


def test_an_interrupt_closes_the_question(kernel: FakeKernel, monkeypatch: pytest.MonkeyPatch) -> None:
    turn = LiveTurn(link_of(kernel), "t1", "cell1")
    kernel.receive(kind="hello", turn="t1")
    turn.update(Transcript.of(ASKING))

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(link_of(kernel), "answer", interrupt)
    with pytest.raises(KeyboardInterrupt):
        turn.ask(QUESTION)
    assert kernel.kinds()[-2:] == ["question", "answered"]


@pytest.mark.parametrize("content", [{}, {"kind": "hello"}, {"kind": "hello", "turn": 3}, {"kind": "reply", "id": "unasked"}])
def test_what_a_page_says_amiss_is_ignored(kernel: FakeKernel, content: dict[str, Any]) -> None:
    link = link_of(kernel)
    kernel.receive(**content)
    assert not link.hello("t1")
    assert link.ask("cells", timeout=0.0) is None


def answer(kernel: FakeKernel, data: Any) -> None:
    """Reply as a page would, from the control thread, once the question is on the wire."""

    link_of(kernel)

    def send(socket: Any, msg_type: str, content: dict[str, Any], ident: bytes) -> None:
        question = content["data"]["id"]
        threading.Thread(target=lambda: kernel.receive(kind="reply", id=question, data=data)).start()

    kernel.session.send = send  # type: ignore[method-assign]


def test_the_page_tells_its_cells(kernel: FakeKernel) -> None:
    cells = [{"id": "a", "type": "code", "source": "1", "tags": ["tool"], "tool": None}]
    answer(kernel, cells)
    assert notebook_cells(link_of(kernel), timeout=30) == cells


def test_the_link_knows_whether_any_page_was_ever_there(kernel: FakeKernel) -> None:
    link = link_of(kernel)
    assert not link.heard
    kernel.receive(kind="hello", turn="*")
    assert link.heard


def test_a_page_is_told_how_the_cell_wants_its_reasoning_shown(kernel: FakeKernel) -> None:
    turn = LiveTurn(link_of(kernel), "t1", "cell1", "hide")
    kernel.receive(kind="hello", turn="t1")
    turn.update(Transcript.of(TURN[:5]))
    assert kernel.session.sent[-1]["transcript"]["settings"] == {"options": {"show_reasoning": "hide"}}


def test_a_terminal_has_no_link() -> None:
    assert link_of(None) is None
    assert link_of(object()) is None
