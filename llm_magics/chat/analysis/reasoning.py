"""Ways of reasoning: how a template marks the model's thoughts, each way as one value.

A way is a :class:`ReasoningSyntax`, or a subclass for another structure. All that depends on the way is in it: the markers and
the opened thought for the parser, the grammar for the constraint, the text around a thought for the renderer. Analysis asks the
finders in turn; :func:`register` adds one::

    register(lambda probe, frame: MyWay(...) if ... else None)
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TypeAlias

import jinja2

from llm_magics.chat.grammar.text import GrammarWriter, as_regex
from llm_magics.chat.syntax.compare import between, common_prefix, common_suffix
from llm_magics.chat.syntax.syntax import BlockSyntax
from llm_magics.chat.syntax.tags import closing, is_tag, opening, opens_tag, tag_spans, tags, whole_tags
from llm_magics.chat.template.environment import TemplateEnvironment
from llm_magics.messages import Message

from .frame import ANSWER, CALLING, TOOL, USER, USER_AGAIN, Frame
from .probe import Probe

THOUGHT = "qthoughtword"


@dataclass(frozen=True, slots=True)
class ReasoningSyntax:
    """Thoughts stand between ``start`` and ``end``, once or several times; without both there is no reasoning."""

    start: str = ""  # e.g. "<think>\n"
    end: str = ""  # e.g. "\n</think>\n\n"
    field: str = ""  # e.g. "reasoning_content": the message key in which the template takes reasoning back, if any
    then: str = ""  # e.g. "<|start|>assistant": the opener of the next block, if a thought is a block of its own
    derived: str = ""  # how it was found, e.g. "the generation prompt opens it"

    def __bool__(self) -> bool:
        return bool(self.start.strip() or self.end.strip())

    @property
    def openers(self) -> tuple[str, ...]:
        """Markers that begin a thought, also as models stutter them, e.g. ``<|channel><|channel>thought``."""
        start = self.start.strip()
        first, end = next(iter(tag_spans(start)), (-1, 0))
        return (start, start[:end] + start) if first == 0 and end < len(start) else (start,) if start else ()

    @property
    def closers(self) -> tuple[str, ...]:
        """Markers that end a thought, the marker of ``end`` first."""
        return (self.end.strip(),) if self.end.strip() else ()

    def is_mention(self, *, in_sentence: bool, in_line: bool) -> bool:
        """Whether a marker in the content, behind other text of its sentence or line, is only mentioned."""
        return in_sentence

    def begun(self, generation_prompt: str) -> str | None:
        """What the prompt has written of a thought that it leaves open, e.g. "" for ``<|assistant|><think>``; or None."""
        _, marker, behind = generation_prompt.rpartition(self.start.strip()) if self.start.strip() else ("", "", "")
        return behind if marker and self.closers and not any(closer in behind for closer in self.closers) else None

    def header(self, header_end: str) -> str:
        """What a block's header says if the block is a thought, e.g. ``<|channel|>analysis``; "" if headers do not say it."""
        return self.start.removesuffix(header_end) if self.start.endswith(header_end) else ""

    def rule(self, writer: GrammarWriter, *, opened: bool, answers: bool = False) -> str:
        """A thought, the rest of an opened one, or the closer alone, before calls or, with ``answers``, before an answer."""
        closers = self.closers[:1] if answers else self.closers
        if not closers:
            return ""
        rest = f"{writer.until(*closers)} {writer.gap}"
        alone = " | ".join(f"{writer.marker(closer)} {writer.gap}" for closer in closers)
        return rest if opened else f"{writer.gap} ({writer.marker(self.start)} {rest} | {alone})?"

    def terminal(self, *, opened: bool) -> str:
        """The same as part of a terminal: the lexer would read past the markers of a rule as plain text."""
        if not self.closers:
            return ""
        end = "|".join(map(as_regex, self.closers))
        rest = f"(/(?s:.*)/ & ~/(?s:.*)({end})(?s:.*)/) /({end})/"
        return rest if opened else rf"(/\s*{as_regex(self.start.strip())}/ {rest})?"

    def in_blocks(self, writer: GrammarWriter, blocks: BlockSyntax, call_end: str) -> str:
        """Blocks of thoughts before the block of a call: header, text, end, and the next block's start."""
        header = self.header(blocks.header_end)
        ends = [writer.until(end) for end in map(str.strip, blocks.ends) if end and end != call_end.strip()]
        if not header.strip() or not ends:
            return ""
        one = f"{writer.marker(header)} {writer.header_until(blocks.header_end)} ({' | '.join(ends)}) {writer.gap}"
        return writer.rule(f"({one} {writer.marker(blocks.start)})?", "think")

    @property
    def shut(self) -> str:
        """The text between a thought and the following text."""
        return self.end + self.then

    def opened_at(self, generation_prompt: str) -> int:
        """Where the prompt opens or skips a thought, including its layout; its length if the prompt does neither."""
        at = generation_prompt.rfind(self.start.strip())
        if at < 0:
            return len(generation_prompt)
        lead = self.start[: len(self.start) - len(self.start.lstrip())]
        return at - len(lead) if lead and generation_prompt[:at].endswith(lead) else at


NO_REASONING = ReasoningSyntax()

Finder: TypeAlias = Callable[[Probe, Frame], ReasoningSyntax | None]
_registered: list[Finder] = []


def register(find: Finder) -> None:
    """Ask ``find`` before all other finders. It may render with the probe, and returns None for a template of another way."""
    _registered.insert(0, find)


@contextmanager
def registered(find: Finder) -> Iterator[None]:
    """Know a finder inside a ``with`` block."""
    register(find)
    try:
        yield
    finally:
        _registered.remove(find)


def finders() -> tuple[Finder, ...]:
    """All finders in the order in which they are asked: a written thought shows the most."""
    return (*_registered, _from_field, _from_prompts, _from_skipped, _from_instructions, _from_cutting)


def _from_field(probe: Probe, frame: Frame) -> ReasoningSyntax | None:
    """The template writes a thought, e.g. ``{{ '<think>' ~ m.reasoning_content ~ '</think>' ~ m.content }}``."""
    field = probe.repairs.reasoning
    if not field:
        return None
    said = frame.turn_of(probe, [USER, replace(ANSWER, reasoning=THOUGHT)])
    called = frame.turn_of(probe, [USER, replace(CALLING, reasoning=THOUGHT)], [TOOL])
    turn = said if THOUGHT in said else called
    if THOUGHT not in turn:
        return None
    unthought = frame.turn_of(probe, [USER, ANSWER] if turn is said else [USER, CALLING], () if turn is said else [TOOL])
    start = _without_opener(turn[: turn.find(THOUGHT)], frame, unthought)
    if not start.strip():
        return None
    end = _end_after_thought(frame, start, said, called, unthought)
    again = end.find(frame.prompt_on) if frame.prompt_on.strip() else -1  # each block of a turn may be opened again
    end, then = (end[:again], end[again:]) if again > 0 else (end, "")
    return ReasoningSyntax(start, end, field, then, f"the template writes {field}") if end.strip() else None


def _without_opener(start: str, frame: Frame, unthought: str) -> str:
    """The text before a thought, without the turn's opener, e.g. ``<think>`` of ``<|assistant|><think>``."""
    rest = start.removeprefix(frame.prompt_on)
    if rest.strip() and rest != start:
        return rest
    plain = whole_tags(common_prefix(start, unthought), start)
    return start[len(plain) :] if start[len(plain) :].strip() else _last_marker(start)


def _last_marker(text: str) -> str:
    """The last marker of a text: its last tag with the layout around it, or two tags that frame a word (``<|a|>x<|b|>``)."""
    spans = tag_spans(text)
    if not spans or text[spans[-1][1] :].strip():
        return text.rpartition("\n")[2]
    pair = len(spans) > 1 and re.fullmatch(r"\w+", text[spans[-2][1] : spans[-1][0]])
    return text[spans[-2 if pair else -1][0] :]


def _end_after_thought(frame: Frame, start: str, said: str, called: str, unthought: str) -> str:
    """The end of a thought: the closer in a prompt without thinking, else the text before the answer or the call.

    e.g. ``</think>`` and a line break of ``<think>{{ m.reasoning }}</think>\\n{{ m.content }}``.
    """
    off = frame.prompt_off.rpartition(start.strip())[2] if start.strip() in frame.prompt_off else ""
    shut = closing(start.strip())
    worded = bool(shut) and shut in off and off.partition(shut)[0].strip()  # the skipped thought has text of its own
    skipped = off.strip() and not worded and frame.prompt_off.rstrip() != frame.prompt_on.rstrip()
    to_answer = between(said, THOUGHT, ANSWER.text)
    word = next((w for w in (TOOL.name, CALLING.tool_calls[0].id) if w in called), TOOL.name)
    to_call = between(called, THOUGHT, word)
    if skipped:
        return off.removeprefix(start[len(start.rstrip()) :])
    if to_answer is not None:
        return _without_content_start(frame, start, to_answer)
    if to_call is None:
        return ""
    plain = common_suffix(to_call, unthought[: unthought.find(word)])
    return to_call[: len(to_call) - len(plain)] or (tags(to_call) or [""])[0]


def _without_content_start(frame: Frame, start: str, text: str) -> str:
    """``</think><answer>`` without ``<answer>``, which the frame shows if no thought comes first."""
    opened = frame.prompt_off[len(whole_tags(common_prefix(frame.prompt_on, frame.prompt_off), frame.prompt_off)) :]
    for content in (_whole_from_tag(frame.prompt_off, opened), frame.head):
        before = text.removesuffix(content)
        if content.strip() and before.strip() and before != text and start.strip() not in content:
            return before
    return text


def _whole_from_tag(text: str, tail: str) -> str:
    """A tail of ``text``, extended to the start of the tag that it continues (``<|open|>think`` differs inside)."""
    at = len(text) - len(tail)
    last = next(reversed(tag_spans(text[:at])), None) if tail and not opens_tag(tail[0]) else None
    return text[last[0] :] if last and re.fullmatch(r"\w*", text[last[1] : at]) else tail


def _from_prompts(probe: Probe, frame: Frame) -> ReasoningSyntax | None:
    """The generation prompt opens or skips a thought, e.g. ``<|assistant|><think>{% if not thinking %}</think>{% endif %}``."""
    on, off = frame.prompt_on, frame.prompt_off
    skipped = off[len(on) :] if off.startswith(on) else ""
    if skipped and (found := _empty_thought(skipped)):
        return replace(found, derived="the generation prompt skips it")
    opened, shut = _last_marker(on), _last_marker(off)
    if on.strip() and closing(opened.strip()) == shut.strip() != "":
        end = off[len(on) :] if off.startswith(on) else shut
        return ReasoningSyntax(opened, end, derived="the generation prompt opens or skips it")
    for text in (frame.turn_of(probe, [USER, ANSWER]), frame.turn_of(probe, [USER, CALLING], [TOOL])):
        opened = on[len(whole_tags(common_prefix(on, text), on)) :]
        always = probe.text([USER], add_generation_prompt=False).rstrip().endswith(opened.strip())  # then it opens no turn
        if text and is_tag(opened.strip()) and opened != on and not always:
            end = _cut_by_template(probe, opened.strip()) or closing(opened.strip())
            return ReasoningSyntax(opened, end, derived="the generation prompt opens it")
    return None


def _empty_thought(text: str) -> ReasoningSyntax | None:
    """The markers of an empty thought, each with half of the layout between them, e.g. ``<think>\\n\\n</think>``."""
    pair = tags(text)
    if len(pair) < 2 or closing(pair[0]) != pair[1]:
        return None
    inside, _, rest = text.partition(pair[1])
    at = inside.find(pair[0]) + len(pair[0])
    at += len(inside[at:]) // 2
    return ReasoningSyntax(inside[:at], inside[at:] + pair[1] + rest)


def _from_skipped(probe: Probe, frame: Frame) -> ReasoningSyntax | None:
    """Without a generation prompt, the text ends with an empty thought: ``{% if not thinking %}[THINK][/THINK]{% endif %}``."""
    on, off = (probe.text([USER], **probe.repairs.thinking(flag)) for flag in (True, False))
    behind = off[len(on) :] if on and off.startswith(on) else ""
    spans = tag_spans(behind)
    found = _empty_thought(behind[: spans[1][1]]) if len(spans) == 2 else None
    return replace(found, derived="the template skips it") if found else None


def _from_cutting(probe: Probe, frame: Frame) -> ReasoningSyntax | None:
    """The template cuts off an answer's beginning up to a tag, e.g. ``{{ m.content.split('</think>')[-1] }}``."""
    end = _cut_by_template(probe, "")
    start = opening(end)
    return ReasoningSyntax(start, end, derived="the template cuts it off from earlier answers") if start else None


def _cut_by_template(probe: Probe, start: str) -> str:
    """The string constant up to which the template cuts answers off, or ""."""
    for constant in _constants(probe.source):
        if not opening(constant) or opening(constant) == constant or (start and constant != closing(start)):
            continue
        said = Message("assistant", f"qcutword{constant}qkeptword")
        for later in ((), (USER_AGAIN, ANSWER)):
            text = probe.text([USER, said, *later], add_generation_prompt=False)
            if "qkeptword" in text and "qcutword" not in text:
                return constant
    return ""


def _constants(source: str) -> list[str]:
    """The template's string constants that are one tag, e.g. ``'</think>'``."""
    constants = TemplateEnvironment().parse(source).find_all(jinja2.nodes.Const)
    return sorted({c.value for c in constants if isinstance(c.value, str) and is_tag(c.value)})


def _from_instructions(probe: Probe, frame: Frame) -> ReasoningSyntax | None:
    """Only with thinking on, the template names a pair of tags: ``{% if thinking %}Think inside <t> and </t>.{% endif %}``."""
    on, off = (probe.text([USER], **probe.repairs.thinking(flag)) for flag in (True, False))
    for tag in tags(on):
        if tag not in off and closing(tag) in on and closing(tag):
            return ReasoningSyntax(tag, closing(tag), derived="the instructions name it")
    return None
