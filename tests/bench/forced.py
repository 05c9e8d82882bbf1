"""Tokens inside tool calls that the grammar forces, so that none of them needs a decode of its own.

    python -m tests.bench.forced [MODEL ...]

Real models are asked for calls of plain functions through the model layer, greedy. Told are the calls, the tokens from a
call's grammar on, how many of those were forced, and the decodes that are left: forced tokens are evaluated in one batch with
the token before them. The same questions are asked again with forcing switched off. The ids have to be the same, or first
different where the two best lie within ``NEAR`` of each other: batches of another shape round differently.
"""

from __future__ import annotations

import sys
from contextlib import closing
from dataclasses import dataclass
from typing import Literal
from unittest.mock import patch

from llm_magics.engine.native.constraint import Constraint
from llm_magics.engine.run.sequence import Sequence
from llm_magics.events import ModelEnd
from llm_magics.messages import user
from llm_magics.models.base import Request, Sampling
from llm_magics.models.loading import load_model
from llm_magics.models.local import LocalModel
from llm_magics.tools.define.tool import as_tool

from .identity import NEAR

MODELS = ("qwen2.5-coder-0.5b", "qwen2.5-coder-1.5b")


def get_weather(city: str, unit: Literal["celsius", "fahrenheit"]) -> str:
    """Get the current weather of a city."""
    return f"{city}: 20 {unit}"


def multiply_two_numbers(first_factor: float, second_factor: float) -> float:
    """Multiply two numbers."""
    return first_factor * second_factor


def search_documents(query: str, maximum_results: int) -> list[str]:
    """Search the documents."""
    return [query] * maximum_results


def send_message(recipient: str, message_text: str) -> str:
    """Send a message to a person."""
    return f"{recipient}: {message_text}"


TOOLS = tuple(as_tool(one).spec for one in (get_weather, multiply_two_numbers, search_documents, send_message))
QUESTIONS = (
    "What is the weather in Oslo, in celsius?",
    "Multiply 123 by 456.",
    "Search the documents for invoices of May, at most 5 results.",
    "Send Ann the message: I am late.",
    "What is the weather in Lima, in fahrenheit?",
    "Multiply 0.5 by 12.",
    "Find 3 documents about solar panels.",
    "Tell Bob that dinner is at eight.",
)


@dataclass(slots=True)
class Count:
    """What was generated under the grammar of a call."""

    calls: int = 0
    tokens: int = 0
    forced: int = 0


def ask(model: LocalModel, question: str, choice: str, *, logprobs: int = 0) -> tuple[Count, ModelEnd]:
    """Ask once; what the calls' tokens were, and the answer."""
    count = Count()
    take, force = Sequence._take, Sequence._force

    def counting_take(sequence: Sequence, token: int) -> None:
        count.tokens += sequence._constraint is not None
        take(sequence, token)

    def counting_force(sequence: Sequence) -> None:
        before = sequence._n_forced
        force(sequence)
        count.forced += sequence._n_forced - before

    request = Request((user(question),), TOOLS, choice, sampling=Sampling(temperature=0.0), max_tokens=200, logprobs=logprobs)
    with patch.object(Sequence, "_take", counting_take), patch.object(Sequence, "_force", counting_force):
        (end,) = [event for event in model.stream(request) if isinstance(event, ModelEnd)]
    count.calls = len(end.message.tool_calls)
    return count, end


def gap_where_different(model: LocalModel, question: str, choice: str, ids: tuple[int, ...]) -> float | None:
    """Without forcing: how far the two best lie apart where the answer first differs from ``ids``; None if it does not."""
    with patch.object(Constraint, "forced", lambda _: []):
        _, plain = ask(model, question, choice, logprobs=2)
    found = plain.message.token_ids
    at = next((i for i, pair in enumerate(zip(ids, found, strict=False)) if pair[0] != pair[1]), min(len(ids), len(found)))
    if ids == found:
        return None
    top = dict(plain.recording["logprobs"][at]["top"])
    return abs(top.get(ids[at], -99.0) - top.get(found[at], 99.0)) if at < min(len(ids), len(found)) else 99.0


def measure(model: LocalModel, name: str, choice: str) -> bool:
    """Ask every question; whether all ids are the same without forcing, but for near ties."""
    total, gaps = Count(), list[float]()
    for question in QUESTIONS:
        count, end = ask(model, question, choice)
        gap = gap_where_different(model, question, choice, end.message.token_ids)
        gaps += [] if gap is None else [gap]
        total = Count(total.calls + count.calls, total.tokens + count.tokens, total.forced + count.forced)
    share, near = total.forced / max(total.tokens, 1), sum(gap <= NEAR for gap in gaps)
    print(f"{name}  {choice}: {total.calls} calls, {total.tokens} tokens in them, {total.forced} forced ({share:.0%}),")
    same = f"{len(QUESTIONS) - len(gaps)} of {len(QUESTIONS)}"
    print(f"    {total.tokens - total.forced} decodes; without forcing {same} are the same,")
    print(f"    {near} first different at a near tie, {len(gaps) - near} otherwise", flush=True)
    return all(gap <= NEAR for gap in gaps)


def main() -> int:
    good = True
    for name in sys.argv[1:] or MODELS:
        with closing(load_model(name, ctx=2048)) as model:
            for choice in ("auto", "required"):
                good &= measure(model, name, choice)
    return int(not good)


if __name__ == "__main__":
    raise SystemExit(main())
