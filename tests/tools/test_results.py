"""What a function's result becomes: short words for the model, the thing itself for the reader; and its progress on the way."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from llm_magics import ScriptedModel, Session
from llm_magics.messages import ToolCall
from llm_magics.segments import ToolSegment
from llm_magics.tools.define.tool import make_tool
from llm_magics.tools.results import describe_figure, render
from tests.loops import play


def run(function: Callable[[], Any], **options: Any) -> ToolSegment:
    """The trace of one call."""
    tool = make_tool(function, name="given", **options)
    return Session(ScriptedModel([ToolCall("given", "{}"), "done"]), [tool]).ask("go").trace.tools[0]


@dataclass
class Point:
    x: int
    y: float = 0.5


def figure() -> Any:
    from matplotlib.figure import Figure

    made = Figure()
    made.subplots().bar([1, 2], [3, 4])
    made.axes[0].set_title("Bars")
    return made


def picture() -> Any:
    from PIL import Image

    return Image.new("RGB", (30, 20), "red")


def table() -> Any:
    import pandas as pd

    return pd.DataFrame({"n": range(1000), "word": ["x" * 20] * 1000})


RESULTS: list[tuple[Callable[[], Any], str, str, int]] = [  # what the model reads of it, what the reader gets, length
    (lambda: "text", "text", "", 4),
    (lambda: None, "no value", "", 40),
    (lambda: {"a": [1, None]}, '{"a": [1, null]}', "", 20),
    (lambda: Point(1), '{"x": 1, "y": 0.5}', "", 30),
    (lambda: b"\x00\x01", "2 bytes", "", 60),
    (lambda: b"\x89PNG\r\n\x1a\n" + bytes(90), "image/png", "image/png", 60),
    (figure, '"Bars": 2 bars', "image/png", 200),
    (picture, "30", "image/png", 100),
    (table, "990 more rows", "text/html", 600),
]  # fmt: skip


@pytest.mark.parametrize(("function", "words", "mime", "most"), RESULTS)
def test_a_result_is_short_for_the_model_and_whole_for_the_reader(
    function: Callable[[], Any], words: str, mime: str, most: int
) -> None:
    ran = run(function)
    assert ran.state == "done"
    assert ran.result is not None
    assert words in ran.result
    assert len(ran.result) <= most
    assert bool(mime) == any(mime in bundle for bundle in ran.outputs if mime)


def counting() -> Iterator[str]:
    yield "one"
    yield "two"


async def waiting() -> str:
    await asyncio.sleep(0)
    return "waited"


async def streaming() -> AsyncIterator[str]:
    for word in ("one", "two"):
        await asyncio.sleep(0)
        yield word


@pytest.mark.parametrize(
    ("function", "printed", "result"),
    [(counting, "one\ntwo\n", "one\ntwo"), (waiting, "", "waited"), (streaming, "one\ntwo\n", "one\ntwo")],
)
@pytest.mark.parametrize("thread_safe", [False, True])
def test_progress_streams_into_the_trace(function: Any, printed: str, result: str, thread_safe: bool) -> None:
    ran = run(function, thread_safe=thread_safe)
    assert (ran.state, ran.printed, ran.result) == ("done", printed, result)


def test_an_async_tool_runs_on_a_loop_of_its_own_beside_the_kernels() -> None:
    """As ``@tool`` and the README say: what is bound to the kernel's loop fails in a tool, what the tool makes works."""

    async def cell() -> tuple[Any, Any]:
        kernels: asyncio.Future[str] = asyncio.get_running_loop().create_future()

        async def bound() -> str:
            return await kernels

        async def its_own() -> str:
            made: asyncio.Future[str] = asyncio.get_running_loop().create_future()
            made.get_loop().call_soon(made.set_result, "its own")
            return await made

        return run(bound), run(its_own)

    bound, its_own = play(cell())
    assert (bound.state, "attached to a different loop" in (bound.result or "")) == ("failed", True)
    assert (its_own.state, its_own.result) == ("done", "its own")


def test_an_async_tool_that_does_not_end_is_stopped() -> None:
    async def endless() -> None:
        await asyncio.Event().wait()

    ran = run(endless, timeout=0.2)
    assert (ran.state, "stopped after 0.2 seconds" in (ran.result or "")) == ("failed", True)


def test_the_size_that_reaches_the_model_is_capped_and_says_so() -> None:
    ran = run(lambda: "x" * 1000, max_chars=100)
    assert "900 of 1,000 characters left out" in (ran.result or "")
    assert ran.warnings
    assert ran.outputs[0]["text/plain"] == "x" * 1000


def test_one_is_singular_and_more_are_plural_in_what_the_model_reads() -> None:
    import pandas
    from matplotlib.figure import Figure

    assert render(pandas.DataFrame({"a": [1]})).text.startswith("A table of 1 row and 1 column: ")
    assert render(pandas.DataFrame({"a": range(11), "b": 0})).text.endswith("(1 more row)")
    drawn = Figure()
    one, two = drawn.subplots(1, 2)
    one.scatter([1, 2], [3, 4])
    two.plot([1, 2])
    two.scatter([1], [2])
    two.scatter([2], [1])
    first, *described = describe_figure(drawn).splitlines()
    assert first == "A figure with 2 plots."
    assert described == ["Untitled plot: 1 set of shapes.", "Untitled plot: 1 line, 2 sets of shapes."]
