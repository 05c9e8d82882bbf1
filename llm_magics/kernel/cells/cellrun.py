"""Runs a cell's source inside another cell, on the main thread and through IPython, and captures everything it shows.

A plain ``run_cell`` inside a magic has side effects that a tool must not have: the value lands in ``_`` and ``Out``, tracebacks
appear under the calling cell, KeyboardInterrupt is swallowed, and top-level await finds a running loop. Each of these is
replaced for the run, and always restored.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
import threading
import types
import warnings
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from IPython.core.displaypub import DisplayPublisher
from IPython.core.interactiveshell import InteractiveShell

from llm_magics.tools.results import describe_figure
from llm_magics.tools.run.capture import Sink, surroundings
from llm_magics.tools.run.deadline import ToolTimeout
from llm_magics.tools.run.interrupts import Held

from .context import uncoloured

_HISTORY = ("_", "__", "___", "_exit_code")


@dataclass(slots=True)
class CellRun:
    """The outcome of a run: the last expression's value, the displayed bundles, the error and its traceback as text."""

    value: Any = None
    displayed: list[dict[str, Any]] = field(default_factory=list)
    error: BaseException | None = None
    traceback: str = ""


def run_source(
    shell: InteractiveShell, source: str, parameters: Mapping[str, Any], cell_id: str = "", scratch: bool = False
) -> CellRun:
    """Run ``source`` with ``parameters`` as variables, in the user's namespace or, with ``scratch``, in a shallow copy of it.
    Raises KeyboardInterrupt and ToolTimeout if the run was ended from outside; the CellRun holds any other error."""
    run = CellRun()
    with Held() as held, contextlib.ExitStack() as stack:
        stack.enter_context(_scratch(shell) if scratch else _history_kept(shell))
        stack.enter_context(_kept(shell.user_ns, parameters))
        shell.user_ns.update(parameters)
        stack.enter_context(put(shell, "display_pub", Displayed(run.displayed)))
        stack.enter_context(put(shell, "_showtraceback", _traceback_into(run)))
        stack.enter_context(put(shell, "ask_exit", _exit))
        stack.enter_context(put(shell, "loop_runner", run_beside))
        stack.enter_context(put(shell.display_formatter, "format", _describing(shell.display_formatter)))
        stack.enter_context(_values_into(shell, run, quiet=source.rstrip().endswith(";")))
        stack.enter_context(warnings.catch_warnings())
        warnings.filterwarnings("ignore", message="To exit: use")  # IPython's advice to a person about SystemExit
        with held.open():
            result = shell.run_cell(source, store_history=False, cell_id=cell_id or None)
            _collect_figures(shell)
    run.error = result.error_before_exec or result.error_in_exec
    if isinstance(run.error, (KeyboardInterrupt, ToolTimeout)):
        raise run.error
    return run


@contextlib.contextmanager
def put(owner: Any, name: str, value: Any) -> Iterator[None]:
    """Set an attribute of ``owner`` for a while; afterwards an attribute of its class is visible again."""
    own = name in vars(owner) or owner.has_trait(name)
    before = getattr(owner, name, None)
    setattr(owner, name, value)
    try:
        yield
    finally:
        if own:
            setattr(owner, name, before)
        else:
            delattr(owner, name)


@contextlib.contextmanager
def _kept(namespace: dict[str, Any], names: Iterable[str]) -> Iterator[None]:
    before = {name: namespace[name] for name in names if name in namespace}
    try:
        yield
    finally:
        for name in names:
            namespace.pop(name, None)
        namespace.update(before)


@contextlib.contextmanager
def _history_kept(shell: InteractiveShell) -> Iterator[None]:
    count = shell.execution_count
    try:
        with _kept(shell.user_ns, _HISTORY):
            yield
    finally:
        shell.execution_count = count


@contextlib.contextmanager
def _scratch(shell: InteractiveShell) -> Iterator[None]:
    module, namespace = shell.user_module, shell.user_ns
    copy = types.ModuleType(module.__name__, module.__doc__)
    copy.__dict__.update(namespace)
    shell.user_module, shell.user_ns = copy, copy.__dict__
    try:
        yield
    finally:
        shell.user_module, shell.user_ns = module, namespace


class Displayed(DisplayPublisher):
    """Collects the displayed bundles in a list; an update replaces the bundle with its id."""

    def __init__(self, bundles: list[dict[str, Any]]) -> None:
        super().__init__()
        self._bundles = bundles
        self._ids: dict[str, int] = {}

    def publish(  # type: ignore[override]  # IPython passes deprecated parameters too
        self, data: Any, metadata: Any = None, *, transient: Any = None, update: bool = False, **_: Any
    ) -> None:
        display_id = (transient or {}).get("display_id")
        if update and display_id in self._ids:
            self._bundles[self._ids[display_id]] = dict(data)
            return
        if display_id is not None:
            self._ids[display_id] = len(self._bundles)
        self._bundles.append(dict(data))

    def clear_output(self, wait: bool = False) -> None:
        self._bundles.clear()
        self._ids.clear()


def displays_into(shell: InteractiveShell) -> Callable[[], None]:
    """Send the displays of function tools (``display(...)``, inline figures) to their call's outputs; return what ends that."""

    @contextlib.contextmanager
    def caught(sink: Sink) -> Iterator[None]:
        if threading.current_thread() is not threading.main_thread():
            yield  # all threads share the shell's publisher: replacing it would catch others' displays
            return
        with put(shell, "display_pub", Displayed(sink.outputs)):
            yield

    surroundings.append(caught)
    return lambda: surroundings.remove(caught)


@contextlib.contextmanager
def _values_into(shell: InteractiveShell, run: CellRun, quiet: bool) -> Iterator[None]:
    """Take the last expression's value instead of showing and remembering it; a final semicolon drops the value."""

    def take(value: Any) -> None:
        if not quiet:
            run.value = value

    before = sys.displayhook
    with put(shell.display_trap, "hook", take):
        sys.displayhook = take
        try:
            yield
        finally:
            sys.displayhook = before


def _traceback_into(run: CellRun) -> Any:
    def take(kind: Any, value: Any, lines: list[str]) -> None:
        run.traceback = uncoloured("\n".join(lines))

    return take


def _exit(*_: Any) -> None:
    """Replace the shell's exit, which would ask the front end to end the kernel."""
    raise SystemExit


def _describing(formatter: Any) -> Any:
    plain = formatter.format

    def format(value: Any, include: Any = None, exclude: Any = None) -> Any:
        data, metadata = plain(value, include, exclude)
        if type(value).__name__ == "Figure" and callable(getattr(value, "get_axes", None)) and data:
            data = {**data, "text/plain": describe_figure(value)}
        return data, metadata

    return format


def _collect_figures(shell: InteractiveShell) -> None:
    """Show the figures that are still open: only the inline backend has done so already."""
    pyplot = sys.modules.get("matplotlib.pyplot")
    if pyplot is None:
        return
    from IPython.core.pylabtools import print_figure

    for number in pyplot.get_fignums():
        figure = pyplot.figure(number)
        data = {"image/png": print_figure(figure, base64=True), "text/plain": describe_figure(figure)}
        shell.display_pub.publish(data)
        pyplot.close(figure)


def run_beside(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Run a coroutine to its end on a new loop in this thread, even inside a callback of the thread's running loop."""
    outer = asyncio._get_running_loop()
    task = asyncio.current_task(outer) if outer is not None else None
    if outer is not None:
        if task is not None:
            asyncio.tasks._leave_task(outer, task)
        asyncio._set_running_loop(None)
    loop = asyncio.new_event_loop()
    try:
        return loop.run_until_complete(coroutine)
    finally:
        try:
            _cancel_all(loop)
        finally:
            loop.close()
            if outer is not None:
                asyncio._set_running_loop(outer)
                if task is not None:
                    asyncio.tasks._enter_task(outer, task)


def _cancel_all(loop: asyncio.AbstractEventLoop) -> None:
    tasks = asyncio.all_tasks(loop)
    for task in tasks:
        task.cancel()
    if tasks:
        loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
    loop.run_until_complete(loop.shutdown_asyncgens())
