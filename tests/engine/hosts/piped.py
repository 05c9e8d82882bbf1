"""Ways to ask an engine in a process of its own, and to wait for a process's end."""

from __future__ import annotations

from typing import Any

import psutil

from llm_magics.engine.values import Finished, GenerateRequest, SamplerSettings

GREEDY = SamplerSettings(temperature=0, logit_bias=((2, float("-inf")),))
PROMPT = tuple(range(10, 60))


def ask(engine: Any, n: int = 12, **more: Any) -> Finished:
    end = list(engine.submit(GenerateRequest(PROMPT, GREEDY, max_tokens=n, **more)))[-1]
    assert isinstance(end, Finished)
    return end


def gone(pid: int) -> bool:
    """Wait until a process has ended; a zombie has."""
    try:
        child = psutil.Process(pid)
    except psutil.NoSuchProcess:
        return True
    psutil.wait_procs([child], timeout=60)
    return not child.is_running() or child.status() == psutil.STATUS_ZOMBIE
