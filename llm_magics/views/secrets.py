"""Keep what looks like a secret out of what is shown and saved: keys and passwords that a tool read or was given.

Two kinds of look: tokens whose form gives them away, and values beside a name that does. Only what people see and notebooks
keep is masked; the conversation itself, in the kernel's memory, stays as it was.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ..segments import Ask, NoticeSegment, ReasoningSegment, Segment, Step, TextSegment, ToolSegment
from ..transcript import Transcript

MASK = "•••"

_TOKEN = re.compile(
    r"""(?x)
    \b(?:sk|pk|rk)-[A-Za-z0-9_-]{16,}              # e.g. sk-proj-4f...
    | \b(?:ghp|gho|ghs|ghu|ghr)_[A-Za-z0-9]{20,}   # GitHub
    | \bgithub_pat_\w{20,}
    | \bglpat-[\w-]{16,}
    | \bhf_[A-Za-z0-9]{16,}
    | \b(?:AKIA|ASIA)[A-Z0-9]{16}\b                # AWS
    | \bAIza[\w-]{30,}                             # Google
    | \bxox[abeprs]-[A-Za-z0-9-]{10,}              # Slack
    | \beyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]{4,}         # a JSON web token
    | -----BEGIN[ ][A-Z ]*PRIVATE[ ]KEY-----(?:(?!-----END)[\s\S])*(?:-----END[ A-Z]*-----)?
    """
)
_BLOCK = "-----BEGIN "
_NAME = r"(?:pass(?:word|wd|phrase)?|pwd|secret|(?:api|access|private|auth|client)[_-]?(?:key|token|secret)|token|credentials?)"
# e.g. DB_PASSWORD=hunter2, "api_key": "abc", Authorization: Bearer abc, https://user:hunter2@host
_NAMED = re.compile(
    rf"""(?ix)
    (?P<before>
        \b[\w-]*{_NAME}\\?["']?\s*[:=]\s*\\?["']?
      | \bauthorization\\?["']?\s*[:=]\s*\\?["']?(?:bearer\s+|basic\s+)?
      | \b\w+://[^\s:/@"']*:(?=[^\s/@"']+@)
    )
    (?P<value>[^\s"'\\,;}}\])&@]{{3,}})
    """
)
_PLAIN = re.compile(r"(?i)(?:none|null|true|false|\d{1,5}|str|string|int|required|optional|\*+|•+)\Z")


def masked_text(text: str) -> str:
    """Replace what looks like a secret in ``text``."""
    return _NAMED.sub(_masked_value, _TOKEN.sub(MASK, text))


def _masked_value(found: re.Match[str]) -> str:
    return found[0] if _PLAIN.match(found["value"]) else found["before"] + MASK


def masked(transcript: Transcript) -> Transcript:
    """Mask the transcript's calls, and its whole record; the same object where there is nothing to mask."""
    segments = tuple(_segment(segment) for segment in transcript.segments)
    steps = tuple(_step(step) for step in transcript.steps)
    if segments == transcript.segments and steps == transcript.steps:
        return transcript
    return replace(transcript, segments=segments, steps=steps)


class Masking:
    """Masks a growing transcript: segments that did not change are not read again, nor whole lines of a text that grows."""

    def __init__(self) -> None:
        self._known: dict[int, tuple[Segment, Segment]] = {}
        self._lines: dict[int, tuple[str, str]] = {}  # whole lines of a text segment, as they are and masked

    def __call__(self, transcript: Transcript) -> Transcript:
        segments = []
        for at, segment in enumerate(transcript.segments):
            known = self._known.get(at)
            if known is None or known[0] is not segment:
                new = _segment(segment) if isinstance(segment, ToolSegment) else self._text(at, segment)
                known = self._known[at] = (segment, new)
            segments.append(known[1])
        changed = any(new is not old for new, old in zip(segments, transcript.segments, strict=True))
        return replace(transcript, segments=tuple(segments)) if changed else transcript


    def _text(self, at: int, segment: TextSegment | ReasoningSegment | NoticeSegment) -> Segment:
        """Mask a text; no secret but a key's block goes over the end of a line."""
        lines, shown = self._lines.get(at, ("", ""))
        if not segment.text.startswith(lines):
            lines = shown = ""
        rest = segment.text[len(lines) :]
        block = rest.find(_BLOCK)
        cut = rest.rfind("\n", 0, block if block >= 0 else len(rest)) + 1
        if cut:
            shown += _TOKEN.sub(MASK, rest[:cut])
            self._lines[at] = (segment.text[: len(lines) + cut], shown)
        text = shown + _TOKEN.sub(MASK, rest[cut:])
        return segment if text == segment.text else replace(segment, text=text)


def _segment(segment: Segment) -> Segment:
    if not isinstance(segment, ToolSegment):
        text = _TOKEN.sub(MASK, segment.text)
        return segment if text == segment.text else replace(segment, text=text)
    ask = segment.ask
    new = replace(
        segment,
        arguments=masked_text(segment.arguments),
        ask=ask and Ask(masked_text(ask.shown), ask.digest, masked_text(ask.reason)),
        printed=masked_text(segment.printed),
        result=segment.result and masked_text(segment.result),
        outputs=tuple(_data(output) for output in segment.outputs),
        warnings=tuple(masked_text(warning) for warning in segment.warnings),
    )
    return segment if new == segment else new


def _step(step: Step) -> Step:
    """Mask a step's record; token ids would spell a masked text out again, so they go with it."""
    record = _data(step.record)
    if record is step.record:
        return step
    return replace(step, record={key: value for key, value in record.items() if "token_ids" not in key}, token_ids=())


def _data(value: Any) -> Any:
    """Mask every text in JSON-able data, pictures aside; the same object where there is nothing to mask."""
    if isinstance(value, str):
        text = masked_text(value)
        return value if text == value else text
    if isinstance(value, Mapping):
        named = {key: item if str(key).startswith("image/") else _data(item) for key, item in value.items()}
        return value if all(named[key] is item for key, item in value.items()) else named
    if isinstance(value, (list, tuple)):
        items = [_data(item) for item in value]
        return value if all(new is old for new, old in zip(items, value, strict=True)) else items
    return value
