"""A chat of twenty turns with tools, against llama-cpp-python's own chat completion on the same turns.

    python -m tests.bench.chat20 [MODEL] [PAIRS]

Each turn asks about a city; the model must call the tool that knows it, is given its result, and answers in a few words. Both
sides say which tool is to be called (without that llama-cpp-python reads no call of these models), draw greedily and have the
same bounds. The two chats go on side by side, turn by turn, and who goes first changes: a turn is a pair. ``value`` is our time
for twenty turns, the ratio that time over theirs: smaller is better.

Every request of ours is checked: evaluated tokens are its length minus the longest common prefix with what the conversation
had evaluated before. llama-cpp-python's first pass warms up and is not counted.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable
from contextlib import closing
from typing import Any

from llm_magics import Session, tool
from llm_magics.engine.native.cpus import default_threads
from llm_magics.engine.prefix import keep_length
from llm_magics.models.loading import load_model
from llm_magics.models.local import LocalModel
from llm_magics.tools.policy import Limits
from llm_magics.wire import tools_to_openai

from .common import GPU_LAYERS, Result, arguments, machine, quartiles, report

N_TURNS, MAX_TOKENS, N_CTX = 20, 32, 8192
CITIES = ("Oslo", "Lima", "Cairo", "Quito", "Paris", "Delhi", "Perth", "Tunis", "Seoul", "Rome")
SYSTEM = "You are a travel desk. Call a tool for every question, then answer in one short sentence."


@tool
def weather(city: str, days: int = 1) -> str:
    """Look up the weather of a city.

    Args:
        city: the city's name.
        days: how many days ahead.
    """
    return f"{city}, in {days} days: {len(city) * 3} degrees, wind from the west, no rain before the evening"


@tool
def hotels(city: str, stars: int = 3) -> str:
    """Look up hotels in a city.

    Args:
        city: the city's name.
        stars: at least this many.
    """
    return f"{city}: Hotel Central ({stars} stars, 90 euros), Hotel at the Station ({stars + 1} stars, 120 euros)"


TOOLS = (weather, hotels)


def question(chat: int, at: int) -> tuple[str, Any]:
    """The message of a turn, and the tool that it needs. No two chats begin alike, so that neither side has seen any of it."""
    city, asked = CITIES[at % len(CITIES)], TOOLS[at % 2]
    return f"Customer {chat}, question {at + 1}: I go to {city}. What do you know of its {asked.name}?", asked


class Ours:
    """One conversation in a Session."""

    def __init__(self, model: LocalModel, chat: int) -> None:
        bounds: dict[str, Any] = {"limits": Limits(steps=2), "temperature": 0, "max_tokens": MAX_TOKENS, "record": True}
        self.session = Session(model, TOOLS, SYSTEM, seed=0, thread=f"chat {chat}", **bounds)
        self.chat = chat
        self.held: list[int] = []

    def turn(self, at: int) -> float:
        """Ask; seconds until the answer is complete."""
        text, asked = question(self.chat, at)
        begin = time.perf_counter()
        reply = self.session.ask(text, tool_choice=asked.name)
        seconds = time.perf_counter() - begin
        assert [call.name for call in reply.tool_calls][:1] == [asked.name], reply
        for step in reply.trace.steps:
            prompt = self.held[: step.recording["prompt_kept"]] + step.recording["prompt_token_ids"]
            self._check(prompt, list(step.token_ids), step.usage.evaluated_tokens)
        return seconds

    def _check(self, prompt: list[int], generated: list[int], evaluated: int) -> None:
        # Whether the last token drawn was evaluated too hangs on what ended the answer.
        new = {len(prompt) - keep_length(prompt, held) for held in (self.held, self.held[:-1])}
        assert evaluated in new or not self.held, f"{evaluated} tokens were evaluated where {new} are new"
        self.held = prompt + generated


class Theirs:
    """The same conversation with llama-cpp-python, as its documentation has it."""

    def __init__(self, llama: Any, chat: int) -> None:
        self.llama = llama
        self.chat = chat
        self.messages: list[dict[str, Any]] = [{"role": "system", "content": SYSTEM}]
        self.tools = tools_to_openai([one.spec for one in TOOLS])

    def turn(self, at: int) -> float:
        text, asked = question(self.chat, at)
        begin = time.perf_counter()
        self.messages.append({"role": "user", "content": text})
        called = self._ask(tool_choice={"type": "function", "function": {"name": asked.name}})
        call = called["tool_calls"][0]
        self.messages.append({"role": "assistant", "content": "", "tool_calls": [call]})
        try:
            result = asked(**json.loads(call["function"]["arguments"]))
        except (ValueError, TypeError) as error:  # its grammar was cut off at max_tokens
            result = str(error)
        self.messages.append({"role": "tool", "tool_call_id": call["id"], "content": str(result)})
        self.messages.append({"role": "assistant", "content": self._ask()["content"] or ""})
        return time.perf_counter() - begin

    def _ask(self, **more: Any) -> dict[str, Any]:
        """Ask with streaming, as a chat would."""
        message: dict[str, Any] = {"content": "", "tool_calls": []}
        asked = self.llama.create_chat_completion(
            self.messages, tools=self.tools, temperature=0, max_tokens=MAX_TOKENS, stream=True, **more
        )
        for chunk in asked:
            delta = chunk["choices"][0]["delta"]
            message["content"] += delta.get("content") or ""
            for part in delta.get("tool_calls") or ():
                if not message["tool_calls"]:
                    begun = {"name": part["function"]["name"], "arguments": ""}
                    message["tool_calls"] = [{"id": part["id"], "type": "function", "function": begun}]
                message["tool_calls"][0]["function"]["arguments"] += part["function"].get("arguments") or ""
        return message


def both(ours: Callable[[int], float], theirs: Callable[[int], float]) -> tuple[list[float], list[float]]:
    """Twenty turns of each, one after the other."""
    a: list[float] = []
    b: list[float] = []
    for at in range(N_TURNS):
        for turn, into in ((ours, a), (theirs, b)) if at % 2 else ((theirs, b), (ours, a)):
            into.append(turn(at))
    return a, b


def main() -> None:
    path, pairs = arguments()
    import llama_cpp

    threads = default_threads()
    llama = llama_cpp.Llama(path, n_ctx=N_CTX, n_threads=threads, n_gpu_layers=GPU_LAYERS, flash_attn=True, verbose=False)
    totals: list[tuple[float, float]] = []
    ratios: list[float] = []
    settings: dict[str, Any] = {"threads": threads, "gpu_layers": GPU_LAYERS, "flash_attn": "on"}
    with closing(load_model(path, ctx=N_CTX, **settings)) as model:
        for warm in (Ours(model, 0), Theirs(llama, 0)):
            warm.turn(0)
        for chat in range(1, 1 + max(1, pairs // 5)):
            a, b = both(Ours(model, chat).turn, Theirs(llama, chat).turn)
            totals.append((sum(a), sum(b)))
            ratios += [x / y for x, y in zip(a, b, strict=True)]
    llama.close()
    mine, other = (statistics.median(column) for column in zip(*totals, strict=True))
    name, peer = "chat20_vs_llama_cpp_python", "create_chat_completion"
    report(Result(name, mine, "s", peer, mine / other, quartiles(ratios), len(ratios), machine()))


if __name__ == "__main__":
    main()
