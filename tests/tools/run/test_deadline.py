"""A deadline that rings in another thread ends with its block, however the block ends, and never strikes a stranger."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest

from llm_magics.tools.run.deadline import Deadline, ToolTimeout


def in_thread(work: Callable[[], None]) -> None:
    """Run ``work`` in a thread of its own, to its end."""
    thread = threading.Thread(target=work)
    thread.start()
    thread.join(60)
    assert not thread.is_alive()


def watchers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "llm-magics-deadline"]


def end_of_watchers() -> None:
    for watcher in watchers():
        watcher.join(60)
    assert not watchers()


def test_a_wait_in_a_thread_is_ended_by_its_deadline() -> None:
    ended: list[str] = []

    def work() -> None:
        try:
            with Deadline(0.05):
                while True:
                    time.sleep(0.01)
        except ToolTimeout:
            ended.append("timeout")

    in_thread(work)
    assert ended == ["timeout"]
    end_of_watchers()


def test_a_deadline_whose_exit_was_struck_is_stopped_by_its_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    def struck(*_: object) -> None:
        raise ToolTimeout

    monkeypatch.setattr(Deadline, "__exit__", struck)
    ended: list[str] = []

    def work() -> None:
        deadline = Deadline(0.05)
        try:
            try:
                with deadline:
                    pass
            finally:
                deadline.stop()
        except ToolTimeout:
            ended.append("timeout")
        for _ in range(30):  # a deadline that still rang would end this
            time.sleep(0.01)
        ended.append("whole")

    in_thread(work)
    assert ended == ["timeout", "whole"]
    end_of_watchers()


def test_nobody_watches_for_a_thread_that_is_dead() -> None:
    in_thread(lambda: Deadline(0.05).__enter__() and None)  # its block never ends: the thread does
    end_of_watchers()
