"""Templates that nobody has seen: ways of writing calls in the wild, and damaged templates."""

# ruff: noqa: E501 - a template is easier to read on one line

from __future__ import annotations

import json
import random
import re

import pytest

from llm_magics.chat.encodings.writer import write_calls
from llm_magics.chat.format import ChatFormat
from llm_magics.chat.show import show
from llm_magics.errors import TemplateError
from llm_magics.messages import Message, ToolCall, ToolSpec, user

from .formats import OWN

TOOLS = [
    ToolSpec("look_up", "Looks it up.", {"type": "object", "properties": {"word": {"type": "string"}, "n": {"type": "integer"}}}),
    ToolSpec("now", "Tells the time.", {"type": "object", "properties": {}}),
]
CALLS = [ToolCall("look_up", '{"word": "a <b>\\nc", "n": 3}', "abcdefgh0"), ToolCall("now", "{}", "abcdefgh1")]

# how the calls `c` of a message are written; the name and arguments come under these short names
_EACH = "{% for c in m.tool_calls or [] %}{% set n = c.function.name %}{% set a = c.function.arguments %}"
_FORMS = {
    "openai objects": "{{ '<tool>' ~ {'id': c.id, 'type': 'function', 'function': {'name': n, 'arguments': a | tojson}} | tojson ~ '</tool>' }}",
    "arguments first": "{{ '<go>{\"args\": ' ~ a | tojson ~ ', \"fn\": \"' ~ n ~ '\"}</go>' }}",
    "react": "{{ '\\nAction: ' ~ n ~ '\\nAction Input: ' ~ a | tojson }}",
    "plain prose": "{{ 'I call the tool ' ~ n ~ ' with ' ~ a | tojson ~ '.' }}",
    "name in a tag": "{{ '<tool><name>' ~ n ~ '</name><args>' ~ a | tojson ~ '</args></tool>' }}",
    "square brackets": "{{ '[CALL ' ~ n ~ ' ' ~ a | tojson ~ ']' }}",
    "json inside tags": (
        "{{ '<fn=' ~ n ~ '>' }}{% for k, v in a.items() %}{{ '<p=' ~ k ~ '>' ~ v | tojson ~ '</p>' }}{% endfor %}{{ '</fn>' }}"
    ),
    "attributes": (
        "{{ '<invoke name=\"' ~ n ~ '\">\\n' }}{% for k, v in a.items() %}"
        "{{ '<parameter name=\"' ~ k ~ '\">' ~ v ~ '</parameter>\\n' }}{% endfor %}{{ '</invoke>\\n' }}"
    ),
    "keys as tags": (
        "{{ '<call name=' ~ n ~ '>' }}{% for k, v in a.items() %}{{ '<' ~ k ~ '>' ~ v ~ '</' ~ k ~ '>' }}{% endfor %}{{ '</call>' }}"
    ),
    "code in a fence": (
        "{{ '```tool\\n' ~ n ~ '(' }}{% for k, v in a.items() %}{{ k ~ '=' ~ v | tojson ~ (', ' if not loop.last else '') }}"
        "{% endfor %}{{ ')\\n```\\n' }}"
    ),
    "name and id": "{{ '<|call|>' ~ c.id ~ '<|name|>' ~ n ~ '<|args|>' ~ a | tojson ~ '<|done|>' }}",
    "running number": "{{ '<|call|>fn.' ~ n ~ ':' ~ loop.index0 ~ '<|args|>' ~ a | tojson ~ '<|done|>' }}",
}  # fmt: skip


def _template(form: str) -> str:
    return (
        "{% for m in messages %}{{ '<|' ~ m.role ~ '|>' ~ (m.content or '') }}{% if loop.first and tools %}{{ tools | tojson }}{% endif %}"
        + _EACH + form + "{% endfor %}{{ '<|end|>' }}{% endfor %}{{ '<|assistant|>' if add_generation_prompt }}"
    )  # fmt: skip


@pytest.mark.parametrize("form", _FORMS.values(), ids=_FORMS)
@pytest.mark.parametrize("count", [1, 2])
def test_calls_are_read_back_however_they_are_written(form: str, count: int) -> None:
    fmt = ChatFormat.from_template(_template(form))
    prompt = fmt.render([user("hi")], tools=TOOLS)
    history = fmt.render([user("hi"), Message("assistant", tool_calls=tuple(CALLS[:count]))], tools=TOOLS, add_generation_prompt=False)
    assert history.text.startswith(prompt.text)
    for text in (history.text[len(prompt.text) :], write_calls(fmt.tools, CALLS[:count])):
        parser = fmt.parser(TOOLS, prompt=prompt)
        for character in text:
            parser.feed(character)
        parser.finish()
        found = [(c.name, json.loads(c.arguments)) for c in parser.message.tool_calls]
        assert found == [(c.name, json.loads(c.arguments)) for c in CALLS[:count]], (fmt.tools, parser.notes)


def _damaged(source: str, dice: random.Random) -> str:
    """A template with a few strings swapped, lines left out, or characters put in."""
    for _ in range(dice.randint(1, 4)):
        strings = list(re.finditer(r"'(?:\\.|[^'\\])*'|\"(?:\\.|[^\"\\])*\"", source))
        if strings and dice.random() < 0.7:
            hit = dice.choice(strings)
            new = dice.choice(["''", "' '", "'\\n'", "'<'", "'['", "'\"'", dice.choice(strings).group()])
            source = source[: hit.start()] + new + source[hit.end() :]
        elif dice.random() < 0.5:
            at = dice.randint(0, len(source))
            source = source[:at] + dice.choice(["{", "}", "<", ">", '"', "\n", "[", "|"]) + source[at:]
        else:
            lines = source.split("\n")
            del lines[dice.randrange(len(lines))]
            source = "\n".join(lines)
    return source


@pytest.mark.parametrize("seed", range(4))
def test_a_damaged_template_works_or_is_refused(seed: int) -> None:
    dice = random.Random(seed)
    worked = 0
    for source in [path.read_text(encoding="utf-8") for path in sorted(OWN.glob("*.jinja"))] * 5:
        try:
            damaged = _damaged(source, dice)
            fmt = ChatFormat.from_template(damaged)
            assert show(damaged)
        except TemplateError:
            continue
        text = write_calls(fmt.tools, CALLS) + " and " + write_calls(fmt.tools, CALLS)[:20]
        parser = fmt.parser(TOOLS, prompt=fmt.render([user("hi")], tools=TOOLS))
        for character in text:
            parser.feed(character)
        parser.finish()
        assert "".join(piece for _, piece in parser.segments) == text
        worked += 1
    assert worked > 10
