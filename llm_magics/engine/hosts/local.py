"""The engine in this process. One thread owns the context and takes sequences from an inbox; each sequence's events come back
through its own channel."""

from __future__ import annotations

import itertools
import os
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import replace
from queue import Empty, SimpleQueue
from typing import Literal

from llm_magics.engine.fit.gguf_check import check_cache
from llm_magics.engine.guess.speculation import Speculation
from llm_magics.engine.native.constraint import ConstraintEngine
from llm_magics.engine.native.context import Context, buffer_sizes
from llm_magics.engine.native.library import lib
from llm_magics.engine.native.llama import give_memory_back
from llm_magics.engine.native.model import Model, Progress
from llm_magics.engine.run.parking import Parking
from llm_magics.engine.run.scheduler import Scheduler
from llm_magics.engine.run.sequence import Channel, Sequence
from llm_magics.engine.values import EngineConfig, EngineEvent, EngineInfo, Finished, GenerateRequest
from llm_magics.errors import ContextFullError, EngineError, OptionError
from llm_magics.files import cache_dir

from .interpreter import Held, held, hurry, relax

Tell = Callable[[], None]
MAX_WAITING = 4096  # requests that may wait for a slot
_WAIT = 0.2 if sys.platform == "win32" else None  # seconds; on Windows, Ctrl-C does not interrupt a longer wait


class _Core:
    """The engine's thread and all that it uses. Has no reference to the LocalEngine, which can be collected meanwhile."""

    def __init__(
        self, model: Model, context: Context, speculation: Speculation, parking: Parking, scheduler: Scheduler, tell: Tell
    ) -> None:
        self.model, self.context, self.speculation = model, context, speculation
        self.parking, self.scheduler, self.tell = parking, scheduler, tell
        self.inbox: SimpleQueue[Sequence | Literal["wake", "close"]] = SimpleQueue()
        self.closing = threading.Event()
        self.pid = os.getpid()
        self.thread = threading.Thread(target=self._run, name="llm-magics-engine", daemon=True)

    def _run(self) -> None:
        hurry()
        fault: Exception = EngineError("The engine's thread ended unexpectedly.", "Load the model again.")
        try:
            self._serve()
        except Exception as error:
            fault = error
        finally:
            relax()
            self.closing.set()
            self.scheduler.end_all(fault)  # after a fault, no consumer may wait for ever; otherwise none is left
            self._refuse_late_comers()
            self.tell()
            self.parking.close()
            for part in (self.context, self.speculation, self.model):
                part.free()
            give_memory_back()

    def _serve(self) -> None:
        busy = False
        while True:
            if not busy or not self.inbox.empty():
                for command in self._commands(wait=not busy):
                    if command == "close":
                        self.scheduler.end_all()
                        return
                    if isinstance(command, Sequence):
                        self.scheduler.add(command)
            busy = self.scheduler.step()

    def _commands(self, *, wait: bool) -> Iterator[Sequence | str]:
        """The commands in the inbox; with ``wait``, at least one."""
        if wait:
            self.tell()
            relax()
            command = self.inbox.get()
            hurry()
            yield command
        with suppress(Empty):
            while True:
                yield self.inbox.get_nowait()

    def take(self, sequence: Sequence) -> None:
        """Run a sequence. Any thread may call this."""
        self.inbox.put(sequence)
        self.scheduler.interrupt(sequence.request.priority)
        if not self.thread.is_alive():
            self._refuse_late_comers()

    def cancel(self, channel: Channel) -> None:
        """End the channel's sequence as "interrupted". Any thread may call this."""
        if not channel.cancelled:
            channel.cancelled = True
            self.scheduler.interrupt()
            self.inbox.put("wake")

    def caught_up(self, channel: Channel) -> None:
        """Note that the channel's consumer has taken events."""
        if channel.caught_up():
            self.inbox.put("wake")

    def _refuse_late_comers(self) -> None:
        while not self.inbox.empty():
            command = self.inbox.get_nowait()
            if isinstance(command, Sequence):
                command.fail(_closed())

    def shut_down(self) -> None:
        """End all sequences and free everything; wait for that, except in the engine's own thread. Does nothing in a forked
        child, where the parent owns the thread, and before the thread is started."""
        if os.getpid() != self.pid or self.thread.ident is None:
            return
        self.closing.set()
        self.inbox.put("close")
        self.scheduler.interrupt()
        if threading.current_thread() is not self.thread:
            self.thread.join()


class LocalGeneration:
    """One running request; see :class:`~llm_magics.engine.values.Generation`. Dropping it cancels the request."""

    def __init__(self, core: _Core, sequence: Sequence) -> None:
        self._core = core
        self._channel = sequence.channel
        self._over = False

    def __iter__(self) -> Iterator[EngineEvent]:
        return self

    def __next__(self) -> EngineEvent:
        item: EngineEvent | Exception | None = None
        while item is None and not self._over:
            with suppress(Empty):
                item = self._channel.queue.get(timeout=_WAIT)
        if item is None:
            raise StopIteration
        self._core.caught_up(self._channel)
        self._over = self._over or isinstance(item, Exception | Finished)
        if isinstance(item, Exception):
            raise item
        return item

    def cancel(self) -> None:
        """Ask for the end: iteration continues to a Finished with reason "interrupted". Any thread may call this."""
        self._core.cancel(self._channel)

    def close(self) -> None:
        """Stop within one token; nothing more is yielded."""
        if not self._over:
            self._over = True
            self.cancel()

    def __del__(self) -> None:
        if not getattr(self, "_over", True):  # an interrupt came before the caller's closing(): the request must not run on
            self.close()


class LocalEngine:
    """One model loaded in this process; see :class:`~llm_magics.engine.values.Engine`. Use :func:`open_engine`. ``tell`` is
    called when its sequences have said something, once per evaluation."""

    def __init__(self, config: EngineConfig, progress: Progress | None = None, tell: Tell = lambda: None) -> None:
        _check(config)
        config = _settled(config)
        self._finalizer: Callable[[], object] = lambda: None
        try:
            with held() as interrupts, ExitStack() as owned:
                self.core, self._info = _open(config, progress, interrupts, owned, tell)
                self._constraints = ConstraintEngine(self.core.model)
                self._device_sampling = config.device_sampling
                self._finalizer = weakref.finalize(self, self.core.shut_down)  # also at the interpreter's exit
                self.core.thread.start()
                owned.pop_all()  # the thread owns the parts now, and frees them when it ends
        except BaseException:
            self.close()
            raise

    @property
    def info(self) -> EngineInfo:
        return self._info

    def tokenize(self, text: str, *, special: bool) -> tuple[int, ...]:
        self._check_open()
        return self.core.model.tokenize(text, special=special)

    def pieces(self, tokens: Iterable[int]) -> list[bytes]:
        self._check_open()
        return list(map(self.core.model.piece, tokens))

    def admit(self, request: GenerateRequest, channel: Channel | None = None) -> Sequence:
        """Check a request; ``core.take`` then runs it. Raises ContextFullError, OptionError or EngineError."""
        self._check_open()
        _check_request(request, self._info)
        if self.core.scheduler.n_waiting + self.core.inbox.qsize() >= MAX_WAITING:
            raise EngineError(f"{MAX_WAITING} requests are already waiting.", "Ask again when some are done.")
        n_ctx, on_device = self._info.n_ctx, self._device_sampling
        return Sequence(request, self.core.model, self._constraints, n_ctx, on_device, channel)

    def submit(self, request: GenerateRequest) -> LocalGeneration:
        """Queue a request. Raises ContextFullError, OptionError or EngineError before anything is evaluated."""
        sequence = self.admit(request)
        generation = LocalGeneration(self.core, sequence)
        self.core.take(sequence)
        return generation

    def close(self) -> None:
        """End all requests as "interrupted", then free everything. Harmless when called twice."""
        self._finalizer()

    def __enter__(self) -> LocalEngine:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _check_open(self) -> None:
        if os.getpid() != self.core.pid:
            raise EngineError("This model was loaded before the process forked.", "Load it in the new process.")
        if self.core.closing.is_set():
            raise _closed()


def _open(
    config: EngineConfig, progress: Progress | None, interrupts: Held, owned: ExitStack, tell: Tell
) -> tuple[_Core, EngineInfo]:
    """Load all parts. Each is ``owned`` at once; interrupts wait for that."""

    def loading(fraction: float) -> bool | None:
        interrupts.check()
        return progress(fraction) if progress is not None else None

    started = time.perf_counter()
    parking = Parking(config.park_memory, config.park_disk, config.park_directory or str(cache_dir() / "parked"))
    owned.callback(parking.close)
    model = Model(config, loading)
    owned.callback(model.free)
    _check_model(config, model)
    interrupts.check()
    context = Context(model, config)
    owned.callback(context.free)
    interrupts.check()
    speculation = Speculation.open(config, model, context, interrupts.check)
    owned.callback(speculation.free)
    interrupts.check()
    n_ctx = min(config.n_ctx or context.n_ctx, context.n_ctx)
    scheduler = Scheduler(
        model, context, n_slots=config.n_slots, n_ctx=n_ctx, reuse=not config.deterministic,
        speculation=speculation, parking=parking, device_sampling=config.device_sampling, tell=tell,
    )  # fmt: skip
    info = _describe(config, model, context, speculation, n_ctx, time.perf_counter() - started)
    return _Core(model, context, speculation, parking, scheduler, tell), info


def _closed() -> EngineError:
    return EngineError("This model was closed.", "Load it again.")


def _check(config: EngineConfig) -> None:
    """Refuse sizes that llama.cpp would silently change or abort on, and options that exclude each other."""
    for names, least, wanted in (
        (("n_batch", "n_ubatch", "n_slots", "n_threads"), 1, "at least 1"),
        (("park_memory", "park_disk"), 0, "0 (park nothing there) or more bytes"),
        (("n_ctx",), 0, "0 (the model's own) or more"),
    ):
        for name in names:
            if (value := getattr(config, name)) is not None and value < least:
                raise OptionError(f"{name} is {value}, but must be {wanted}.")
    check_cache(config.kv_type, config.flash_attention)
    guesses = config.speculation == "lookup" or config.draft
    if config.deterministic and config.n_slots > 1:
        raise OptionError("A deterministic engine runs one sequence at a time.", "Leave n_slots at 1.")
    if config.device_sampling and guesses:
        raise OptionError("Speculation needs the logits on the host, so it excludes device sampling.", "Leave one of them off.")
    if config.deterministic and guesses:
        raise OptionError("A deterministic engine cannot speculate: batches would differ in shape.", "Leave speculation off.")


def _settled(config: EngineConfig) -> EngineConfig:
    """Turn speculation "auto" into "off" where prompt lookup was not measured to help, or is excluded."""
    elsewhere = config.n_gpu_layers != 0 or config.deterministic or config.device_sampling
    return replace(config, speculation="off") if config.speculation == "auto" and elsewhere else config


def _check_model(config: EngineConfig, model: Model) -> None:
    if not model.cuttable and (config.speculation == "lookup" or config.draft):
        raise OptionError(
            f"{os.path.basename(config.path)} cannot be speculated on: its memory cannot take back a wrong guess.",
            'Load it with speculation "auto" or "off", and without a draft model.',
        )


def _check_request(request: GenerateRequest, info: EngineInfo) -> None:
    prompt = request.prompt
    if not prompt:
        raise EngineError("The prompt is empty.", "Give at least one token.")
    if min(prompt) < 0 or max(prompt) >= info.n_vocab:
        raise EngineError(f"The prompt has a token id outside 0 to {info.n_vocab - 1}.", "Tokenise it with this engine.")
    _check_droppable(request, info)
    least = len(prompt) - sum(end - start for start, end in request.droppable)
    if least > info.n_ctx:
        without = ", even without its droppable turns" if request.droppable else ""
        what = f"The prompt has {least} tokens{without}, but the context holds {info.n_ctx}."
        more = "Shorten the conversation, or load the model with a larger context."
        raise ContextFullError(what, more, n_prompt=least, n_ctx=info.n_ctx)
    if request.max_tokens is not None and request.max_tokens < 0:
        raise OptionError(f"max_tokens is {request.max_tokens}, but cannot be negative.")


def _check_droppable(request: GenerateRequest, info: EngineInfo) -> None:
    """Refuse ranges that are out of order or reach the end of the prompt, and any range if the memory cannot shift."""
    if not request.droppable:
        return
    if not info.can_shift:
        raise OptionError(f"The memory of {info.description} cannot forget a part of the prompt.", "Drop nothing.")
    edges = [edge for span in request.droppable for edge in span]
    if edges != sorted(edges) or edges[0] < 0 or edges[-1] >= len(request.prompt):
        raise OptionError("The droppable ranges are out of order, or reach the end of the prompt.")
    if any(a[1] != b[0] for a, b in itertools.pairwise(request.droppable)):
        raise OptionError("The droppable ranges have gaps.", "Give one stretch of the prompt, cut where turns end.")


def _describe(
    config: EngineConfig, model: Model, context: Context, speculation: Speculation, n_ctx: int, seconds: float
) -> EngineInfo:
    metadata = model.metadata()
    values = dict(metadata)
    draft = speculation.draft
    buffers = buffer_sizes([*model.log, *context.log, *(draft.log if draft is not None else [])])
    every = model.n_layers + 1  # with the output layer
    bos, eos = (model.piece(token).decode("utf-8", "replace") if token >= 0 else "" for token in (model.bos, model.eos))
    return EngineInfo(
        path=config.path, architecture=values.get("general.architecture", ""), description=model.description(),
        n_params=model.n_params, size=int(lib.llama_model_size(model.pointer)), n_vocab=model.n_vocab,
        n_ctx=n_ctx, n_ctx_train=int(lib.llama_model_n_ctx_train(model.pointer)), n_slots=config.n_slots,
        n_layers=model.n_layers, n_gpu_layers=min(config.n_gpu_layers, every) if config.n_gpu_layers >= 0 else every,
        chat_template=values.get("tokenizer.chat_template", ""), metadata=metadata,
        bos=model.bos, eos=model.eos, eog=model.eog, adds_bos=model.adds_bos, bos_text=bos, eos_text=eos,
        control_tokens=model.control_tokens, can_shift=context.can_shift and model.cuttable, recurrent=model.recurrent,
        devices=tuple(dict.fromkeys(device for device, _, _ in buffers if "_" not in device)),  # e.g. not CPU_Mapped
        buffers=buffers, load_seconds=seconds, draft=draft.description if draft is not None else "",
        pid=os.getpid(),
    )  # fmt: skip
