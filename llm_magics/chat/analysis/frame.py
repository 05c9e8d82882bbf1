"""Find how a turn is framed and where reasoning stands, by rendering the same answer with and without."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

import jinja2

from llm_magics.chat.syntax.compare import (
    after,
    between,
    common_prefix,
    common_suffix,
    loose_prefix,
    safe_suffix,
    without_prefix,
)
from llm_magics.chat.syntax.syntax import ReasoningSyntax, TurnSyntax
from llm_magics.chat.syntax.tags import closing, is_tag, leading_tags, opening, opens_tag, tag_spans, tags, whole_tags
from llm_magics.chat.template.environment import TemplateEnvironment
from llm_magics.messages import Message, ToolCall, ToolSpec

from .probe import Probe

USER = Message("user", "quserword")
USER_AGAIN = Message("user", "quseragain")
ANSWER = Message("assistant", "qanswerword")
THOUGHT = "qthoughtword"
TOOL = ToolSpec("qprobetool", "qprobetext", {"type": "object", "properties": {"qprobekey": {"type": "string"}}})
CALLING = Message("assistant", "", tool_calls=(ToolCall("qprobetool", '{"qprobekey": "qprobeval"}', "qprobe001"),))
RESULT = Message("tool", "qresultword", tool_call_id="qprobe001", name="qprobetool")


@dataclass(frozen=True, slots=True)
class Frame:
    """What the turn's edges look like in the template's own text; the raw material of all else.

    ``prompt_on`` and ``prompt_off`` are the generation prompt with thinking on and off; ``head`` is what stands before a plain
    answer beyond the generation prompt, ``ends`` what may stand after one. ``opener`` opens each turn of a template that knows
    no generation prompt.
    """

    prompt_on: str
    prompt_off: str
    head: str
    ends: tuple[str, ...]
    opener: str = ""

    def turn_of(self, probe: Probe, messages: Sequence[Message], tools: Sequence[ToolSpec] = ()) -> str:
        """The assistant's turn as the template writes it: from the generation prompt's start to the end of the text."""
        asked = probe.text(messages[:1], tools, add_generation_prompt=False, **probe.repairs.thinking(True))
        text = probe.text(messages, tools, add_generation_prompt=False, **probe.repairs.thinking(True))
        word = messages[0].text  # a template may write a question otherwise once it is answered: compare what stands behind it
        before, behind = (said.rpartition(word)[2] for said in (asked, text))
        turn = behind[len(whole_tags(common_prefix(before, behind), behind)) :]
        lead = len(turn) - len(turn.lstrip())
        return turn[lead + len(self.opener) :] if self.opener and turn.startswith(self.opener, lead) else turn

    def body_of(self, probe: Probe, messages: Sequence[Message], tools: Sequence[ToolSpec] = ()) -> str:
        """The turn without the part that the generation prompt has written."""
        return self.strip_opener(self.turn_of(probe, messages, tools))

    def strip_opener(self, turn: str) -> str:
        """A turn's text without its opener, which is all or a part of the generation prompt."""
        if turn.startswith(self.prompt_on):
            return turn[len(self.prompt_on) :]
        shared = whole_tags(common_prefix(turn, self.prompt_on), turn)
        if shared.strip():
            return turn[len(shared) :]
        loose = loose_prefix(turn, self.prompt_on)
        return turn[loose:] if loose else without_prefix(turn, self.prompt_on)


def find_frame(probe: Probe) -> Frame:
    """Render a question and a plain answer, and read the edges off."""
    prompts = []
    for on in (True, False):
        prompts.append(probe.generation_prompt(probe.repairs.thinking(on)))
    frame = Frame(prompts[0], prompts[1], "", ())
    if not prompts[0].strip() and probe.repairs.calls == "template":
        frame = replace(frame, opener=_opener(probe, frame))
    turn = frame.turn_of(probe, [USER, ANSWER])
    head = frame.strip_opener(turn[: turn.find(ANSWER.text)]) if ANSWER.text in turn else ""
    last = after(turn, ANSWER.text)
    going_on = probe.text([USER, ANSWER, USER_AGAIN], add_generation_prompt=False, **probe.repairs.thinking(True))
    gap = between(going_on, ANSWER.text, USER_AGAIN.text) or ""
    middle = gap[: len(gap) - len(safe_suffix(gap, going_on[: going_on.find(USER.text)]))]
    ends = [_tags_only(end, prompts[0]) for end in (last, middle)]
    return replace(frame, head=head, ends=tuple(dict.fromkeys(e for e in ends if e.strip())))


def _opener(probe: Probe, frame: Frame) -> str:
    """The first tag of an answer and of a call alike, e.g. ``[/INST]`` where it depends on the answer how a question ends."""
    turns = [frame.turn_of(probe, [USER, said], tools).lstrip() for said, tools in ((ANSWER, ()), (CALLING, [TOOL]))]
    shared = common_prefix(*turns) if all(turns) else ""
    first = (tags(shared) or [""])[0]
    return first if shared.startswith(first) else ""


def _tags_only(end: str, prompt: str) -> str:
    """What ends a turn, without instructions that a template adds behind it and without the next turn's opener."""
    kept = end[: leading_tags(end)] or end
    opener = (tags(prompt) or [""])[0]
    at = kept.find(opener, 1) if opener else -1
    return kept[:at] if at > 0 else kept


# --- reasoning --------------------------------------------------------------------------------------------------------------


def find_reasoning(probe: Probe, frame: Frame) -> ReasoningSyntax | None:
    """Where reasoning stands, from the first of these that shows it: the template writes a thought; the generation prompt
    opens or skips one; the template cuts one off from an answer; the instructions name a pair of tags."""
    return (
        _from_field(probe, frame)
        or _from_prompts(probe, frame)
        or _from_instructions(probe)
        or _from_cutting(probe)
    )


def _from_field(probe: Probe, frame: Frame) -> ReasoningSyntax | None:
    field = probe.repairs.reasoning
    if not field:
        return None
    said = frame.turn_of(probe, [USER, replace(ANSWER, reasoning=THOUGHT)])
    called = frame.turn_of(probe, [USER, replace(CALLING, reasoning=THOUGHT)], [TOOL])
    turn = said if THOUGHT in said else called
    if THOUGHT not in turn:
        return None
    start = turn[: turn.find(THOUGHT)]
    unthought = frame.turn_of(probe, [USER, ANSWER] if turn is said else [USER, CALLING], () if turn is said else [TOOL])
    start = _without_opener(start, frame, unthought)
    if not start.strip():
        return None
    end, then = _split_reopening(frame, _end_after_thought(frame, start, said, called, unthought))
    return ReasoningSyntax(start, end, field, then, f"the template writes {field}") if end.strip() else None


def _without_opener(start: str, frame: Frame, unthought: str) -> str:
    """What stands before a thought, without the turn's opener."""
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
    off = frame.prompt_off.rpartition(start.strip())[2] if start.strip() in frame.prompt_off else ""
    shut = closing(start.strip())
    worded = bool(shut) and shut in off and off.partition(shut)[0].strip()  # a skipped thought that says that it is skipped
    skipped = off.strip() and not worded and frame.prompt_off.rstrip() != frame.prompt_on.rstrip()
    to_answer = between(said, THOUGHT, ANSWER.text)
    word = next((w for w in (TOOL.name, CALLING.tool_calls[0].id) if w in called), TOOL.name)
    to_call = between(called, THOUGHT, word)
    if skipped:
        layout = start[len(start.rstrip()) :]
        return off[len(layout) :] if off.startswith(layout) else off
    if to_answer is not None:
        return _without_content_start(frame, start, to_answer)
    if to_call is None:
        return ""
    plain = common_suffix(to_call, unthought[: unthought.find(word)])
    return to_call[: len(to_call) - len(plain)] or (tags(to_call) or [""])[0]


def _without_content_start(frame: Frame, start: str, text: str) -> str:
    """``end content_start`` without ``content_start``, which the frame shows where no thought comes before."""
    opened = frame.prompt_off[len(whole_tags(common_prefix(frame.prompt_on, frame.prompt_off), frame.prompt_off)) :]
    for content in (_whole_from_tag(frame.prompt_off, opened), frame.head):
        before = text.removesuffix(content)
        if content.strip() and before.strip() and before != text and start.strip() not in content:
            return before
    return text


def _whole_from_tag(text: str, tail: str) -> str:
    """A tail of ``text``, lengthened to the start of the tags that it continues (``<|open|>think`` differs inside)."""
    at = len(text) - len(tail)
    last = next(reversed(tag_spans(text[:at])), None) if tail and not opens_tag(tail[0]) else None
    return text[last[0] :] if last and re.fullmatch(r"\w*", text[last[1] : at]) else tail


def _split_reopening(frame: Frame, text: str) -> tuple[str, str]:
    """Cut off the turn's opener, which comes again where each block of a turn is opened anew."""
    at = text.find(frame.prompt_on) if frame.prompt_on.strip() else -1
    return (text[:at], text[at:]) if at > 0 else (text, "")


def _from_prompts(probe: Probe, frame: Frame) -> ReasoningSyntax | None:
    """The generation prompt opens a thought, or skips one when thinking is off."""
    on, off = frame.prompt_on, frame.prompt_off
    if off.startswith(on) and len(off) > len(on):
        skipped = off[len(on) :]
        pair = tags(skipped)
        if len(pair) >= 2 and closing(pair[0]) == pair[1]:
            start, _, rest = skipped.partition(pair[1])
            lead = start[: start.find(pair[0]) + len(pair[0])]
            layout = start[len(lead) :]
            half = layout[: len(layout) // 2]
            return ReasoningSyntax(lead + half, layout[len(half) :] + pair[1] + rest, derived="the generation prompt skips it")
    opened, shut = _last_marker(on), _last_marker(off)
    if on.strip() and closing(opened.strip()) == shut.strip() != "":
        skipped = off[len(on) :] if off.startswith(on) else shut
        return ReasoningSyntax(opened, skipped, derived="the generation prompt opens or skips it")
    for text in (frame.turn_of(probe, [USER, ANSWER]), frame.turn_of(probe, [USER, CALLING], [TOOL])):
        opened = on[len(whole_tags(common_prefix(on, text), on)) :]
        always = probe.text([USER], add_generation_prompt=False).rstrip().endswith(opened.strip())  # no turn is opened by it
        if text and is_tag(opened.strip()) and opened != on and not always:
            end = _cut_by_template(probe, opened.strip()) or closing(opened.strip())
            return ReasoningSyntax(opened, end, derived="the generation prompt opens it")
    return _from_skipped(probe)


def _from_skipped(probe: Probe) -> ReasoningSyntax | None:
    """A template without a generation prompt that ends its text with an empty thought when thinking is off."""
    on, off = (probe.text([USER], **probe.repairs.thinking(flag)) for flag in (True, False))
    behind = off[len(on) :] if on and off.startswith(on) else ""
    pair = tags(behind)
    if len(pair) != 2 or closing(pair[0]) != pair[1]:
        return None
    lead, _, rest = behind.partition(pair[0])
    layout = rest.partition(pair[1])[0]
    half = layout[: len(layout) // 2]
    return ReasoningSyntax(lead + pair[0] + half, layout[len(half) :] + pair[1], derived="the template skips it")


def _from_cutting(probe: Probe) -> ReasoningSyntax | None:
    """The template throws away an answer's beginning up to a tag of its own."""
    end = _cut_by_template(probe, "")
    start = opening(end)
    return ReasoningSyntax(start, end, derived="the template cuts it off from earlier answers") if start else None


def _cut_by_template(probe: Probe, start: str) -> str:
    """The string constant of the template, if any, up to which it cuts answers off."""
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
    """The template's string constants that are one tag."""
    try:
        tree = TemplateEnvironment().parse(source)
    except jinja2.TemplateError:
        return []
    found = {c.value for c in tree.find_all(jinja2.nodes.Const) if isinstance(c.value, str)}
    return sorted(c for c in found if is_tag(c))


def _from_instructions(probe: Probe) -> ReasoningSyntax | None:
    """With thinking on, the template tells the model of a pair of tags that it does not tell of otherwise."""
    on, off = (probe.text([USER], **probe.repairs.thinking(flag)) for flag in (True, False))
    for tag in tags(on):
        if tag not in off and closing(tag) in on and closing(tag):
            return ReasoningSyntax(tag, closing(tag), derived="the instructions name it")
    return None


# --- the turn ---------------------------------------------------------------------------------------------------------------


def find_turn(probe: Probe, frame: Frame, reasoning: ReasoningSyntax | None) -> TurnSyntax:
    """The frame of a plain answer: what opens and closes its content, and what ends the turn."""
    start = content_start(frame, reasoning)
    called = frame.turn_of(probe, [USER, CALLING], [TOOL]) if probe.repairs.calls == "template" else ""
    last = frame.ends[0] if frame.ends else ""
    end, content_end = last, ""
    if start:
        shared = common_suffix(called, last) if called else ""
        shared = last[_tag_start(last, len(last) - len(shared)) :]
        last_tag = (tags(start) or [""])[-1]
        if last_tag and shared.startswith(last_tag) and start.endswith(last_tag):
            shared = shared[len(last_tag) :]  # markers of this template end alike
        if shared.strip() and shared != last:
            content_end, end = last[: len(last) - len(shared)], shared
    return TurnSyntax(frame.prompt_on, start, content_end, end, tuple(e for e in frame.ends if e != last))


def content_start(frame: Frame, reasoning: ReasoningSyntax | None) -> str:
    """What stands between the generation prompt, or an empty thought, and a plain answer."""
    head = frame.head
    if reasoning is not None:
        for marker in (reasoning.end.strip(), reasoning.start.strip()):
            if marker and marker in head:
                return head.rpartition(marker)[2].strip() and head.rpartition(marker)[2]
    return head if head.strip() else ""


def _tag_start(text: str, at: int) -> int:
    return next((end for start, end in tag_spans(text) if start < at < end), at)
