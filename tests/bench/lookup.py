"""Prompt lookup against plain decoding: work that copies, and work that does not.

    python -m tests.bench.lookup [MODEL] [PAIRS]

Greedy output must be the same; where it is not, the first difference is printed with the distance between the two best
logits there (batches of different shapes round differently).
"""

from __future__ import annotations

from contextlib import closing

from llm_magics.engine.hosts import open_engine
from llm_magics.engine.values import Engine, Finished, GenerateRequest, SamplerSettings, Tokens

from .common import arguments, compare, config, report

CODE = '''def load(path):
    with open(path) as file:
        rows = [line.split(",") for line in file]
    return rows


def average(rows, column):
    values = [float(row[column]) for row in rows]
    return sum(values) / len(values)


def report(path, column):
    rows = load(path)
    print("average:", average(rows, column))
'''
COPYING = f"Rename the function load to read_rows. Answer with the whole program.\n\n```python\n{CODE}```"
WORK = {
    "lookup_vs_plain": (COPYING, 160),
    "lookup_vs_plain_on_other_work": ("Tell me about the sea, and about ships that were lost in it.", 96),
}


def generate(engine: Engine, text: str, n: int, logprobs: int = 0) -> tuple[Finished, list[float]]:
    """One greedy answer, and the distance between the two best logits at each token where asked for."""
    prompt = engine.tokenize(f"<|im_start|>user\n{text}<|im_end|>\n<|im_start|>assistant\n", special=True)
    request = GenerateRequest(prompt, SamplerSettings(temperature=0), max_tokens=n, logprobs=logprobs)
    with closing(engine.submit(request)) as generation:
        events = list(generation)
    end = events[-1]
    assert isinstance(end, Finished)
    items = [item for event in events if isinstance(event, Tokens) for item in event.logprobs]
    return end, [item.top[0][1] - item.top[1][1] for item in items]


def speed(engine: Engine, text: str, n: int) -> float:
    """Tokens per second after the first."""
    end, _ = generate(engine, text, n)
    return (len(end.ids) - 1) / end.decode_seconds


def main() -> None:
    path, pairs = arguments()
    plainly, guessingly = (config(path, 1024, speculation=kind) for kind in ("off", "lookup"))
    with closing(open_engine(plainly)) as plain, closing(open_engine(guessingly)) as guessing:
        for name, (text, n) in WORK.items():
            expected, gaps = generate(plain, text, n, logprobs=2)
            found, _ = generate(guessing, text, n)
            if found.ids != expected.ids:
                at = next(i for i, (a, b) in enumerate(zip(found.ids, expected.ids, strict=False)) if a != b)
                print(f"{name}: first different at token {at}, where the two best lie {gaps[at]:.3f} apart")
            print(f"{name}: {found.accepted} of {found.drafted} guessed tokens were right, {len(found.ids)} tokens in all")
            report(
                compare(
                    name,
                    "tokens/s",
                    lambda text=text, n=n: speed(guessing, text, n),  # type: ignore[misc]
                    "plain decoding",
                    lambda text=text, n=n: speed(plain, text, n),  # type: ignore[misc]
                    pairs=pairs,
                )
            )


if __name__ == "__main__":
    main()
