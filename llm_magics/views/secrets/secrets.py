"""Masks likely secrets, such as keys and passwords that a tool read, in transcripts that are shown and saved.

The conversation in the kernel's memory is not masked, nor is a question that waits for approval (see the page's link).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from llm_magics.segments import Ask, NoticeSegment, ReasoningSegment, Segment, Step, TextSegment, ToolSegment
from llm_magics.transcript import Transcript

from .secret_text import BLOCK, MASK, masked_data, masked_shapes, masked_text

__all__ = ["MASK", "Masking", "masked", "masked_data", "masked_segment", "masked_text"]


def masked(transcript: Transcript) -> Transcript:
    """Mask the transcript's prompt, calls, settings and record; the same object if there is nothing to mask."""
    segments = tuple(_segment(segment) for segment in transcript.segments)
    prompt, settings = masked_shapes(transcript.prompt), masked_data(transcript.settings)
    hidden = {old.step for new, old in zip(segments, transcript.segments, strict=True) if _words(new) != _words(old)}
    steps = tuple(_step(step, at in hidden) for at, step in enumerate(transcript.steps))
    if prompt != transcript.prompt or segments != transcript.segments:
        steps = tuple(_unhashed(step, "messages") for step in steps)
    if settings != transcript.settings:
        steps = tuple(_unhashed(step, "system") for step in steps)
    new = replace(transcript, prompt=prompt, segments=segments, steps=steps, settings=settings)
    return transcript if new == transcript else new


class Masking:
    """Masks a growing transcript; unchanged segments, and whole lines of a growing text, are masked only once."""

    def __init__(self) -> None:
        self._known: dict[int, tuple[Segment, Segment]] = {}
        self._prompt = ("", "")
        self._lines: dict[int, tuple[str, str]] = {}  # whole lines of a text segment, plain and masked

    def __call__(self, transcript: Transcript) -> Transcript:
        segments = []
        for at, segment in enumerate(transcript.segments):
            known = self._known.get(at)
            if known is None or known[0] is not segment:
                new = self._text(at, segment) if isinstance(segment, (TextSegment, ReasoningSegment)) else _segment(segment)
                known = self._known[at] = (segment, new)
            segments.append(known[1])
        if self._prompt[0] != transcript.prompt:
            self._prompt = (transcript.prompt, masked_shapes(transcript.prompt))
        prompt = self._prompt[1]
        same = prompt == transcript.prompt and all(a is b for a, b in zip(segments, transcript.segments, strict=True))
        return transcript if same else replace(transcript, prompt=prompt, segments=tuple(segments))

    def _text(self, at: int, segment: TextSegment | ReasoningSegment) -> Segment:
        """Mask a text; only a key's block spans lines."""
        lines, shown = self._lines.get(at, ("", ""))
        if not segment.text.startswith(lines):
            lines = shown = ""
        rest = segment.text[len(lines) :]
        block = rest.find(BLOCK)
        cut = rest.rfind("\n", 0, block if block >= 0 else len(rest)) + 1
        if cut:
            shown += masked_shapes(rest[:cut])
            self._lines[at] = (segment.text[: len(lines) + cut], shown)
        text = shown + masked_shapes(rest[cut:])
        return segment if text == segment.text else replace(segment, text=text)


def _segment(segment: Segment) -> Segment:
    if isinstance(segment, ToolSegment):
        return masked_segment(segment)
    text = masked_text(segment.text) if isinstance(segment, NoticeSegment) else masked_shapes(segment.text)
    return segment if text == segment.text else replace(segment, text=text)


def masked_segment(segment: ToolSegment) -> ToolSegment:
    """Mask a call and its results; the same object if there is nothing to mask."""
    new = replace(
        segment,
        arguments=masked_text(segment.arguments),
        source=masked_text(segment.source),
        ask=segment.ask and _ask(segment.ask),
        printed=masked_text(segment.printed),
        result=segment.result and masked_text(segment.result),
        outputs=tuple(masked_data(output) for output in segment.outputs),
        warnings=tuple(masked_text(warning) for warning in segment.warnings),
    )
    return segment if new == segment else new


def _ask(ask: Ask) -> Ask:
    """Mask a question. A masked one loses its digest, which would allow guessing the secret."""
    shown = masked_text(ask.shown)
    return Ask(shown, ask.digest if shown == ask.shown else "", masked_text(ask.reason))


def _words(segment: Segment) -> str:
    return segment.arguments if isinstance(segment, ToolSegment) else segment.text


def _step(step: Step, hidden: bool) -> Step:
    """Mask a step's record. Masked texts lose their token ids, which spell them out, and their hashes, which allow guessing.
    ``hidden``: a text that the model wrote in this step was masked."""
    record, recording = masked_data(step.record), masked_data(step.recording)
    if record is step.record and recording is step.recording and not hidden:
        return step
    gone = set()
    if recording.get("prompt") != step.recording.get("prompt"):
        gone |= {"prompt_token_ids", "prompt_hash"}
    spelled = hidden or recording.get("text") != step.recording.get("text")
    if spelled:
        gone.add("logprobs")
    recording = {key: value for key, value in recording.items() if key not in gone}
    new = replace(step, record=record, recording=recording, token_ids=() if spelled else step.token_ids)
    return new if record is step.record else _unhashed(new, "settings")


def _unhashed(step: Step, name: str) -> Step:
    """Remove one hash of the request, because the hashed text was masked."""
    request = step.record.get("request")
    if not isinstance(request, Mapping) or name not in request:
        return step
    rest = {key: value for key, value in request.items() if key != name}
    return replace(step, record={**step.record, "request": rest})
