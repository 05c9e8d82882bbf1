"""Structured output: how many of six answers under each of six types are valid within 500 tokens, asked in a real kernel.

    python -m tests.bench.structured [--keep FILE] [MODEL ...]

A count, not a ratio: how many answers the type reads and took at most 500 tokens. The target is all of them. Each answer is
printed as it comes; with ``--keep`` it is written to a file as well, and a run that was broken off goes on from there.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path

from tests.kernel.notebook import Notebook, notebook
from tests.structured import QUESTIONS, SETUP

SEEDS = range(6)
MOST_TOKENS = 500
MODELS = ("qwen2.5-coder-0.5b", "qwen2.5-coder-1.5b")
TIMEOUT = 1_800.0  # seconds for one answer, on a machine that is busy with other work
_READ = """
try:
    reply.value
    valid = True
except Exception as error:
    valid = False
print(int(valid), reply.usage.completion_tokens, reply.finish_reason)
"""


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer: whether the type reads it, and how it ended."""

    model: str
    name: str
    seed: int
    valid: bool
    tokens: int
    reason: str

    @property
    def good(self) -> bool:
        return self.valid and self.reason == "stop" and self.tokens <= MOST_TOKENS


def answers(model: str, kept: list[Answer]) -> Iterator[Answer]:
    """Every answer of a model, those that were kept first."""
    there = {(a.name, a.seed): a for a in kept if a.model == model}
    yield from there.values()
    missing = [(name, seed) for name in QUESTIONS for seed in SEEDS if (name, seed) not in there]
    if missing:
        with notebook(f"%load_model {model} --as asked --ctx 4096", SETUP, timeout=TIMEOUT) as kernel:
            yield from (ask(kernel, model, name, seed) for name, seed in missing)


def ask(kernel: Notebook, model: str, name: str, seed: int) -> Answer:
    kernel.must(f"%%chat reply --schema {name} --seed {seed} --no-history\n{QUESTIONS[name]}")
    valid, tokens, reason = kernel.must(_READ).printed.split()
    return Answer(model, name, seed, valid == "1", int(tokens), reason)


def main() -> int:
    asked = argparse.ArgumentParser(prog="python -m tests.bench.structured", description="Count answers that are valid.")
    asked.add_argument("models", nargs="*", default=MODELS)
    asked.add_argument("--keep", type=Path, help="a file of answers to go on from")
    options = asked.parse_args()
    kept = _kept(options.keep)
    found: list[Answer] = []
    for model in options.models:
        for answer in answers(model, kept):
            found.append(answer)
            print("good" if answer.good else "BAD ", *asdict(answer).values(), flush=True)
            if options.keep is not None and answer not in kept:
                with options.keep.open("a") as file:
                    file.write(json.dumps(asdict(answer)) + "\n")
    for (model, name), group in groupby(sorted(found, key=_row), _row):
        row = list(group)
        print(f"{model}  {name}: {sum(a.good for a in row)} of {len(row)} valid, longest {max(a.tokens for a in row)} tokens")
    return int(not all(answer.good for answer in found))


def _kept(path: Path | None) -> list[Answer]:
    if path is None or not path.exists():
        return []
    return [Answer(**json.loads(line)) for line in path.read_text().splitlines()]


def _row(answer: Answer) -> tuple[str, str]:
    return answer.model, answer.name


if __name__ == "__main__":
    raise SystemExit(main())
