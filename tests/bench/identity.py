"""Is greedy text the same with speculation as without? Fifty prompts, half of them work that copies.

    python -m tests.bench.identity [MODEL] [--draft MODEL] [--first N] [--count N] [--tokens N]

Batches of different shapes round differently, so that where the two best logits lie within ``NEAR`` of each other either may
win. Counted as the same are equal texts; a text that first differs at such a place is counted apart, at most twice in fifty;
any other difference fails.

Told along is how fast the same answers were, guesses over plain decoding: tokens per second of all prompts that copy, and of
all others. Each is asked once, so its own ratio is rough.
"""

from __future__ import annotations

import argparse
import sys
from contextlib import closing
from dataclasses import replace

from llm_magics.engine.hosts import open_engine
from llm_magics.engine.values import EngineConfig, Finished
from llm_magics.store.locate import locate
from tests.engine.test_greedy import PROMPTS as QUESTIONS

from .common import Result, machine, quartiles, report
from .lookup import CODE, generate

NEAR = 0.05
MOST_NEAR = 2  # of fifty
_CHANGES = (
    "Rename the function load to read_rows.",
    "Add a docstring to every function.",
    "Let report print with two decimals.",
    "Write out the program as it is, nothing changed.",
    "Make average return 0.0 for no rows.",
    "Rename the argument column to index everywhere.",
)
_RECORDS = "\n".join(f"{i}; lamp {i % 3}; wind {i * 7 % 12}; the keeper saw {i % 5} ships" for i in range(8))
_EDITS = (
    "Repeat this list and change nothing:",
    "Repeat this list with the word ships replaced by boats:",
    "Turn this list into CSV with commas:",
    "Number these lines from 100 on:",
)
_TOPICS = ("the sea", "bread", "a clock", "bees", "the moon", "chess", "snow", "trains", "maps", "salt", "kites", "owls")


def prompts() -> list[str]:
    """The fifty: copying and other work in turns."""
    code = [f"{change} Answer with the whole program.\n\n```python\n{CODE}```" for change in _CHANGES]
    lists = [f"{edit}\n\n{_RECORDS[: 150 + 40 * i]}" for edit in _EDITS for i in range(5)][:19]
    plain = [f"Tell me three facts about {topic}." for topic in _TOPICS]
    copying, other = [*code, *lists], [*QUESTIONS[:13], *plain]
    return [prompt for pair in zip(copying, other, strict=True) for prompt in pair]


def speed(ends: list[Finished]) -> float:
    """Tokens per second after the first, over several answers."""
    return sum(len(end.ids) - 1 for end in ends) / sum(end.decode_seconds for end in ends)


def against_plain(name: str, ends: list[tuple[Finished, Finished]]) -> Result:
    """How fast the guessing engine was over all its answers, as a ratio to the plain one; one pair per prompt."""
    mine, plain = (speed(list(column)) for column in zip(*ends, strict=True))
    ratios = [speed([ours]) / speed([theirs]) for ours, theirs in ends]
    return Result(name, mine, "tokens/s", "plain decoding", mine / plain, quartiles(ratios), len(ratios), machine())


def main() -> int:
    asked = argparse.ArgumentParser()
    asked.add_argument("model", nargs="?", default="qwen2.5-coder-0.5b")
    asked.add_argument("--draft", default="")
    asked.add_argument("--kv", default="f16", choices=("f16", "q8_0"))
    asked.add_argument("--first", type=int, default=0)
    asked.add_argument("--count", type=int, default=50)
    asked.add_argument("--tokens", type=int, default=64)
    options = asked.parse_args()
    path = str(locate(options.model).path)
    draft = str(locate(options.draft).path) if options.draft else ""
    plain_config = EngineConfig(path, n_ctx=1024, kv_type=options.kv)
    guessing_config = replace(plain_config, speculation="off" if draft else "auto", draft=draft)
    chosen = prompts()[options.first : options.first + options.count]
    same = near = far = drafted = accepted = 0
    speeds: dict[str, list[tuple[Finished, Finished]]] = {"copying": [], "other": []}
    with closing(open_engine(plain_config)) as plain, closing(open_engine(guessing_config)) as guessing:
        for number, prompt in enumerate(chosen, options.first):
            engines = (plain, guessing) if number // 2 % 2 else (guessing, plain)
            ends = {engine: generate(engine, prompt, options.tokens)[0] for engine in engines}
            expected, found = ends[plain], ends[guessing]
            if min(len(found.ids), len(expected.ids)) > 8:  # shorter ones tell nothing of speed
                speeds["other" if number % 2 else "copying"].append((found, expected))
            drafted, accepted = drafted + found.drafted, accepted + found.accepted
            if found.ids == expected.ids:
                same += 1
                continue
            _, gaps = generate(plain, prompt, options.tokens, logprobs=2)
            at = next(i for i, (a, b) in enumerate(zip(found.ids, expected.ids, strict=False)) if a != b)
            near, far = near + (gaps[at] <= NEAR), far + (gaps[at] > NEAR)
            print(f"prompt {number}: first different at token {at}, where the two best lie {gaps[at]:.3f} apart")
    print(f"{same} same, {near} first different at a near tie, {far} otherwise; {accepted} of {drafted} guesses came true")
    who = "draft" if draft else "lookup"
    for work, pairs in ((work, ends) for work, ends in speeds.items() if ends):
        report(against_plain(f"{who}_vs_plain_{work}_prompts", pairs))
    name = f"greedy_same_with_{who}_{options.first}_{options.model}"
    report(Result(name, float(same), "prompts", f"plain decoding of {len(chosen)}", machine=machine()))
    assert drafted, "nothing was guessed, so nothing was shown"
    return int(far > 0 or near > MOST_NEAR)


if __name__ == "__main__":
    sys.exit(main())
