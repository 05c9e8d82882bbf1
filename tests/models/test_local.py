"""A local model over an engine that writes what a script says: further calls behind the first, and calls in vain."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any

import pytest

from llm_magics.chat.format import ChatFormat
from llm_magics.chat.recovery.course import Course
from llm_magics.chat.recovery.evidence import FURTHER
from llm_magics.chat.recovery.trial import Trial
from llm_magics.engine.values import EngineInfo, Finished, GenerateRequest, Prefill, Tokens
from llm_magics.events import ModelEnd, ModelEvent, assemble
from llm_magics.messages import Message, ToolCall, ToolResult, ToolSpec, assistant, tool_message, user
from llm_magics.models.base import Request
from llm_magics.models.guide import make_trial, takes
from llm_magics.models.local import LocalModel
from tests.session.test_session_tools import HERMES

STOCK, PRICE = (
    ToolSpec(name, "", {"type": "object", "properties": {"item": {"type": "string"}}, "required": ["item"]})
    for name in ("stock", "price")
)
APPLES = "How many apples and bananas are in stock?"
LEAD = '```json\n{"name": "'


class Writes:
    """An engine of a byte vocabulary. Each generation writes the next text, as far as its guide lets it."""

    def __init__(self, *texts: str) -> None:
        self.texts = list(texts)
        self.requests: list[GenerateRequest] = []
        self.info = EngineInfo(
            "x.gguf", "x", "x", 1, 1, 4096, 4096, 256, 1, 0, 1, HERMES, (), -1, -1, (), False, ()
        )  # fmt: skip

    def tokenize(self, text: str, *, special: bool) -> tuple[int, ...]:
        return tuple(text.encode())

    def pieces(self, tokens: Iterable[int]) -> list[bytes]:
        return [bytes([token]) for token in tokens]

    def submit(self, request: GenerateRequest) -> Generated:
        self.requests.append(request)
        return Generated(self.events(request, self.texts[len(self.requests) - 1]))

    def events(self, request: GenerateRequest, text: str) -> Iterator[Any]:
        guide, written = request.guide, ""
        assert guide is not None
        armed = guide.start().arm
        assert armed is None or takes(armed.text, armed.pending + text), "the grammar refuses the script"
        n = len(request.prompt)
        yield Prefill(n, n, 0)
        for char in text:
            step = guide.feed(char)
            written += char
            yield Tokens(tuple(char.encode()), char, step.events)
            if step.stop:
                break
        ids = tuple(written.encode())
        yield Finished("stop", ids, written, n, 0, n, 0, 0.5, 0.25, 0.5, n + len(ids), 4096, guide.finish("stop").events)

    def close(self) -> None:
        pass


class Generated:
    def __init__(self, events: Iterator[Any]) -> None:
        self._events = events

    def __iter__(self) -> Iterator[Any]:
        return self._events

    def __next__(self) -> Any:
        return next(self._events)

    def close(self) -> None:
        pass


def near(name: str, item: str) -> str:
    return f'```json\n{{"name": "{name}", "arguments": {{"item": "{item}"}}}}\n```'


def rest(name: str, item: str) -> str:
    """A call behind the lead that is written for the model."""
    return near(name, item).removeprefix(LEAD)


def asked(engine: Writes, *more: Message, **options: Any) -> tuple[list[ModelEvent], ModelEnd]:
    request = Request((user(APPLES), *more), (STOCK, PRICE), asked_again=True, **options)
    *events, end = LocalModel("x", engine, ChatFormat.from_template(HERMES)).stream(request)  # type: ignore[arg-type]
    assert isinstance(end, ModelEnd)
    assert assemble(events, end.finish_reason).tool_calls == end.message.tool_calls
    return events, end


def items(end: ModelEnd) -> list[tuple[str, str]]:
    return [(call.name, json.loads(call.arguments)["item"]) for call in end.message.tool_calls]


def test_behind_a_call_another_one_is_tried_until_one_adds_nothing() -> None:
    engine = Writes(near("stock", "apple"), rest("stock", "banana"), rest("stock", "pear"))
    _, end = asked(engine)
    assert items(end) == [("stock", "apple"), ("stock", "banana")]
    assert len({call.id for call in end.message.tool_calls}) == 2
    assert all(call.recovered and call.trusted for call in end.message.tool_calls)
    assert (end.finish_reason, end.vain) == ("tool_calls", "")
    assert any("pear" in note for note in end.notes)
    written = [near("stock", "apple"), near("stock", "banana")]
    prompts = [bytes(request.prompt).decode() for request in engine.requests]
    assert prompts[1:] == [prompts[0] + "\n".join([*written[:n], LEAD]) for n in (1, 2)]
    assert bytes(end.message.token_ids).decode() == "\n".join(written)
    assert end.recording["text"] == "\n".join(written)
    assert end.usage.completion_tokens == sum(map(len, (written[0], rest("stock", "banana"), rest("stock", "pear"))))
    assert (end.usage.prompt_tokens, end.usage.completion_seconds) == (len(prompts[0]), 0.25 + 2 * 0.75)


@pytest.mark.parametrize(("logprob", "counts"), [(-FURTHER * 0.9, True), (-FURTHER * 1.1, False)])
def test_a_further_call_at_whose_values_the_model_was_at_a_loss_does_not_count(logprob: float, counts: bool) -> None:
    chat_format, request = ChatFormat.from_template(HERMES), Request((user(APPLES),), (STOCK, PRICE))
    made = ToolCall("stock", '{"item": "apple"}')
    guide = make_trial(chat_format, chat_format.render(request.messages), request,
                       Trial(LEAD, (), (STOCK,), Course(APPLES).after([made]), 1))  # fmt: skip
    assert guide is not None
    guide.start()
    for piece in ("stock", '", "', "arguments", '": {"', "item", '": "', "banana", '"}}\n```'):
        assert guide.wants_logprob
        guide.observe(logprob)
        guide.feed(piece)
    (*_, end) = guide.finish("stop").events
    assert isinstance(end, ModelEnd)
    assert bool(end.message.tool_calls) == counts


def test_what_was_written_cannot_be_written_again() -> None:
    engine = Writes(near("stock", "apple"), rest("stock", "apples"))
    with pytest.raises(AssertionError, match="refuses"):
        asked(engine)


@pytest.mark.parametrize(
    ("text", "options"),
    [
        ("There are 12.", {}),
        (near("stock", "apple"), {"parallel_tool_calls": False}),
        ("I look:\n" + near("stock", "apple"), {}),
        ('<tool_call>\n{"name": "stock", "arguments": {"item": "apple"}}\n</tool_call>', {}),
        ('<tool_call>\n{"name": "stock", "arguments": {"item": "apple"}}\n</tool_call>', {"tool_choice": "required"}),
    ],
)
def test_words_own_calls_and_single_calls_are_the_whole_answer(text: str, options: dict[str, Any]) -> None:
    engine = Writes(text)
    asked(engine, **options)
    assert len(engine.requests) == 1


RESULTS = (
    assistant(tool_calls=(ToolCall("stock", '{"item": "apple"}', "1"),)),
    tool_message(ToolResult("1", "stock", "12")),
)


def test_behind_results_a_call_in_vain_is_followed_by_a_try_of_another_tool_and_then_given_up() -> None:
    engine = Writes(near("stock", "kiwi"), rest("price", "apple"))
    _, end = asked(engine, *RESULTS)
    assert (end.message.tool_calls, end.message.text) == ((), "")
    assert "add nothing" in end.vain
    engine = Writes(near("stock", "kiwi"), rest("price", "banana"), rest("price", "pear"))
    _, end = asked(engine, *RESULTS)
    assert (items(end), end.vain, end.finish_reason) == ([("price", "banana")], "", "tool_calls")
    assert end.recording["text"] == near("price", "banana")


def test_behind_results_the_second_call_that_adds_nothing_ends_the_answer() -> None:
    written = [near("stock", item) for item in ("kiwi", "plum", "pear", "fig")]
    engine = Writes("\n".join(written), rest("price", "fig"))
    _, end = asked(engine, *RESULTS)
    assert end.vain
    assert end.usage.completion_tokens < len("\n".join(written[:3]))
