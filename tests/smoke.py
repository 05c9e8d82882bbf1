"""Try templates that nobody prepared: derive each, render every scenario, read back what the template and our writer write.

``python -m tests.smoke DIR [--only TEXT] [--count N]``

A template passes where no word of a scenario is lost and where calls, thoughts and text that it writes itself are read back
equal, whole and character by character. A template that writes two different calls alike cannot be read back by anybody: it is
listed with both calls as the proof. A template that refuses a conversation says so by a named error, which is no failure.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from llm_magics.chat.encodings.tagged import TaggedArguments
from llm_magics.chat.encodings.writer import write_calls
from llm_magics.chat.format import ChatFormat
from llm_magics.chat.parsing.parser import StreamParser
from llm_magics.chat.syntax.compare import common_prefix, loose_prefix, safe_suffix
from llm_magics.chat.syntax.tags import whole_tags
from llm_magics.chat.template.template import Prompt
from llm_magics.errors import LLMMagicsError
from llm_magics.messages import Message, ToolCall, ToolSpec, user
from tests.chat.scenarios import SCENARIOS

_LETTERS = "ab Z é😀\n<>&{}[]:,=|/1\t()%$"
_QUOTES = "\"'\\"
_SCHEMAS: dict[str, dict[str, Any]] = {
    "string": {"type": "string"},
    "integer": {"type": "integer"},
    "number": {"type": "number"},
    "boolean": {"type": "boolean"},
    "array": {"type": "array", "items": {"type": "string"}},
    "object": {"type": "object", "properties": {"x": {"type": "integer"}, "y": {"type": "string"}}},
}
_TEXTS = ("kans is 12.", "Line one.\n\nLine **two**.", 'a <b> {"c": 1}')
Calls = list[tuple[str, Any]]


@dataclass
class Report:
    """What became of one template: problems by kind, the proof if it loses calls itself, and the seconds of its analysis."""

    name: str
    seconds: float = 0.0
    refused: str = ""
    proof: str = ""
    lost_words: list[str] = field(default_factory=list)
    unread: list[str] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        """Whether the project did all that the template allows."""
        return not self.lost_words and (not self.unread or bool(self.proof))


# --- what a template writes -------------------------------------------------------------------------------------------------


def written_by_template(fmt: ChatFormat, tools: Sequence[ToolSpec], said: Message) -> tuple[Prompt, str] | None:
    """The template's own text of an assistant's message, and the prompt it follows; None where the two cannot be told apart."""
    closed = fmt.render([user("hi")], tools=tools, add_generation_prompt=False).text
    opening = fmt.render([user("hi")], tools=tools).generation_prompt
    full = fmt.render([user("hi"), said], tools=tools, add_generation_prompt=False).text
    if not full.startswith(closed):
        return None
    rest = full[len(closed) :]
    if not opening:  # what stands behind the question and behind the answer alike, e.g. the next turn's opener, is no answer
        rest = rest[: len(rest) - len(safe_suffix(rest, closed.rpartition("hi")[2]))]
    shared = opening if rest.startswith(opening) else whole_tags(common_prefix(rest, opening), rest)
    if not shared.strip():
        shared = rest[: loose_prefix(rest, opening)]
    return Prompt(closed + shared, shared), rest[len(shared) :]


def _text(dice: random.Random, letters: str, least: int = 0) -> str:
    return "".join(dice.choice(letters) for _ in range(dice.randint(least, 12)))


def _value(dice: random.Random, kind: str, letters: str) -> Any:
    if kind == "array":
        return [_text(dice, letters, 1) for _ in range(dice.randint(1, 3))]
    if kind == "object":
        return {"x": dice.randint(0, 9), "y": _text(dice, letters)}
    simple: dict[str, Callable[[], Any]] = {
        "string": lambda: _text(dice, letters),
        "integer": lambda: dice.randint(-(10**9), 10**9),
        "number": lambda: dice.choice([0.5, -3.25, 7.0]),
        "boolean": lambda: dice.random() < 0.5,
    }
    return simple[kind]()


def random_calls(dice: random.Random, most: int, letters: str) -> tuple[list[ToolSpec], list[ToolCall]]:
    """Tools with typed parameters and valid calls of them."""
    tools, calls = [], []
    for i in range(dice.randint(1, most)):
        keys = dice.sample(["city", "arg1", "query", "max_n"], dice.randint(0, 4))
        kinds = {key: dice.choice(list(_SCHEMAS)) for key in keys}
        arguments = {key: _value(dice, kind, letters) for key, kind in kinds.items()}
        name = f"{dice.choice(['get_time', 'search_docs', 'f'])}{i}"
        schema = {"type": "object", "properties": {key: _SCHEMAS[kind] for key, kind in kinds.items()}}
        tools.append(ToolSpec(name, "Does it.", schema))
        calls.append(ToolCall(name, json.dumps(arguments, ensure_ascii=False), f"abcdefgh{i}"))
    return tools, calls


def proof_of_loss(fmt: ChatFormat) -> str:
    """Two different calls that the template writes alike, or ""; not of arguments in tags, which only odd text could forge."""
    if isinstance(fmt.tools.arguments, TaggedArguments):
        return ""
    kinds = {"p": "string", "q": "string", "0q": "string"}
    tool = ToolSpec("f", "", {"type": "object", "properties": {key: {"type": kind} for key, kind in kinds.items()}})

    def written(arguments: dict[str, Any]) -> str:
        said = Message("assistant", tool_calls=(ToolCall("f", json.dumps(arguments), "abcdefgh0"),))
        return fmt.render([user("hi"), said], tools=[tool], add_generation_prompt=False).text

    two: dict[str, Any] = {"p": "vone", "q": "vtwo"}
    between = written(two).rpartition("vone")[2].partition("vtwo")[0]
    pairs: list[tuple[dict[str, Any], dict[str, Any]]] = [(two, {"p": f"vone{between}vtwo"})]
    pairs.append(({"p": 10, "q": 2}, {"p": 1, "0q": 2}))
    return next((f"{a} and {b} are written alike" for a, b in pairs if written(a) == written(b)), "")


# --- reading it back --------------------------------------------------------------------------------------------------------


def _read(fmt: ChatFormat, tools: Sequence[ToolSpec], prompt: Prompt, text: str) -> Iterator[StreamParser]:
    for pieces in ([text], list(text)):
        parser = fmt.parser(tools, prompt=prompt)
        for piece in pieces:
            parser.feed(piece)
        parser.finish()
        yield parser


def _named(calls: Sequence[ToolCall]) -> Calls:
    return [(call.name, json.loads(call.arguments)) for call in calls]


def _difference(fmt: ChatFormat, tools: Sequence[ToolSpec], prompt: Prompt, text: str, said: Message) -> str:
    """What is not read back as it was said; "" if all is."""
    for parser in _read(fmt, tools, prompt, text):
        got = parser.message
        if _named(got.tool_calls) != _named(said.tool_calls):
            return f"{_named(said.tool_calls)} is read as {_named(got.tool_calls)}, content {got.text[:80]!r}, of {text!r}"
        if said.tool_calls and parser.finish_reason != "tool_calls":
            return f"the finish reason is {parser.finish_reason} after {text!r}"
        if (got.text.strip(), got.reasoning.strip()) != (said.text.strip(), said.reasoning.strip()):
            return f"{(said.text, said.reasoning)} is read as {(got.text, got.reasoning)} of {text!r}"
    return ""


def _kept(said: Message, text: str) -> Message:
    """A message with what the template wrote of it: some drop a thought or the text beside calls."""
    content = said.text if said.text.strip() in text else ""
    return Message("assistant", content, reasoning=said.reasoning if said.reasoning in text else "", tool_calls=said.tool_calls)


def _messages(fmt: ChatFormat, dice: random.Random, count: int) -> Iterator[tuple[list[ToolSpec], Message]]:
    """What is said: calls, plain text, a thought and an answer, and text or a thought before a call."""
    letters = _LETTERS if fmt.tools.shape == "pythonic" else _LETTERS + _QUOTES
    most = 3 if fmt.tools.parallel else 1
    own = fmt.tools.shape != "generic"
    for _ in range(count if own else 0):
        tools, calls = random_calls(dice, most, letters)
        yield tools, Message("assistant", tool_calls=tuple(calls))
    for text in _TEXTS:
        yield [], Message("assistant", text)
    thinks = fmt.reasoning is not None and bool(fmt.reasoning.field)
    if thinks:
        yield [], Message("assistant", "kans.", reasoning="kthought one.\nTwo.")
    if own and fmt.tools.has_marker and not fmt.repairs.split_content and not fmt.repairs.split_calls:
        tools, calls = random_calls(dice, most, letters)
        yield tools, Message("assistant", "ksaid this.", tool_calls=tuple(calls))
        if thinks:
            yield tools, Message("assistant", "", reasoning="kthought.", tool_calls=tuple(calls))


def _unread(fmt: ChatFormat, name: str, count: int) -> Iterator[str]:
    dice = random.Random(name)
    opener = fmt.turn.generation_prompt.strip().partition("\n")[0]
    for tools, said in _messages(fmt, dice, count):
        found = written_by_template(fmt, tools, said)
        if found is None or (opener and opener in found[1] and fmt.tools.blocks is None):
            continue  # the text of another turn, which a repair has made, is no answer
        prompt, text = found
        if said.text and not said.tool_calls and said.text.strip() not in text:
            continue  # the template changed the words
        if wrong := _difference(fmt, tools, prompt, text, _kept(said, text)):
            yield wrong
    for _ in range(count):
        tools, calls = random_calls(dice, 3 if fmt.tools.parallel and fmt.tools.blocks is None else 1, _LETTERS + _QUOTES)
        prompt = fmt.render([user("hi")], tools=tools)
        if fmt.reasoning and fmt.reasoning.start.strip() in prompt.generation_prompt:
            prompt = Prompt(prompt.text, fmt.turn.content_start)
        said = Message("assistant", tool_calls=tuple(calls))
        if wrong := _difference(fmt, tools, prompt, write_calls(fmt.tools, calls), said):
            yield f"our writer: {wrong}"


def try_template(path: Path, count: int = 6) -> Report:
    """Try one template."""
    report = Report(path.stem)
    began = time.process_time()
    try:
        fmt = ChatFormat.from_template(path.read_text(encoding="utf-8"), "<s>", "</s>")
    except LLMMagicsError as error:
        report.refused = str(error)
        return report
    report.seconds = time.process_time() - began
    for scenario in SCENARIOS:
        try:
            text = fmt.render(scenario.messages, tools=scenario.tools).text
        except LLMMagicsError as error:
            report.refused = f"{scenario.name}: {error}"
            continue
        lost = [word for word in scenario.words.split() if word not in text]
        report.lost_words += [f"{scenario.name}: {word}" for word in lost]
    try:
        report.unread = list(_unread(fmt, path.stem, count))
        report.proof = proof_of_loss(fmt) if report.unread else ""
    except LLMMagicsError as error:
        report.refused = str(error)
    return report


def main(arguments: list[str] | None = None) -> int:
    """Run from the command line; the exit code is 0 only where every template passes."""
    parser = argparse.ArgumentParser(prog="python -m tests.smoke", description=__doc__.partition("\n")[0])
    parser.add_argument("directory", type=Path, help="directory of *.jinja files")
    parser.add_argument("--only", default="", metavar="TEXT", help="templates with this in their name")
    parser.add_argument("--count", type=int, default=6, help="random messages of each kind (default: 6)")
    options = parser.parse_args(arguments)
    reports = [try_template(p, options.count) for p in sorted(options.directory.glob("*.jinja")) if options.only in p.name]
    for report in reports:
        for problem in [*report.lost_words, *report.unread[:2]]:
            print(f"{report.name}: {problem[:600]}")
        if report.proof:
            print(f"{report.name}: the template loses calls itself: {report.proof}")
        elif report.refused:
            print(f"{report.name}: refused: {report.refused}")
    slowest = max(reports, key=lambda r: r.seconds, default=None)
    failed = [r.name for r in reports if not r.passed]
    print(f"{len(reports)} templates, {len(failed)} failed, {sum(bool(r.proof) for r in reports)} lose calls themselves")
    if slowest is not None:
        print(f"slowest analysis: {slowest.seconds:.2f} s ({slowest.name})")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
