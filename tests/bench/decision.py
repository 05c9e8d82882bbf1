"""Which evidence tells the near misses that are due from those that are not? Collects it once, and compares designs offline.

    python -m tests.bench.decision collect [--model NAME] [--category NAME ...] [--first 0] [--count 25] [--tasks]
    python -m tests.bench.decision compare [--write]

``collect`` asks each case greedily (BFCL's, and with ``--tasks`` the tuning part of ``everyday.py``, its first step). It takes
every valid near miss for a call, and adds one line for each to ``tests/bench/decision.jsonl``: the evidence, whether a call was
due, and whether this one is right. Cases that are there already are not asked again. ``compare`` prints how well each design
separates the right calls from those that were not due: the area under the curve (the chance that it prefers a right call to one
that was not due), for each model and for all together. ``--write`` puts the table and the curve into ``near-misses.md``.

Tune on BFCL's cases 0 to 99, live_parallel and live_parallel_multiple; never on live_relevance.
"""

from __future__ import annotations

import argparse
import json
import math
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import platformdirs

from llm_magics.chat.recovery.bodies import FoundCall
from llm_magics.chat.recovery.evidence import Evidence, share_said
from llm_magics.chat.recovery.recovery import Recovery
from llm_magics.events import ModelEnd
from llm_magics.messages import user
from llm_magics.models.base import Model, Request, Sampling
from llm_magics.models.loading import load_model

from . import bfcl
from .bfcl_check import is_right
from .tasks.everyday import TUNING
from .tasks.judge import Task
from .tasks.tools import TOOLS

ROWS = Path(__file__).with_name("decision.jsonl")
PAGE = Path(__file__).with_name("near-misses.md")
STRING_CAP, LEAST_BEFORE = 1.0, -1.8  # the decision before this measure
FAIR = ("no-item", "no-city", "no-person", "missing-data")  # nothing is found, but looking it up is fair


@dataclass(frozen=True, slots=True)
class Row:
    """One near miss, or (without tokens) an answer that holds none.

    ``about`` is the number of words that the question shares with the names and descriptions of the tools that were called.
    ``tokens``: the log-probability of each, None if it was forced, and its kind: a "choice" has a letter or a digit, "quote" an
    odd number of quotation marks; both is "both".
    """

    model: str
    case: str
    category: str
    due: bool
    right: bool
    said: float
    about: int
    opening: float | None
    choices: float | None
    n_values: int
    tokens: tuple[tuple[float | None, str], ...]

    def of(self, *kinds: str) -> list[float]:
        return [p for p, kind in self.tokens if p is not None and (not kinds or kind in kinds)]


# --- collecting ---------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Judged:
    """One near miss, as the decision gets it."""

    calls: Sequence[FoundCall]
    tokens: list[tuple[str, float | None]]
    opening: float | None
    choices: float | None
    said: float
    about: int


def kind_of(piece: str) -> str:
    """What a token is for the measures, see :class:`Row`."""
    choice, quote = any(c.isalnum() for c in piece), piece.count('"') % 2 == 1
    return "both" if choice and quote else "choice" if choice else "quote" if quote else ""


def words(text: str) -> set[str]:
    """The beginnings of a text's words, e.g. ``getWeather`` has "get" and "weath"."""
    parted = re.sub(r"(?<=[a-z])(?=[A-Z])|[_.]", " ", text).lower()
    return {word[:5] for word in re.findall(r"[^\W\d_]{4,}", parted)} - {"what", "which", "with", "from", "that", "this"}


class Listening(Recovery):
    """Takes every valid near miss for a call, and remembers it."""

    heard: list[Judged] = []  # noqa: RUF012 (shared on purpose: the guide makes the recovery)

    def _evidence(self, calls: Sequence[FoundCall], text: str) -> Evidence:
        opening, tools = self._written.opening(self._begins_call), [self._tools[call.name] for call in calls]
        named = words(" ".join(f"{tool.name} {tool.description}" for tool in tools))
        about = len(named & words(self._conversation[-1] if self._conversation else ""))
        said = share_said(calls, self._tools, self._conversation)
        self.heard.append(Judged(calls, list(self._written.of(text)), opening, self._written.choices(text), said, about))
        return Evidence()


def near_misses(model: Model, request: Request) -> list[Judged]:
    Listening.heard.clear()
    any(isinstance(event, ModelEnd) for event in model.stream(request))
    return list(Listening.heard)


def rows(
    name: str, case: str, category: str, due: bool, right: Callable[[str, Any], bool], judged: Sequence[Judged]
) -> Iterator[Row]:
    """The lines of one case."""
    if not judged:
        yield Row(name, case, category, due, False, 0.0, 0, None, None, 0, ())
    for one in judged:
        given = [(call.name, json.loads(call.arguments)) for call in one.calls]
        n = sum(len(arguments) for _, arguments in given)
        kinds = tuple((None if p is None else round(p, 3), kind_of(piece)) for piece, p in one.tokens)
        good = due and all(right(tool, arguments) for tool, arguments in given)
        opening, doubt = (None if one is None else round(one, 3) for one in (one.opening, one.choices))
        yield Row(name, case, category, due, good, round(one.said, 3), one.about, opening, doubt, n, kinds)


def of_bfcl(name: str, model: Model, category: str, case: bfcl.Case) -> Iterator[Row]:
    request = Request(case.messages, case.tools, sampling=Sampling(temperature=0.0), max_tokens=256, conversation=case.id)
    due = category not in bfcl.NONE
    yield from rows(
        name, case.id, category, due, lambda tool, given: is_right(tool, given, case.answers), near_misses(model, request)
    )


def of_task(name: str, model: Model, task: Task) -> Iterator[Row]:
    specs = tuple(TOOLS[tool].spec for tool in task.tools)
    request = Request((user(task.asks[0]),), specs, sampling=Sampling(temperature=0.0), max_tokens=256, conversation=task.id)
    due = any(want.must for want in task.wants)
    yield from rows(
        name,
        task.id,
        "task",
        due,
        lambda tool, given: any(w.matches(tool, given) for w in task.wants),
        near_misses(model, request),
    )


def collect(options: argparse.Namespace) -> None:
    from llm_magics.models import guide

    guide.Recovery = Listening  # type: ignore[misc]
    there = {(row.model, row.case) for row in kept()}
    wheel = bfcl.fetch(Path(platformdirs.user_cache_dir("llm_magics")) / "bench")
    model = load_model(options.model, ctx=4096)
    asks: list[tuple[str, Callable[[], Iterator[Row]]]] = []
    for category in options.category:
        for case in bfcl.load_cases(wheel, category, options.first, options.count):
            asks.append((case.id, lambda category=category, case=case: of_bfcl(options.model, model, category, case)))
    for task in TUNING if options.tasks else ():
        asks.append((task.id, lambda task=task: of_task(options.model, model, task)))
    for case_id, ask in asks:
        if (options.model, case_id) not in there:
            found = list(ask())
            with ROWS.open("a", encoding="utf-8") as file:
                file.writelines(json.dumps(asdict(row)) + "\n" for row in found)
            print(case_id, len([row for row in found if row.tokens]), flush=True)


def kept() -> list[Row]:
    lines = ROWS.read_text(encoding="utf-8").splitlines() if ROWS.exists() else []
    read = [json.loads(line) for line in lines]
    return [Row(**{**row, "tokens": tuple((p, kind) for p, kind in row["tokens"])}) for row in read]


# --- comparing ----------------------------------------------------------------------------------------------------------------


def capped_sum(row: Row) -> float:
    """The sum of the log-probabilities, in which one string counts at most 1."""
    total, string, inside = 0.0, 0.0, False
    for given, kind in row.tokens:
        before, p = inside, given or 0.0
        inside ^= kind in ("quote", "both")
        if before or inside:
            string += p
        else:
            total += p
        if before and not inside:
            total, string = total + max(string, -STRING_CAP), 0.0
    return total + max(string, -STRING_CAP)


def mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0


def evidence(row: Row) -> Evidence:
    return Evidence(row.opening, row.choices, row.said)


DESIGNS: dict[str, Callable[[Row], float]] = {
    "capped sum of log p (before)": capped_sum,
    "sum of log p": lambda row: sum(row.of()),
    "mean log p per token": lambda row: mean(row.of()),
    "mean log p per choice": lambda row: mean(row.of("choice", "both")),
    "the same, a long text counts at most 1": lambda row: -(row.choices or 0.0),
    "sum of log p per argument": lambda row: sum(row.of("choice", "both")) / (1 + row.n_values),
    "least log p": lambda row: min(row.of(), default=0.0),
    "log p of the first token": lambda row: next(iter(row.of()), 0.0),
    "log p of any call at the opening": lambda row: -(row.opening or 0.0),
    "share of words that were said": lambda row: row.said,
    "words shared with the tool's description": lambda row: row.about,
    "opening and choices": lambda row: -(row.opening or 0.0) - (row.choices or 0.0),
    "opening and choices, said words vouch for the opening (in use)": lambda row: -evidence(row).doubt,
    "opening and choices, words shared with the description do": lambda row: (
        -(row.opening or 0.0) / (1 + (row.about > 0)) - (row.choices or 0.0)
    ),
}


def area(good: Sequence[float], bad: Sequence[float]) -> float:
    """The chance that a good one scores higher than a bad one; ties count half."""
    pairs = len(good) * len(bad)
    return sum((g > b) + 0.5 * (g == b) for g in good for b in bad) / pairs if pairs else math.nan


def split(found: Sequence[Row]) -> tuple[list[Row], list[Row]]:
    """The right near misses, and those that were not due."""
    judged = [row for row in found if row.tokens]
    return [row for row in judged if row.right], [row for row in judged if not row.due]


def logistic(found: Sequence[Row], folds: int = 5) -> list[tuple[Row, float]]:
    """Each row's score under a logistic regression on five measures, fitted to the other folds."""
    used = [row for row in found if row.tokens and (row.right or not row.due)]
    x = np.array([[1.0, r.choices or 0.0, r.opening or 0.0, mean(r.of()), r.said, min(r.about, 3)] for r in used])
    x[:, 1:] = (x[:, 1:] - x[:, 1:].mean(0)) / (x[:, 1:].std(0) + 1e-9)
    y = np.array([float(row.right) for row in used])
    fold, scores = np.arange(len(used)) % folds, np.zeros(len(used))
    for k in range(folds):
        w, train = np.zeros(x.shape[1]), fold != k
        for _ in range(50):
            p = 1 / (1 + np.exp(-x[train] @ w))
            hessian = (x[train].T * (p * (1 - p))) @ x[train] + 0.1 * np.eye(x.shape[1])
            w -= np.linalg.solve(hessian, x[train].T @ (p - y[train]) + 0.1 * w)
        scores[~train] = x[~train] @ w
    return list(zip(used, scores.tolist(), strict=True))


def compare(found: Sequence[Row]) -> Iterator[str]:
    models = sorted({row.model for row in found})
    yield "| design | " + " | ".join(models) + " | together |"
    yield "|---|" + "---|" * (len(models) + 1)
    for name, score in DESIGNS.items():
        yield _line(name, [area(*(list(map(score, part)) for part in split(group))) for group in _groups(found, models)])
    fitted = logistic(found)
    areas = [
        area([s for r, s in fitted if r.right and r in group], [s for r, s in fitted if not r.due and r in group])
        for group in _groups(found, models)
    ]
    yield _line("logistic regression on opening, choices, mean, said, shared words (cross-validated)", areas)
    yield "\n| model | decision | right calls | calls that were not due |"
    yield "|---|---|---|---|"
    for model, group in zip(models, _groups(found, models), strict=False):
        good, bad = split(group)
        n_asked = len({row.case for row in group if not row.due})
        for name, takes in (("before", lambda row: capped_sum(row) >= LEAST_BEFORE), ("now", lambda row: evidence(row).meant)):
            right, wrong = (sum(map(takes, part)) for part in (good, bad))
            yield f"| {model} | {name} | {right} of {len(good)} | {wrong} of {len(bad)} written, in {n_asked} cases |"


def _groups(found: Sequence[Row], models: Sequence[str]) -> list[list[Row]]:
    return [*([row for row in found if row.model == model] for model in models), list(found)]


def _line(name: str, areas: Sequence[float]) -> str:
    return f"| {name} | " + " | ".join(f"{a:.3f}" for a in areas) + " |"


# --- drawing ------------------------------------------------------------------------------------------------------------------

WIDTH, HEIGHT, LEFT, TOP = 460, 300, 60, 20
DECISION = "opening and choices, said words vouch for the opening (in use)"
COLOURS = ("#7a7a7a", "#c2571a", "#1a6fc2")


def curve(score: Callable[[Row], float], good: Sequence[Row], bad: Sequence[Row]) -> list[tuple[float, float]]:
    """The shares of unwanted and of right calls that are taken, for every limit."""
    points = [(0.0, 0.0)]
    for limit in sorted({score(row) for row in (*good, *bad)}, reverse=True):
        points.append(tuple(sum(score(r) >= limit for r in part) / max(len(part), 1) for part in (bad, good)))  # type: ignore[arg-type]
    return points


def _text(x: float, y: float, text: str, more: str = "", anchor: str = "middle") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" {more}>{text}</text>'


def svg(found: Sequence[Row]) -> str:
    names = ("capped sum of log p (before)", "mean log p per token", DECISION)
    good, bad = split(found)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{LEFT + WIDTH + 20}" height="{TOP + HEIGHT + 50}" '
        'font-family="sans-serif" font-size="12">',
        '<rect width="100%" height="100%" fill="#ffffff"/>',
        f'<rect x="{LEFT}" y="{TOP}" width="{WIDTH}" height="{HEIGHT}" fill="#ffffff" stroke="#999999"/>',
        _text(LEFT + WIDTH / 2, TOP + HEIGHT + 35, "share of the unwanted calls that are taken for calls"),
        _text(0, 0, "share of the right calls", f'transform="translate(18 {TOP + HEIGHT / 2}) rotate(-90)"'),
    ]
    for i, (name, colour) in enumerate(zip(names, COLOURS, strict=True)):
        points = " ".join(f"{LEFT + x * WIDTH:.1f},{TOP + (1 - y) * HEIGHT:.1f}" for x, y in curve(DESIGNS[name], good, bad))
        parts.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts.append(
            f'<text x="{LEFT + WIDTH - 8}" y="{TOP + HEIGHT - 50 + 16 * i}" text-anchor="end" fill="{colour}">{name}</text>'
        )
    taken = [sum(evidence(row).meant for row in part) / max(len(part), 1) for part in (bad, good)]
    x, y = LEFT + taken[0] * WIDTH, TOP + (1 - taken[1]) * HEIGHT
    parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="5" fill="{COLOURS[2]}"/>')
    for share in (0, 0.5, 1):
        parts.append(_text(LEFT + share * WIDTH, TOP + HEIGHT + 16, f"{share:.0%}"))
        parts.append(_text(LEFT - 6, TOP + (1 - share) * HEIGHT + 4, f"{share:.0%}", anchor="end"))
    return "\n".join([*parts, "</svg>\n"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    commands = parser.add_subparsers(dest="command", required=True)
    collecting = commands.add_parser("collect")
    collecting.add_argument("--model", default="qwen2.5-coder-0.5b")
    collecting.add_argument("--category", nargs="*", choices=sorted({*bfcl.CATEGORIES} - {"live_relevance"}), default=[])
    collecting.add_argument("--first", type=int, default=0)
    collecting.add_argument("--count", type=int, default=25)
    collecting.add_argument("--tasks", action="store_true")
    comparing = commands.add_parser("compare")
    comparing.add_argument("--write", action="store_true")
    options = parser.parse_args()
    if options.command == "collect":
        collect(options)
        return
    found = kept()
    table = "\n".join(compare(found))
    print(table)
    if options.write:
        PAGE.with_suffix(".svg").write_text(svg(found), encoding="utf-8")
        start, end = "<!-- table -->\n", "<!-- end of table -->"
        before, _, rest = PAGE.read_text(encoding="utf-8").partition(start)
        PAGE.write_text(f"{before}{start}{table}\n\n{end}{rest.partition(end)[2]}", encoding="utf-8")


if __name__ == "__main__":
    main()
