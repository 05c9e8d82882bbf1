"""Structured output: how many of six answers under each of six types are valid within 500 tokens, asked in a real kernel.

    python -m tests.bench.structured [MODEL ...]

A count, not a ratio: how many answers the type reads and took at most 500 tokens. The target is all of them.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator

from ..kernel.notebook import notebook
from ..structured import QUESTIONS, SETUP

SEEDS = range(6)
MOST_TOKENS = 500
MODELS = ("qwen2.5-coder-0.5b", "qwen2.5-coder-1.5b")
_READ = """
try:
    reply.value
    valid = True
except Exception as error:
    valid = False
print(int(valid), reply.usage.completion_tokens, reply.finish_reason)
"""


def valid_answers(model: str) -> Iterator[tuple[str, list[int]]]:
    """Ask; for each type the tokens of the answers that are valid and short enough."""
    with notebook(f"%load_model {model} --as asked --ctx 4096", SETUP) as kernel:
        kernel.timeout = 1_200.0
        for name, question in QUESTIONS.items():
            found: list[int] = []
            for seed in SEEDS:
                kernel.run(f"%%chat reply --schema {name} --seed {seed} --no-history\n{question}")
                valid, n_tokens, reason = kernel.run(_READ).printed.split()
                if valid == "1" and reason == "stop" and int(n_tokens) <= MOST_TOKENS:
                    found.append(int(n_tokens))
                else:
                    print(f"{model}  {name}, seed {seed}: valid {valid}, {n_tokens} tokens, {reason}", flush=True)
            yield name, found


def main() -> None:
    for model in sys.argv[1:] or MODELS:
        for name, tokens in valid_answers(model):
            print(f"{model}  {name}: {len(tokens)} of {len(SEEDS)} valid, longest {max(tokens, default=0)} tokens", flush=True)


if __name__ == "__main__":
    main()
