"""Are these calls, the right ones, and should there be any? BFCL v4, every single-turn category for Python.

    python -m tests.bench.bfcl [--model NAME] [--category NAME ...] [--first 0] [--count 100] [--choice required]
                               [--who both] [--keep FILE] [--verbose]

Of each category, cases ``first`` to ``first + count``: a conversation and one or more functions. Right is, greedy and in a
conversation of its own: exactly the calls that the case wants, in any order; no call at all in the irrelevance categories; at
least one call of an offered function in live_relevance. The mean is over the categories. ``--choice required`` asks for a call
and counts the cases whose calls are all valid under their schema, too. ``--who peer`` (or ``both``) asks llama-cpp-python's own
chat completion, on the same file and cases. With ``--keep`` each case is written to a file, and a run that was broken off goes
on from there.

The data (Apache-2.0, the Berkeley Function Calling Leaderboard) is read out of the bfcl-eval wheel, which is fetched once with
pip into ``--data``; no code of it is run. Decisions may be tuned on cases 0 to 99, live_parallel and live_parallel_multiple;
cases from 100 on and live_relevance are for one look after all tuning.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import platformdirs

from llm_magics.events import ModelEnd
from llm_magics.messages import Message, ToolSpec, system, user
from llm_magics.models.base import Request, Sampling
from llm_magics.models.loading import load_model
from llm_magics.schema.validate import validate
from llm_magics.store.fetch import pull
from llm_magics.wire import messages_to_openai, tools_to_openai

from .bfcl_check import all_right

WHEEL = "bfcl-eval==2026.3.23"
CALLS = ("simple_python", "multiple", "parallel", "parallel_multiple", "live_simple", "live_multiple")
NONE = ("irrelevance", "live_irrelevance")
NINE = (*CALLS, "live_relevance", *NONE)
CATEGORIES = (*NINE, "live_parallel", "live_parallel_multiple")
TYPES = {"dict": "object", "float": "number", "tuple": "array"}  # BFCL names Python's types; "any" is no restriction


@dataclass(frozen=True, slots=True)
class Case:
    """One question, the functions offered, and the right calls. Without any: ``relevant`` says whether some call is due."""

    id: str
    messages: tuple[Message, ...]
    tools: tuple[ToolSpec, ...]
    answers: list[dict[str, dict[str, list[Any]]]]
    relevant: bool = False


@dataclass(frozen=True, slots=True)
class Answer:
    """What a model said to one case: its calls as names and JSON, its text, and why something was no call."""

    calls: tuple[tuple[str, str], ...]
    text: str
    notes: tuple[str, ...] = ()
    recovered: str = ""

    def right(self, case: Case) -> bool:
        offered = {tool.name for tool in case.tools}
        if not case.answers:
            return any(name in offered for name, _ in self.calls) if case.relevant else not self.calls
        return all_right([(name, _parsed(arguments)) for name, arguments in self.calls], case.answers)

    def valid(self, case: Case) -> bool:
        schemas = {tool.name: tool.parameters for tool in case.tools}
        return bool(self.calls) and all(n in schemas and not validate(_parsed(a), schemas[n]) for n, a in self.calls)


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return None


def fetch(folder: Path) -> Path:
    """The wheel, downloaded where it is absent."""
    found = sorted(folder.glob("bfcl_eval-*.whl"))
    if not found:
        folder.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", str(folder), WHEEL]
        subprocess.run(command, check=True)
        found = sorted(folder.glob("bfcl_eval-*.whl"))
    return found[-1]


def load_cases(wheel: Path, category: str, first: int, count: int) -> list[Case]:
    answers = {row["id"]: row["ground_truth"] for row in _rows(wheel, f"possible_answer/BFCL_v4_{category}.json")}
    rows = list(_rows(wheel, f"BFCL_v4_{category}.json"))[first : first + count]
    return [
        Case(
            row["id"],
            tuple((system if m["role"] == "system" else user)(m["content"]) for m in row["question"][0]),
            tuple(ToolSpec(f["name"], f["description"], _schema(f["parameters"])) for f in row["function"]),
            answers.get(row["id"], []),
            category == "live_relevance",
        )
        for row in rows
    ]


def _rows(wheel: Path, name: str) -> Iterator[dict[str, Any]]:
    with zipfile.ZipFile(wheel) as archive:
        path = f"bfcl_eval/data/{name}"
        if path in archive.namelist():
            for line in archive.read(path).decode().splitlines():
                if line.strip():
                    yield json.loads(line)


def _schema(value: Any) -> Any:
    """BFCL's parameters as JSON schema: Python's type names replaced."""
    if isinstance(value, list):
        return [_schema(v) for v in value]
    if not isinstance(value, dict):
        return value
    named = value.get("type")
    schema = {k: v if k in ("default", "enum") else _schema(v) for k, v in value.items() if k != "type"}
    if isinstance(named, dict):  # a property that is called "type"
        return {**schema, "type": _schema(named)}
    return {**schema, "type": TYPES.get(named.lower(), named.lower())} if named and named != "any" else schema


class Ours:
    """This package, as a notebook uses it."""

    def __init__(self, model: str) -> None:
        self.model = load_model(model, ctx=4096)

    def ask(self, case: Case, choice: str, max_tokens: int) -> Answer:
        request = Request(
            case.messages, case.tools, choice, sampling=Sampling(temperature=0.0), max_tokens=max_tokens, conversation=case.id
        )
        end = next(e for e in self.model.stream(request) if isinstance(e, ModelEnd))
        calls = end.message.tool_calls
        return Answer(
            tuple((c.name, c.arguments) for c in calls), end.message.text, end.notes, calls[0].recovered if calls else ""
        )


class Peer:
    """llama-cpp-python's own chat completion with tools, on the same file."""

    def __init__(self, path: str) -> None:
        import llama_cpp

        self.model = llama_cpp.Llama(path, n_ctx=4096, verbose=False)

    def ask(self, case: Case, choice: str, max_tokens: int) -> Answer:
        done: Any = self.model.create_chat_completion(
            messages_to_openai(case.messages),  # type: ignore[arg-type]
            tools=tools_to_openai(case.tools),  # type: ignore[arg-type]
            tool_choice=choice,  # type: ignore[arg-type]
            temperature=0,
            max_tokens=max_tokens,
        )
        message = done["choices"][0]["message"]
        calls = message.get("tool_calls") or []
        return Answer(tuple((c["function"]["name"], c["function"]["arguments"]) for c in calls), message.get("content") or "")


@dataclass(frozen=True, slots=True)
class Result:
    """One case, judged."""

    who: str
    model: str
    choice: str
    category: str
    case: str
    right: bool
    valid: bool
    answer: Answer

    @property
    def key(self) -> tuple[str, ...]:
        return (self.who, self.model, self.choice, self.category, self.case)


def run(who: str, asked: Ours | Peer, category: str, cases: list[Case], options: argparse.Namespace) -> Iterator[Result]:
    """Every case's result, those in the kept file without asking again."""
    kept = {result.key: result for result in _kept(options.keep)}
    for case in cases:
        if (old := kept.get((who, options.model, options.choice, category, case.id))) is not None:
            yield old
            continue
        answer = asked.ask(case, options.choice, options.max_tokens)
        right, valid = answer.right(case), answer.valid(case)
        result = Result(who, options.model, options.choice, category, case.id, right, valid, answer)
        if options.keep is not None:
            with options.keep.open("a", encoding="utf-8") as file:
                file.write(json.dumps(asdict(result)) + "\n")
        yield result


def _kept(path: Path | None) -> list[Result]:
    if path is None or not path.exists():
        return []
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return [Result(**{**row, "answer": _answer(row["answer"])}) for row in rows]


def _answer(row: dict[str, Any]) -> Answer:
    return Answer(tuple((n, a) for n, a in row["calls"]), row["text"], tuple(row["notes"]), row["recovered"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--model", default="qwen2.5-coder-0.5b")
    parser.add_argument("--category", nargs="+", choices=CATEGORIES, default=NINE)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--choice", choices=("auto", "required"), default="auto")
    parser.add_argument("--max-tokens", type=int, default=256)
    parser.add_argument("--data", type=Path, default=Path(platformdirs.user_cache_dir("llm_magics")) / "bench")
    parser.add_argument("--who", choices=("ours", "peer", "both"), default="ours")
    parser.add_argument("--keep", type=Path, help="a file of results to go on from")
    parser.add_argument("--verbose", action="store_true")
    options = parser.parse_args()
    wheel = fetch(options.data)
    asked: dict[str, Ours | Peer] = {}
    if options.who != "peer":
        asked["llm_magics"] = Ours(options.model)
    if options.who != "ours":
        asked["llama-cpp-python"] = Peer(str(pull(options.model).path))
    for name, who in asked.items():
        shares = []
        for category in options.category:
            began, found = time.perf_counter(), []
            for result in run(name, who, category, load_cases(wheel, category, options.first, options.count), options):
                found.append(result)
                if options.verbose:
                    _tell(result)
            shares.append(sum(r.right for r in found) / max(len(found), 1))
            counts = f"{sum(r.right for r in found)}/{len(found)} right, {sum(r.valid for r in found)} with valid calls"
            print(f"{name} {category} {options.choice}: {counts}, {time.perf_counter() - began:.0f} s", flush=True)
        print(f"{name} mean share: {sum(shares) / len(shares):.3f}", flush=True)


def _tell(result: Result) -> None:
    shown, notes = result.answer.calls or result.answer.text[:100], " ".join(result.answer.notes)
    print(f"  {'right' if result.right else 'wrong'} {result.case} {shown} {result.answer.recovered} {notes}", flush=True)


if __name__ == "__main__":
    main()
