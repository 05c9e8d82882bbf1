"""Save three notebooks as whatever llm_magics is imported saves them: plain turns, tools, threads.

    PYTHONPATH=CHECKOUT python tests/records/make.py DIRECTORY PREFIX

``v1-*.ipynb`` beside this file were made this way by commit 374c7b7, the last one that wrote records of version 1. The turns of
``v1-plain`` come from SmolLM2-135M, all others from scripted models. Only this machine's paths are replaced in what was saved.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

import nbformat

from tests.kernel.notebook import Cell, Notebook, notebook

ECHO = """
import itertools
from llm_magics import ScriptedModel
def answer(request):
    users = [m.text for m in request.messages if m.role == "user"]
    return f"{len(users)}: {users[-1]}"
echo = ScriptedModel(itertools.repeat(answer), name="echo")
%load_model echo
"""

TOOLS = """
import matplotlib.pyplot as plt
from llm_magics import Message, ScriptedModel, ToolCall, tool

heights = [3, 1, 2]

@tool
def tallest(count: int = 1) -> list:
    "Give the tallest trees."
    return sorted(heights, reverse=True)[:count]

@tool
def felled(name: str) -> str:
    "Tell when a tree was felled."
    raise LookupError(f"nobody knows a tree called {name}")

forester = ScriptedModel([
    Message("assistant", "I look.", reasoning="The list is short.", tool_calls=(ToolCall("tallest", '{"count": 2}'),)),
    "The tallest are 3 m and 2 m.",
    ToolCall("draw_trees", '{"colour": "green"}'),
    "Here they are.",
    ToolCall("felled", '{"name": "old oak"}'),
    "Nobody knows.",
], name="forester")
%load_model forester
"""

DRAW = """%%tool draw_trees(colour: str)
# Draw the trees.
figure = plt.figure(figsize=(0.6, 0.4), dpi=40)
plt.axes((0, 0, 1, 1)).bar(range(3), heights, color=colour)
plt.axis("off")
plt.show()"""


class Saving:
    """Runs cells and keeps them with their outputs; a cell that runs again takes its old place."""

    def __init__(self, book: Notebook) -> None:
        self.book = book
        self.cells: dict[str, tuple[str, Cell]] = {}

    def run(self, source: str, cell: str) -> None:
        self.cells[cell] = (source, self.book.must(source, cell))

    def save(self, path: Path) -> None:
        document = nbformat.v4.new_notebook()
        for cell, (source, ran) in self.cells.items():
            outputs = [nbformat.v4.new_output("display_data", data=bundle) for bundle in ran.bundles]
            document.cells.append(nbformat.v4.new_code_cell(source.strip(), id=cell, outputs=outputs))
        nbformat.validate(document)
        text = re.sub(r'"/[^"]*/([^"/]+\.gguf)"', r'"/models/\1"', nbformat.writes(document))
        path.write_text(re.sub(r"[^\s\"&;]+ipykernel_\d+.(\d+\.py)", r"\1", text), encoding="utf-8")


def plain(path: Path) -> None:
    with notebook("%load_model smollm2-135m --ctx 2048 --as small") as book:
        saving = Saving(book)
        saving.run("%%chat -s 'Answer in one short sentence.' --temp 0 --max-tokens 24 --seed 1\nName a colour.", "colour")
        saving.run("%%chat --temp 0 --max-tokens 24 --seed 1\nAnd another one?", "another")
        saving.run("%%chat --temp 0 --max-tokens 24 --seed 1\nWhich of them is warmer?", "warmer")
        saving.save(path)


def tools(path: Path) -> None:
    with notebook("%matplotlib inline", TOOLS) as book:
        saving = Saving(book)
        saving.run(DRAW, "draw")
        saving.run("%%chat -s 'You know trees.' --approve auto\nHow tall are the two tallest?", "tallest")
        saving.run("%%chat --approve auto\nDraw them in green.", "picture")
        saving.run("%%chat --approve auto\nWhen was the old oak felled?", "felled")
        saving.save(path)


def threads(path: Path) -> None:
    with notebook(ECHO) as book:
        saving = Saving(book)
        saving.run("%%chat -s 'Be kind.'\nfirst", "a")
        saving.run("%%chat\nsecond", "b")
        saving.run("%%chat\nthird", "c")
        saving.run("%%chat\nsecond, anew", "b")  # "third" is stale from here on
        saving.run("%%chat --thread side\nelsewhere", "d")
        saving.run("%%chat --no-history\naside", "e")
        saving.run("%%compare --seed 1 --seed 2\ncompared", "f")
        saving.run("%%chat --thread main --n 2\nsampled", "g")
        saving.save(path)
    with notebook(ECHO) as book:
        again = Saving(book)
        again.cells = saving.cells
        book.must(f"%thread restore {path}")
        book.must("%thread use main")
        again.run("%%chat\nafter the restart", "h")
        again.save(path)


if __name__ == "__main__":
    into, prefix = Path(sys.argv[1]), sys.argv[2]
    for make in (plain, tools, threads):
        make(into / f"{prefix}-{make.__name__}.ipynb")
