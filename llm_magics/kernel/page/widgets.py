"""Asking a person whether a call may run, while the cell is busy.

Three ways, the first that can work: the page with our extension draws the buttons itself and its decision comes over the link;
ipywidgets buttons; ``input()``. Where none can, as under nbconvert, nobody can be asked and the answer is no.

Each way shows exactly what would run, and leaves no secret behind: outputs are saved, and what looks like a secret is masked in
them. So the widgets are emptied and closed; and a prompt, which JupyterLab keeps as an output, is cleared away with the cell's
outputs if there was something to mask in it.

A button's callback runs on a subshell thread beside the cell, where touching much corrupts much (matplotlib, for one): it sets
an Event and nothing else. The main thread waits in short pieces, so that an interrupt ends the wait.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Any, Literal

from llm_magics.events import ToolAsk
from llm_magics.tools.policy import Decision, Verdict, nobody
from llm_magics.views.markup.markdown import printable
from llm_magics.views.secrets.secrets import masked_text

from .live import LiveTurn

Way = Literal["page", "buttons", "input", "nobody"]
_WAIT = 0.1
_WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"
_WORDS: Mapping[str, Verdict] = {"y": "approve", "yes": "approve", "a": "always", "always": "always"}


class ShellAsker:
    """Asks through whatever front end the shell has. An Asker for sessions of this kernel.

    ``live`` is the turn's stream to pages with our extension, for as long as one runs. ``cleared`` is called when the cell's
    outputs were cleared, so that a view shows its turn again.
    """

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
        """How somebody can be asked right now."""
        kernel = getattr(self.shell, "kernel", None)
        if kernel is None:
            return "input" if _at_a_terminal() else "nobody"
        parent = self.shell.get_parent() or {}
        if not (parent.get("content") or {}).get("allow_stdin", False):
            return "nobody"  # a run without anybody in front of it, e.g. nbconvert: buttons would wait for ever
        if self.live is not None and self.live.watched:
            return "page"
        return "buttons" if (parent.get("metadata") or {}).get("cellId") and _has_widgets() else "input"

    def _ask_with_input(self, ask: ToolAsk) -> Verdict | None:
        try:
            return ask_with_input(ask)
        finally:
            question = question_text(ask)
            if getattr(self.shell, "kernel", None) is not None and masked_text(question) != question:
                self.shell.display_pub.clear_output(wait=True)  # with the next output, which is to come
                self.cleared()


def ask_with_buttons(ask: ToolAsk) -> Verdict:
    """Show the question with three buttons and wait for one of them."""
    import ipywidgets as widgets
    from IPython.display import display

    clicked = threading.Event()
    answers: list[str] = []

    def button(text: str, answer: Verdict, style: str) -> Any:
        made = widgets.Button(description=text, button_style=style)

        def on_click(_: Any) -> None:
            answers.append(answer)
            clicked.set()

        made.on_click(on_click)
        _listen_while_busy(made)
        return made

    buttons = [
        button("Approve", "approve", "success"),
        button("Deny", "deny", "danger"),
        button("Always for this turn", "always", ""),
    ]
    question = widgets.HTML(question_html(ask))
    row = widgets.HBox(buttons)
    box = widgets.VBox([question, row])
    view = {"version_major": 2, "version_minor": 0, "model_id": box.model_id}
    # not the widget's own bundle: its text would spell the question out in the saved output
    text = masked_text(question_text(ask))
    shown = display({"text/plain": text, _WIDGET_VIEW: view}, raw=True, display_id=True)
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
    """Close a widget of ours, and what belongs to it; the user's own stay open."""
    for part in (getattr(widget, "style", None), getattr(widget, "layout", None), widget):
        if part is not None:
            part.close()


def ask_with_input(ask: ToolAsk) -> Verdict | None:
    """Ask on the input line; None if there is none, or it is at its end."""
    prompt = f"{question_text(ask)}\nRun it? [y]es, [N]o, [a]lways for this turn: "
    try:
        return verdict(_WORDS.get(input(prompt).strip().lower(), "deny"))
    except (EOFError, NotImplementedError):  # ipykernel's StdinNotImplementedError is one
        return None


def question_text(ask: ToolAsk) -> str:
    """The question in words: exactly what would run, and why it is asked."""
    reason = f" ({printable(ask.reason)})" if ask.reason else ""
    return f"The model wants to run{reason}:\n\n{ask.shown}\n"


def question_html(ask: ToolAsk) -> str:
    """The same as HTML that can do nothing, whatever the model wrote."""
    from html import escape

    reason = f" <i>({escape(printable(ask.reason))})</i>" if ask.reason else ""
    return f"The model wants to run{reason}:<pre>{escape(ask.shown)}</pre>"


def verdict(said: str) -> Verdict:
    """Read a decision; whatever is not a clear yes is a no."""
    if said == "approve":
        return "approve"
    return "always" if said == "always" else "deny"


def _listen_while_busy(widget: Any) -> None:
    """Let clicks through while the cell runs: ipykernel 7.4 sends them to the shell that last used the comm, the busy one."""
    if hasattr(getattr(widget, "comm", None), "_reply_subshell_for"):
        widget.comm._reply_subshell_for = None


def _has_widgets() -> bool:
    from importlib.util import find_spec

    return find_spec("ipywidgets") is not None


def _at_a_terminal() -> bool:
    import sys

    return sys.stdin is not None and sys.stdin.isatty()
