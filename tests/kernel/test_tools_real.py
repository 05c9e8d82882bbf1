"""Tools with real models, through ``%%chat`` in a real kernel: every call of the trace, three ways of asking each.

Nothing here is worded for a model: the prompts are what a person types first. Qwen2.5-Coder-0.5B stands where it can; after
arithmetic it goes on calculating with the result instead of saying it, and it makes arguments up for a script, so there the
next larger model stands. What a model *says* in the end is its own affair; that it says something, and no call, is ours.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from .notebook import Notebook, notebook

pytestmark = [pytest.mark.kernel, pytest.mark.model]

SETUP = '''
from llm_magics import tool
from llm_magics.tools.builtin import toolbox


@tool
def get_weather(city: str) -> dict:
    """Get the current weather of a city.

    Args:
        city: name of the city, e.g. "Oslo".
    """
    return {"city": city, "temperature": {"London": 14, "Paris": 19}[city]}


@tool
def multiply(a: float, b: float) -> float:
    """Multiply two numbers."""
    return a * b


@tool
def to_hexadecimal(number: int) -> str:
    """Convert a whole number to hexadecimal.

    Args:
        number: the number to convert.
    """
    return hex(number)
'''
PLOT = """%%tool plot_prices(company: str) --approve auto
# Plot the prices of one company over time
import matplotlib.pyplot as plt
plt.plot([10, 12, 11])
plt.title(company)
None"""
SCRIPT = "import sys\nprint('Hello,', sys.argv[-1] + '!')\n"


@dataclass(frozen=True)
class Example:
    """Three prompts, the tools offered, and the calls that run: name, arguments, and what the result contains."""

    tools: str
    prompts: tuple[str, str, str]
    calls: tuple[tuple[str, dict[str, Any], str], ...]


SMALL = (
    Example(
        "get_weather",
        (
            "What is the weather in London and Paris?",
            "How is the weather in London and in Paris?",
            "Tell me the current weather for London and for Paris.",
        ),
        (("get_weather", {"city": "London"}, "14"), ("get_weather", {"city": "Paris"}, "19")),
    ),
    Example(
        "multiply,to_hexadecimal",
        (
            "Calculate 42 * 18 and then convert the result to hexadecimal",
            "What is 42 * 18, and what is that in hexadecimal?",
            "Compute 42 * 18. Then give me the result in hexadecimal.",
        ),
        (("multiply", {"a": 42, "b": 18}, "756"), ("to_hexadecimal", {"number": 756}, "0x2f4")),
    ),
    Example(
        "get_system_info",
        ("What CPU does this computer have?", "Which CPU is in this machine?", "Tell me about this computer's CPU."),
        (("get_system_info", {"info_type": "cpu"}, '"cores"'),),
    ),
    Example(
        "plot_prices",
        ("Plot the prices of IBM.", "Show me a plot of IBM's prices.", "Draw the price chart for IBM."),
        (("plot_prices", {"company": "IBM"}, '"IBM": 1 line'),),
    ),
)


LARGE = (
    Example(
        "calculate",
        ("Calculate 15 * 23 + 47", "What is 15 * 23 + 47?", "Please compute 15 * 23 + 47 for me."),
        (("calculate", {"expression": "15 * 23 + 47"}, "392"),),
    ),
    Example(
        "calculate",
        (
            "Use the calculator tool to compute sqrt(144) + 2^3",
            "Compute sqrt(144) + 2^3 with the calculator.",
            "With your calculator: what is sqrt(144) + 2^3?",
        ),
        (("calculate", {"expression": "sqrt(144) + 2^3"}, "20"),),
    ),
    Example(
        "execute_python",
        (
            "Run the script greet.py with the argument Ada",
            "Execute greet.py with argument Ada.",
            "Please run the Python script greet.py, passing Ada as its argument.",
        ),
        (("execute_python", {"script_name": "greet.py"}, "Hello, Ada!"),),
    ),
)


def cases(examples: tuple[Example, ...]) -> list[Any]:
    return [pytest.param(one, prompt, id=f"{one.tools}-{at}") for one in examples for at, prompt in enumerate(one.prompts)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scripts")
    (folder / "greet.py").write_text(SCRIPT)
    return folder


def opened_with(model: str, folder: Path) -> Iterator[Notebook]:
    with notebook(SETUP, "%matplotlib inline", f"toolbox.configure(scripts={str(folder)!r})", PLOT) as opened:
        opened.must(f"%load_model {model} --ctx 4096")
        yield opened


@pytest.fixture(scope="module")
def small(qwen: Path, folder: Path) -> Iterator[Notebook]:
    yield from opened_with("qwen2.5-coder-0.5b", folder)


@pytest.fixture(scope="module")
def large(qwen_large: Path, folder: Path) -> Iterator[Notebook]:
    yield from opened_with("qwen2.5-coder-1.5b", folder)


def asked(book: Notebook, example: Example, prompt: str) -> None:
    thread = re.sub(r"\W+", "-", prompt)
    line = f"-t {example.tools} --temp 0 --approve auto --thread {thread}"
    trace = book.must(f"%%chat {line}\n{prompt}").transcript
    story = "\n".join([*(f"{run.name}({run.arguments}): {run.state}: {run.result}" for run in trace.tools), trace.text])
    ran = [run for run in trace.tools if run.state == "done"]
    assert [run.name for run in ran] == [name for name, _, _ in example.calls], story
    for run, (_, arguments, result) in zip(ran, example.calls, strict=True):
        given = json.loads(run.arguments)
        assert {name: given.get(name) for name in arguments} == arguments, story
        assert result in (run.result or ""), story
    # What stands beside them in the trace are repetitions, which did not run.
    assert {run.state for run in trace.tools} <= {"done", "refused"}, story
    assert not any(run.is_error for run in trace.tools), story
    assert trace.state == "stop", story
    assert trace.text.strip(), story
    assert not trace.text.strip().startswith(("{", "`", "<")), story


@pytest.mark.parametrize(("example", "prompt"), cases(SMALL))
def test_the_small_model_calls_what_it_was_asked_for(small: Notebook, example: Example, prompt: str) -> None:
    asked(small, example, prompt)


@pytest.mark.parametrize(("example", "prompt"), cases(LARGE))
def test_the_larger_model_calls_what_it_was_asked_for(large: Notebook, example: Example, prompt: str) -> None:
    asked(large, example, prompt)


def test_a_turn_after_a_tool_turn_works_with_its_history(small: Notebook) -> None:
    small.must("%%chat -t get_weather --temp 0 --thread history\nWhat is the weather in London?")
    told = small.must("%%chat -t none --temp 0 --thread history\nAnswer in one sentence: is it warm there?").transcript
    assert (told.state, told.tools) == ("stop", ())
    assert told.text.strip()


def test_why_tells_what_the_model_wrote_and_how_sure_it_was_of_its_calls(small: Notebook) -> None:
    shown = small.must("%%chat -t get_weather --temp 0 --thread why\nWhat is the weather in London and Paris?").transcript
    assert {run.state for run in shown.tools} == {"done"}
    told = small.must("%tools why").printed
    assert "Offered: get_weather(city: str)" in told
    assert "The model wrote" in told
    assert "Note: a call of get_weather: doubt 0." in told
    steps = told.split("\nStep ")[1:]
    withheld = [step for step in steps if "Note: withheld" in step and "a call, recovered" not in step]
    assert withheld
    assert all("Nothing of this is an answer or a tool call." in step for step in withheld)
    assert "This was read as an answer" in steps[-1]
