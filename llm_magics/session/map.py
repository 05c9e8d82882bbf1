"""One question for many rows: a list, a Series or a DataFrame in, as many answers out, in the same order.

Every row is a turn of its own :class:`~llm_magics.session.session.Session`, so it may use a schema or tools. One row runs per
slot of the model, and as many again wait in the model's queue. Their priority is lower than a cell's, so a cell goes first. A
row's seed depends on the map's seed and the row's place alone, so its answer does not depend on the rows beside it, up to
rounding in larger batches (``load_model(..., deterministic=True)`` rules that out too).

A row that fails does not end the others. An interrupt keeps the finished rows: the next call with the same prompts and
settings continues from there.
"""

from __future__ import annotations

import hashlib
import random
import threading
import warnings
import weakref
from collections.abc import Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field, replace
from queue import SimpleQueue
from typing import Any, overload

from llm_magics.errors import LLMMagicsError, OptionError
from llm_magics.events import Usage
from llm_magics.messages import FinishReason, Message
from llm_magics.models.base import Model
from llm_magics.plural import counted
from llm_magics.store.progress import front_end_bar

from .rows import Rows, read_rows
from .session import Reply, Session
from .settings import TurnSettings

PRIORITY = 10  # a cell's is 0, and smaller goes first


@dataclass(frozen=True, slots=True)
class Row:
    """The outcome of one row. ``value`` is the text, or the text read by the schema; None if there is an ``error``."""

    label: Any
    prompt: str = ""
    value: Any = None
    error: Exception | None = None
    text: str = ""
    finish_reason: FinishReason = "stop"
    messages: tuple[Message, ...] = ()
    usage: Usage = field(default_factory=Usage)
    seed: int = 0


class MapResult(Sequence[Any]):
    """The values of a map, in the order of its rows; None for a row that failed or did not run.

    ``rows`` holds each row's outcome, None for a row that did not run. The rows' seeds are derived from ``seed``.
    """

    def __init__(self, source: Rows, settings: TurnSettings, seed: int) -> None:
        self.source = source
        self.settings = settings
        self.seed = seed
        self.rows: list[Row | None] = [None] * len(source.prompts)

    @property
    def values(self) -> list[Any]:
        return [None if row is None else row.value for row in self.rows]

    @property
    def errors(self) -> dict[Any, Exception]:
        """The errors of failed rows, by label: the row's number, or its pandas label (of equal labels the last row's error)."""
        return {row.label: row.error for row in self.rows if row is not None and row.error is not None}

    @property
    def pending(self) -> list[int]:
        """The numbers of the rows that did not run, from 0."""
        return [at for at, row in enumerate(self.rows) if row is None]

    @property
    def usage(self) -> Usage:
        """All rows' tokens and seconds. Rows run side by side, so the seconds exceed the time that passed."""
        return sum((row.usage for row in self.rows if row is not None), Usage())

    def __len__(self) -> int:
        return len(self.rows)

    @overload
    def __getitem__(self, at: int) -> Any: ...
    @overload
    def __getitem__(self, at: slice) -> list[Any]: ...
    def __getitem__(self, at: int | slice) -> Any:
        return self.values[at]

    def __repr__(self) -> str:
        missing = [f"{n} {what}" for n, what in ((self._n_failed, "failed"), (len(self.pending), "did not run")) if n]
        return f"<map of {', '.join([counted(len(self), 'row'), *missing])}>"

    @property
    def _n_failed(self) -> int:
        return sum(row is not None and row.error is not None for row in self.rows)

    def keep(self, earlier: MapResult) -> None:
        """Take over the successful rows of an earlier run; raises OptionError if its prompts or settings differ."""
        if not self.is_like(earlier):
            raise OptionError("The result to resume has other prompts or settings.", "Leave resume out to start again.")
        self.rows = [None if row is None or row.error is not None else row for row in earlier.rows]

    def is_like(self, other: MapResult) -> bool:
        """Whether prompts and settings are the same, and the seed too if one was given."""
        mine, theirs = ([p for p in one.source.prompts if isinstance(p, str)] for one in (self, other))
        given = self.settings.sampling.seed in (None, other.seed)
        return given and mine == theirs and _compared(self.settings) == _compared(other.settings)


def map_prompts(
    model: Model,
    prompts: Any,
    *,
    template: str | None = None,
    schema: Any = None,
    resume: MapResult | bool = True,
    concurrency: int | None = None,
    progress: bool = True,
    **settings: Any,
) -> Any:
    """Ask the model one question per row; ``model.map(...)`` is the same.

    Args:
        prompts: a Series, a DataFrame (with a template), or an iterable of texts or mappings.
        template: the question, with the row's fields in braces, e.g. ``"Sort this letter: {}"``; see ``session/rows.py``.
        schema: the schema of each answer: a JSON schema, or a type or model that pydantic understands.
        resume: a result to continue: rows that failed or did not run are asked again. True continues the last map of this
            model if that was interrupted and had the same prompts and settings; False starts again.
        concurrency: most rows in progress at once. The default is twice the model's slots, or one if a tool is not
            thread-safe, because that tool runs in the calling thread.
        progress: show a bar.
        settings: fields of :class:`~llm_magics.session.settings.TurnSettings`, e.g. ``system, tools, max_tokens, seed``.

    Returns a MapResult; for pandas, a Series with the same index. Its ``errors`` say why rows are None; copies of the Series
    keep the errors' texts as ``attrs["errors"]``.

    Raises:
        OptionError, SchemaError: before any row is asked. An exception of one row becomes that row's ``error``.
        KeyboardInterrupt: with the MapResult so far as its ``partial``.
    """
    asked = TurnSettings(priority=PRIORITY).override(response_schema=schema, **settings)
    asked.json_schema  # noqa: B018 (raise for an invalid schema before anything runs)
    result = MapResult(read_rows(prompts, template), asked, seed_of(model, asked))
    _take_over(model, result, resume)
    _note_interrupted(model, None)
    try:
        _Run(model, result, concurrency, progress).go()
    except KeyboardInterrupt as interrupt:
        _note_interrupted(model, result)
        interrupt.partial = result  # type: ignore[attr-defined]  # a documented attribute of our own
        raise
    _warn_of_errors(result)
    return result if result.source.index is None else _series(result)


_interrupted: dict[int, tuple[weakref.ref[Model], MapResult]] = {}  # by id: a Model need not be hashable


def _note_interrupted(model: Model, result: MapResult | None) -> None:
    """Keep a model's interrupted map as long as the model lives; None forgets it."""
    key = id(model)
    _interrupted.pop(key, None)
    if result is not None:
        with suppress(TypeError):  # a Model that cannot be weakly referenced: its user has the interrupt's ``partial``
            _interrupted[key] = weakref.ref(model, lambda _: _interrupted.pop(key, None)), result


def _take_over(model: Model, result: MapResult, resume: MapResult | bool) -> None:
    earlier = _interrupted.get(id(model), (None, None))[1] if resume is True else resume
    if isinstance(earlier, MapResult) and (resume is not True or result.is_like(earlier)):
        result.keep(earlier)
        result.seed = earlier.seed


class _Run:
    """One map in progress. Workers write each row into the result as soon as it is done."""

    def __init__(self, model: Model, result: MapResult, concurrency: int | None, progress: bool) -> None:
        self.model = model
        self.result = result
        self.todo = result.pending
        self.width = min(_width(model, result.settings, concurrency), len(self.todo))
        self.progress = progress
        self._next = iter(self.todo)
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._done: SimpleQueue[int | BaseException] = SimpleQueue()

    def go(self) -> None:
        """Ask every pending row, in this thread or in several."""
        total = len(self.result)
        with front_end_bar()(total=total, initial=total - len(self.todo), unit="row", disable=not self.progress) as bar:
            for at in self._in_this_thread() if self.width <= 1 else self._in_threads():
                bar.update()
                row = self.result.rows[at]
                if row is not None and row.error is not None:
                    bar.set_postfix(failed=self.result._n_failed)

    def _in_this_thread(self) -> Iterator[int]:
        for at in self.todo:
            self.result.rows[at] = self._answer(at, "map")
            yield at

    def _in_threads(self) -> Iterator[int]:
        try:
            for number in range(self.width):
                threading.Thread(target=self._work, args=(f"map/{number}",), daemon=True, name="llm-magics-map").start()
            for _ in self.todo:
                at = self._done.get()
                if isinstance(at, BaseException):
                    raise at
                yield at
        finally:
            self._stop.set()  # workers stop at their model's next event

    def _work(self, thread: str) -> None:
        while not self._stop.is_set():
            with self._lock:
                at = next(self._next, None)
            if at is None:
                return
            try:
                row = self._answer(at, thread)
            except (KeyboardInterrupt, SystemExit) as end:  # raised again in the thread that waits for the map
                self._done.put(end)
                return
            if row is not None:
                self.result.rows[at] = row
                self._done.put(at)

    def _answer(self, at: int, thread: str) -> Row | None:
        """Ask one row; None if the map was stopped meanwhile."""
        source, settings = self.result.source, self.result.settings
        label, prompt = source.labels[at], source.prompts[at]
        if isinstance(prompt, LLMMagicsError):
            return Row(label, error=prompt)
        seed = row_seed(self.result.seed, at)
        session = Session(self.model, thread=thread if settings.tools else "")  # one step needs no cache of its own
        session.settings = settings.override(seed=seed)
        try:
            with closing(session.turn(prompt)) as events:
                for _ in events:
                    if self._stop.is_set():
                        return None
            reply = session.reply
            assert reply is not None
            return _row(label, prompt, reply, seed)
        except Exception as error:
            return Row(label, prompt, error=error, seed=seed)


def _row(label: Any, prompt: str, reply: Reply, seed: int) -> Row:
    done = Row(label, prompt, None, None, reply.text, reply.finish_reason, reply.messages, reply.usage, seed)
    if reply.finish_reason not in ("stop", "length"):
        notices = [getattr(segment, "text", "") for segment in reply.trace.segments if hasattr(segment, "level")]
        what = notices[-1] if notices else f"The row ended without an answer: {reply.finish_reason}."
        return replace(done, error=LLMMagicsError(what))
    try:
        return replace(done, value=reply.text if reply.response_schema is None else reply.value)
    except LLMMagicsError as error:
        return replace(done, error=error)


def row_seed(seed: int, row: int) -> int:
    """The seed of one row: 32 bits of a hash of the map's seed and the row's place."""
    return int.from_bytes(hashlib.blake2b(f"{seed} {row}".encode(), digest_size=4).digest(), "big")


def seed_of(model: Model, settings: TurnSettings) -> int:
    """The given seed, else the model's own, else a new one."""
    own = getattr(getattr(model, "sampling", None), "seed", None)
    given = settings.sampling.seed if settings.sampling.seed is not None else own
    return random.SystemRandom().getrandbits(32) if given is None else int(given)


def _width(model: Model, settings: TurnSettings, concurrency: int | None) -> int:
    if concurrency is not None:
        if concurrency < 1:
            raise OptionError(f"concurrency is {concurrency}.", "Give a whole number of at least 1.")
        return concurrency
    slots = int(getattr(model, "parallel", 1))
    own_thread = all(tool.options.thread_safe for tool in settings.tools)
    return 2 * slots if slots > 1 and own_thread else 1


def _compared(settings: TurnSettings) -> Any:
    """What must be equal for a map to be resumed: tools and schemas are compared by what the model sees of them."""
    sampling = replace(settings.sampling, seed=None)
    plain = replace(settings, tools=(), tool_choice="auto", response_schema=None, sampling=sampling)
    return plain, settings.tool_choice, settings.json_schema, [tool.spec for tool in settings.tools]


def _warn_of_errors(result: MapResult) -> None:
    if result.errors:
        label, error = next(iter(result.errors.items()))
        where = "attrs['errors']" if result.source.index is not None else ".errors"
        warnings.warn(f"{result._n_failed} of {len(result)} rows failed, e.g. {label!r}: {error} See {where}.", stacklevel=4)


def _series(result: MapResult) -> Any:
    import pandas

    made = pandas.Series(result.values, index=result.source.index, name=result.source.name, dtype=object)
    series = made if result.errors else made.infer_objects()  # a failed row stays None
    series.attrs["errors"] = {label: str(error) for label, error in result.errors.items()}
    object.__setattr__(series, "errors", result.errors)  # like MapResult.errors; copies of the Series keep only attrs
    return series
