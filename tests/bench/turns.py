"""Whole turns on everyday tasks: were the right calls made, no other, and was the question answered?

    python -m tests.bench.turns [--part tuning|held-out|all] [--keep FILE] [--verbose] [MODEL ...]

A count, not a ratio. 120 tasks with executable tools (``tests/bench/tasks/everyday.py``), greedy, each in a conversation of its
own. Per model five figures: all the right calls ran; and no other; the answer holds what was asked for; all of it; and how many
calls were written in vain (refused, failed, or written again). With ``--keep`` each task is written to a file as it ends, and a
run that was broken off goes on from there. The held-out part is for one look after all tuning.

What the designs gave, greedy, on tasks of the tuning part, the same tasks in a pair of rows. The first is the design before,
with refusals behind results, and call text as the answer:

| model | tasks | design | right calls | and no other | answered | all of it | in vain | raw |
|---|---|---|---|---|---|---|---|---|
| 0.5B | 32 | before | 23 | 21 | 18 | 12 | 67 | 13 |
| 0.5B | 32 | words after a call in vain, further calls, nothing written twice | 25 | 25 | 24 | 23 | 0 | 0 |
| 0.5B | 15 | before | 11 | 11 | 10 | 6 | 19 | 8 |
| 0.5B | 15 | the new one, with the older decision on the first call | 12 | 12 | 13 | 12 | 0 | 0 |
| 1.5B | 12 | before | 7 | 6 | 5 | 3 | 8 | 3 |
| 1.5B | 12 | the new one | 11 | 11 | 11 | 11 | 1 | 0 |

What did not do: to hold a failed call back in the grammar, and to hold back only "Tim" or "Tims" where ``Tim`` was called. The
model then writes "Atlantis}}", or "Tim. The age of Tim is 69.", and calls with it. To try a call of any tool before the result
is there: it mails a weather that it makes up.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from llm_magics.errors import LLMMagicsError
from llm_magics.models.base import Model, Sampling
from llm_magics.models.loading import load_model
from llm_magics.session.session import Reply, Session

from .tasks.everyday import HELD_OUT, TASKS, TUNING
from .tasks.judge import Task, Verdict, calls_of, judge
from .tasks.tools import TOOLS

MODELS = ("qwen2.5-coder-0.5b", "qwen2.5-coder-1.5b")
PARTS = {"tuning": TUNING, "held-out": HELD_OUT, "all": tuple(TASKS)}
MOST_TOKENS = 512  # in one answer; a model that goes on and on ends there


@dataclass(frozen=True, slots=True)
class Result:
    """One task, judged. ``calls`` are those that were written, in order, each with how it ended."""

    model: str
    task: str
    verdict: Verdict
    calls: tuple[str, ...]
    answer: str
    seconds: float


def results(model: str, tasks: tuple[Task, ...], kept: list[Result]) -> Iterator[Result]:
    """Every task's result, those that were kept first."""
    there = {result.task: result for result in kept if result.model == model}
    yield from (there[task.id] for task in tasks if task.id in there)
    if missing := [task for task in tasks if task.id not in there]:
        loaded = load_model(model, ctx=4096)
        try:
            yield from (ask(model, loaded, task) for task in missing)
        finally:
            loaded.close()


def ask(name: str, model: Model, task: Task) -> Result:
    """Put a task's messages to the model, one after the other, as ``%%chat --temp 0`` would."""
    tools = [TOOLS[tool] for tool in task.tools]
    session = Session(model, tools, sampling=Sampling(temperature=0.0), approve="auto", thread=task.id)
    replies: list[Reply] = []
    error, began = "", time.perf_counter()
    for message in task.asks:
        try:
            replies.append(session.ask(message, max_tokens=MOST_TOKENS))
        except LLMMagicsError as problem:
            error = f"{type(problem).__name__}: {problem}"
            break
    answers = [reply.text for reply in replies]
    written = [f"{s.name}({s.arguments}) {s.state}" for reply in replies for s in reply.trace.tools]
    verdict = judge(task, calls_of(replies), answers, error)
    return Result(name, task.id, verdict, tuple(written), answers[-1] if answers else "", time.perf_counter() - began)


def summary(model: str, found: list[Result]) -> str:
    """The five figures of one model, and what must not be."""
    judged = [result.verdict for result in found]
    calls, alone = sum(v.calls for v in judged), sum(v.calls and v.no_other for v in judged)
    answered, whole = sum(v.answered for v in judged), sum(v.all for v in judged)
    in_vain, raw, errors = sum(v.in_vain for v in judged), sum(v.raw for v in judged), sum(bool(v.error) for v in judged)
    seconds = sum(result.seconds for result in found)
    return (
        f"{model}: of {len(found)}: right calls {calls}, and no other {alone}, answered {answered}, all of it {whole}; "
        f"calls in vain {in_vain}, raw call text {raw}, errors {errors}; {seconds:.0f} s"
    )


def main() -> None:
    asked = argparse.ArgumentParser(prog="python -m tests.bench.turns", description="Count turns that are right.")
    asked.add_argument("models", nargs="*", default=MODELS)
    asked.add_argument("--part", choices=tuple(PARTS), default="tuning")
    asked.add_argument("--keep", type=Path, help="a file of results to go on from")
    asked.add_argument("--verbose", action="store_true", help="show the calls and the answer of what is not right")
    options = asked.parse_args()
    kept = _kept(options.keep)
    for model in options.models:
        found: list[Result] = []
        for result in results(model, PARTS[options.part], kept):
            found.append(result)
            _tell(result, options.verbose)
            if options.keep is not None and result not in kept:
                with options.keep.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(asdict(result)) + "\n")
        print(summary(model, found), flush=True)


def _tell(result: Result, verbose: bool) -> None:
    v = result.verdict
    marks = "".join(mark if good else "." for mark, good in (("C", v.calls), ("O", v.no_other), ("A", v.answered)))
    print(f"{'right' if v.all else 'WRONG'} {marks} {result.task} in vain {v.in_vain} {result.seconds:.0f} s", flush=True)
    if verbose and not v.all:
        print(*(f"    {call[:200]}" for call in result.calls[:6]), sep="\n")
        print(f"    -> {v.error or result.answer[:300]!r}", flush=True)


def _kept(path: Path | None) -> list[Result]:
    if path is None or not path.exists():
        return []
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return [Result(**{**row, "verdict": Verdict(**row["verdict"]), "calls": tuple(row["calls"])}) for row in rows]


if __name__ == "__main__":
    main()
