"""Asking a person whether a call may run, while the cell is busy.

The first way that works is used: buttons that a page with the extension draws, ipywidgets buttons, or ``input()``. If none
works, as under nbconvert, the answer is no.

Each way shows exactly what would run, and leaves no secret in the saved outputs. So widgets are emptied and closed, and a
prompt, which JupyterLab keeps as an output, is cleared with the cell's outputs if it held a secret.

A button's callback runs on a subshell thread beside the cell, where e.g. matplotlib is not safe: it only sets an Event. The
main thread waits in short pieces, so that an interrupt ends the wait.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from typing import Any, Literal

from llm_magics.events import ToolAsk
from llm_magics.tools.policy import Decision, Verdict, nobody
from llm_magics.views.markup.markdown import printable
from llm_magics.views.secrets.secrets import masked_text

from .live import LiveTurn

Way = Literal["page", "buttons", "input", "nobody"]
_WAIT = 0.1  # seconds
_WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"
_WORDS: Mapping[str, Verdict] = {"y": "approve", "yes": "approve", "a": "always", "always": "always"}


class ShellAsker:
    """The Asker of this kernel's sessions. ``live`` is the running turn's stream to pages with the extension. ``cleared`` is
    called when the cell's outputs were cleared, so that a view shows its turn again."""

    def __init__(self, shell: Any) -> None:
        self.shell = shell
        self.live: LiveTurn | None = None
        self.cleared: Callable[[], None] = lambda: None

    def __call__(self, ask: ToolAsk) -> Decision:
        way = self.way()
        if way == "page" and self.live is not None:
            return Decision(verdict(self.live.ask(ask)), ask.digest)
        if way == "buttons":
            return Decision(ask_with_buttons(ask), ask.digest)
        said = self._ask_with_input(ask) if way == "input" else None
        return nobody(ask) if said is None else Decision(said, ask.digest)

    def way(self) -> Way:
        """How a person can be asked right now."""
        kernel = getattr(self.shell, "kernel", None)
        if kernel is None:
            return "input" if _at_a_terminal() else "nobody"
        parent = self.shell.get_parent() or {}
        if not (parent.get("content") or {}).get("allow_stdin", False):
            return "nobody"  # e.g. nbconvert, where buttons would wait for ever
        if self.live is not None and self.live.watched:
            return "page"
        return "buttons" if (parent.get("metadata") or {}).get("cellId") and _has_widgets() else "input"

    def _ask_with_input(self, ask: ToolAsk) -> Verdict | None:
        try:
            return ask_with_input(ask)
        finally:
            question = question_text(ask)
            if getattr(self.shell, "kernel", None) is not None and masked_text(question) != question:
                self.shell.display_pub.clear_output(wait=True)  # when the next output comes
                self.cleared()


def ask_with_buttons(ask: ToolAsk) -> Verdict:
    """Show the question with three buttons and wait for one of them."""
    import ipywidgets as widgets
    from IPython.display import display

    clicked = threading.Event()
    answers: list[str] = []

    def button(text: str, answer: Verdict, style: str = "") -> Any:
        made = widgets.Button(description=text, button_style=style)

        def on_click(_: Any) -> None:
            answers.append(answer)
            clicked.set()

        made.on_click(on_click)
        _listen_while_busy(made)
        return made

    yes, no = button("Approve", "approve", "success"), button("Deny", "deny", "danger")
    buttons = [yes, no, button("Always for this turn", "always")]
    question, row = widgets.HTML(question_html(ask)), widgets.HBox(buttons)
    box = widgets.VBox([question, row])
    view = {"version_major": 2, "version_minor": 0, "model_id": box.model_id}
    # the widget's own bundle would save the question unmasked
    shown = display({"text/plain": masked_text(question_text(ask)), _WIDGET_VIEW: view}, raw=True, display_id=True)
    try:
        while not clicked.wait(_WAIT):
            pass
    finally:
        question.value = ""  # JupyterLab may save the state of widgets with the notebook
        for widget in (box, row, question, *buttons):
            _close(widget)
        if shown is not None:
            shown.update({"text/plain": ""}, raw=True)
    return verdict(answers[0])


def _close(widget: Any) -> None:
    """Close a widget with its style and layout."""
    for part in (getattr(widget, "style", None), getattr(widget, "layout", None), widget):
        if part is not None:
            part.close()


def ask_with_input(ask: ToolAsk) -> Verdict | None:
    """Ask on the input line; None if there is no input line, or it is at its end."""
    prompt = f"{question_text(ask)}\nRun it? [y]es, [N]o, [a]lways for this turn: "
    try:
        return verdict(_WORDS.get(input(prompt).strip().lower(), "deny"))
    except (EOFError, NotImplementedError):  # ipykernel's StdinNotImplementedError is one
        return None


def question_text(ask: ToolAsk) -> str:
    """The question as text: exactly what would run, and the reason for asking."""
    reason = f" ({printable(ask.reason)})" if ask.reason else ""
    return f"The model wants to run{reason}:\n\n{ask.shown}\n"


def question_html(ask: ToolAsk) -> str:
    """The question as HTML, with everything escaped."""
    from html import escape

    reason = f" <i>({escape(printable(ask.reason))})</i>" if ask.reason else ""
    return f"The model wants to run{reason}:<pre>{escape(ask.shown)}</pre>"


def verdict(said: str) -> Verdict:
    """Read a decision; anything but a clear yes is a no."""
    return "approve" if said == "approve" else "always" if said == "always" else "deny"


def _listen_while_busy(widget: Any) -> None:
    """Let clicks through while the cell runs: ipykernel 7.4 sends them to the busy shell, which last used the comm."""
    if hasattr(getattr(widget, "comm", None), "_reply_subshell_for"):
        widget.comm._reply_subshell_for = None


def _has_widgets() -> bool:
    return find_spec("ipywidgets") is not None


def _at_a_terminal() -> bool:
    return sys.stdin is not None and sys.stdin.isatty()
