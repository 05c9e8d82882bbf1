"""A whole tool turn in each format: the model's verbatim text, the call, its result, the answer, and the history rendered back.

The eight templates of our own cover the eight shapes of syntax. Where the corpus of real templates is there, the formats that
people rely on today go through the same turn with what their models are known to write.
"""

from __future__ import annotations

import pytest

from llm_magics import ScriptedModel, Session
from llm_magics.chat.format import ChatFormat
from llm_magics.messages import user
from tests.chat.formats import HAS_CORPUS, OWN, corpus_format, format_of
from tests.history_checks import broken_calls

ARGUMENTS = '{"city": "London", "days": 2}'
ANSWER = "It drizzles in town."

OWN_CALLS = {
    "generic": '<tool_call>\n{"name": "get_weather", "arguments": {"city": "London", "days": 2}}\n</tool_call> (end)\n',
    "json": '<invoke>\n{"tool": "get_weather", "input": {"city": "London", "days": 2}}\n</invoke><~stop~>\n',
    "keyed": '<|acts|>[{"get_weather": {"city": "London", "days": 2}}]<|/acts|>[[/assistant]]',
    "literal": "<#run#>get_weather{city=<#q#>London<#q#>;days=2}<#/run#><#/assistant#>",
    "name_json": '[USE]get_weather[REF]abcdefgh1[WITH]{"city": "London", "days": 2}',
    "pythonic": "<do>[get_weather(city='London', days=2)]</do>\n</assistant>\n",
    "recipient": ' for=tool.get_weather<|text|>{"city": "London", "days": 2}<|run|>',
    "tagged": '</plan><runs>\n<run tool="get_weather">\n<set name="city" kind="text">London</set>\n'
    '<set name="days" kind="data">2</set>\n</run>\n</runs>{over}',
}
OWN_ANSWERS = {"tagged": f"It rains.</plan>{ANSWER}{{over}}", "recipient": f"<|text|>{ANSWER}<|shut|>"}

R1_CALL = (
    "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>get_weather\n```json\n"
    '{"city": "London", "days": 2}\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜>'
)
RELIED_ON = [  # template, the model's call, its answer
    ("meta-llama-Llama-3.1", '{"name": "get_weather", "parameters": {"city": "London", "days": 2}}', ANSWER),
    ("meta-llama-Llama-3.1", '<|python_tag|>get_weather.call(city="London", days=2)', ANSWER),  # as it calls its built-in tools
    ("meetkai-functionary-medium-v3.1", '<function=get_weather>{"city": "London", "days": 2}</function>', ANSWER),
    ("meetkai-functionary-medium-v3.2", 'get_weather\n{"city": "London", "days": 2}', f"all\n{ANSWER}"),
    ("NousResearch-Hermes-2", f'<tool_call>\n{{"name": "get_weather", "arguments": {ARGUMENTS}}}\n</tool_call>', ANSWER),
    ("Qwen-Qwen2.5", f'<tool_call>\n{{"name": "get_weather", "arguments": {ARGUMENTS}}}\n</tool_call>', ANSWER),
    ("mistralai-Mistral-Nemo", f'[TOOL_CALLS][{{"name": "get_weather", "arguments": {ARGUMENTS}, "id": "abcdefgh1"}}]', ANSWER),
    ("fireworks-ai-llama-3-firefunction", f' functools[{{"name": "get_weather", "arguments": {ARGUMENTS}}}]', ANSWER),
    (
        "CohereForAI-c4ai-command-r7b",
        "<|START_THINKING|>I look it up.<|END_THINKING|><|START_ACTION|>[\n    "
        f'{{"tool_call_id": "0", "tool_name": "get_weather", "parameters": {ARGUMENTS}}}\n]<|END_ACTION|>',
        f"<|START_THINKING|>I know.<|END_THINKING|><|START_RESPONSE|>{ANSWER}<|END_RESPONSE|>",
    ),
    ("llama-cpp-deepseek-r1", f"I look it up.</think>{R1_CALL}", f"I know.</think>{ANSWER}"),
    ("google-gemma-2", f'<tool_call>\n{{"name": "get_weather", "arguments": {ARGUMENTS}}}\n</tool_call>', ANSWER),
]  # fmt: skip


def get_weather(city: str, days: int = 1) -> dict[str, str]:
    """Get the weather."""
    return {"sky": f"drizzle over {city} for {days} days"}


def whole_turn(fmt: ChatFormat, call: str, answer: str) -> None:
    model = ScriptedModel([call, answer], template=fmt)
    session = Session(model, [get_weather])
    reply = session.ask("What is the weather?")
    (ran,) = reply.trace.tools
    assert (ran.name, ran.state, ran.recovered) == ("get_weather", "done", "")
    assert ran.result == '{"sky": "drizzle over London for 2 days"}'
    assert (reply.text.strip(), reply.finish_reason) == (ANSWER, "stop")
    assert broken_calls(session.history) == []
    prompt = fmt.render([*session.history, user("Thank you!")], tools=model.requests[0].tools).text
    places = [prompt.rfind(word) for word in ("What is the weather?", "London", "drizzle over", ANSWER, "Thank you!")]
    assert -1 not in places
    assert places[0] < places[2] < places[3] < places[4], prompt
    assert "get_weather" in prompt[places[0] : places[3]]


@pytest.mark.parametrize("shape", sorted(OWN_CALLS))
def test_a_tool_turn_goes_through_each_shape_of_syntax(shape: str) -> None:
    whole_turn(format_of(OWN / f"{shape}.jinja"), OWN_CALLS[shape], OWN_ANSWERS.get(shape, ANSWER))


@pytest.mark.skipif(not HAS_CORPUS, reason="the corpus of real templates is not here")
@pytest.mark.parametrize(("template", "call", "answer"), RELIED_ON)
def test_a_tool_turn_goes_through_each_format_that_people_rely_on(template: str, call: str, answer: str) -> None:
    whole_turn(corpus_format(template), call, answer)
