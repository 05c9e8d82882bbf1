"""Running a coroutine in a test: in a thread of its own, since the browser tests keep a loop running in the main one."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

T = TypeVar("T")


def play(scenario: Coroutine[Any, Any, T]) -> T:
    """Run it to its end and return what it returns."""
    with ThreadPoolExecutor(max_workers=1) as pool:
        return pool.submit(asyncio.run, scenario).result()
