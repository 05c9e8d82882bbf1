"""The kernel's side of the JupyterLab extension: it streams turns to pages by deltas, also while a cell is busy.

*Out*: ``comm_msg`` messages on the IOPub channel under the fixed comm id ``llm_magics``, which nobody opens. Front ends without
the extension ignore them. A page with it hears them even if it did not start the cell, so a reloaded page and a second tab are
served alike. *In*: the control channel, which ipykernel reads on a thread of its own, also while a cell runs. That thread only
notes a message; the main thread acts on it.

The kernel announces each turn with ``begin``. Once a page says ``hello`` for the turn, deltas replace display updates. Messages
are numbered: a page that missed one says ``hello`` again and gets a snapshot. A page that has just opened says ``hello`` for
the turn ``*``: whichever runs. The final bundle of a turn is kept, and sent to new pages, until a page says ``saved``.

A ``question`` shows a person exactly what a call would run. The transcript, which pages save, holds the masked form. Pages that
come while a question is open get it too. A decision names the question and its digest; only the first one counts.

Messages out, each ``{"kind": ..., ...}``::

    here                                                   the kernel has llm_magics now; pages answer with hello
    begin     turn, cell, session                          a turn starts in that cell, which the page of that session ran
    snapshot  turn, cell, session, n, transcript           everything so far, as :func:`running_json` writes it
    delta     turn, cell, session, n, ops                  what changed since message n - 1
    question  turn, cell, id, at, digest, shown, reason    segment "at" waits for a decision
    answered  turn, cell, id                               that question is closed
    finished  turn, cell, session, bundle                  a turn that ended, for a page that may have missed it
    ask       id, what, ...                                "cells", answered by reply; "rules", answered by settings
    models    models, gpus                                 the loaded models, for the status bar

Operations of a delta, in order::

    ["+", i, field, text]     append text to that field of segment i
    ["=", i, {...}]           set these fields of segment i; add it if i is the number of segments
    ["head", {...}]           set these fields of the transcript itself

Messages in (control messages of type ``llm_magics``): ``hello`` (turn), ``saved`` (turn), ``decision`` (id, digest, decision),
``reply`` (id, data) and ``settings`` (turn ``*``, settings), which a page sends on ``here`` and whenever its settings change.
"""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any

from llm_magics.events import ToolAsk
from llm_magics.segments import Segment, ToolSegment, listed, segment_to_json
from llm_magics.transcript import Transcript
from llm_magics.views.html import ShowReasoning

from .busy import Busy
from .pagerules import PageRules, Pages

COMM_ID = "llm_magics"
CONTROL_TYPE = "llm_magics"

_KEPT = 32  # finished turns
_WAIT = 0.1  # seconds between two looks for an answer; the main thread takes interrupts in between
_PATIENCE = 2.0  # seconds in which even a busy page answers
_APPENDED = ("text", "arguments", "printed")


class Link:
    """The link of one kernel to all pages with the extension, made by :func:`link_of`. ``heard``: whether any page has ever
    sent a message. ``answered`` is called on the control thread for each page's message."""

    def __init__(self, kernel: Any, answered: Callable[[], None] = lambda: None) -> None:
        self._kernel = kernel
        self._answered = answered
        self.heard = False
        self._pages = Pages()
        self._changed = threading.Condition()
        self._running: set[str] = set()
        self._hellos: set[str] = set()
        self._finished: dict[str, Mapping[str, Any]] = {}
        self._standing: dict[str, Mapping[str, Any]] = {}  # kind -> the last message of that kind, for pages that come later
        self._questions: dict[str, str] = {}  # open question -> the digest that a decision must name
        self._answers: dict[str, Any] = {}  # open question -> its answer
        kernel.control_handlers[CONTROL_TYPE] = self._take
        self.send("here")

    def send(self, kind: str, **data: Any) -> None:
        content = {"comm_id": COMM_ID, "data": {"kind": kind, **data}}
        self._kernel.session.send(self._kernel.iopub_socket, "comm_msg", content, ident=b"comm-" + COMM_ID.encode())

    def tell(self, kind: str, **data: Any) -> None:
        """Send a message to every page, and to every page that comes later, until the next message of that kind."""
        with self._changed:
            self._standing[kind] = data
        self.send(kind, **data)

    def rules(self, session: str, request: str) -> PageRules:
        """The rules of the page that sent this request, asked once for each request. The kernel waits for a page that does not
        answer once, and not again until the page sends a message."""
        with self._changed:
            page = self._pages.of(session)
            if page.asked_for != request:
                page.asked_for, expected, page.answers = request, page.answers, False
                self.send("ask", id=uuid.uuid4().hex, what="rules", session=session)
                self._changed.wait_for(lambda: page.settled, _PATIENCE if expected else 0.0)
            return self._pages.rules(session, self.heard)

    def begin(self, turn: str, cell: str, session: str) -> None:
        with self._changed:
            self._running.add(turn)
        self.send("begin", turn=turn, cell=cell, session=session)

    def finish(self, turn: str, **finished: Any) -> None:
        """Keep a turn's final message until a page has saved it; only the newest turns are kept."""
        with self._changed:
            self._running.discard(turn)
            self._hellos.discard(turn)
            self._finished[turn] = finished
            while len(self._finished) > _KEPT:
                del self._finished[next(iter(self._finished))]

    def renew(self, turn: str, bundle: Mapping[str, Any]) -> None:
        """Replace the final bundle of a turn, if no page has saved it yet."""
        with self._changed:
            if turn in self._finished:
                self._finished[turn] = {**self._finished[turn], "bundle": bundle}

    def hello(self, turn: str) -> bool:
        """Whether a page asked for this turn since the last call."""
        with self._changed:
            asked = turn in self._hellos
            self._hellos.discard(turn)
            return asked

    def wait_for_hello(self, turn: str, timeout: float) -> None:
        """Wait until a page asks for this turn; :meth:`hello` still reports it."""
        with self._changed:
            self._changed.wait_for(lambda: turn in self._hellos, timeout)

    def ask(self, what: str, timeout: float = 2.0, **data: Any) -> Any:
        """Ask the pages a question and wait for a reply; None if none came in time."""
        question = self.open_question()
        try:
            self.send("ask", id=question, what=what, **data)
            return self.answer(question, timeout)
        finally:
            self.close_question(question)

    def open_question(self, digest: str = "") -> str:
        """Begin to take answers, or decisions if there is a digest; return the question's new id."""
        question = uuid.uuid4().hex
        with self._changed:
            self._questions[question] = digest
        return question

    def answer(self, question: str, timeout: float) -> Any:
        """Wait for the answer: a reply, or a decision ("approve", "deny", "always"); None if none came in time."""
        with self._changed:
            self._changed.wait_for(lambda: question in self._answers, timeout)
            return self._answers.get(question)

    def close_question(self, question: str) -> None:
        with self._changed:
            self._questions.pop(question, None)
            self._answers.pop(question, None)

    def _receive(self, message: Mapping[str, Any]) -> None:
        """Note a page's message, on the control thread. Malformed messages and unexpected answers are ignored."""
        content = message["content"]
        kind, key = content.get("kind"), content.get("turn") or content.get("id")
        if not isinstance(key, str):
            return
        missed: dict[str, Mapping[str, Any]] = {}
        standing: dict[str, Mapping[str, Any]] = {}
        with self._changed:
            self.heard = True
            settings = content.get("settings") if kind == "settings" else None
            self._pages.spoke(str(message.get("header", {}).get("session", "")), settings)
            if kind == "hello" and key == "*":
                self._hellos |= self._running
                missed, standing = dict(self._finished), dict(self._standing)
            elif kind == "hello" and key in self._running:
                self._hellos.add(key)
            elif kind == "saved":
                self._finished.pop(key, None)
            elif kind == "decision" and self._questions.get(key) and content.get("digest") == self._questions[key]:
                self._answers.setdefault(key, str(content.get("decision")))  # the first one counts
            elif kind == "reply" and self._questions.get(key) == "":
                self._answers[key] = content.get("data")
            self._changed.notify_all()
        for turn, finished in missed.items():
            self.send("finished", turn=turn, **finished)
        for told, data in standing.items():
            self.send(told, **data)

    def _take(self, stream: Any, ident: Any, message: Mapping[str, Any]) -> None:
        """Handle a control message; ipykernel says "busy" before it and "idle" after it."""
        try:
            self._receive(message)
        finally:
            self._answered()


_LINK_ATTRIBUTE = "_llm_magics_link"


def link_of(kernel: Any) -> Link | None:
    """The link of this kernel, made on first use; None if it is not ipykernel (a terminal, another kernel)."""
    if not isinstance(getattr(kernel, "control_handlers", None), dict) or not hasattr(kernel, "iopub_socket"):
        return None
    link: Link | None = kernel.__dict__.get(_LINK_ATTRIBUTE)
    if link is None:
        answered = Busy(kernel).answered if hasattr(kernel, "shell") else lambda: None
        link = kernel.__dict__[_LINK_ATTRIBUTE] = Link(kernel, answered)
    return link


class LiveTurn:
    """Streams one turn to the pages that asked for it. ``session`` is the session of the page that ran the cell."""

    def __init__(self, link: Link, turn: str, cell: str, reasoning: ShowReasoning = "fold", session: str = "") -> None:
        self._link, self._turn, self._cell, self._reasoning, self._session = link, turn, cell, reasoning, session
        self._sent: Transcript | None = None
        self._number = 0
        link.begin(turn, cell, session)

    @property
    def watched(self) -> bool:
        """Whether a page with the extension follows this turn."""
        return self._sent is not None

    def meet(self, timeout: float = 1.0) -> None:
        """Wait for a page to say hello, if none has yet."""
        if not self.watched:
            self._link.wait_for_hello(self._turn, timeout)

    def update(self, transcript: Transcript) -> bool:
        """Send the changes since the last call; False if no page has asked for this turn."""
        if self._link.hello(self._turn):
            self._snapshot(transcript)
        elif self._sent is None:
            return False
        elif ops := changes(self._sent, transcript):
            self._number += 1
            self._send("delta", ops=ops)
        self._sent = transcript
        return True

    def ask(self, ask: ToolAsk) -> str:
        """Send a question to the pages, also to those that come while it is open, and wait for the first decision."""
        question = self._link.open_question(ask.digest)
        shown = {"id": question, "at": self._place(ask), "digest": ask.digest, "shown": ask.shown, "reason": ask.reason}
        self._send("question", **shown)
        try:
            while (said := self._link.answer(question, _WAIT)) is None:
                if self._sent is not None and self._link.hello(self._turn):
                    self._snapshot(self._sent)
                    self._send("question", **shown)
            return str(said)
        finally:
            self._link.close_question(question)
            self._send("answered", id=question)

    def finish(self, bundle: Mapping[str, Any]) -> None:
        """End the stream, with the MIME bundle of the turn's last display."""
        self._sent = None
        self._link.finish(self._turn, cell=self._cell, session=self._session, bundle=bundle)

    def renew(self, bundle: Mapping[str, Any]) -> None:
        self._link.renew(self._turn, bundle)

    def _place(self, ask: ToolAsk) -> int:
        """The number of the segment that ``ask`` is about: the latest call with its index."""
        segments = self._sent.segments if self._sent is not None else ()
        return max((at for at, s in enumerate(segments) if isinstance(s, ToolSegment) and s.index == ask.index), default=-1)

    def _snapshot(self, transcript: Transcript) -> None:
        self._number += 1
        self._send("snapshot", transcript=running_json(transcript, self._reasoning))

    def _send(self, kind: str, **data: Any) -> None:
        self._link.send(kind, turn=self._turn, cell=self._cell, session=self._session, n=self._number, **data)


def running_json(transcript: Transcript, reasoning: ShowReasoning) -> dict[str, Any]:
    """A running turn as pages read it: without its record, and with ``show_reasoning`` if it is not "fold"."""
    data = transcript.to_json(record=False)
    return data if reasoning == "fold" else {**data, "settings": {"options": {"show_reasoning": reasoning}}}


def changes(old: Transcript, new: Transcript) -> list[list[Any]]:
    """The operations that turn ``old`` into ``new``, except for records; segments that are the same object cost nothing."""
    ops: list[list[Any]] = []
    for at, segment in enumerate(new.segments):
        if at >= len(old.segments) or type(segment) is not type(old.segments[at]):
            ops.append(["=", at, listed(segment_to_json(segment))])
        elif segment is not old.segments[at]:
            ops += _segment_changes(at, old.segments[at], segment)
    head = _head_changes(old, new)
    return [*ops, ["head", head]] if head else ops


def _segment_changes(at: int, old: Segment, new: Segment) -> list[list[Any]]:
    ops: list[list[Any]] = []
    changed = [f.name for f in fields(new) if getattr(old, f.name) != getattr(new, f.name)]
    for name in [name for name in changed if name in _APPENDED]:
        before, after = getattr(old, name), getattr(new, name)
        if after.startswith(before):
            ops.append(["+", at, name, after[len(before) :]])
            changed.remove(name)
    if changed:
        encoded = listed(segment_to_json(new))
        ops.append(["=", at, {name: encoded[name] for name in changed}])
    return ops


def _head_changes(old: Transcript, new: Transcript) -> dict[str, Any]:
    names = [n for n in ("state", "progress", "usage", "seconds") if getattr(old, n) != getattr(new, n)]
    if not names:
        return {}
    bare = Transcript(state=new.state, progress=new.progress, usage=new.usage, seconds=new.seconds).to_json(record=False)
    return {name: bare[name] for name in names}


def notebook_cells(link: Link, beside: str = "", timeout: float = 2.0) -> list[Mapping[str, Any]] | None:
    """Every cell of the notebook that holds the cell ``beside``, also those never run; None if no page replies. Each has
    ``id``, ``type``, ``source``, ``tags`` and ``tool`` (its metadata under ``llm_magics.tool``, or None)."""
    cells = link.ask("cells", timeout, cell=beside)
    return [cell for cell in cells if isinstance(cell, Mapping)] if isinstance(cells, list) else None
