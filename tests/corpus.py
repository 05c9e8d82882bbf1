"""Run recorded model answers through the parser and compare with what they mean.

``python -m tests.corpus --templates DIR --cases FILE [--min N] [--no-overrides] [--rename SEED] [--brackets «»|none]``

Each case is parsed whole, character by character, and in random splits; it passes where content, reasoning and calls are as
expected each time. Content and reasoning are compared after ``strip()``, arguments as JSON values, ids where the case gives
them. Of a case marked ``partial`` the answer is cut off: what counts is what the events have shown so far.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llm_magics.chat.analysis.overrides import OVERRIDES, Override
from llm_magics.chat.format import ChatFormat
from llm_magics.errors import LLMMagicsError
from llm_magics.messages import ToolCall

from .chat.small import unfinished
from .renaming import BareWords, Brackets, Renaming, bare_words, other_brackets, renaming

Case = dict[str, Any]
PARTS = ("content", "reasoning", "calls")
SPLITS = ("whole", "by character", "random splits")


@dataclass(frozen=True)
class Answer:
    """What a parser made of an answer."""

    content: str
    reasoning: str
    calls: tuple[ToolCall, ...]


def read_cases(path: Path) -> list[Case]:
    """The cases of a file, one JSON object a line."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]


def parse(fmt: ChatFormat, case: Case, pieces: list[str]) -> Answer:
    """Parse one case's answer, fed in these pieces."""
    given = case["inputs"]
    continued = given.get("continue_final_message", "none")
    prompt = fmt.render(
        given["messages"],
        tools=given["tools"],
        enable_thinking=given["enable_thinking"],
        continue_final=None if continued == "none" else continued,
    )
    parser = fmt.parser(
        given["tools"],
        prompt=prompt,
        tool_choice=given["tool_choice"],
        parallel_tool_calls=given["parallel_tool_calls"],
        reasoning="inline" if given["reasoning_format"] == "none" else "split",
        response_format=given.get("json_schema"),
    )
    for piece in pieces:
        parser.feed(piece)
    parser.finish("length" if case["partial"] else "stop")
    cut_off = unfinished(parser) if case["partial"] else None
    calls = (*parser.message.tool_calls, *((cut_off,) if cut_off else ()))
    return Answer(parser.message.text, parser.message.reasoning, calls)


def splits(text: str, seed: str) -> Iterator[list[str]]:
    """The ways in which an answer is fed, one per name in SPLITS."""
    yield [text]
    yield list(text)
    dice = random.Random(seed)
    pieces, at = [], 0
    while at < len(text):
        size = dice.randint(1, 12)
        pieces.append(text[at : at + size])
        at += size
    yield pieces


def differences(answer: Answer, expected: dict[str, Any], *, partial: bool) -> set[str]:
    """Which of content, reasoning and calls are not as expected."""
    wrong = set()
    if answer.content.strip() != expected["content"].strip():
        wrong.add("content")
    if answer.reasoning.strip() != expected["reasoning_content"].strip():
        wrong.add("reasoning")
    same = len(answer.calls) == len(expected["tool_calls"]) and all(
        _same_call(call, wanted, partial=partial) for call, wanted in zip(answer.calls, expected["tool_calls"], strict=True)
    )
    return wrong if same else wrong | {"calls"}


def _same_call(call: ToolCall, wanted: dict[str, Any], *, partial: bool) -> bool:
    if call.name != wanted["name"] or (wanted.get("id") and call.id != wanted["id"]):
        return False
    try:
        return bool(json.loads(call.arguments) == json.loads(wanted["arguments"]))
    except ValueError:
        return partial and "".join(call.arguments.split()) == "".join(wanted["arguments"].split())


class Tally:
    """How many cases passed, per template and part."""

    def __init__(self) -> None:
        self.run: dict[str, int] = defaultdict(int)
        self.passed: dict[tuple[str, str, str], int] = defaultdict(int)
        self.whole: dict[str, int] = defaultdict(int)

    def add(self, template: str, wrong: dict[str, set[str]]) -> None:
        """Count one case, given what is wrong in each split."""
        self.run[template] += 1
        for split, parts in wrong.items():
            for part in PARTS:
                self.passed[template, split, part] += part not in parts
        self.whole[template] += not any(wrong.values())

    def row(self, name: str, templates: list[str]) -> str:
        """One line of the table, summed over some templates."""
        run = sum(self.run[t] for t in templates)
        cells = []
        for split in SPLITS:
            counts = [sum(self.passed[t, split, part] for t in templates) for part in PARTS]
            cells.append("/".join(f"{n:3}" for n in counts))
        return f"{name[:46]:46}  {'   '.join(cells)}   {sum(self.whole[t] for t in templates):4} of {run}"


def run(
    templates: Path,
    cases: list[Case],
    *,
    overrides: Sequence[Override] = OVERRIDES,
    seed: int | None = None,
    brackets: str = "",
    report: Callable[[str], None] = print,
) -> tuple[int, list[str]]:
    """Run all cases; return how many passed, and the ids of those that did not.

    With a ``seed`` rename everything first; with a pair of ``brackets`` give all tags these; with "none" make bare words of
    the tags that stand free, and run the cases that have such a tag alone.
    """
    tally, failed = Tally(), []
    by_template: dict[str, list[Case]] = defaultdict(list)
    for case in cases:
        by_template[case["template"]].append(case)
    for name, own in by_template.items():
        fmt = ChatFormat.from_template((templates / name).read_text(encoding="utf-8"), overrides=overrides)
        if seed is not None or brackets:
            names = _names(fmt, own, seed, brackets, overrides)
            if isinstance(names, BareWords):
                own = [case for case in own if names.text(case["model_output"]) != case["model_output"]]
            own = [names.case(case) for case in own]
            renamed = names.template(fmt.template.source)
            fmt = ChatFormat.from_template(renamed, overrides=names.overrides(overrides))
        for case in own:
            wrong = _wrong(fmt, case)
            tally.add(name, wrong)
            if any(wrong.values()):
                failed.append(case["id"])
    head = "   ".join(f"{split:11}" for split in SPLITS)
    report(f"{'template':46}  {head}   passed  (content/reasoning/calls)")
    for name in sorted(tally.run):
        report(tally.row(name, [name]))
    report(tally.row("total", list(tally.run)))
    return sum(tally.whole.values()), failed


def _names(
    fmt: ChatFormat, cases: list[Case], seed: int | None, brackets: str, overrides: Sequence[Override]
) -> Renaming | Brackets:
    """How one template's markers are called in this run."""
    if brackets == "none":
        return bare_words(fmt, cases, overrides, seed or 0)
    return other_brackets(fmt, brackets) if brackets else renaming(fmt, cases, seed or 0)


def _wrong(fmt: ChatFormat, case: Case) -> dict[str, set[str]]:
    wrong: dict[str, set[str]] = {}
    for name, pieces in zip(SPLITS, splits(case["model_output"], case["id"]), strict=True):
        try:
            wrong[name] = differences(parse(fmt, case, pieces), case["expected"], partial=case["partial"])
        except LLMMagicsError:
            wrong[name] = set(PARTS)
    return wrong


def main(arguments: list[str] | None = None) -> int:
    """Run from the command line; the exit code is 0 only where enough cases pass."""
    parser = argparse.ArgumentParser(prog="python -m tests.corpus", description=__doc__.partition("\n")[0])
    parser.add_argument("--templates", type=Path, required=True, help="directory of *.jinja files")
    parser.add_argument("--cases", type=Path, required=True, help="file of cases, one JSON object a line")
    parser.add_argument("--min", type=int, help="how many cases must pass (default: all)")
    parser.add_argument("--no-overrides", action="store_true", help="derive everything; use no table of overrides")
    parser.add_argument("--rename", type=int, metavar="SEED", help="give markers and JSON keys fresh names first")
    parser.add_argument("--brackets", default="", metavar="PAIR", help="give tags other brackets first, e.g. «», or none")
    options = parser.parse_args(arguments)
    cases = read_cases(options.cases)
    overrides = () if options.no_overrides else OVERRIDES
    began = time.perf_counter()
    passed, failed = run(options.templates, cases, overrides=overrides, seed=options.rename, brackets=options.brackets)
    for case_id in failed:
        print("failed:", case_id)
    print(f"{passed} of {passed + len(failed)} passed in {time.perf_counter() - began:.1f} s")
    return 0 if passed >= (len(cases) if options.min is None else options.min) else 1


if __name__ == "__main__":
    sys.exit(main())
