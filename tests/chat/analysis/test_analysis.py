"""What is read off a template: the eight shapes, reasoning, and the formats that users rely on."""

# ruff: noqa: E501 - a template or an answer is easier to read on one line

from __future__ import annotations

import json

import pytest

from llm_magics.chat.analysis.analysis import analyse
from llm_magics.chat.encodings.tagged import TaggedArguments
from llm_magics.chat.format import ChatFormat
from llm_magics.chat.template.template import ChatTemplate
from llm_magics.errors import TemplateError
from tests.chat.formats import HAS_CORPUS, OWN, corpus_format, format_of


@pytest.mark.parametrize(
    ("stem", "shape", "call_start", "call_end"),
    [
        ("json", "json", "<invoke>\n", "\n</invoke>"),
        ("keyed", "keyed", "", ""),
        ("name_json", "name + json", "[USE]", ""),
        ("tagged", "name + tagged arguments", '\n<run tool="', "\n</run>"),
        ("pythonic", "pythonic", "", ""),
        ("literal", "literal", "<#run#>", "<#/run#>"),
        ("recipient", "recipient", " for=tool.", ""),
        ("generic", "generic", "<tool_call>\n", "\n</tool_call>"),
    ],
)
def test_each_of_the_eight_shapes_is_recognised(stem: str, shape: str, call_start: str, call_end: str) -> None:
    syntax = format_of(OWN / f"{stem}.jinja").tools
    assert (syntax.shape, syntax.call_start, syntax.call_end) == (shape, call_start, call_end)


def test_types_named_by_a_tag_are_read_off() -> None:
    tagged = format_of(OWN / "tagged.jinja").tools.arguments
    assert isinstance(tagged, TaggedArguments)
    assert dict(tagged.type_names)["string"] == "text"
    assert dict(tagged.type_names)["boolean"] == "data"


def test_blocks_say_what_opens_and_closes_them() -> None:
    fmt = format_of(OWN / "recipient.jinja")
    blocks, thought = fmt.tools.blocks, fmt.analysis.reasoning
    assert blocks is not None
    assert (blocks.start, blocks.header_end, blocks.content, thought.header(blocks.header_end)) == (
        "<|open|>assistant", "<|text|>", " for=you", " for=me",
    )  # fmt: skip
    assert set(blocks.ends) == {"<|shut|>", "<|run|>"}


_LOOP = "{% for m in messages %}<{{ m.role }}>{{ m.content }}</{{ m.role }}>{% endfor %}"


@pytest.mark.parametrize(
    ("source", "start", "end"),
    [
        (
            _LOOP + "{% if add_generation_prompt %}<assistant><hm>{{ '</hm>' if not enable_thinking }}{% endif %}",
            "<hm>",
            "</hm>",
        ),
        (
            _LOOP + "{% if add_generation_prompt %}<assistant>{{ '<hm>\n\n</hm>\n' if not enable_thinking }}{% endif %}",
            "<hm>\n",
            "\n</hm>\n",
        ),
        (
            "{% for m in messages %}<{{ m.role }}>{{ m.content.split('</hm>')[-1] }}{% endfor %}"
            "{% if add_generation_prompt %}<assistant>{% endif %}",
            "<hm>",
            "</hm>",
        ),
        ("{% if thinking %}Think in <hm></hm> first.{% endif %}" + _LOOP, "<hm>", "</hm>"),
        (
            "{% for m in messages %}<{{ m.role }}>{% if m.content is string %}{{ m.content }}{% else %}{% for p in m.content %}"
            "{% if p.type == 'thinking' %}[HM]{{ p.thinking }}[/HM]{% else %}{{ p.text }}{% endif %}{% endfor %}{% endif %}{% endfor %}",
            "[HM]",
            "[/HM]",
        ),
    ],
)
def test_reasoning_is_found_however_the_template_shows_it(source: str, start: str, end: str) -> None:
    reasoning = ChatFormat.from_template(source).reasoning
    assert reasoning is not None
    assert (reasoning.start, reasoning.end) == (start, end)


def test_a_template_without_reasoning_has_none() -> None:
    assert ChatFormat.from_template(_LOOP + "{{ '<assistant>' if add_generation_prompt }}").reasoning is None


def test_one_template_is_analysed_once() -> None:
    template = ChatTemplate((OWN / "json.jinja").read_text(encoding="utf-8"))
    assert analyse(template) is analyse(ChatTemplate(template.source))


def test_a_template_that_cannot_say_a_word_is_refused() -> None:
    with pytest.raises(TemplateError, match="does not write the user's message"):
        ChatFormat.from_template("nothing")


# --- the formats that users rely on -----------------------------------------------------------------------------------------

_SEEDS = [
    ("meta-llama-Llama-3.2", "json", '{"name": "look_up", "parameters": {"word": "ash"}}'),
    ("meta-llama-Llama-3.1", "json", '<|python_tag|>look_up.call(word="ash")'),
    ("meetkai-functionary-medium-v3.1", "name + json", '<function=look_up>{"word": "ash"}</function>'),
    ("meetkai-functionary-medium-v3.2", "recipient", 'look_up\n{"word": "ash"}'),
    ("NousResearch-Hermes-2-Pro", "json", '<tool_call>\n{"name": "look_up", "arguments": {"word": "ash"}}\n</tool_call>'),
    ("Qwen-Qwen2.5", "json", '<tool_call>\n{"name": "look_up", "arguments": {"word": "ash"}}\n</tool_call>'),
    ("Qwen-Qwen3-0.6B", "json", '<think>\nHm.\n</think>\n\n<tool_call>\n{"name": "look_up", "arguments": {"word": "ash"}}\n</tool_call>'),
    ("mistralai-Mistral-Nemo", "json", '[TOOL_CALLS][{"name": "look_up", "arguments": {"word": "ash"}, "id": "123456789"}]'),
    ("fireworks-ai-llama-3-firefunction", "json", ' functools[{"name": "look_up", "arguments": {"word": "ash"}}]'),
    (
        "CohereForAI-c4ai-command-r7b", "json",
        "<|START_THINKING|>Hm.<|END_THINKING|><|START_ACTION|>[\n"
        '    {"tool_call_id": "0", "tool_name": "look_up", "parameters": {"word": "ash"}}\n]<|END_ACTION|>',
    ),
    (
        "llama-cpp-deepseek-r1", "name + json",
        "Hm.</think><｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>look_up\n"
        '```json\n{"word": "ash"}\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜>',
    ),
    (
        "deepseek-ai-DeepSeek-V3.1", "name + json",
        'Hm.</think><｜tool▁calls▁begin｜><｜tool▁call▁begin｜>look_up<｜tool▁sep｜>{"word": "ash"}<｜tool▁call▁end｜><｜tool▁calls▁end｜>',
    ),
    (
        "moonshotai-Kimi-K2", "name + json",
        "<|tool_calls_section_begin|><|tool_call_begin|>functions.look_up:0<|tool_call_argument_begin|>"
        '{"word": "ash"}<|tool_call_end|><|tool_calls_section_end|>',
    ),
    ("google-gemma-2", "generic", '<tool_call>\n{"name": "look_up", "arguments": {"word": "ash"}}\n</tool_call>'),
]  # fmt: skip


@pytest.mark.skipif(not HAS_CORPUS, reason="there is no corpus beside this checkout")
@pytest.mark.parametrize(("stem", "shape", "text"), _SEEDS, ids=[s[0] for s in _SEEDS])
def test_the_formats_that_users_rely_on_stream_their_calls(stem: str, shape: str, text: str) -> None:
    fmt = corpus_format(stem)
    tools = [
        {
            "type": "function",
            "function": {"name": "look_up", "parameters": {"type": "object", "properties": {"word": {"type": "string"}}}},
        }
    ]
    parser = fmt.parser(tools, prompt=fmt.render([{"role": "user", "content": "hi"}], tools=tools))
    for character in text:
        parser.feed(character)
    parser.finish()
    (call,) = parser.message.tool_calls
    assert fmt.tools.shape == shape
    assert (call.name, json.loads(call.arguments)) == ("look_up", {"word": "ash"})
    assert parser.message.text == ""
    assert parser.message.reasoning == ("Hm." if "Hm." in text else "")
