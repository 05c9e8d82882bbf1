"""Which of a turn's results stand: a call whose result stands is not written again."""

from __future__ import annotations

import json
from typing import Any

from llm_magics.messages import ToolCall, ToolResult
from llm_magics.tools.answered import Answered


def call(name: str, **arguments: Any) -> ToolCall:
    return ToolCall(name, json.dumps(arguments))


def standing(*calls: ToolCall) -> set[str]:
    """The names of the calls whose results stand after these ran, one in each round."""
    answered = Answered()
    for at, one in enumerate(calls, 1):
        answered.learn(one, ToolResult("", one.name, f"result {at}"), at)
    return {one.name for one in answered.current}


def test_a_result_stands_until_a_call_names_what_it_is_about() -> None:
    product = call("multiply", a=42, b=18)
    assert standing(product, call("to_hexadecimal", number=756)) == {"multiply", "to_hexadecimal"}
    assert standing(call("read", page="a"), call("change", page="a", to="b")) == {"change"}
    assert standing(call("read", page="a"), call("change", page="c")) == {"read", "change"}
    assert standing(call("count"), call("add", item="pen")) == {"add"}
    assert standing(call("read", where={"page": [1]}), call("change", pages=[2, 1])) == {"change"}
