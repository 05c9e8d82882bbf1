"""Running the calls of one model step: each gives exactly one ToolEnd, whatever the tool does.

A call passes five checks: is it new to the turn (see :mod:`..answered`), is the tool offered, are the arguments valid, may it
run, does it end in time. A failed check gives a result that the model can read. Only a KeyboardInterrupt passes through: it
ends the turn.

Tools run one after another in the calling thread, where interrupts, deadlines and libraries that need the main thread work.
Adjacent calls of ``thread_safe`` tools run side by side in threads; a call that hangs in C is left behind.
"""

from __future__ import annotations

import contextvars
import queue
import threading
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from llm_magics.errors import ToolError
from llm_magics.events import ToolAsk, ToolEnd, ToolEvent, ToolProgress, ToolStart, ToolState
from llm_magics.messages import ToolCall, ToolResult
from llm_magics.tools.answered import Answered
from llm_magics.tools.define.tool import Tool
from llm_magics.tools.policy import Asker, Gate, digest_of
from llm_magics.tools.results import NOBODY_ASKED, ToolOutput, cap, render, render_error, shorten

from .capture import Sink, into
from .deadline import Cancel, Clock, Deadline, ToolTimeout
from .interrupts import Held

GO_ON = "Do the next thing that was asked for, or answer."  # ends the result of a call that did not run
ANSWER = "Now answer the question in words."
FAILED = "Now say in words what could not be done, and why."
_GRACE = 1.0  # seconds for a thread to notice its deadline
_PROGRESS_CHARS = 20_000  # of one yielded item
inside: contextvars.ContextVar[tuple[object, ...]] = contextvars.ContextVar("llm_magics_inside", default=())


@dataclass(frozen=True, slots=True)
class _Ready:
    """A call that may run, with its arguments bound."""

    index: int
    call: ToolCall
    tool: Tool
    arguments: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Runner:
    """Runs calls for one turn. ``owner`` is the session they run for; a tool's code can see it in ``inside``."""

    tools: Mapping[str, Tool]
    gate: Gate
    asker: Asker
    clock: Clock
    max_chars: int
    owner: object = None
    tool_choice: str = "auto"
    answered: Answered = field(default_factory=Answered)

    def run(
        self, calls: Sequence[ToolCall], doubted: Sequence[int] = (), urge: str = GO_ON
    ) -> Generator[ToolEvent, None, None]:
        """Run the calls of one message in order; results carry their call's index and id.

        A call that is a repetition or ``doubted`` does not run: its result says so, and ``urge`` says what to do.
        """
        unrun = dict.fromkeys(doubted, f"Not called. The last result is {self.answered.last}. {urge}")
        unrun |= {index: f"Already called. The result is {said}. {urge}" for index, said in self.answered.recall(calls).items()}
        round = self.answered.round + 1
        for event in self._run(calls, unrun):
            yield event
            if isinstance(event, ToolEnd) and event.state == "done" and not self.tools[calls[event.index].name].options.repeats:
                self.answered.learn(calls[event.index], event.result, round)

    def _run(self, calls: Sequence[ToolCall], unrun: Mapping[int, str]) -> Generator[ToolEvent, None, None]:
        at = 0
        while at < len(calls):
            together = at
            while together not in unrun and together < len(calls) and self._thread_safe(calls[together]):
                together += 1
            if at in unrun:
                result = ToolResult(calls[at].id, calls[at].name, unrun[at])
                yield ToolEnd(at, result, "refused", warnings=("Not run: the call was answered before, or was not meant.",))
            elif together > at:
                ready = []
                for index in range(at, together):
                    one = yield from self._prepare(index, calls[index])
                    ready += [one] if one else []
                yield from self._side_by_side(ready)
            else:
                single = yield from self._prepare(at, calls[at])
                if single is not None:
                    yield from self._here(single)
            at = max(together, at + 1)

    def _thread_safe(self, call: ToolCall) -> bool:
        tool = self.tools.get(call.name)
        return tool is not None and tool.options.thread_safe

    def _prepare(self, index: int, call: ToolCall) -> Generator[ToolEvent, None, _Ready | None]:
        """Check a call before its run; None if a check failed, after a ToolEnd that says why."""
        tool = self.tools.get(call.name)
        if self.tool_choice == "none":
            yield _end(index, call, "Error: no tool may be called in this turn; answer in words.", "refused")
            return None
        if tool is None:
            names = ", ".join(self.tools) or "none"
            yield _end(index, call, f"Error: there is no tool {call.name!r}. The tools are: {names}.", "failed")
            return None
        try:
            arguments = tool.bind(call.arguments)
        except ToolError as error:
            yield _end(index, call, f"Error: {error}", "failed")
            return None
        rule, reason = self.gate.rule(call, tool.options.approve, tool.source)
        if rule == "ask":
            refusal = yield from self._ask(index, call, tool, reason)
        else:
            refusal = f"this call is not allowed: {reason}" if rule == "deny" else ""
        if refusal:
            yield _end(index, call, f"Refused: {refusal}. Do not repeat it.", "refused")
            return None
        return _Ready(index, call, tool, arguments)

    def _ask(self, index: int, call: ToolCall, tool: Tool, reason: str) -> Generator[ToolEvent, None, str]:
        """Ask a person; returns why the call may not run, empty if it may."""
        shown = tool.shown(call)
        ask = ToolAsk(index, call, shown, digest_of(call, shown), reason)
        yield ask
        with self.clock.pause():
            decision = self.asker(ask)
        if decision.verdict not in ("approve", "always"):
            return "the person did not approve this call" if decision.asked else NOBODY_ASKED
        if decision.digest != ask.digest or digest_of(call, tool.shown(call)) != ask.digest:
            return "what would run is not what was approved"
        self.gate.remember(decision, call, tool.source)
        return ""

    def _timeout(self, tool: Tool) -> float | None:
        limits = [limit for limit in (tool.options.timeout, self.clock.left) if limit is not None]
        return max(min(limits), 0.001) if limits else None

    def _here(self, ready: _Ready, cancel: Cancel | None = None) -> Iterator[ToolEvent]:
        yield ToolStart(ready.index, ready.call, ready.tool.source)
        started = time.monotonic()
        timeout, sink = self._timeout(ready.tool), Sink()
        output: ToolOutput | None = None
        work = self._slices(ready, timeout, sink, cancel)
        try:
            while output is None:
                try:
                    yield from _progress(ready.index, next(work), sink)
                except StopIteration as stop:
                    output = stop.value
                except ToolTimeout:
                    output = ToolOutput(f"Error: {ready.tool.name} was stopped after {timeout:g} seconds.", is_error=True)
                except (Exception, SystemExit) as error:
                    output = render_error(error)
        finally:
            work.close()
        if rest := sink.take():
            yield ToolProgress(ready.index, rest)
        yield self._finish(ready, output, sink, time.monotonic() - started)

    def _slices(
        self, ready: _Ready, timeout: float | None, sink: Sink, cancel: Cancel | None
    ) -> Generator[Any, None, ToolOutput]:
        """Step through the tool; only the tool's own time counts, and only its own output is captured."""
        steps, deadline = ready.tool.invoke(ready.arguments), Deadline(timeout, cancel)
        try:
            while True:
                began = time.monotonic()
                with Held() as held, into(sink), _within(self.owner), deadline, held.open():
                    try:
                        item = next(steps)
                    except StopIteration as stop:
                        return render(stop.value, sink.text)
                if deadline.seconds is not None:
                    deadline.seconds = max(deadline.seconds - (time.monotonic() - began), 0.001)
                yield item
        finally:
            deadline.stop()
            with Held() as held, into(sink), held.open():
                steps.close()

    def _finish(self, ready: _Ready, output: ToolOutput, sink: Sink, seconds: float) -> ToolEnd:
        output = cap(output, ready.tool.options.max_chars or self.max_chars)
        result = ToolResult(ready.call.id, ready.call.name, output.text, output.is_error)
        outputs = (*sink.outputs, *output.outputs)
        return ToolEnd(ready.index, result, "failed" if output.is_error else "done", seconds, outputs, output.warnings)

    def _side_by_side(self, group: Sequence[_Ready]) -> Iterator[ToolEvent]:
        """Run each call in its own thread; yield events as they happen."""
        events: queue.SimpleQueue[ToolEvent] = queue.SimpleQueue()
        running: dict[int, tuple[_Ready, Cancel, float | None]] = {}
        try:
            for ready in group:
                timeout = self._timeout(ready.tool)
                ends = None if timeout is None else time.monotonic() + timeout + _GRACE
                run, cancel = contextvars.copy_context().run, Cancel()
                given = (self._feed, ready, events, cancel)
                thread = threading.Thread(target=run, args=given, daemon=True, name="llm-magics-tool")
                running[ready.index] = (ready, cancel, ends)
                thread.start()
            while running:
                waits = [ends for _, _, ends in running.values() if ends is not None]
                try:
                    event = events.get(timeout=max(min(waits) - time.monotonic(), 0.001) if waits else None)
                except queue.Empty:
                    yield from _left_behind(running)
                    continue
                if event.index in running:
                    if isinstance(event, ToolEnd):
                        del running[event.index]
                    yield event
        finally:
            for _, cancel, _ in running.values():
                cancel.ring()

    def _feed(self, ready: _Ready, events: queue.SimpleQueue[ToolEvent], cancel: Cancel) -> None:
        try:
            for event in self._here(ready, cancel):
                events.put(event)
        except (KeyboardInterrupt, ToolTimeout):  # the turn is over, or the deadline came after the tool's end
            events.put(_end(ready.index, ready.call, f"Error: {ready.tool.name} was stopped.", "failed"))


def _left_behind(running: dict[int, tuple[_Ready, Cancel, float | None]]) -> Iterator[ToolEvent]:
    """End calls whose threads do not notice their deadline; the threads themselves cannot be stopped."""
    for index, (ready, _, ends) in list(running.items()):
        if ends is not None and time.monotonic() >= ends:
            del running[index]
            text = f"Error: {ready.tool.name} did not end in time and was left behind."
            yield _end(index, ready.call, text, "failed", ("It still runs in its thread until it returns.",))


def _progress(index: int, item: Any, sink: Sink) -> Iterator[ToolEvent]:
    """The progress events for what a tool has printed and for the item it yielded."""
    if printed := sink.take():
        yield ToolProgress(index, printed)
    output = render(item)
    for bundle in output.outputs:
        yield ToolProgress(index, data=bundle)
    if not output.outputs:
        yield ToolProgress(index, shorten(output.text, _PROGRESS_CHARS).rstrip("\n") + "\n")


def _end(index: int, call: ToolCall, text: str, state: ToolState, warnings: tuple[str, ...] = ()) -> ToolEnd:
    return ToolEnd(index, ToolResult(call.id, call.name, text, True), state, warnings=warnings)


class _within:
    """``with _within(owner):`` lets code in the block see that it runs as a tool of ``owner``."""

    def __init__(self, owner: object) -> None:
        self.owner = owner

    def __enter__(self) -> None:
        self.token = inside.set((*inside.get(), self.owner))

    def __exit__(self, *_: object) -> None:
        inside.reset(self.token)
