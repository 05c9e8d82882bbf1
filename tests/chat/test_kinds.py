"""Kinds of templates that hide how calls are written: each is one that people use, with markers of our own."""

# ruff: noqa: E501 - a template is easier to read on one line

from __future__ import annotations

import pytest

from llm_magics.chat.encodings.literal import LiteralArguments
from llm_magics.chat.encodings.writer import write_calls
from llm_magics.chat.format import ChatFormat
from llm_magics.messages import Message, ToolCall, ToolSpec, assistant, user

from .small import LOOK_UP, TOOLS, calls_of, read, template

ASH = ToolCall("look_up", '{"word": "ash", "n": 3}', "abcdefgh1")


def test_a_question_that_is_written_otherwise_once_answered_is_no_marker() -> None:
    source = (
        "{% for m in messages %}{% if m.role == 'user' %}{% if loop.last and tools %}[TOOLS]{{ tools | tojson }}[/TOOLS]{% endif %}"
        "[ASK]{{ m.content }}[/ASK]{% elif m.tool_calls %}[CALL]{% for c in m.tool_calls %}"
        "{{ {'name': c.function.name, 'arguments': c.function.arguments} | tojson }}{% endfor %}</s>"
        "{% else %}{{ m.content }}</s>{% endif %}{% endfor %}"
    )
    fmt = ChatFormat.from_template(source)
    assert fmt.tools.section_start + fmt.tools.call_start == "[CALL]"
    assert calls_of(read(source, '[CALL]{"name": "look_up", "arguments": {"word": "ash"}}')) == [("look_up", {"word": "ash"})]


def test_what_ends_a_question_only_before_an_answer_is_no_marker() -> None:
    source = (
        "{{ tools | tojson if tools }}{% for m in messages %}{% if m.role == 'user' %}{% if loop.last %}[LAST]{{ m.content }}[/LAST]"
        "{% else %}[ASK]{{ m.content }}[/ASK]{% endif %}{% elif m.tool_calls %}[CALL]"
        "{% for c in m.tool_calls %}{{ {'name': c.function.name, 'arguments': c.function.arguments} | tojson }}{% endfor %}</s>"
        "{% else %}{{ m.content }}</s>{% endif %}{% endfor %}"
    )
    fmt = ChatFormat.from_template(source)
    assert fmt.tools.section_start + fmt.tools.call_start == "[CALL]"
    assert fmt.turn.content_start == ""


def test_an_opener_with_other_layout_in_history_is_no_marker() -> None:
    source = (
        "{% for m in messages %}<{{ m.role }}>{% if m.role == 'assistant' %}  {% endif %}{{ m.content }}"
        "{% if m.tool_calls %}   [DO]{% for c in m.tool_calls %}{{ c.function.name }}[WITH]{{ c.function.arguments | tojson }}[OK]{% endfor %}"
        "{% endif %}{{ tools | tojson if loop.first and tools }}\n   \n{% endfor %}{% if add_generation_prompt %}   <assistant>\n{% endif %}"
    )
    fmt = ChatFormat.from_template(source)
    assert (fmt.tools.section_start + fmt.tools.call_start).strip() == "[DO]"
    assert fmt.turn.content_start == ""


NAMED_BY_ID = template("{{ '<do>' ~ c.id ~ '<args>' ~ a | tojson ~ '</do>' }}")


def test_an_id_that_is_written_alone_carries_the_name() -> None:
    fmt = ChatFormat.from_template(NAMED_BY_ID)
    assert (fmt.tools.shape, fmt.tools.named.id_place) == ("name + json", "carries")
    parser = read(NAMED_BY_ID, '<do>any.look_up:7<args>{"word": "ash"}</do>')
    assert calls_of(parser) == [("look_up", {"word": "ash"})]
    assert parser.message.tool_calls[0].id == "any.look_up:7"


def test_history_gives_a_call_an_id_that_carries_its_name_and_its_result_the_same() -> None:
    source = NAMED_BY_ID.replace("{{ m.content or '' }}", "{{ m.tool_call_id ~ m.content }}")
    fmt = ChatFormat.from_template(source)
    said = [user("hi"), assistant(tool_calls=(ASH,)), Message("tool", "wood", tool_call_id=ASH.id, name="look_up")]
    text = fmt.render(said, tools=TOOLS).text
    assert ASH.id not in text
    assert text.count("look_up:0") == 2


ALL_QUOTED = template(
    "{{ '<do>run:' ~ n ~ '{' }}{% for k, v in a.items() %}{{ k ~ ':<esc>' ~ v ~ '<esc>' ~ (',' if not loop.last else '') }}{% endfor %}{{ '}</do>' }}"
)
BARE_VALUES = template(
    "{{ n ~ '(' }}{% for k in a %}{{ k ~ '=' }}{{ '%s' | format(a[k]) }}{% if not loop.last %}, {% endif %}{% endfor %}{{ ')' }}",
    before="[",
    between=", ",
    behind="]",
)
NO_SEPARATOR = template(
    "{{ n ~ '(' }}{% for k, v in a.items() %}{{ k ~ '=' ~ v | tojson }}{% endfor %}{{ ')' }}", before="<do>", behind="</do>"
)
ALL_IN_QUOTES = template(
    "{{ n ~ '(' }}{% for k, v in a.items() %}{{ k ~ '=\"' ~ v ~ '\"' ~ (', ' if not loop.last else '') }}{% endfor %}{{ ')' }}",
    before="<do>[",
    between=", ",
    behind="]</do>",
)


@pytest.mark.parametrize(
    ("source", "text"),
    [
        (ALL_QUOTED, "<do>run:look_up{word:<esc>ash<esc>,n:<esc>3<esc>}</do>"),
        (ALL_QUOTED, "<do>run:look_up{word:<esc>ash<esc>,n:3}</do>"),
        (BARE_VALUES, "[look_up(word='ash', n=3)]"),
        (BARE_VALUES, "[look_up(word=ash, n=3)]"),
        (NO_SEPARATOR, '<do>look_up(word="ash", n=3)</do>'),
        (ALL_IN_QUOTES, '<do>[look_up(word="ash", n="3")]</do>'),
        (ALL_IN_QUOTES, "<do>[look_up(word='ash', n=3)]</do>"),
    ],
)
def test_arguments_that_a_template_writes_alike_whatever_their_type_are_read(source: str, text: str) -> None:
    fmt = ChatFormat.from_template(source)
    assert isinstance(fmt.tools.arguments, LiteralArguments)
    assert calls_of(read(source, text, (LOOK_UP,))) == [("look_up", {"word": "ash", "n": 3})]


def test_a_thought_before_calls_that_are_split_is_written_once() -> None:
    source = (
        "{% for m in messages %}<{{ m.role }}>{% if m.thinking %}<hm>{{ m.thinking }}</hm>{% endif %}{{ m.content or '' }}"
        "{% if m.tool_calls %}{{ raise_exception('one') if m.tool_calls | length > 1 }}<do>{{ m.tool_calls[0].function | tojson }}</do>{% endif %}"
        "{{ tools | tojson if loop.first and tools }}{% endfor %}"
    )
    fmt = ChatFormat.from_template(source)
    calls = (ASH, ToolCall("now", "{}", "abcdefgh2"))
    said = [user("hi"), Message("assistant", "", reasoning="kthought", tool_calls=calls)]
    results = [Message("tool", "x", tool_call_id=c.id, name=c.name) for c in calls]
    text = fmt.render([*said, *results], tools=TOOLS).text
    assert (text.count("kthought"), text.count("<do>")) == (1, 2)


def test_a_thought_under_a_name_of_the_templates_own_is_found_and_is_no_part_of_a_marker() -> None:
    source = template(
        "{{ {'name': n, 'arguments': a} | tojson }}", before="<plan>{{ m.my_plan }}</plan><do>", behind="</do>"
    ).replace("{{ m.my_plan }}", "{{ m.my_plan or '' }}")
    fmt = ChatFormat.from_template(source)
    assert fmt.reasoning is not None
    assert (fmt.reasoning.start, fmt.reasoning.end, fmt.reasoning.field) == ("<plan>", "</plan>", "my_plan")
    assert (fmt.tools.section_start + fmt.tools.call_start) == "<do>"
    parser = read(source, '<plan>hm</plan><do>{"name": "now", "arguments": {}}</do>')
    assert (calls_of(parser), parser.message.reasoning, parser.message.text) == ([("now", {})], "hm", "")


def test_a_member_that_is_no_thought_is_not_taken_for_one() -> None:
    source = "{% for m in messages %}<{{ m.role }} by={{ m.author }}>{{ m.content }}</{{ m.role }}>{% endfor %}"
    assert ChatFormat.from_template(source).reasoning is None


def test_an_empty_frame_of_content_before_calls_is_no_part_of_a_marker() -> None:
    source = (
        "{% for m in messages %}[{{ m.role }}]{% if m.tool_calls %}<say>{{ m.content or '' }}</say>"
        "{% for c in m.tool_calls %}<do>{{ {'name': c.function.name, 'arguments': c.function.arguments} | tojson }}</do>{% endfor %}"
        "{% else %}{{ m.content }}{% endif %}{{ tools | tojson if loop.first and tools }}[end]{% endfor %}"
        "{{ '[assistant]' if add_generation_prompt }}"
    )
    fmt = ChatFormat.from_template(source)
    assert fmt.tools.section_start + fmt.tools.call_start == "<do>"


@pytest.mark.parametrize(
    "end",
    [
        "{% if add_generation_prompt %}\n   <|start|>assistant\n{% endif %}",
        "{% if add_generation_prompt %}<|start|>assistant\n{% endif %}<|all|>",
    ],
)
def test_a_prompt_that_ends_in_a_tag_makes_no_reasoning(end: str) -> None:
    source = "{% for m in messages %}<|start|>{{ m.role }}\n{{ m.content }}<|stop|>\n{% endfor %}" + end
    fmt = ChatFormat.from_template(source)
    assert fmt.reasoning is None
    assert read(source, "Hello there.", ()).message.text == "Hello there."


def test_a_thought_that_only_switching_off_shows_is_found() -> None:
    source = (
        "{% for m in messages %}<{{ m.role }}>{{ m.content }}</{{ m.role }}>{% endfor %}"
        "{% if enable_thinking is defined and not enable_thinking %}<hm>\n\n</hm>\n{% endif %}"
    )
    parser = read(source, "<hm>\nWell.\n</hm>\nYes.", ())
    assert (parser.message.reasoning, parser.message.text.strip()) == ("Well.", "Yes.")


RECIPIENTS = (
    "{% for m in messages %}{{ '<|from|>' ~ m.role ~ '\\n<|to|>' ~ ('all\\n' if m.role == 'assistant' else '') ~ '<|text|>' ~ (m.content or '') ~ '\\n' }}"
    "{{ tools | tojson if loop.first and tools }}{% for c in m.tool_calls or [] %}"
    "{{ '<|from|>assistant\\n<|to|>' ~ c.function.name ~ '\\n<|text|>' ~ c.function.arguments | tojson ~ '\\n' }}{% endfor %}"
    "{% if m.role == 'assistant' %}<|stop|>\n{% endif %}{% endfor %}{{ '<|from|>assistant\\n<|to|>' if add_generation_prompt }}"
)  # fmt: skip


def test_blocks_are_found_behind_an_empty_block_of_content() -> None:
    fmt = ChatFormat.from_template(RECIPIENTS)
    assert fmt.tools.shape == "recipient"
    parser = read(RECIPIENTS, 'look_up\n<|text|>{"word": "ash"}\n<|stop|>')
    assert calls_of(parser) == [("look_up", {"word": "ash"})]
    said = read(RECIPIENTS, 'all\n<|text|>Wait.\n<|from|>assistant\n<|to|>now\n<|text|>{}<|stop|>')
    assert (calls_of(said), said.message.text.strip()) == ([("now", {})], "Wait.")


ESCAPED = template(
    "{% set e = n | replace('&', '&amp;') | replace('\"', '&quot;') %}{{ '<do name=\"' ~ e ~ '\">' }}{% for k, v in a.items() %}"
    "{{ '<p key=\"' ~ (k | replace('&', '&amp;')) ~ '\">' ~ v ~ '</p>' }}{% endfor %}{{ '</do>' }}"
)


def test_escaping_of_names_and_keys_is_undone_and_values_stay() -> None:
    tool = ToolSpec("a&b", "", {"type": "object", "properties": {"c&d": {"type": "string"}}})
    fmt = ChatFormat.from_template(ESCAPED)
    assert dict(fmt.tools.named.escapes) == {"&": "&amp;", '"': "&quot;"}
    parser = read(ESCAPED, '<do name="a&amp;b"><p key="c&amp;d">e &amp; f</p></do>', (tool,))
    assert calls_of(parser) == [("a&b", {"c&d": "e &amp; f"})]
    assert write_calls(fmt.tools, [ToolCall("a&b", '{"c&d": "e &amp; f"}')]) == '<do name="a&amp;b"><p key="c&amp;d">e &amp; f</p></do>'


SHOWN = (
    "{{ 'Call with calltools[{\"name\": NAME, \"arguments\": ARGUMENTS}] or not. ' ~ tools | tojson if tools }}"
    "{% for m in messages %}<|{{ m.role }}|>{{ m.content or '' }}{% for c in m.tool_calls or [] %}"
    "{{ {'name': c.function.name, 'arguments': c.function.arguments} | tojson }}{{ ',' if not loop.last }}{% endfor %}<|end|>{% endfor %}"
    "{{ '<|assistant|>' if add_generation_prompt }}"
)


@pytest.mark.parametrize("lead", ["", "calltools[", "Well.\ncalltools[", " calltools [\n"])
def test_a_marker_that_only_the_instructions_show_is_read(lead: str) -> None:
    text = f'{lead}{{"name": "look_up", "arguments": {{"word": "ash"}}}}' + ("]" if lead else "")
    parser = read(SHOWN, text)
    assert calls_of(parser) == [("look_up", {"word": "ash"})]
    assert parser.message.text.strip() == ("Well." if "Well" in lead else "")
