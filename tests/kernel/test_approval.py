"""Who is asked, and how: page, buttons, the input line, or nobody."""

from __future__ import annotations

import threading
import types
from typing import Any

import pytest

from llm_magics.events import ToolAsk
from llm_magics.messages import ToolCall
from llm_magics.tools.policy import digest_of
from llm_magics.views import widgets
from llm_magics.views.widgets import ShellAsker, ask_page, ask_with_input, question_html, verdict

CALL = ToolCall("danger", '{"what": "<b>x</b>"}')
ASK = ToolAsk(0, CALL, "danger(what='<script>alert(1)</script>')", digest_of(CALL, "shown"), "it may be a quotation")


def shell(allow_stdin: bool, cell: str = "") -> Any:
    parent = {"content": {"allow_stdin": allow_stdin}, "metadata": {"cellId": cell} if cell else {}}
    return types.SimpleNamespace(kernel=types.SimpleNamespace(), get_parent=lambda: parent)


def test_where_nobody_can_answer_the_answer_is_no() -> None:
    asker = ShellAsker(shell(allow_stdin=False, cell="a"))
    assert asker.way() == "nobody"
    assert asker(ASK).verdict == "deny"


@pytest.mark.parametrize(("cell", "way"), [("a", "buttons"), ("", "input")])
def test_a_front_end_with_cells_gets_buttons_and_any_other_the_input_line(cell: str, way: str) -> None:
    assert ShellAsker(shell(allow_stdin=True, cell=cell)).way() == way


@pytest.mark.parametrize(
    ("typed", "said"),
    [("y", "approve"), ("YES ", "approve"), ("a", "always"), ("", "deny"), ("n", "deny"), ("yeah", "deny")],
)
def test_only_a_clear_yes_on_the_input_line_is_one(monkeypatch: pytest.MonkeyPatch, typed: str, said: str) -> None:
    monkeypatch.setattr("builtins.input", lambda prompt: typed)
    assert ask_with_input(ASK) == said


@pytest.mark.parametrize("error", [EOFError, NotImplementedError])
def test_no_input_line_is_a_no(monkeypatch: pytest.MonkeyPatch, error: type[Exception]) -> None:
    def refuse(prompt: str) -> str:
        raise error

    monkeypatch.setattr("builtins.input", refuse)
    assert ask_with_input(ASK) == "deny"


@pytest.mark.parametrize(
    ("said", "meant"), [("approve", "approve"), ("always", "always"), ("deny", "deny"), ("Approve", "deny")]
)
def test_a_page_decides_by_words_it_knows(said: str, meant: str) -> None:
    waits = iter([None, None, said])
    expected: list[str] = []
    link = types.SimpleNamespace(expect_decision=expected.append, decision=lambda digest, timeout: next(waits))
    assert ask_page(link, ASK) == meant  # type: ignore[arg-type]
    assert expected == [ASK.digest]
    assert verdict(said) == meant


@pytest.mark.parametrize(("label", "meant"), [("Approve", "approve"), ("Deny", "deny"), ("Always for this turn", "always")])
def test_a_click_from_another_thread_decides(monkeypatch: pytest.MonkeyPatch, label: str, meant: str) -> None:
    import ipywidgets

    made: list[Any] = []
    plain = ipywidgets.Button.__init__

    def remembered(self: Any, *args: Any, **kwargs: Any) -> None:
        plain(self, *args, **kwargs)
        made.append(self)
        if self.description == "Always for this turn":  # the last of the three: all can be clicked from now on
            threading.Timer(0.05, lambda: next(b for b in made if b.description == label).click()).start()

    monkeypatch.setattr(ipywidgets.Button, "__init__", remembered)
    monkeypatch.setattr("IPython.display.display", lambda *args, **kwargs: None)
    assert widgets.ask_with_buttons(ASK) == meant


def test_what_is_shown_can_do_nothing() -> None:
    shown = question_html(ASK)
    assert "<script>" not in shown
    assert "&lt;script&gt;" in shown
    assert "it may be a quotation" in shown
