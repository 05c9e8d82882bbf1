"""Laws 3 and 5 over 1,000 random turns, and interrupts at random points of our own code: the history is valid each time."""

from __future__ import annotations

import contextlib
import itertools
import queue
import random
import signal
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from llm_magics import Session
from llm_magics.errors import ModelError
from llm_magics.events import Event
from llm_magics.messages import Message, ToolCall
from llm_magics.models.scripted import ScriptedModel
from llm_magics.tools.define.tool import Tool, make_tool
from llm_magics.tools.policy import Decision, Limits
from tests.history_checks import broken_calls, broken_frame, broken_order, broken_steps


def add(a: int, b: int = 1) -> int:
    return a + b


def fails(why: str = "no reason") -> str:
    raise ValueError(why)


def leaves() -> None:
    sys.exit(3)


def interrupted() -> None:
    raise KeyboardInterrupt


def counts(n: int = 3) -> Iterator[str]:
    for i in range(n):
        print("counting", i)
        yield f"{i}"


async def waits() -> str:
    return "waited"


def at_once(n: int) -> int:
    return n


TOOLS: list[Tool] = [
    make_tool(add),
    make_tool(fails),
    make_tool(leaves),
    make_tool(interrupted),
    make_tool(counts),
    make_tool(waits),
    make_tool(at_once, thread_safe=True),
    make_tool(add, name="asks", approve="ask"),
    make_tool(add, name="denied", approve="deny"),
]
ARGUMENTS = ["{}", '{"a": 1}', '{"a": 1, "b": 2}', '{"a": "x"}', '{"n": 2}', "{", "[]", ""]
ARGUMENTS += ['{"why": "\\u0000"}', '{"a": 1e400}']


def random_call(rng: random.Random) -> ToolCall:
    # An interrupt that a tool raises ends the whole turn, so it is drawn less often than the others.
    name = rng.choice([tool.name for tool in TOOLS if tool.name != "interrupted"] * 4 + ["interrupted", "unknown", ""])
    recovered = rng.choice(["", "", "", "fenced JSON"])
    return ToolCall(name, rng.choice(ARGUMENTS), rng.choice(["", "", "same"]), recovered, not recovered or rng.random() < 0.5)


def random_step(rng: random.Random) -> Any:
    kind = rng.random()
    if kind < 0.25:
        return "an answer in some words" * rng.randint(0, 3)
    if kind < 0.3:
        return ModelError("it broke")
    if kind < 0.33:
        return KeyboardInterrupt()
    calls = tuple(random_call(rng) for _ in range(rng.randint(1, 3)))
    return Message("assistant", rng.choice(["", "Let me see. "]), reasoning=rng.choice(["", "Hm."]), tool_calls=calls)


def random_decision(rng: random.Random) -> Any:
    def decide(ask: Any) -> Decision:
        return Decision(rng.choice(["approve", "deny", "always"]), rng.choice([ask.digest, ask.digest, "another"]))

    return decide


def play(session: Session, rng: random.Random) -> list[Event]:
    """One turn, left early sometimes: closed by its consumer or struck by its exception."""
    seen: list[Event] = []
    leave = rng.choice([None, None, None, rng.randint(1, 40)])
    strike = rng.random() < 0.5
    with contextlib.suppress(KeyboardInterrupt, ModelError), contextlib.closing(session.turn("go on")) as events:
        for number, event in enumerate(events):
            seen.append(event)
            if number == leave and strike:
                raise KeyboardInterrupt
            if number == leave:
                break
    return seen


@pytest.mark.parametrize("seed", range(10))
def test_a_hundred_random_turns_keep_the_laws(seed: int) -> None:
    rng = random.Random(seed)
    model = ScriptedModel(random_step(rng) for _ in itertools.count())
    for number in range(25):
        limits = Limits(steps=rng.randint(1, 5), tokens=rng.choice([None, 5, 500]), result_chars=rng.choice([5, 8000]))
        session = Session(model, TOOLS, limits=limits, asker=random_decision(rng), approve=rng.choice([None, "auto", "ask"]))
        for _ in range(4):
            events = play(session, rng)
            faults = broken_calls(session.history) + broken_order(session.history)
            faults += broken_steps(events) + broken_frame(events)
            assert faults == [], f"turn of session {number}: {events}"
    assert all(broken_calls(request.messages) == [] for request in model.requests)


def tool_turn(session: Session) -> None:
    with contextlib.closing(session.turn("go on")) as events:
        for _ in events:
            pass


def scripted_session() -> Session:
    calls = [
        (ToolCall("add", '{"a": 1}'), ToolCall("counts", "{}"), ToolCall("waits", "{}")),
        (ToolCall("asks", '{"a": 1}'), *(ToolCall("at_once", f'{{"n": {n}}}') for n in (1, 2)), ToolCall("fails", "{}")),
        "The answer.",
        "Fine.",
    ]
    return Session(ScriptedModel(calls), TOOLS, asker=lambda ask: Decision("approve", ask.digest))


class Striker:
    """Interrupts the main thread, once, so many seconds after it is told to."""

    def __init__(self) -> None:
        self._seconds: queue.SimpleQueue[float | None] = queue.SimpleQueue()
        self._struck = True
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        while (seconds := self._seconds.get()) is not None:
            time.sleep(seconds)
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
            self._struck = True

    def strike(self, seconds: float) -> None:
        self._struck = False
        self._seconds.put(seconds)

    def wait(self) -> None:
        """Wait for the strike; may be called again where it struck right here."""
        while not self._struck:
            time.sleep(0.001)

    def close(self) -> None:
        self._seconds.put(None)


def printing_reaches(stream: object) -> bool:
    """Whether what is printed now goes there; a tool that goes on in a thread of its own may still stand before it."""
    return getattr(sys.stdout, "stream", sys.stdout) is stream


# An interrupt may strike while asyncio makes a loop; what is half made is collected with a complaint, and harms nobody.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore:coroutine:RuntimeWarning")
def test_a_hundred_interrupts_at_random_moments_of_tool_turns_leave_the_history_valid() -> None:
    rng, striker = random.Random(4), Striker()
    stdout, handlers = sys.stdout, [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGALRM)]
    begin = time.perf_counter()
    tool_turn(scripted_session())
    seconds = time.perf_counter() - begin
    struck = 0
    for _ in range(100):
        session = scripted_session()
        try:
            striker.strike(rng.uniform(0, seconds))
            tool_turn(session)
            striker.wait()
        except KeyboardInterrupt:
            struck += 1
            striker.wait()
        assert broken_calls(session.history) + broken_order(session.history) == []
        assert printing_reaches(stdout)
        assert [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGALRM)] == handlers
        session.model = ScriptedModel(["Fine."])
        assert session.ask("and now?").text == "Fine."
    striker.close()
    assert struck == 100, "an interrupt was swallowed"
