"""The state of this kernel: its models and conversations by name, and the current one of each."""

from __future__ import annotations

import atexit
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from llm_magics.errors import Action, NoModelError, OptionError
from llm_magics.kernel.cells.book import CellBook
from llm_magics.kernel.page.request import parent_header, parent_metadata
from llm_magics.models.base import Model
from llm_magics.models.remote.address import Address
from llm_magics.options import near
from llm_magics.store.catalog import default_model
from llm_magics.tools.policy import Asker, Decision, nobody

from .rules import Rules, configured, defaults

if TYPE_CHECKING:
    from llm_magics.events import ToolAsk
    from llm_magics.kernel.page.live import Link
    from llm_magics.kernel.page.pagerules import PageRules
    from llm_magics.session.history import Turn
    from llm_magics.session.session import Session

LEFT = "This answer is no longer part of the conversation: an earlier cell was run again. Run this cell again, too."


@dataclass
class Resident:
    """A loaded model, unloaded ``ttl`` seconds after its last use (None: never). Rules match its ``names``."""

    name: str
    model: Model
    ttl: float | None = None
    names: tuple[str, ...] = ()
    uses: int = 0
    last_used: float = field(default_factory=time.monotonic)

    @property
    def server(self) -> tuple[str, ...]:
        """What rules may match of the server that the model is on; nothing for a model in this kernel."""
        address = getattr(self.model, "address", None)
        return address.names if isinstance(address, Address) else ()


def names_of_model(model: Model) -> tuple[str, ...]:
    """What rules may match of a model that was made in Python: its name, or on a server its address with it."""
    address, about = getattr(model, "address", None), getattr(model, "about", None)
    return (f"{address.base}/{about.model}",) if isinstance(address, Address) and about is not None else (model.name,)


@runtime_checkable
class Drawn(Protocol):
    """An answer on the page that can still get a remark."""

    def add(self, remark: str) -> None: ...


class Choices(Protocol):
    """Several answers to one turn; the conversation continues with one of them."""

    def pick(self, number: int) -> None:
        """Continue with this answer, counted from 1."""


@dataclass
class Thread:
    """One conversation, and which of its turns each cell made."""

    name: str
    session: Session
    samples: Choices | None = None  # of the newest turn, if it has several answers
    systems: dict[str, str] = field(default_factory=dict)  # turn -> the system prompt in its saved cell
    _drawn: dict[str, Drawn] = field(default_factory=dict)  # turn -> its view
    _made: dict[str, tuple[int, list[str]]] = field(default_factory=dict)  # cell -> its last execution count and turns

    def system_at(self, turns: Iterable[Turn]) -> str:
        """The last system prompt in the saved cells of these turns."""
        return next((self.systems[turn.id] for turn in reversed(tuple(turns)) if turn.id in self.systems), "")

    def turn_of(self, cell: str, execution: int) -> str | None:
        """The turn that a new run of ``cell`` replaces: the first one of its earlier run."""
        before, turns = self._made.get(cell, (execution, []))
        known = {turn.id for turn in self.session.turns}
        return next((turn for turn in turns if turn in known), None) if before != execution else None

    def made(self, cell: str, turn: str, execution: int) -> None:
        """Note that a run of a cell makes a turn; one run may make several."""
        if cell:
            before, turns = self._made.get(cell, (execution, []))
            self._made[cell] = (execution, [*turns, turn] if before == execution else [turn])

    def shows(self, turn: str, view: object) -> None:
        """Note the view of an answer, unless it is a terminal's, which cannot change."""
        if isinstance(view, Drawn):
            self._drawn[turn] = view

    def leave(self, turns: Iterable[Turn]) -> None:
        """Tell in the cells of these turns that they have left the conversation."""
        for turn in turns:
            if (drawn := self._drawn.pop(turn.id, None)) is not None:
                drawn.add(LEFT)


class Runtime:
    """Models and conversations of one kernel. ``close`` frees the models, also when the kernel ends."""

    def __init__(self, shell: Any) -> None:
        self.shell = shell
        self.configured = configured(shell)
        self.defaults = defaults(shell)
        self.cells = CellBook(shell)
        self.residents: dict[str, Resident] = {}
        self.threads: dict[str, Thread] = {}
        self.current_model = ""
        self.current_thread = "main"
        self.latest_thread = "main"  # of the newest turn
        self.asker: Asker = nobody
        self.offer: Action | None = None  # fixes the error of the cell that runs
        self._told: set[str] = set()
        self._aside: dict[str, list[str]] = {}  # cell -> the turns of its last run that are in no conversation
        self.undo: list[Callable[[], None]] = []  # reverts %load_ext
        self._lock = threading.RLock()
        self._timer: threading.Timer | None = None
        atexit.register(_close, weakref.ref(self))

    def add(self, name: str, model: Model, ttl: float | None = None, names: tuple[str, ...] = ()) -> Resident:
        """Add a model and make it current; close an earlier model of that name."""
        with self._lock:
            old = self.residents.pop(name, None)
            resident = self.residents[name] = Resident(name, model, ttl, names or names_of_model(model))
            self.current_model = name
        if old is not None and old.model is not model:
            old.model.close()
        self._watch()
        return resident

    def resident(self, name: str = "") -> Resident:
        """The named or the current model; raises NoModelError."""
        with self._lock:
            if not self.residents:
                raise self._no_model()
            name = name or self.current_model
            if name not in self.residents:
                loaded = ", ".join(self.residents)
                raise NoModelError(f"No model is loaded as {name!r}.", near(name, self.residents) or f"Loaded: {loaded}.")
            return self.residents[name]

    def _no_model(self) -> NoModelError:
        name = self.defaults.model or default_model()
        error = NoModelError("No model is loaded.", f"Load one: %load_model {name} (%models lists names).")
        error.action = Action(f"Load {name}", f"%load_model {name}")
        return error

    def find_model(self, name: str = "") -> Resident:
        """A loaded model, or the model in the user's variable of that name; raises NoModelError."""
        held = self.shell.user_ns.get(name) if name and name not in self.residents else None
        return Resident(name, held, names=names_of_model(held)) if isinstance(held, Model) else self.resident(name)

    def unload(self, name: str = "") -> str:
        """Close the named or the current model; return its name. The last loaded of the others becomes current."""
        with self._lock:
            resident = self.resident(name)
            if resident.uses:
                raise OptionError(f"{resident.name} is in use by a running cell.", "Interrupt that cell first.")
            del self.residents[resident.name]
            if self.current_model == resident.name:
                self.current_model = next(reversed(self.residents), "")
        resident.model.close()
        return resident.name

    @contextmanager
    def using(self, resident: Resident) -> Iterator[Model]:
        """Prevent unloading a model inside the block."""
        with self._lock:
            resident.uses += 1
        try:
            yield resident.model
        finally:
            with self._lock:
                resident.uses -= 1
                resident.last_used = time.monotonic()
            self._watch()

    def unload_idle(self) -> list[str]:
        """Unload the models that have been idle for their ttl; return their names."""
        with self._lock:
            now = time.monotonic()
            idle = [r.name for r in self.residents.values() if r.ttl and not r.uses and now - r.last_used >= r.ttl]
        unloaded = [self.unload(name) for name in idle]
        self._watch()
        return unloaded

    def _watch(self) -> None:
        with self._lock:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
            due = [r.last_used + r.ttl for r in self.residents.values() if r.ttl and not r.uses]
            if due:
                self._timer = threading.Timer(max(min(due) - time.monotonic(), 0.0) + 0.01, self.unload_idle)
                self._timer.daemon = True
                self._timer.start()

    def close(self) -> None:
        with self._lock:
            if self._timer is not None:
                self._timer.cancel()
            residents, self.residents = list(self.residents.values()), {}
            self.threads.clear()
        for resident in residents:
            resident.model.close()

    def thread(self, name: str = "", model: Model | None = None) -> Thread:
        """The named or the current conversation. A new one needs a model, and is kept from :meth:`enter` on."""
        name = name or self.current_thread
        if name in self.threads:
            return self.threads[name]
        from llm_magics.session.session import Session

        session = Session(model or self.resident().model, thread=name, asker=self.ask)
        if self.threads:
            session.schemas = next(iter(self.threads.values())).session.schemas  # the notebook holds each schema once
        return Thread(name, session)

    def enter(self, thread: Thread, model: Model) -> Thread:
        """Keep a conversation, and continue it with this model."""
        self.threads[thread.name] = thread
        thread.session.model = model
        return thread

    def made_aside(self, cell: str, turns: list[str], session: Session) -> None:
        """Note the turns of a run of ``cell`` that are in no conversation; those of its last run leave the notebook."""
        session.schemas.release(self._aside.pop(cell, ()))
        if cell and turns:
            self._aside[cell] = turns

    def ask(self, ask: ToolAsk) -> Decision:
        return self.asker(ask)

    def known_thread(self, name: str = "") -> Thread:
        """The named or the current conversation; raises OptionError if there is none."""
        name = name or self.current_thread
        if name not in self.threads:
            known = ", ".join(self.threads) or "none yet"
            raise OptionError(f"There is no thread {name!r}.", near(name, self.threads) or f"Threads: {known}.")
        return self.threads[name]

    def say(self, text: str) -> None:
        """Show a card below the cell that runs."""
        from llm_magics.views.card import card_bundle

        self.shell.display_pub.publish(card_bundle(text, ()))

    def tell_once(self, what: str) -> None:
        """Show a note below the cell that runs, unless it was shown before."""
        if what not in self._told:
            self._told.add(what)
            from llm_magics.views.card import note_bundle

            self.shell.display_pub.publish(note_bundle(what))

    @property
    def rules(self) -> Rules:
        """The configuration's rules, tightened by the page's settings; raises OptionError. If the page that sent the cell does
        not answer, every call needs approval."""
        said = self.page_rules
        if said is None or said.standing == "none":
            return self.configured
        theirs = Rules.of(said.settings, "JupyterLab's settings of llm_magics")
        held = self.configured.tightened(theirs)
        return held if said.standing == "told" else held.tightened(Rules(approve="ask"))

    @property
    def page_rules(self) -> PageRules | None:
        """The rules of the page that sent the cell; None if no page did."""
        link, header = self.link, parent_header(self.shell)
        if link is None or not parent_metadata(self.shell).get("cellId"):
            return None
        return link.rules(str(header.get("session", "")), str(header.get("msg_id", "")))

    @property
    def link(self) -> Link | None:
        return self.cells.link

    @property
    def execution(self) -> int:
        return int(self.shell.execution_count)


def _close(runtime: weakref.ref[Runtime]) -> None:
    if (alive := runtime()) is not None:
        alive.close()
