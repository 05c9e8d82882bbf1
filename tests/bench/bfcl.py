"""Is this a call, and should it be one? BFCL v4, categories ``simple_python`` and ``irrelevance``.

    python -m tests.bench.bfcl --model qwen2.5-coder-0.5b --first 0 --count 100 [--choice required] [--who both]

Of each category, cases ``first`` to ``first + count``: one user message, one function that fits it (simple_python) or does not
(irrelevance). Right is: the one call that the case wants; or no call at all. Greedy, each case in a conversation of its own.
``--choice required`` asks for a call on simple_python and counts those that are valid under the function's schema.
``--who peer`` (or ``both``) asks llama-cpp-python's own chat completion, on the same file and cases.

The data (Apache-2.0, the Berkeley Function Calling Leaderboard) is read out of the bfcl-eval wheel, which is fetched once with
pip into ``--data``; no code of it is run. Decisions were tuned on cases from 220 on.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
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

from .bfcl_check import is_right

WHEEL = "bfcl-eval==2026.3.23"
CATEGORIES = ("simple_python", "irrelevance")
TYPES = {"dict": "object", "float": "number", "tuple": "array"}  # BFCL names Python's types; "any" is no restriction


@dataclass(frozen=True, slots=True)
class Case:
    """One question, the functions offered, and the right calls (none: there should be no call)."""

    id: str
    messages: tuple[Message, ...]
    tools: tuple[ToolSpec, ...]
    answers: list[dict[str, dict[str, list[Any]]]]


@dataclass(frozen=True, slots=True)
class Answer:
    calls: tuple[tuple[str, str], ...]
    text: str
    notes: tuple[str, ...] = ()
    recovered: str = ""

    def right(self, case: Case) -> bool:
        if not case.answers:
            return not self.calls
        return len(self.calls) == 1 and is_right(self.calls[0][0], _parsed(self.calls[0][1]), case.answers)

    def valid(self, case: Case) -> bool:
        schemas = {tool.name: tool.parameters for tool in case.tools}
        return len(self.calls) == 1 and all(n in schemas and not validate(_parsed(a), schemas[n]) for n, a in self.calls)


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


def run(asked: Ours | Peer, cases: list[Case], choice: str, max_tokens: int, verbose: bool) -> tuple[int, int, int]:
    """How many cases came out right, with one call, with one valid call."""
    right = called = valid = 0
    for case in cases:
        answer = asked.ask(case, choice, max_tokens)
        ok = answer.right(case)
        right += ok
        called += len(answer.calls) == 1
        valid += answer.valid(case)
        if verbose:
            shown = answer.calls or answer.text[:100]
            print(f"  {'right' if ok else 'wrong'} {case.id} {shown} {answer.recovered} {' '.join(answer.notes)}", flush=True)
    return right, called, valid


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--model", default="qwen2.5-coder-0.5b")
    parser.add_argument("--first", type=int, default=220)
    parser.add_argument("--count", type=int, default=20)
    parser.add_argument("--choice", choices=("auto", "required"), default="auto")
    parser.add_argument("--max-tokens", type=int, default=256)
    parser.add_argument("--data", type=Path, default=Path(platformdirs.user_cache_dir("llm_magics")) / "bench")
    parser.add_argument("--who", choices=("ours", "peer", "both"), default="ours")
    parser.add_argument("--verbose", action="store_true")
    options = parser.parse_args()
    wheel = fetch(options.data)
    asked: dict[str, Ours | Peer] = {}
    if options.who != "peer":
        asked["llm_magics"] = Ours(options.model)
    if options.who != "ours":
        asked["llama-cpp-python"] = Peer(str(pull(options.model).path))
    categories = CATEGORIES if options.choice == "auto" else CATEGORIES[:1]
    for name, who in asked.items():
        shares = []
        for category in categories:
            cases = load_cases(wheel, category, options.first, options.count)
            began = time.perf_counter()
            right, called, valid = run(who, cases, options.choice, options.max_tokens, options.verbose)
            shares.append(right / len(cases))
            seconds = time.perf_counter() - began
            counts = f"{right}/{len(cases)} right, {called} with one call, {valid} valid"
            print(f"{name} {category} {options.choice}: {counts}, {seconds:.0f} s", flush=True)
        print(f"{name} mean share: {sum(shares) / len(shares):.3f}", flush=True)


if __name__ == "__main__":
    main()
