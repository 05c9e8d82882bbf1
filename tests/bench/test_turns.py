"""The judge of whole turns: which calls count, which are too many, and what an answer must say."""

from __future__ import annotations

from typing import Any

import pytest

from llm_magics import ScriptedModel, ToolCall

from .tasks.everyday import HELD_OUT, TASKS, TUNING
from .tasks.judge import Call, Task, Verdict, judge
from .tasks.tools import TOOLS
from .turns import ask

BY_NAME = {task.id: task for task in TASKS}
OSLO = Call("weather", {"city": "Oslo"}, ran=True)
CHAIRS = [Call("price", {"item": "chair"}, ran=True), Call("stock", {"item": "Chairs"}, ran=True)]
UP, DOWN = (Call("sort_numbers", {"numbers": [1, 3, 6, 8], **order}, ran=True) for order in ({}, {"descending": True}))

CASES: list[tuple[str, list[Call], str, Verdict]] = [
    ("weather-oslo", [OSLO], "It is 3 degrees.", Verdict(True, True, True, 0)),
    ("weather-oslo", [Call("weather", {"city": "Oslo, Norway", "unit": "celsius"}, True)], "3°", Verdict(True, True, True, 0)),
    ("weather-oslo", [Call("weather", {"city": "Oslo", "unit": "kelvin"}, True)], "3", Verdict(False, False, True, 0)),
    ("weather-oslo", [OSLO, OSLO], "3", Verdict(True, False, True, 0)),
    ("weather-oslo", [OSLO, Call("weather", {"city": "Oslo"}, ran=False)], "3", Verdict(True, True, True, 1)),
    ("weather-oslo", [OSLO], "It is cold.", Verdict(True, True, False, 0)),
    ("weather-oslo", [], '{"name": "weather", "arguments": {"city": "Oslo"}} 3', Verdict(False, True, True, 0, raw=True)),
    ("product", [Call("calculate", {"expression": "23 * 17"}, True)], "391", Verdict(True, True, True, 0)),
    ("product", [Call("calculate", {"expression": "23 + 17"}, True)], "391", Verdict(False, False, True, 0)),
    ("stock-value", CHAIRS, "1,980.00", Verdict(True, True, True, 0)),
    ("sort-down", [DOWN], "8, 6, 3, 1", Verdict(True, True, True, 0)),
    ("sort-down", [UP], "8, 6, 3, 1", Verdict(False, False, True, 0)),
    ("hello", [OSLO], "Hello!", Verdict(True, False, True, 0)),
    ("hello", [], "  ", Verdict(True, True, False, 0)),
]  # fmt: skip


@pytest.mark.parametrize(("name", "calls", "answer", "verdict"), CASES)
def test_a_turn_is_judged_by_its_calls_and_its_answer(name: str, calls: list[Call], answer: str, verdict: Verdict) -> None:
    assert judge(BY_NAME[name], calls, [answer]) == verdict


def test_an_error_is_never_right() -> None:
    assert not judge(BY_NAME["hello"], [], ["Hello!"], "ModelError: it broke").all


def test_each_task_can_be_done_with_the_tools_it_offers() -> None:
    assert len(TASKS) == len(BY_NAME) == 120
    assert (len(HELD_OUT), len(TUNING)) == (40, 80)
    for task in TASKS:
        assert {want.tool for want in task.wants} <= set(task.tools) <= set(TOOLS), task.id


def _step(task: Task, calls: list[tuple[str, dict[str, Any]]], answer: str) -> Verdict:
    import json

    steps = [ToolCall(name, json.dumps(arguments)) for name, arguments in calls]
    return ask("scripted", ScriptedModel([steps, answer] if steps else [answer]), task).verdict


def test_a_scripted_turn_is_run_with_its_tools_and_judged() -> None:
    calls: list[tuple[str, dict[str, Any]]] = [("age", {"name": "Ada"}), ("age", {"name": "Linus"})]
    assert _step(BY_NAME["older"], calls, "Linus is older.").all
    assert not _step(BY_NAME["older"], calls[:1], "Linus is older.").calls
    assert _step(BY_NAME["no-item"], [("stock", {"item": "sofa"})], "There are no sofas.") == Verdict(True, True, True, 1)
