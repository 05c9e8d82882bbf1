"""The switch of thinking: found by trying, under whatever name a template reads it."""

from __future__ import annotations

import pytest

from llm_magics.chat.format import ChatFormat
from llm_magics.chat.template.switch import YES_NO
from llm_magics.messages import user
from tests.chat.small import calls_of, read

_HEAD = "{% for m in messages %}<{{ m.role }}>{{ m.content }}</{{ m.role }}>{% endfor %}"
_TOLD = "{{ 'Effort: ' ~ (reasoning_effort or 'medium') }}" + _HEAD


def _template(end: str, head: str = _HEAD) -> str:
    """A template with ``end`` behind what opens the assistant's turn."""
    return head + "{% if add_generation_prompt %}<assistant>" + end + "{% endif %}"


BY_EFFORT = _template("{{ '<hm>' if reasoning_effort in ['low', 'high'] else '<hm></hm>' }}")
REFUSING = (
    "{% if reasoning_effort and reasoning_effort not in ['low', 'high', 'no_think'] %}{{ raise_exception('what?') }}{% endif %}"
    + BY_EFFORT
)
BY_MODE = _template("{{ '</hm>' if thinking_mode == 'disabled' else '<hm>' if thinking_mode == 'enabled' }}")
BY_BUDGET = _template("{{ '<hm>\n<note>No time to think.</note>\n</hm>' if thinking_budget == 0 }}")
OPENED = _template("{{ '<hm>\n' if thinking_mode == 'on' }}")
PRINTED = _template("", _TOLD)
YES = _template("{{ '<hm></hm>' if enable_thinking is false or reasoning_effort == 'none' }}")


def _ends(source: str, **given: object) -> list[str]:
    """What stands behind the turn's opener with thinking on, off, and left to the template."""
    fmt = ChatFormat.from_template(source)
    texts = [fmt.render([user("hi")], enable_thinking=flag, **given).text for flag in (True, False, None)]  # type: ignore[arg-type]
    return [text.rpartition("<assistant>")[2] for text in texts]


@pytest.mark.parametrize(
    ("source", "ends"),
    [
        (BY_EFFORT, ["<hm>", "<hm></hm>", "<hm></hm>"]),
        (REFUSING, ["<hm>", "<hm></hm>", "<hm></hm>"]),
        (BY_MODE, ["", "</hm>", ""]),
        (BY_BUDGET, ["", "<hm>\n<note>No time to think.</note>\n</hm>", ""]),
        (OPENED, ["<hm>\n", "", ""]),
        (YES, ["", "<hm></hm>", ""]),
    ],
    ids=["effort", "refusing", "mode", "budget", "opened", "yes"],
)
def test_thinking_is_switched_under_the_name_that_the_template_reads(source: str, ends: list[str]) -> None:
    assert _ends(source) == ends


@pytest.mark.parametrize("source", [PRINTED, YES, _template("")])
def test_a_word_that_switches_nothing_is_not_sent(source: str) -> None:
    fmt = ChatFormat.from_template(source)
    assert fmt.repairs.switch == YES_NO
    text = fmt.render([user("hi")], enable_thinking=False).text
    assert ("Effort: medium" in text) == ("Effort" in source)


def test_what_the_caller_gives_wins_over_the_switch() -> None:
    assert _ends(BY_EFFORT, reasoning_effort="low") == ["<hm>"] * 3
    assert _ends(BY_EFFORT, reasoning_effort="no_think") == ["<hm></hm>"] * 3


@pytest.mark.parametrize("thinks", [True, False])
def test_a_thought_is_read_under_such_a_switch(thinks: bool) -> None:
    fmt = ChatFormat.from_template(BY_EFFORT)
    assert fmt.reasoning is not None
    assert (fmt.reasoning.start, fmt.reasoning.end) == ("<hm>", "</hm>")
    parser = fmt.parser(prompt=fmt.render([user("hi")], enable_thinking=thinks))
    parser.feed("Well.</hm>Yes." if thinks else "Yes.")
    parser.finish()
    assert (parser.message.reasoning, parser.message.text) == ("Well." if thinks else "", "Yes.")


def test_words_in_a_skipped_thought_are_no_marker() -> None:
    source = BY_BUDGET.replace("{{ m.content }}", "{% if m.thinking %}<hm>{{ m.thinking }}</hm>{% endif %}{{ m.content }}")
    fmt = ChatFormat.from_template(source)
    assert fmt.reasoning is not None
    assert (fmt.reasoning.start, fmt.reasoning.end) == ("<hm>", "</hm>")
    parser = read(source, "<hm>Well.</hm>Yes.", ())
    assert (calls_of(parser), parser.message.reasoning, parser.message.text) == ([], "Well.", "Yes.")
