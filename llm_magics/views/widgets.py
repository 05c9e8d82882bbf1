"""Asking a person whether a call may run, while the cell is busy.

Three ways, the first that can work: the page with our extension draws the buttons itself and its decision comes over the link;
ipywidgets buttons; ``input()``. Where none can, as under nbconvert, nobody can be asked and the answer is no.

A button's callback runs on a subshell thread beside the cell, where touching much corrupts much (matplotlib, for one): it sets
an Event and nothing else. The main thread waits in short pieces, so that an interrupt ends the wait.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Any, Literal

from ..events import ToolAsk
from ..tools.policy import Decision, Verdict
from .live import Link, link_of

Way = Literal["page", "buttons", "input", "nobody"]
_WAIT = 0.1
_WORDS: Mapping[str, Verdict] = {"y": "approve", "yes": "approve", "a": "always", "always": "always"}


class ShellAsker:
    """Asks through whatever front end the shell has. An Asker for sessions of this kernel.

    Args:
        shell: the InteractiveShell.
        page: whether a page with our extension draws the turn that runs now.
    """

    def __init__(self, shell: Any, page: Callable[[], bool] = lambda: False) -> None:
        self.shell = shell
        self.page = page

    def __call__(self, ask: ToolAsk) -> Decision:
        way = self.way()
        if way == "page" and self._link is not None:
            return Decision(ask_page(self._link, ask), ask.digest)
        if way == "buttons":
            return Decision(ask_with_buttons(ask), ask.digest)
        if way == "input":
            return Decision(ask_with_input(ask), ask.digest)
        return Decision("deny", ask.digest)

    def way(self) -> Way:
        """How somebody can be asked right now."""
        kernel = getattr(self.shell, "kernel", None)
        if kernel is None:
            return "input" if _at_a_terminal() else "nobody"
        parent = self.shell.get_parent() or {}
        if not (parent.get("content") or {}).get("allow_stdin", False):
            return "nobody"  # a run without anybody in front of it, e.g. nbconvert: buttons would wait for ever
        if self._link is not None and self.page():
            return "page"
        return "buttons" if (parent.get("metadata") or {}).get("cellId") and _has_widgets() else "input"

    @property
    def _link(self) -> Link | None:
        return link_of(getattr(self.shell, "kernel", None))


def ask_page(link: Link, ask: ToolAsk) -> Verdict:
    """Wait for the decision of a page that shows the question as part of the turn."""
    link.expect_decision(ask.digest)
    while True:
        said = link.decision(ask.digest, _WAIT)
        if said is not None:
            return verdict(said)


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
    box = widgets.VBox([widgets.HTML(question_html(ask)), widgets.HBox(buttons)])
    shown = display(box, display_id=True)
    try:
        while not clicked.wait(_WAIT):
            pass
    finally:
        box.close_all() if hasattr(box, "close_all") else box.close()
        if shown is not None:
            shown.update({"text/plain": ""}, raw=True)
    return verdict(answers[0])


def ask_with_input(ask: ToolAsk) -> Verdict:
    """Ask on the input line; no input line, or its end, is a no."""
    prompt = f"{question_text(ask)}\nRun it? [y]es, [N]o, [a]lways for this turn: "
    try:
        return verdict(_WORDS.get(input(prompt).strip().lower(), "deny"))
    except (EOFError, NotImplementedError):  # ipykernel's StdinNotImplementedError is one
        return "deny"


def question_text(ask: ToolAsk) -> str:
    """The question in words: exactly what would run, and why it is asked."""
    reason = f" ({ask.reason})" if ask.reason else ""
    return f"The model wants to run{reason}:\n\n{ask.shown}\n"


def question_html(ask: ToolAsk) -> str:
    """The same as HTML that can do nothing, whatever the model wrote."""
    from html import escape

    reason = f" <i>({escape(ask.reason)})</i>" if ask.reason else ""
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
