"""Requests of every kind at once, on engines of every kind: each one ends, in order, with its counts right and its own words.

Each client's logit bias lets it write one token only, so that an answer from somebody else's cache, sampler or queue shows.
"""

from __future__ import annotations

import random
import threading
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from llm_magics.engine.hosts import open_engine
from llm_magics.engine.values import Engine, Finished, GenerateRequest, Prefill, SamplerSettings, Tokens
from tests.engine.guess.test_draft import peaked
from tests.engine.guides import FromStart, Recorder
from tests.engine.tiny_architectures import sliding_window

from .test_reuse import config

N_CLIENTS, N_REQUESTS = 6, 25
HEAD = tuple(random.Random(0).choices(range(3, 280), k=30))
ENGINES: dict[str, dict[str, Any]] = {
    "one slot": {"n_slots": 1},
    "little room": {"n_slots": 4, "n_ctx": 128},
    "prompt lookup": {"n_slots": 3, "speculation": "lookup"},
    "a draft model": {"n_slots": 2, "draft": "itself"},
    "sampling on the device": {"n_slots": 3, "device_sampling": True},
    "parking on disk": {"n_slots": 2, "park_memory": 20_000, "park_disk": 2**20},
    "a sliding window": {"n_slots": 3},
}


class Client:
    """Asks one request after the other, some of them cut short, and takes down what is wrong."""

    def __init__(self, engine: Engine, number: int, *, shifts: bool) -> None:
        self.engine = engine
        self.number = number
        self.shifts = shifts
        self.draw = random.Random(number)
        self.wrong: list[str] = []
        self.ended = 0

    def run(self) -> None:
        try:
            self.converse()
        except Exception as error:
            self.wrong.append(repr(error))

    def converse(self) -> None:
        history = HEAD
        for _ in range(N_REQUESTS):
            if len(history) > self.engine.info.n_ctx - 40 or self.draw.random() < 0.1:
                history = HEAD
            own = self.draw.random() < 0.6
            request = self.request(history, own)
            end = self.ask(request, own)
            if end is not None and own and end.reason != "interrupted" and not end.dropped:
                history = request.prompt + end.ids

    def request(self, history: tuple[int, ...], own: bool) -> GenerateRequest:
        draw = self.draw
        prompt = history + tuple(draw.choices(range(3, 280), k=draw.randint(1, 40)))
        bias = ((3 + self.number, 1000.0),) if own else ()
        penalty = 1.0 if own else draw.choice((1.0, 1.2))
        guide = None if own else draw.choice((None, Recorder(), FromStart(grammar="start: /[a-z]{2,30}/")))
        droppable = ((30, 45), (45, len(prompt) - 10)) if self.shifts and len(prompt) > 60 and draw.random() < 0.4 else ()
        return GenerateRequest(
            prompt,
            SamplerSettings(temperature=draw.choice((0, 1.0)), seed=1, repeat_penalty=penalty, logit_bias=bias),
            max_tokens=draw.choice((1, 5, 20, 60)),
            logprobs=draw.choice((0, 0, 2)),
            guide=guide,
            conversation=draw.choice(("", f"client {self.number}")),
            priority=draw.choice((0, 5)),
            droppable=droppable,
        )

    def ask(self, request: GenerateRequest, own: bool) -> Finished | None:
        """Ask; None where the generation was closed early."""
        how = self.draw.random()
        generation = self.engine.submit(request)
        if how < 0.2:
            for _ in range(self.draw.randint(0, 4)):
                next(generation, None)
            generation.close()
            return None
        if how < 0.3:
            generation.cancel()  # type: ignore[attr-defined]
        events = list(generation)
        end = events[-1]
        assert isinstance(end, Finished)
        self.ended += 1
        kinds = "".join({Prefill: "p", Tokens: "t", Finished: "f"}[type(event)] for event in events)
        said = sum((event.ids for event in events if isinstance(event, Tokens)), ())
        for good, what in (
            (kinds == "p" * kinds.count("p") + "t" * kinds.count("t") + "f", f"events out of order: {kinds}"),
            (said == end.ids, "the pieces are not the whole"),
            (end.n_prompt == end.n_cached + end.n_evaluated, f"counts that do not add up: {end}"),
            (not own or set(end.ids) <= {3 + self.number}, f"somebody else's words: {end.ids}"),
            (request.max_tokens is not None and len(end.ids) <= request.max_tokens, "more than was asked for"),
        ):
            if not good:
                self.wrong.append(what)
        return end


@pytest.mark.parametrize("kind", ENGINES)
def test_every_request_ends_well_whatever_the_others_do(kind: str, tmp_path: Path) -> None:
    model = sliding_window() if kind == "a sliding window" else peaked()
    file = model.write(tmp_path / "tiny.gguf")
    changes = {**ENGINES[kind], "park_directory": str(tmp_path / "parked")}
    if "draft" in changes:
        changes["draft"] = str(file)
    with closing(open_engine(config(file, **{"n_ctx": 256, **changes}))) as engine:
        clients = [Client(engine, number, shifts=engine.info.can_shift) for number in range(N_CLIENTS)]
        threads = [threading.Thread(target=client.run) for client in clients]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(120)
        assert not any(thread.is_alive() for thread in threads), "somebody waits for ever"
    assert [line for client in clients for line in client.wrong] == []
    assert all(client.ended > N_REQUESTS // 2 for client in clients)
