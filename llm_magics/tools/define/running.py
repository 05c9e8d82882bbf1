"""Running generators, coroutines and async generators to their end from synchronous code; what they yield is progress.

The kernel's event loop is busy with the cell until the cell ends, so a coroutine gets its own loop and thread. The main thread
waits on a queue; an interrupt or a deadline breaks the wait, and the task is cancelled. Objects bound to the kernel's loop (a
session, a lock or a queue that a cell used there) cannot be awaited on this loop: a tool must make its own.
"""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import queue
import threading
from collections.abc import AsyncIterator, Generator
from contextlib import suppress
from typing import Any

from llm_magics.errors import ToolError

_GRACE = 2.0  # seconds for a cancelled coroutine to clean up


def collect(steps: Generator[Any, None, Any]) -> Generator[Any, None, Any]:
    """Pass a generator's progress on; the value is what it returns, or without one all that it yielded."""
    seen: list[Any] = []
    try:
        while True:
            try:
                item = next(steps)
            except StopIteration as stop:
                return yielded(seen) if stop.value is None else stop.value
            seen.append(item)
            yield item
    finally:
        steps.close()


def yielded(items: list[Any]) -> Any:
    """The value of a tool that only yielded: text as lines, anything else as a list."""
    if not items:
        return None
    return "\n".join(items) if all(isinstance(item, str) for item in items) else items


def drive(work: Any) -> Generator[Any, None, Any]:
    """Run a coroutine or an async generator; yields the generator's items, returns the value."""
    waiting: queue.SimpleQueue[tuple[str, Any]] = queue.SimpleQueue()
    loop = asyncio.new_event_loop()
    context = contextvars.copy_context()  # prints go to the same sink
    thread = threading.Thread(target=context.run, args=(_run, loop, work, waiting), daemon=True, name="llm-magics-async-tool")
    seen: list[Any] = []
    try:
        thread.start()
        while True:
            kind, item = waiting.get()
            if kind == "error":
                raise item
            if kind == "value":
                return yielded(seen) if seen and item is None else item
            seen.append(item)
            yield item
    finally:
        if thread.ident is None:  # interrupted before the thread began
            loop.close()
            if inspect.iscoroutine(work):
                work.close()
        elif thread.is_alive():
            _cancel(loop)
            thread.join(_GRACE)


async def _gather(work: Any, waiting: queue.SimpleQueue[tuple[str, Any]]) -> Any:
    if not isinstance(work, AsyncIterator):
        return await work
    async for item in work:
        waiting.put(("item", item))
    return None


def _run(loop: asyncio.AbstractEventLoop, work: Any, waiting: queue.SimpleQueue[tuple[str, Any]]) -> None:
    if loop.is_closed():
        return  # an interrupt came while the thread was starting
    asyncio.set_event_loop(loop)
    try:
        waiting.put(("value", loop.run_until_complete(_gather(work, waiting))))
    except asyncio.CancelledError:
        waiting.put(("error", ToolError("The coroutine was cancelled.")))
    except (Exception, SystemExit, KeyboardInterrupt) as error:  # raised again in the waiting thread
        waiting.put(("error", error))
    finally:
        with suppress(asyncio.CancelledError):  # a cancellation that came after the work was done
            loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()


def _cancel(loop: asyncio.AbstractEventLoop) -> None:
    def cancel_all() -> None:
        for task in asyncio.all_tasks(loop):
            task.cancel()

    with suppress(RuntimeError):  # the loop has closed meanwhile: nothing is left to cancel
        loop.call_soon_threadsafe(cancel_all)
