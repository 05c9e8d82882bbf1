"""A way of reasoning that the project does not know is added by one module: a header line, and either of two closing lines."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from llm_magics.chat.analysis.frame import ANSWER, CALLING, TOOL, USER, Frame
from llm_magics.chat.analysis.probe import Probe
from llm_magics.chat.analysis.reasoning import ReasoningSyntax, finders, registered
from llm_magics.chat.encodings.writer import write_calls
from llm_magics.chat.format import ChatFormat
from llm_magics.chat.syntax.compare import between
from llm_magics.events import ReasoningDelta, TextDelta
from llm_magics.messages import Message, ToolCall, user
from llm_magics.models.base import Request
from llm_magics.models.guide import constraint_for, make_guide
from tests.chat import test_laws as laws
from tests.chat.formats import format_of
from tests.chat.grammars import accepts, refused_at
from tests.chat.small import LOOK_UP, TOOLS, calls_of, read

TEMPLATE = (
    "{% for m in messages %}{{ '<|' ~ m.role ~ '|>' }}{% if loop.first and tools %}{{ tools | tojson }}{% endif %}"
    "{% if m.reasoning_content %}{{ 'My thoughts:\\n' ~ m.reasoning_content }}"
    "{{ '\\nMy calls:\\n' if m.tool_calls else '\\nMy answer:\\n' }}{% endif %}{{ m.content or '' }}"
    "{% for c in m.tool_calls or [] %}"
    "{{ '<do>' ~ {'name': c.function.name, 'arguments': c.function.arguments} | tojson ~ '</do>' }}{% endfor %}"
    "{{ '<|end|>' }}{% endfor %}{{ '<|assistant|>' if add_generation_prompt }}"
)
CALL = ToolCall("look_up", '{"word": "ash"}', "abcdefgh1")
CALL_TEXT = '<do>{"name": "look_up", "arguments": {"word": "ash"}}</do>'


# --- the whole of the new way: a value and a finder -------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class HeaderLine(ReasoningSyntax):
    """A thought stands between a header line and ``end``; before calls ``before_calls`` closes it instead."""

    before_calls: str = ""  # e.g. "\nMy calls:\n"

    @property
    def closers(self) -> tuple[str, ...]:
        return (self.end.strip(), self.before_calls.strip())

    def is_mention(self, *, in_sentence: bool, in_line: bool) -> bool:
        return in_line  # a header stands in a line of its own


def find_header_line(probe: Probe, frame: Frame) -> ReasoningSyntax | None:
    """Read the three lines off a thought before an answer and a thought before a call."""
    answered = Message("assistant", ANSWER.text, reasoning="qline")
    called = Message("assistant", reasoning="qline", tool_calls=CALLING.tool_calls)
    said, asked = (frame.body_of(probe, [USER, m], [TOOL]) for m in (answered, called))
    start, end = said.partition("qline")[0], between(said, "qline", ANSWER.text) or ""
    closed = between(asked, "qline", "<do>") or ""
    lines = [line.strip() for line in (start, end, closed)]
    if closed == end or not all(line.endswith(":") for line in lines):
        return None
    return HeaderLine(start, end, probe.repairs.reasoning, derived="a header line", before_calls=closed)


# --- what follows from it ---------------------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def known() -> Iterator[None]:
    with registered(find_header_line):
        yield


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """The template in a file, as the laws take it."""
    path = tmp_path / "header_line.jinja"
    path.write_text(TEMPLATE, encoding="utf-8")
    return path


def test_analysis_finds_it() -> None:
    way = ChatFormat.from_template(TEMPLATE).reasoning
    assert isinstance(way, HeaderLine)
    assert (way.start, way.end, way.before_calls) == ("My thoughts:\n", "\nMy answer:\n", "\nMy calls:\n")


@pytest.mark.parametrize(
    ("text", "reasoning", "content", "n_calls"),
    [
        ("My thoughts:\nAsh is a tree.\nMy answer:\nA tree.", "Ash is a tree.", "A tree.", 0),
        (f"My thoughts:\nI look.\nMy calls:\n{CALL_TEXT}", "I look.", "", 1),
        ("No need. My thoughts:\nare free.", "", "No need. My thoughts:\nare free.", 0),  # not in a line of its own
        ("My thoughts:\nthen it was cut", "then it was cut", "", 0),
        ("A tree.", "", "A tree.", 0),
    ],
)
def test_the_parser_reads_it(text: str, reasoning: str, content: str, n_calls: int) -> None:
    parser = read(TEMPLATE, text)
    assert (parser.message.reasoning.strip(), parser.message.text) == (reasoning, content)
    assert calls_of(parser) == [("look_up", {"word": "ash"})] * n_calls


def test_the_constraint_takes_either_closer_before_a_call() -> None:
    fmt = ChatFormat.from_template(TEMPLATE)
    request = Request((user("hi"),), TOOLS, "required")
    grammar = constraint_for(fmt, fmt.render(request.messages, tools=TOOLS), request).start
    for closer in ("My calls:", "My answer:"):
        assert accepts(grammar, f"My thoughts:\nI look.\n{closer}\n{CALL_TEXT}")
        assert refused_at(grammar, f"My thoughts:\nI look.\n{closer}\nNo.") is not None
    assert accepts(grammar, CALL_TEXT)
    none = Request((user("hi"),), TOOLS, "none")
    grammar = constraint_for(fmt, fmt.render(none.messages, tools=TOOLS), none).start
    assert accepts(grammar, "My thoughts:\nNot <do>.\nMy answer:\nA tree.")
    assert refused_at(grammar, f"My thoughts:\nI look.\nMy calls:\n{CALL_TEXT}") is not None


def test_a_thought_is_gone_on_with_and_closed_as_the_template_closes_it() -> None:
    fmt = ChatFormat.from_template(TEMPLATE)
    said = [user("hi"), Message("assistant", "A tr", reasoning="Ash")]
    assert fmt.render(said, continue_final="reasoning").text.endswith("<|assistant|>My thoughts:\nAsh")
    assert fmt.render(said, continue_final="content").text.endswith("<|assistant|>My thoughts:\nAsh\nMy answer:\nA tr")
    parser = fmt.parser(TOOLS, prompt=fmt.render(said, continue_final="reasoning"))
    parser.feed(f" is a tree.\nMy calls:\n{CALL_TEXT}")
    parser.finish()
    assert (parser.message.reasoning, calls_of(parser)) == ("Ash is a tree.", [("look_up", {"word": "ash"})])


def test_the_guide_arms_behind_either_closer_and_not_inside_a_thought() -> None:
    fmt = ChatFormat.from_template(TEMPLATE)
    request = Request((user("hi"),), TOOLS)
    guide = make_guide(fmt, fmt.render(request.messages, tools=TOOLS), request, frozenset({"<do>"}))
    assert guide.start().arm is None
    step = guide.feed("My thoughts:\nmaybe <do> or so")
    assert (step.arm, [type(e) for e in step.events]) == (None, [ReasoningDelta])
    step = guide.feed("\nMy calls:\n<do>")
    assert step.arm is not None
    assert not any(isinstance(e, TextDelta) for e in step.events)
    assert step.arm.pending.strip() == "<do>"


def test_the_laws_hold(path: Path) -> None:
    laws.test_calls_that_the_template_writes_are_read_back_equal(path=path)
    laws.test_calls_that_our_writer_writes_are_read_back_equal(path=path)
    laws.test_any_text_in_any_pieces_gives_the_same_answer_and_loses_nothing(path=path)
    laws.test_a_parser_in_the_middle_of_an_answer_pickles(path=path)


@pytest.mark.parametrize("calls", [(), (CALL,)])
def test_a_turn_that_the_template_writes_is_read_back(path: Path, calls: tuple[ToolCall, ...]) -> None:
    fmt = format_of(path)
    closer = "\nMy calls:\n" + str(write_calls(fmt.tools, calls)) if calls else "\nMy answer:\nA tree."
    text = f"My thoughts:\nAsh.{closer}"
    assert fmt.render([user("hi"), read(TEMPLATE, text).message], tools=[LOOK_UP]).text.count(text) == 1
    parser = fmt.parser([LOOK_UP])
    for at in range(len(text)):
        parser.feed(text[at])
        parser = pickle.loads(pickle.dumps(parser))
    parser.finish()
    whole = read(TEMPLATE, text)
    assert (parser.message.reasoning, parser.message.text) == (whole.message.reasoning, whole.message.text)
    assert calls_of(parser) == calls_of(whole) == [("look_up", {"word": "ash"})] * len(calls)


def test_it_is_forgotten_with_its_block() -> None:
    before = finders()
    with registered(find_header_line):
        assert finders() == (find_header_line, *before)
    assert finders() == before
