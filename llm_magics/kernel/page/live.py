"""The kernel's side of the JupyterLab extension: a link that works while a cell is busy, and streaming by deltas over it.

Theory of operation. *Out*: kernel-wide messages, ``comm_msg`` on the IOPub channel under the fixed comm id ``llm_magics`` that
nobody opens. A front end without the extension ignores them; one with it hears them whether or not it started the cell, so a
reloaded page and a second tab are served alike. *In*: the control channel, which ipykernel reads on a thread of its own, so a
message is taken while the main thread runs a cell; what arrives is only noted, and the main thread looks at it when it likes.

Nothing is assumed about who listens. Each turn is announced (``begin``); an extension that is there says ``hello`` for that
turn, and only then is the turn streamed by deltas instead of display updates. A page that missed a message (they are numbered)
says ``hello`` again and is sent everything so far; one that has just been opened says ``hello`` for the turn ``*``, whichever
runs. A turn that ended while no page was there would be lost with the page: its final bundle is kept until a page says
``saved``, and is sent to pages that come before that. What is loaded is told again to each page that comes.

A call that waits for a person is asked about by a message of its own, ``question``, which holds what would run as it is. The
transcript, which pages save, holds the masked form. A page that comes while the question is open is sent it too; a decision
counts for the question and the digest that it names, once.

Messages out, each ``{"kind": ..., ...}``::

    here                                                   the kernel has llm_magics now; pages answer with hello
    begin     turn, cell, session                          a turn starts in that cell, which the page of that session ran
    snapshot  turn, cell, session, n, transcript           everything so far, as :func:`running_json` writes it
    delta     turn, cell, session, n, ops                  what changed since message n - 1
    question  turn, cell, id, at, digest, shown, reason    segment "at" waits for a decision; never part of the transcript
    answered  turn, cell, id                               that question is closed
    finished  turn, cell, session, bundle                  a turn that ended, for a page that may have missed it
    ask       id, what, ...                                "cells", answered by ``reply``; "rules" with the session of the
                                                           page that is meant, answered by ``settings``
    models    models                                       what is loaded, for the status bar

Operations of a delta, in order::

    ["+", i, field, text]     append text to that field of segment i
    ["=", i, {...}]           set these fields of segment i, which is new where i is the number of segments
    ["head", {...}]           set these fields of the transcript itself

Messages in (content of a control message of type ``llm_magics``): ``hello`` (turn), ``saved`` (turn), ``decision`` (id, digest,
decision), ``reply`` (id, data) and ``settings`` (turn ``*``, settings), which a page sends when it hears ``here``
and whenever they change.
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

_KEPT = 32
_WAIT = 0.1  # seconds; between two looks the main thread takes interrupts
_PATIENCE = 2.0  # seconds in which a page that is there answers, also a busy one
_APPENDED = ("text", "arguments", "printed")


class Link:
    """The link of one kernel to whatever pages have the extension. Make it with :func:`link_of`.

    ``heard`` says whether a page has ever said anything; until then it is not worth while to ask one. ``answered`` is called on
    the control thread for each message that a page sends.
    """

    def __init__(self, kernel: Any, answered: Callable[[], None] = lambda: None) -> None:
        self._kernel = kernel
        self._answered = answered
        self.heard = False
        self._pages = Pages()
        self._changed = threading.Condition()
        self._running: set[str] = set()
        self._hellos: set[str] = set()
        self._finished: dict[str, Mapping[str, Any]] = {}
        self._standing: dict[str, Mapping[str, Any]] = {}  # what was told last, by kind, and holds for pages that come later
        self._questions: dict[str, str] = {}  # open ones, with the digest that a decision must name
        self._answers: dict[str, Any] = {}  # to them
        kernel.control_handlers[CONTROL_TYPE] = self._take
        self.send("here")

    def send(self, kind: str, **data: Any) -> None:
        """Tell every page; nobody need be listening."""
        content = {"comm_id": COMM_ID, "data": {"kind": kind, **data}}
        self._kernel.session.send(self._kernel.iopub_socket, "comm_msg", content, ident=b"comm-" + COMM_ID.encode())

    def tell(self, kind: str, **data: Any) -> None:
        """Tell every page, and every page that comes later, until something else of that kind is told."""
        with self._changed:
            self._standing[kind] = data
        self.send(kind, **data)

    def rules(self, session: str, request: str) -> PageRules:
        """What the user of the page that sent this request set; the page is asked once for each request.

        A page that answers does so at once. One that does not is waited for once, and then not until it says something again.
        """
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
        """Keep what a turn came to until a page has saved it; the oldest give way when there are many."""
        with self._changed:
            self._running.discard(turn)
            self._hellos.discard(turn)
            self._finished[turn] = finished
            while len(self._finished) > _KEPT:
                del self._finished[next(iter(self._finished))]

    def renew(self, turn: str, bundle: Mapping[str, Any]) -> None:
        """Take what a turn that is over has become, if no page has saved it yet."""
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
        """Wait until a page asks for this turn; its hello stays to be taken by :meth:`hello`."""
        with self._changed:
            self._changed.wait_for(lambda: turn in self._hellos, timeout)

    def ask(self, what: str, timeout: float = 2.0, **data: Any) -> Any:
        """Ask the page a question and wait for its reply, while the cell is busy; None where nobody replied in time."""
        question = self.open_question()
        try:
            self.send("ask", id=question, what=what, **data)
            return self.answer(question, timeout)
        finally:
            self.close_question(question)

    def open_question(self, digest: str = "") -> str:
        """Take an answer from now on, for what has a digest a decision; gives the question's id, which is new each time."""
        question = uuid.uuid4().hex
        with self._changed:
            self._questions[question] = digest
        return question

    def answer(self, question: str, timeout: float) -> Any:
        """Wait a little for the answer: a reply, or what a person decided ("approve", "deny", "always")."""
        with self._changed:
            self._changed.wait_for(lambda: question in self._answers, timeout)
            return self._answers.get(question)

    def close_question(self, question: str) -> None:
        """Take no more answers to it."""
        with self._changed:
            self._questions.pop(question, None)
            self._answers.pop(question, None)

    def _receive(self, message: Mapping[str, Any]) -> None:
        """Note what a page said; runs on ipykernel's control thread. What is malformed or unasked for is ignored."""
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
        """Handle a control message of ours; ipykernel says "busy" before it and "idle" after it."""
        try:
            self._receive(message)
        finally:
            self._answered()


_LINK_ATTRIBUTE = "_llm_magics_link"


def link_of(kernel: Any) -> Link | None:
    """The link of this kernel, made on first use; None where there is no ipykernel (a terminal, another kernel)."""
    if not isinstance(getattr(kernel, "control_handlers", None), dict) or not hasattr(kernel, "iopub_socket"):
        return None
    link: Link | None = kernel.__dict__.get(_LINK_ATTRIBUTE)
    if link is None:
        answered = Busy(kernel).answered if hasattr(kernel, "shell") else lambda: None
        link = kernel.__dict__[_LINK_ATTRIBUTE] = Link(kernel, answered)
    return link


class LiveTurn:
    """Streams one turn to the pages that asked for it. ``session`` is that of the page that ran the cell."""

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
        """Give a page that has just heard of the turn the time to say hello; for moments when it matters who is there."""
        if not self.watched:
            self._link.wait_for_hello(self._turn, timeout)

    def update(self, transcript: Transcript) -> bool:
        """Send what changed since the last call; False where no page has asked for this turn."""
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
        """Put a question before the pages, also those that come while it is open, and wait for the first decision."""
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
        """Call once when the turn is over for any reason, with the MIME bundle of its last display."""
        self._sent = None
        self._link.finish(self._turn, cell=self._cell, session=self._session, bundle=bundle)

    def renew(self, bundle: Mapping[str, Any]) -> None:
        """Call when something was added to the last display of a turn that is over."""
        self._link.renew(self._turn, bundle)

    def _place(self, ask: ToolAsk) -> int:
        """The number of the segment that is asked about: the latest call with its index."""
        segments = self._sent.segments if self._sent is not None else ()
        return max((at for at, s in enumerate(segments) if isinstance(s, ToolSegment) and s.index == ask.index), default=-1)

    def _snapshot(self, transcript: Transcript) -> None:
        self._number += 1
        self._send("snapshot", transcript=running_json(transcript, self._reasoning))

    def _send(self, kind: str, **data: Any) -> None:
        self._link.send(kind, turn=self._turn, cell=self._cell, session=self._session, n=self._number, **data)


def running_json(transcript: Transcript, reasoning: ShowReasoning) -> dict[str, Any]:
    """A turn on its way, as pages read it: without its record, but with what the cell asked for where that is not the usual."""
    data = transcript.to_json(record=False)
    return data if reasoning == "fold" else {**data, "settings": {"options": {"show_reasoning": reasoning}}}


def changes(old: Transcript, new: Transcript) -> list[list[Any]]:
    """The operations that make ``new`` of ``old``, records aside; segments that are the same object cost nothing."""
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


# --- what the page can do for the kernel ------------------------------------------------------------------------------------


def notebook_cells(link: Link, beside: str = "", timeout: float = 2.0) -> list[Mapping[str, Any]] | None:
    """Every cell of the notebook that holds the cell ``beside``, also those never run; None where no page replies.

    Each has ``id``, ``type``, ``source``, ``tags`` and ``tool`` (its metadata under ``llm_magics.tool``, or None).
    """
    cells = link.ask("cells", timeout, cell=beside)
    return [cell for cell in cells if isinstance(cell, Mapping)] if isinstance(cells, list) else None
