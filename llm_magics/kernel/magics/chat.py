"""One ``%%chat`` cell: from its options and text to a turn that is drawn, recorded and returned as a Reply."""

from __future__ import annotations

import json
import sys
import uuid
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llm_magics.errors import ContextFullError, OptionError
from llm_magics.events import Event
from llm_magics.kernel.cells.context import select, written
from llm_magics.kernel.interrupts import Interrupts
from llm_magics.kernel.options.braces import fill
from llm_magics.kernel.options.line import Filled
from llm_magics.kernel.options.specs import ChatOptions
from llm_magics.kernel.page.request import parent_header, parent_metadata
from llm_magics.kernel.rules import Rules
from llm_magics.kernel.runtime import Resident, Runtime, Thread
from llm_magics.messages import FinishReason
from llm_magics.models.base import PromptPart, Sampling
from llm_magics.options import configured
from llm_magics.transcript import Transcript

if TYPE_CHECKING:
    from llm_magics.kernel.page.notebook import NotebookView
    from llm_magics.session.history import Turn
    from llm_magics.session.session import Reply, Session
    from llm_magics.views.text.terminal import TerminalView

    from .sidebyside import Samples


def chat(runtime: Runtime, options: ChatOptions, body: str) -> Reply | list[Reply] | None:
    """Run the cell; return its Reply (several with ``--samples``), or None after a preview. A faulty cell sends nothing."""
    asked = prepare(runtime, options, fill(body, runtime.shell.user_ns))
    if options.preview:
        request = asked.session.request(asked.text, replaces=asked.replaced, **asked.overrides)
        show_preview(runtime, asked.resident.model.preview(request), asked.resident.model.context_size)
        return None
    runtime.enter(asked.thread, asked.resident.model)
    turn = _Turn(uuid.uuid4().hex[:12], asked.session, _settings(asked))
    if options.samples > 1:
        return _chat_samples(runtime, asked, turn)
    events = asked.session.turn(asked.text, turn=turn.id, replaces=asked.replaced, **asked.overrides)
    _enter(runtime, asked, turn)
    view = None if options.quiet else make_view(runtime, options, turn.id, asked.cell)
    asked.thread.shows(turn.id, view)
    with keeping(runtime, options, asked.session, [turn.id], lambda: turn.reply), runtime.using(asked.resident):
        try:
            _drive(turn, events, view)
        except ContextFullError as error:
            raise _with_ways_out(error, bool(asked.session.history), bool(asked.overrides["tools"])) from error
    return turn.reply


@contextmanager
def keeping(
    runtime: Runtime, options: ChatOptions, session: Session, turns: Iterable[str], came: Callable[[], object]
) -> Iterator[None]:
    """Put the reply into the cell's variable, whatever ends the turns. The turns of a quiet cell are not saved."""
    try:
        yield
    finally:
        if options.variable and (value := came()) is not None:
            runtime.shell.user_ns[options.variable] = value
        if options.quiet:
            session.schemas.release(turns)


def _with_ways_out(error: ContextFullError, talked_before: bool, tools: bool) -> ContextFullError:
    """The same error with advice that fits what the prompt holds besides the cell."""
    shorter = f"Shorten the cell, show it less with --context{', offer fewer tools with --tools' if tools else ''}"
    if talked_before:
        advice = (
            "The cell did not join the conversation. Start again with %thread reset, ask outside it with --no-history, or in a "
            "new --thread NAME, or load the model with a larger --ctx, or with --context-shift to drop the oldest turns. "
            f"Or: {shorter[0].lower()}{shorter[1:]}."
        )
    else:
        advice = f"{shorter}, or load the model with a larger --ctx."
    return ContextFullError(error.what, advice, n_prompt=error.n_prompt, n_ctx=error.n_ctx)


@dataclass(frozen=True)
class Asked:
    """A cell's question, ready to be sent: to which model, in which conversation, with which settings."""

    options: ChatOptions
    text: str
    cell: str
    resident: Resident
    thread: Thread
    session: Session
    replaced: str | None
    overrides: dict[str, Any]


def prepare(runtime: Runtime, options: ChatOptions, text: str) -> Asked:
    """Read a cell whose text is filled. Every error of the cell is raised here, before anything is sent or changed."""
    if options.variable and not options.variable.isidentifier():
        raise OptionError(f"{options.variable!r} is not a valid variable name.", "%%chat? shows how it is used.")
    text = text.strip()
    if not text:
        raise OptionError("The cell has no question.", "Write it after %%chat, or on the lines below.")
    resident = runtime.find_model(options.model)
    cell = str(parent_metadata(runtime.shell).get("cellId") or "")
    rules = runtime.rules
    rules.check_model(resident.names)
    rules.check_server(resident.server)
    text = _with_context(runtime, options, text, cell, resident)
    if options.system is not None:
        options = replace(options, system=_system(options.system))
    overrides = _overrides(runtime, options, rules)
    thread = runtime.thread(options.thread, resident.model)
    overrides = rules.for_turn(overrides, thread.session.settings)
    overrides = runtime.defaults.for_turn(overrides, thread.session.settings, rules)
    session, replaced = thread.session, None if options.no_history else thread.turn_of(cell, runtime.execution)
    if options.no_history:
        session = session.fork(f"{thread.name}/aside", turns=(), model=resident.model)
    elif options.preview:
        session = session.fork(thread.name, turns=session.turns, model=resident.model)
    session.settings.override(**overrides).json_schema  # noqa: B018 (raises for a schema that cannot be used)
    return Asked(options, text, cell, resident, thread, session, replaced, overrides)


def _enter(runtime: Runtime, asked: Asked, turn: _Turn, samples: Samples | None = None) -> None:
    runtime.made_aside(asked.cell, [turn.id] if asked.options.no_history else [], asked.session)
    if not asked.options.no_history:
        asked.session.configure(system=_system_of(asked))
        if "system" in turn.settings and not asked.options.quiet:
            asked.thread.systems[turn.id] = turn.settings["system"]
        asked.thread.leave(asked.session.parted(asked.replaced)[1][1:])
        asked.thread.made(asked.cell, turn.id, runtime.execution)
        asked.thread.samples = samples
        runtime.latest_thread = asked.thread.name


def _chat_samples(runtime: Runtime, asked: Asked, turn: _Turn) -> list[Reply]:
    """Ask the same question several times; the first answer joins the conversation."""
    from llm_magics.session.map import row_seed, seed_of

    from .sidebyside import Answer, Samples, columns_view

    settings = asked.session.settings.override(**asked.overrides)
    first = seed_of(asked.resident.model, settings)
    before, _ = asked.session.parted(asked.replaced)
    answers = []
    for at in range(asked.options.samples):
        seed = row_seed(first, at) if at else first  # the first answer is the one without --samples
        session = asked.session.fork(f"{asked.thread.name}/{at + 1}", turns=before) if at else asked.session
        overrides = {**asked.overrides, "seed": seed}
        answers.append(Answer(f"{at + 1} · seed {seed}", session, turn.id, overrides, asked.replaced, turn.settings))
    samples = Samples(asked.session, answers, None if asked.options.quiet else columns_view(runtime, asked.options, asked.cell))
    _enter(runtime, asked, turn, samples)
    asked.thread.shows(turn.id, samples.view)
    with keeping(runtime, asked.options, asked.session, [turn.id], lambda: samples.replies), runtime.using(asked.resident):
        return samples.run(asked.text)


@dataclass(frozen=True)
class _Turn:
    """The turn of one cell: its id in the session, and what the cell records beside the session's record."""

    id: str
    session: Session
    settings: Mapping[str, Any]

    @property
    def reply(self) -> Reply | None:
        return self.session.reply_to(self.id)

    @property
    def kept(self) -> Turn | None:
        """The session's turn; None before it has begun."""
        return self.session.find(self.id)

    @property
    def saved(self) -> Transcript:
        return replace(self.kept.trace if self.kept else Transcript(), turn=self.id, settings=self.settings)


def _drive(turn: _Turn, events: Generator[Event, None, None], view: NotebookView | TerminalView | None) -> None:
    """Pull the turn's events and draw them. Whatever ends the turn, the session is valid and the last drawing is complete."""
    reason: FinishReason = "error"
    kept: Turn | None = None
    with Interrupts() as interrupts, ExitStack() as at_end:
        if view is not None:
            at_end.callback(lambda: view.close(turn.saved, reason))
        at_end.enter_context(closing(events))
        try:
            while True:
                with interrupts.allowed():
                    event = next(events, None)
                if event is None:
                    break
                kept = kept or turn.kept
                if view is not None and kept is not None:
                    view.handle(kept.trace, event)
                interrupts.check()
        except KeyboardInterrupt:
            reason = "interrupted"
            raise


def _settings(asked: Asked) -> dict[str, Any]:
    """The cell's part of the record; ``after`` is the turn before this one, for ``%thread restore``. Only the first turn with
    a system prompt records it, but every turn records a masked one, so that no turn keeps its hash."""
    from llm_magics.views.secrets.secrets import masked_data

    before, _ = asked.session.parted(asked.replaced)
    said = "" if asked.options.no_history else asked.thread.system_at(before)
    return {
        "cell": asked.cell,
        "after": before[-1].id if before else "",
        "aside": asked.options.no_history,
        **({} if _system_of(asked) == said == masked_data(said) else {"system": _system_of(asked)}),
        "options": _given(asked.options),
    }


def _system_of(asked: Asked) -> str:
    return asked.session.settings.system if asked.options.system is None else asked.options.system


def show_preview(runtime: Runtime, parts: Sequence[PromptPart], context_size: int) -> None:
    from llm_magics.views.preview import preview_bundle

    runtime.shell.display_pub.publish(preview_bundle([(p.origin, p.text, p.token_ids) for p in parts], context_size))


def make_view(runtime: Runtime, options: ChatOptions, turn: str, cell: str) -> NotebookView | TerminalView:
    if getattr(runtime.shell, "kernel", None) is None:
        from llm_magics.views.text.terminal import TerminalView

        return TerminalView(reasoning=options.show_reasoning)
    from llm_magics.kernel.page.live import LiveTurn
    from llm_magics.kernel.page.notebook import NotebookView
    from llm_magics.kernel.page.widgets import ShellAsker

    link = runtime.link if cell else None
    session = str(parent_header(runtime.shell).get("session", ""))
    live = LiveTurn(link, turn, cell, options.show_reasoning, session) if link is not None else None
    updates = bool(cell) or "google.colab" in sys.modules
    view = NotebookView(runtime.shell.display_pub.publish, reasoning=options.show_reasoning, live=live, updates=updates)
    if isinstance(runtime.asker, ShellAsker):
        runtime.asker.live, runtime.asker.cleared = live, view.forget
    return view


def _with_context(runtime: Runtime, options: ChatOptions, text: str, cell: str, resident: Resident) -> str:
    if not options.context or options.context == ("none",):
        return text
    runs = select(options.context, runtime.cells.runs, runtime.cells.page_cells(cell) if cell else None, cell)
    half = resident.model.context_size * 3 // 2  # in characters, about half of the context
    context = written(runs, min(16_000, half) if half else 16_000)
    return f"{context}\n\n{text}" if context else text


def _overrides(runtime: Runtime, options: ChatOptions, rules: Rules) -> dict[str, Any]:
    from llm_magics.tools.builtin.selection import select
    from llm_magics.tools.define.registry import registered

    given = configured(options)
    sampling = {f.name: value for f in fields(Sampling) if (value := getattr(options, f.name, None)) is not None}
    given |= {"sampling": Sampling(**sampling)} if sampling else {}
    given |= {"response_schema": _schema(options.schema, runtime.shell.user_ns)} if options.schema else {}
    tools = rules.tools_for(select(registered, options.tools), named=options.tools is not None)
    return {**given, "tools": tools, "record": options.record or rules.record}


def _schema(given: str, namespace: Mapping[str, Any]) -> Any:
    """A variable (a pydantic model, a type, a schema) or JSON. A filled-in value is always JSON."""
    named = not isinstance(given, Filled)
    if named and given in namespace:
        return namespace[given]
    try:
        schema = json.loads(given)
    except ValueError:
        schema = None
    if not isinstance(schema, dict):
        raise OptionError(
            f"--schema {given}: this is not a JSON schema" + (", nor a variable." if named else "."),
            "Give the name of a pydantic model, a type or a schema without braces, or a JSON schema in single quotes.",
        )
    return schema


def _system(given: str) -> str:
    """The text, or the text of the file that was typed as ``@FILE``; a filled-in value that begins with "@" is text."""
    if not given.startswith("@") or (isinstance(given, Filled) and not given.n_typed):
        return str(given)
    try:
        return Path(given[1:]).expanduser().read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise OptionError(f"The system prompt {given[1:]} cannot be read: {error}.", "Check the path after the @.") from error


def _given(options: ChatOptions) -> dict[str, Any]:
    return {f.name: value for f in fields(options) if (value := getattr(options, f.name)) != f.default}
