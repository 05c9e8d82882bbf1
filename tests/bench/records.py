"""How many bytes a saved notebook has after 1, 10 and 50 turns, with and without ``--record``: it must grow linearly.

    python -m tests.bench.records [--model NAME|PATH] [--turns 1,10,50] [--without-record]

Each notebook is made in a real kernel and written by nbformat. ``plain`` asks the model (SmolLM2-135M if none is named) for one
sentence a turn. ``tools`` is a scripted model that calls one tool in each turn. ``growth`` is the exponent with which the bytes
that one turn adds grow from the first ten turns to the last ten: 0 is linear, 1 is quadratic.
"""

from __future__ import annotations

import argparse
import math

import nbformat

from tests.kernel.notebook import Notebook, notebook

from .common import Result, machine, report

QUESTIONS = ("Name a colour.", "Name an animal.", "Name a river.", "Name a tree.", "Name a town.")
TOOLS = """
import itertools
from llm_magics import ScriptedModel, ToolCall, tool

@tool
def measured(place: str) -> dict:
    "Give the temperatures that were measured at a place in the last ten days, in degrees."
    return {"place": place, "degrees": list(range(10))}

said = (step for n in itertools.count() for step in (ToolCall("measured", '{"place": "Oslo"}', f"c{n}"), "It gets warmer."))
meter = ScriptedModel(said, name="meter")
%load_model meter
"""


def saved_bytes(book: Notebook, line: str, marks: tuple[int, ...]) -> list[int]:
    """The notebook's size after each number of turns up to the last of ``marks``, as nbformat writes it."""
    document = nbformat.v4.new_notebook()
    sizes = []
    for at in range(marks[-1]):
        source = f"{line}\n{QUESTIONS[at % len(QUESTIONS)]}"
        ran = book.must(source, f"cell-{at:03}")
        outputs = [nbformat.v4.new_output("display_data", data=bundle) for bundle in ran.bundles]
        document.cells.append(nbformat.v4.new_code_cell(source, id=f"cell-{at:03}", outputs=outputs))
        sizes.append(len(nbformat.writes(document).encode()))
    return sizes


def growth(sizes: list[int]) -> float:
    """The exponent with which a turn's own bytes grow along the notebook."""
    window = min(10, len(sizes) // 2)
    first = (sizes[window - 1] - sizes[0]) / (window - 1)
    last = (sizes[-1] - sizes[-window]) / (window - 1)
    return math.log(last / first) / math.log((len(sizes) - window / 2) / (window / 2))


def measure(name: str, setup: tuple[str, ...], line: str, marks: tuple[int, ...]) -> None:
    with notebook(*setup) as book:
        sizes = saved_bytes(book, line, marks)
    for turns in marks:
        report(Result(f"records_{name}_{turns}", sizes[turns - 1], "bytes", machine=machine()))
    if len(sizes) >= 20:
        report(Result(f"records_{name}_growth", growth(sizes), "exponent", machine=machine()))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.records", description="Bytes of saved notebooks.")
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--turns", default="1,10,50", type=lambda text: tuple(sorted(map(int, text.split(",")))))
    parser.add_argument("--without-record", action="store_true")
    given = parser.parse_args()
    plain, tools = (f"%load_model {given.model} --ctx 8192",), (TOOLS,)
    for suffix, option in (("", ""),) if given.without_record else (("", ""), ("_record", " --record")):
        measure(f"plain{suffix}", plain, f"%%chat --temp 0 --max-tokens 24{option}", given.turns)
        measure(f"tools{suffix}", tools, f"%%chat --approve auto{option}", given.turns)


if __name__ == "__main__":
    main()
