"""Who is asked, and how: page, buttons, the input line, or nobody."""

from __future__ import annotations

import threading
import time
import types
from typing import Any

import pytest

from llm_magics.events import ToolAsk
from llm_magics.kernel.page import widgets
from llm_magics.kernel.page.widgets import ShellAsker, ask_with_input, question_html, verdict
from llm_magics.messages import ToolCall
from llm_magics.tools.policy import Decision, digest_of
from llm_magics.views.secrets.secrets import MASK

CALL = ToolCall("danger", '{"what": "<b>x</b>"}')
ASK = ToolAsk(0, CALL, "danger(what='<script>alert(1)</script>')", digest_of(CALL, "shown"), "it may be a quotation")


def shell(allow_stdin: bool, cell: str = "") -> Any:
    parent = {"content": {"allow_stdin": allow_stdin}, "metadata": {"cellId": cell} if cell else {}}
    return types.SimpleNamespace(kernel=types.SimpleNamespace(), get_parent=lambda: parent)


def test_where_nobody_can_answer_the_answer_is_no() -> None:
    asker = ShellAsker(shell(allow_stdin=False, cell="a"))
    assert asker.way() == "nobody"
    assert asker(ASK) == Decision("deny", ASK.digest, asked=False)


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
    assert ask_with_input(ASK) is None
    assert ShellAsker(shell(allow_stdin=True))(ASK) == Decision("deny", ASK.digest, asked=False)


@pytest.mark.parametrize(
    ("said", "meant"), [("approve", "approve"), ("always", "always"), ("deny", "deny"), ("Approve", "deny")]
)
def test_a_page_decides_by_words_it_knows(said: str, meant: str) -> None:
    asker = ShellAsker(shell(allow_stdin=True, cell="a"))
    asker.live = types.SimpleNamespace(watched=True, ask=lambda ask: said)  # type: ignore[assignment]
    assert asker.way() == "page"
    assert asker(ASK) == Decision(verdict(meant), ASK.digest)


def test_a_page_is_asked_only_about_a_turn_that_it_draws() -> None:
    """``%tools test`` has no turn: on the page nobody would see the question."""
    asker = ShellAsker(shell(allow_stdin=True, cell="a"))
    asker.live = types.SimpleNamespace(watched=False)  # type: ignore[assignment]
    assert asker.way() == "buttons"


SECRET = ToolCall("login", '{"password": "hunter2"}')
ASK_SECRET = ToolAsk(0, SECRET, 'login(password="hunter2")', digest_of(SECRET, 'login(password="hunter2")'))


@pytest.fixture
def widgets_made(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The widgets that are made from here on."""
    import ipywidgets

    made: list[Any] = []
    plain = ipywidgets.Widget.__init__

    def remembered(self: Any, *args: Any, **kwargs: Any) -> None:
        plain(self, *args, **kwargs)
        made.append(self)

    monkeypatch.setattr(ipywidgets.Widget, "__init__", remembered)
    return made


def click(made: list[Any], label: str) -> None:
    """Click as a front end does, from another thread, once all is there."""

    def press() -> None:
        while not (found := [one for one in made if getattr(one, "description", None) == label]):
            time.sleep(0.01)
        time.sleep(0.2)
        found[0].click()

    threading.Thread(target=press, daemon=True).start()


@pytest.mark.parametrize(("label", "meant"), [("Approve", "approve"), ("Deny", "deny"), ("Always for this turn", "always")])
def test_a_click_from_another_thread_decides(
    monkeypatch: pytest.MonkeyPatch, widgets_made: list[Any], label: str, meant: str
) -> None:
    monkeypatch.setattr("IPython.display.display", lambda *args, **kwargs: None)
    click(widgets_made, label)
    assert widgets.ask_with_buttons(ASK) == meant


def test_the_widget_shows_the_call_as_it_is_the_output_does_not_and_nothing_stays(
    monkeypatch: pytest.MonkeyPatch, widgets_made: list[Any]
) -> None:
    import ipywidgets

    slider = ipywidgets.IntSlider(3)
    del widgets_made[:]
    displayed: list[Any] = []
    updated: list[Any] = []
    open_values: list[str] = []

    def display(data: Any, **options: Any) -> Any:
        displayed.append((data, options))
        open_values.extend(one.value for one in widgets_made if isinstance(one, ipywidgets.HTML))
        return types.SimpleNamespace(update=lambda data, **options: updated.append(data))

    monkeypatch.setattr("IPython.display.display", display)
    click(widgets_made, "Approve")
    assert widgets.ask_with_buttons(ASK_SECRET) == "approve"
    assert any("hunter2" in value for value in open_values)
    ((data, options),) = displayed
    assert options["raw"]
    assert MASK in data["text/plain"]
    assert "hunter2" not in str(data)
    assert updated == [{"text/plain": ""}]
    assert [one.value for one in widgets_made if isinstance(one, ipywidgets.HTML)] == [""]
    ours = [one for one in widgets_made if one.comm is not None]
    assert ours == [], "a widget of the question is open"
    assert slider.comm is not None, "a widget of the user's was closed"


@pytest.mark.parametrize("secret", [True, False])
def test_a_prompt_that_showed_a_secret_is_cleared_away(monkeypatch: pytest.MonkeyPatch, secret: bool) -> None:
    prompts: list[str] = []
    cleared: list[object] = []
    monkeypatch.setattr("builtins.input", lambda prompt: prompts.append(prompt) or "y")
    front = shell(allow_stdin=True)
    front.display_pub = types.SimpleNamespace(clear_output=lambda wait: cleared.append(("outputs", wait)))
    asker = ShellAsker(front)
    asker.cleared = lambda: cleared.append("view")
    ask = ASK_SECRET if secret else ASK
    assert asker(ask) == Decision("approve", ask.digest)
    assert ask.shown in prompts[0]
    assert cleared == ([("outputs", True), "view"] if secret else [])


def test_what_is_shown_can_do_nothing() -> None:
    shown = question_html(ASK)
    assert "<script>" not in shown
    assert "&lt;script&gt;" in shown
    assert "it may be a quotation" in shown
