"""Find how a turn is framed, by rendering the same answer alone, with a call and in the middle of a conversation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from llm_magics.chat.syntax.compare import after, between, common_prefix, loose_prefix, safe_suffix, without_prefix
from llm_magics.chat.syntax.tags import leading_tags, tags, whole_tags
from llm_magics.messages import Message, ToolCall, ToolSpec

from .probe import Probe

USER = Message("user", "quserword")
USER_AGAIN = Message("user", "quseragain")
ANSWER = Message("assistant", "qanswerword")
TOOL = ToolSpec("qprobetool", "qprobetext", {"type": "object", "properties": {"qprobekey": {"type": "string"}}})
CALLING = Message("assistant", "", tool_calls=(ToolCall("qprobetool", '{"qprobekey": "qprobeval"}', "qprobe001"),))


@dataclass(frozen=True, slots=True)
class Frame:
    """What a template writes at a turn's edges."""

    prompt_on: str  # the generation prompt with thinking on
    prompt_off: str  # the generation prompt with thinking off
    head: str  # the text between the generation prompt and a plain answer
    ends: tuple[str, ...]  # texts that may follow a plain answer
    opener: str = ""  # the opener of each turn, if the template has no generation prompt

    def turn_of(self, probe: Probe, messages: Sequence[Message], tools: Sequence[ToolSpec] = ()) -> str:
        """The assistant's turn as the template writes it: from the generation prompt's start to the end of the text."""
        asked = probe.text(messages[:1], tools, add_generation_prompt=False, **probe.repairs.thinking(True))
        text = probe.text(messages, tools, add_generation_prompt=False, **probe.repairs.thinking(True))
        word = messages[0].text  # a template may rewrite an answered question: compare what stands behind the question
        before, behind = (said.rpartition(word)[2] for said in (asked, text))
        turn = behind[len(whole_tags(common_prefix(before, behind), behind)) :]
        lead = len(turn) - len(turn.lstrip())
        return turn[lead + len(self.opener) :] if self.opener and turn.startswith(self.opener, lead) else turn

    def body_of(self, probe: Probe, messages: Sequence[Message], tools: Sequence[ToolSpec] = ()) -> str:
        """The turn without the part that the generation prompt writes."""
        return self.strip_opener(self.turn_of(probe, messages, tools))

    def strip_opener(self, turn: str) -> str:
        """A turn's text without its opener, which is all or part of the generation prompt."""
        if turn.startswith(self.prompt_on):
            return turn[len(self.prompt_on) :]
        shared = whole_tags(common_prefix(turn, self.prompt_on), turn)
        if shared.strip():
            return turn[len(shared) :]
        loose = loose_prefix(turn, self.prompt_on)
        return turn[loose:] if loose else without_prefix(turn, self.prompt_on)


def find_frame(probe: Probe) -> Frame:
    """Render a question and a plain answer, and read the edges off.

    e.g. of ``<|{{ m.role }}|>{{ m.content }}<|end|>``: prompt ``<|assistant|>``, head "", end ``<|end|>``.
    """
    prompts = [probe.generation_prompt(probe.repairs.thinking(on)) for on in (True, False)]
    frame = Frame(prompts[0], prompts[1], "", ())
    if not prompts[0].strip() and probe.repairs.calls == "template":
        frame = replace(frame, opener=_opener(probe, frame))
    turn = frame.turn_of(probe, [USER, ANSWER])
    head = frame.strip_opener(turn[: turn.find(ANSWER.text)]) if ANSWER.text in turn else ""
    last = after(turn, ANSWER.text)
    continued = probe.text([USER, ANSWER, USER_AGAIN], add_generation_prompt=False, **probe.repairs.thinking(True))
    gap = between(continued, ANSWER.text, USER_AGAIN.text) or ""
    middle = gap[: len(gap) - len(safe_suffix(gap, continued[: continued.find(USER.text)]))]
    ends = [_tags_only(end, prompts[0]) for end in (last, middle)]
    return replace(frame, head=head, ends=tuple(dict.fromkeys(e for e in ends if e.strip())))


def _opener(probe: Probe, frame: Frame) -> str:
    """The first tag of both an answer and a call, e.g. ``[/INST]`` of ``{{ '[/INST]' if m.role == 'assistant' }}``."""
    turns = [frame.turn_of(probe, [USER, said], tools).lstrip() for said, tools in ((ANSWER, ()), (CALLING, [TOOL]))]
    shared = common_prefix(*turns) if all(turns) else ""
    first = (tags(shared) or [""])[0]
    return first if shared.startswith(first) else ""


def _tags_only(end: str, prompt: str) -> str:
    """What ends a turn, without the instructions that a template adds behind it and without the next turn's opener."""
    kept = end[: leading_tags(end)] or end
    opener = (tags(prompt) or [""])[0]
    at = kept.find(opener, 1) if opener else -1
    return kept[:at] if at > 0 else kept
