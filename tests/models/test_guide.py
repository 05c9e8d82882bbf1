"""The guide: when it arms a grammar and with what, what it passes on, and what a real model does under it."""

from __future__ import annotations

import json
import pickle
import re
from pathlib import Path

import pytest

from llm_magics.chat.encodings.writer import write_calls
from llm_magics.chat.format import ChatFormat
from llm_magics.chat.parsing.parser import StreamParser
from llm_magics.engine.values import Guide, GuideStep, ScoringGuide
from llm_magics.errors import SchemaError
from llm_magics.events import ModelEnd, ModelEvent, ReasoningDelta, ToolCallEnd, assemble
from llm_magics.messages import Message, ToolCall, ToolSpec, user
from llm_magics.models.base import Model, Request, Sampling
from llm_magics.models.guide import ChatGuide, make_guide, takes

TEMPLATE = (Path(__file__).parents[1] / "chat" / "templates" / "json.jinja").read_text(encoding="utf-8")
FORMAT = ChatFormat.from_template(TEMPLATE, "<s>", "</s>")
START, END = FORMAT.tools.call_start, FORMAT.tools.call_end
CALCULATE = ToolSpec(
    "calculate",
    "Evaluate an arithmetic expression.",
    {
        "type": "object",
        "properties": {"expression": {"type": "string"}},
        "required": ["expression"],
        "additionalProperties": False,
    },
)
CALL = '{"name": "calculate", "arguments": {"expression": "1+1"}}'  # as OpenAI has it; the template's field names are others
OWN_CALL = str(write_calls(FORMAT.tools, [ToolCall("calculate", '{"expression": "1+1"}')]))


def guide(choice: str = "auto", tools: tuple[ToolSpec, ...] = (CALCULATE,), **more: object) -> ChatGuide:
    request = Request((user("What is 1+1?"),), tools, choice, **more)  # type: ignore[arg-type]
    prompt = FORMAT.render(request.messages, tools=tools)
    return make_guide(FORMAT, prompt, request, frozenset({START.strip()}))


def run(guide: ChatGuide, pieces: list[str], reason: str = "stop") -> tuple[list[ModelEvent], list[GuideStep]]:
    steps = [guide.start(), *(guide.feed(piece) for piece in pieces), guide.finish(reason)]
    return [event for step in steps for event in step.events], steps  # type: ignore[misc]


def test_text_passes_and_nothing_is_armed() -> None:
    events, steps = run(guide(), ["Two", ", of course."])
    assert assemble(events).text == "Two, of course."
    assert not any(step.arm for step in steps)
    assert isinstance(events[-1], ModelEnd)
    assert assemble(events) == events[-1].message


@pytest.mark.parametrize("call", [CALL, f"```json\n{CALL}\n```", OWN_CALL])
def test_the_same_call_over_and_over_is_stopped(call: str) -> None:
    repeating = guide()
    repeating.start()
    steps = [repeating.feed(character) for character in f"{call}\n" * 6]
    stopped = next(i for i, step in enumerate(steps) if step.stop)
    assert 2 * len(call) < stopped < 5 * len(call)
    events = repeating.finish("stop").events
    assert any("again and again" in note for event in events if isinstance(event, ModelEnd) for note in event.notes)
    (end,) = [event for event in events if isinstance(event, ModelEnd)]
    assert end.doubted == tuple(range(1, len(end.message.tool_calls)))  # once may be meant


def test_different_calls_of_one_tool_are_not_stopped() -> None:
    calls = guide()
    calls.start()
    text = "\n".join(CALL.replace("1+1", f"{n}+{n}") for n in range(6))
    assert not any(calls.feed(character).stop for character in text)


def test_a_near_miss_is_armed_when_it_is_sure_and_becomes_a_call() -> None:
    events, steps = run(guide(), list(f"```json\n{CALL}\n```"))
    armed = [step.arm for step in steps if step.arm]
    assert len(armed) == 1
    assert armed[0].pending == '```json\n{"name": "calculate", "arguments": {'
    assert takes(armed[0].text, f"```json\n{CALL}\n```")
    message = assemble(events)
    assert [(c.name, json.loads(c.arguments), c.recovered, c.trusted) for c in message.tool_calls] == [
        ("calculate", {"expression": "1+1"}, "fenced JSON, 'arguments' for 'input'", True)
    ]
    assert message.finish_reason == "tool_calls"


def test_a_call_in_the_own_syntax_is_armed_at_its_marker() -> None:
    events, steps = run(guide(), [START, *OWN_CALL.removeprefix(START)])
    armed = [step.arm for step in steps if step.arm]
    assert len(armed) == 1
    assert armed[0].pending.strip() == START.strip()
    assert takes(armed[0].text, OWN_CALL)
    assert [e.call.recovered for e in events if isinstance(e, ToolCallEnd)] == [""]


def test_a_call_in_the_own_syntax_is_never_weighed() -> None:
    own = guide()
    own.start()
    for piece in (START, *OWN_CALL.removeprefix(START)):
        own.observe(-9.0, (("Two", -0.1),))
        own.feed(piece)
    end = own.finish("stop").events[-1]
    assert isinstance(end, ModelEnd)
    assert [(call.name, call.recovered, call.trusted) for call in end.message.tool_calls] == [("calculate", "", True)]
    assert not any("doubt" in note for note in end.notes)


def test_a_marker_inside_a_sentence_arms_nothing() -> None:
    _, steps = run(guide(), ["It writes ", START.strip(), " first."])
    assert not any(step.arm for step in steps)


def test_a_call_in_the_reasoning_arms_nothing_and_one_behind_it_does() -> None:
    assert FORMAT.reasoning is not None
    thought = FORMAT.reasoning.start + "maybe\n" + START + " or not\n"
    _, steps = run(guide(), [thought, "so"])
    assert not any(step.arm for step in steps)
    _, steps = run(guide(), [thought + FORMAT.reasoning.end + START, *OWN_CALL.removeprefix(START)])
    armed = [step.arm for step in steps if step.arm]
    assert len(armed) == 1
    assert armed[0].pending.strip() == START.strip()


def test_required_arms_from_the_first_token_and_auto_does_not() -> None:
    assert guide("auto").start().arm is None
    for choice in ("required", "calculate"):
        armed = guide(choice).start().arm
        assert armed is not None
        assert takes(armed.text, OWN_CALL)
        assert not takes(armed.text, "Sure")


def test_a_response_schema_arms_from_the_first_token() -> None:
    armed = guide(tools=(), response_schema={"type": "object", "properties": {"n": {"type": "integer"}}}).start().arm
    assert armed is not None
    assert takes(armed.text, '{"n": 1')
    assert not takes(armed.text, "n")


def test_a_cut_off_call_never_ends() -> None:
    events, _ = run(guide(), [OWN_CALL[: -len(END) - 2]], "length")
    assert not any(isinstance(e, ToolCallEnd) for e in events)
    assert assemble(events).finish_reason == "length"


def test_an_unknown_name_is_not_held_and_the_notes_say_so() -> None:
    unarmed = make_guide(FORMAT, FORMAT.render([user("x")], tools=[CALCULATE]), Request((user("x"),), (CALCULATE,)))
    events, steps = run(unarmed, [OWN_CALL.replace("calculate", "guess")])
    assert not any(step.arm for step in steps)
    assert isinstance(events[-1], ModelEnd)
    assert events[-1].notes


def test_a_choice_that_is_no_tool_is_refused() -> None:
    with pytest.raises(SchemaError):
        guide("nothing_like_it")


def test_it_pickles_and_scores() -> None:
    copied = pickle.loads(pickle.dumps(guide()))
    assert isinstance(copied, Guide)
    assert isinstance(copied, ScoringGuide)
    assert copied.start() == GuideStep()
    assert copied.wants_logprob
    assert copied.wants_rivals > 0
    for piece, logprob in (("```json\n", -1.0), (CALL, -1.5), ("\n```", 0.0)):
        copied.observe(logprob, (("```json\n", -1.0), ("Two", -0.5)) if copied.wants_rivals else ())
        copied.feed(piece)
    end = copied.finish("stop").events[-1]
    assert isinstance(end, ModelEnd)
    assert not end.message.tool_calls
    assert end.notes[0].startswith("not a call of calculate: doubt ")


def test_reasoning_wants_no_probabilities() -> None:
    one = guide()
    one.start()
    assert FORMAT.reasoning is not None
    events = one.feed(FORMAT.reasoning.start + "hm, ").events
    assert any(isinstance(e, ReasoningDelta) for e in events)
    assert not one.wants_logprob


@pytest.mark.model
def test_a_sum_becomes_a_call_and_required_always_calls(qwen: Path) -> None:
    from llm_magics.models.loading import load_model

    model = load_model(qwen, ctx=1024)
    try:
        greedy = Sampling(temperature=0.0)
        asked = Request((user("Calculate 15 * 23 + 47"),), (CALCULATE,), sampling=greedy, max_tokens=80)
        end = next(event for event in model.stream(asked) if isinstance(event, ModelEnd))
        (call,) = end.message.tool_calls
        assert json.loads(call.arguments) == {"expression": "15 * 23 + 47"}
        assert re.search(r"^a call of calculate: doubt 0\.0\d+ \(opening 0\.0\d+, choices 0\.0\d+\)", end.notes[0])
        assert call.trusted
        forced = Request((user("Hello!"),), (CALCULATE,), "required", sampling=greedy, max_tokens=80)
        (call,) = _answer(model, forced).tool_calls
        assert set(json.loads(call.arguments)) == {"expression"}
        assert call.recovered == ""
        number = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
        schema = {**number, "additionalProperties": False}
        asked = Request((user("How many legs has a cat?"),), response_schema=schema, max_tokens=40)
        assert set(json.loads(_answer(model, asked).text)) == {"n"}
    finally:
        model.close()


@pytest.mark.model
def test_what_a_real_model_wrote_stays_when_the_parser_fails(qwen: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from llm_magics.models.loading import load_model

    model = load_model(qwen, ctx=512)
    try:
        asked = Request((user("Hello!"),), (CALCULATE,), sampling=Sampling(temperature=0.0), max_tokens=30)
        whole = _answer(model, asked)
        feed, fed = StreamParser.feed, list[str]()

        def failing(parser: StreamParser, text: str) -> list[ModelEvent]:
            fed.append(text)
            if len(fed) == 5:
                raise ValueError("injected")
            return feed(parser, text)

        with monkeypatch.context() as patch:
            patch.setattr(StreamParser, "feed", failing)
            (end,) = [event for event in model.stream(asked) if isinstance(event, ModelEnd)]
        assert len(fed) == 5, "a parser that has failed is not asked again"
        assert end.message.text.split() == whole.text.split()
        assert end.finish_reason in ("error", "length")
        assert "injected" in end.notes[0]
        assert _answer(model, asked).text == whole.text, "the model goes on as if nothing had been"
    finally:
        model.close()


def _answer(model: Model, request: Request) -> Message:
    return next(e for e in model.stream(request) if isinstance(e, ModelEnd)).message
