"""The engines that the contract holds for, and short ways to ask one."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing

from llm_magics.engine.hosts import open_engine
from llm_magics.engine.hosts.pipe import PipeEngine
from llm_magics.engine.values import Engine, EngineConfig, EngineEvent, Finished, GenerateRequest, SamplerSettings

GREEDY = SamplerSettings(temperature=0)
OPENERS: dict[str, Callable[[EngineConfig], Engine]] = {"in process": open_engine, "across a pipe": PipeEngine}


def prompt_of(engine: Engine, text: str = "Name three rivers.") -> tuple[int, ...]:
    return engine.tokenize(f"<|im_start|>user\n{text}<|im_end|>\n<|im_start|>assistant\n", special=True)


def run(engine: Engine, request: GenerateRequest) -> tuple[list[EngineEvent], Finished]:
    with closing(engine.submit(request)) as generation:
        events = list(generation)
    assert isinstance(events[-1], Finished)
    return events, events[-1]


def greedy(engine: Engine, text: str = "Name three rivers.", n: int = 12) -> Finished:
    return run(engine, GenerateRequest(prompt_of(engine, text), GREEDY, max_tokens=n))[1]
