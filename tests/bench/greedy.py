"""Greedy token ids against llama-cpp-python's own, at full length: 20 prompts, 128 tokens, each model named.

    python -m tests.bench.greedy [MODEL ...]

The test suite runs a shorter cut of the same comparison.
"""

from __future__ import annotations

import sys

from llm_magics.store.locate import locate
from tests.engine.test_greedy import PROMPTS, compare

from .common import Result, machine, report


def main() -> None:
    for name in sys.argv[1:] or ["smollm2-135m", "qwen2.5-coder-0.5b"]:
        compare(locate(name).path, len(PROMPTS), 128)
        report(Result(f"greedy_ids_equal_{name}", float(len(PROMPTS)), "prompts", "llama_cpp.Llama", machine=machine()))


if __name__ == "__main__":
    main()
