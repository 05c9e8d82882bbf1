"""Find tags in text, whatever their brackets: ``<think>``, ``[INST]``, ``◁call▷``, ``«end»``, ``¤call¤``.

Templates frame words with a pair of mirrored signs, or with one sign on both sides. Two characters are a pair if their Unicode
names differ only in LEFT and RIGHT, or LESS-THAN and GREATER-THAN. Round and curly brackets and quotes make no tags: JSON and
prose use them.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from functools import lru_cache

_NO_TAGS = frozenset("(){}")  # brackets of JSON, of calls and of prose
_MIRRORED = (("LEFT", "RIGHT"), ("LESS-THAN", "GREATER-THAN"))
_INNER = frozenset("｜▁│")  # signs that stand inside tags, e.g. <｜tool▁sep｜>
_LONG = 300  # no tag is longer
_WORD_BEFORE = re.compile(r"\w*\Z")
_WORD_AFTER = re.compile(r"\w*")


@lru_cache(maxsize=4096)
def closer_of(sign: str) -> str:
    """The mirror image of a sign that opens a tag, e.g. ``>`` of ``<``; the sign itself if it has no sides; else ""."""
    if sign.isalnum() or sign.isspace() or sign in _NO_TAGS or sign in _INNER:
        return ""
    name = unicodedata.name(sign, "")
    for left, right in _MIRRORED:
        if left in name:
            try:
                return unicodedata.lookup(name.replace(left, right, 1))
            except KeyError:
                return ""
        if right in name:
            return ""
    return sign if ord(sign) > 127 and unicodedata.category(sign) in ("So", "Sc", "Sm") else ""


@lru_cache(maxsize=1024)
def _pattern(signs: frozenset[str]) -> re.Pattern[str] | None:
    """One tag whose opening sign is among these."""
    choices = []
    for sign in sorted(signs):
        a, b = re.escape(sign), re.escape(closer_of(sign))
        if sign == "[":  # the square brackets of prose and JSON have blanks in them
            choices.append(r"\[[^\[\]\s]*\]")
        elif a == b:
            choices.append(rf"{a}(?=[^{a}\s]*\w)[^{a}\s]+{a}")
        else:
            choices.append(rf"{a}[^{a}{b}\n]*{b}")
    return re.compile("|".join(choices)) if choices else None


def _pattern_for(text: str) -> re.Pattern[str] | None:
    return _pattern(frozenset(c for c in set(text) if closer_of(c)))


def tags(text: str) -> list[str]:
    """The tags of a text in order, e.g. ``["<think>", "</think>"]``."""
    return [text[a:b] for a, b in tag_spans(text)]


def tag_spans(text: str) -> list[tuple[int, int]]:
    """Where the tags of a text stand."""
    pattern = _pattern_for(text)
    return [m.span() for m in pattern.finditer(text)] if pattern else []


def leading_tags(text: str) -> int:
    """Where the tags at a text's beginning end, with the layout and the framed word between them."""
    at = 0
    for start, end in tag_spans(text):
        between = text[at:start]
        if between.strip() and not (at and re.fullmatch(r"\w+", between)):
            break
        at = end
    return at + len(text[at:]) - len(text[at:].lstrip()) if at else 0


def is_tag(text: str) -> bool:
    """Whether a text is one tag and nothing else."""
    return tag_spans(text) == [(0, len(text))] != [(0, 0)]


def opens_tag(sign: str) -> bool:
    """Whether a tag may begin with this sign."""
    return bool(sign) and bool(closer_of(sign))


@lru_cache(maxsize=4096)
def marks(marker: str) -> tuple[str, ...]:
    """The pieces of a marker between which a model may write layout: parts without white space, each with at most one tag.

    e.g. ``</arg_key><arg_value>`` is two pieces; ``<function=`` and ``[{"name"`` are one each.
    """
    pieces = []
    for run in marker.split():
        at = 0
        for _, end in tag_spans(run):
            if at < end < len(run) and _begins_tag(run, end):
                pieces.append(run[at:end])
                at = end
        pieces.append(run[at:])
    return tuple(pieces)


def _begins_tag(text: str, at: int) -> bool:
    """Whether a tag begins here, complete (``<b>``) or not (``<function=``): a sign, at most one more, then a word."""
    if not opens_tag(text[at]):
        return False
    inside = text[at + 1 : at + 2]
    behind = at + 1 if inside.isalnum() else at + 2
    return not opens_tag(inside) and text[behind : behind + 1].isalnum()


def told_apart(marker: str, others: Iterable[str]) -> tuple[str, ...]:
    """A marker's pieces, the first so long that no other marker contains it.

    e.g. ``<|sep|><|open|>argument`` stays one piece if the call ends with ``<|sep|><|close|>call``.
    """
    pieces = list(marks(marker))
    size = len(marks(marker.split()[0])) if marker.strip() else 0
    held = [other for other in others if other.strip() != marker.strip()]
    while size > 1 and any(pieces[0] in other for other in held):
        pieces[:2] = [pieces[0] + pieces[1]]
        size -= 1
    return tuple(pieces)


def closing(tag: str) -> str:
    """The tag that would close ``tag``: ``<think>`` gives ``</think>``, ``<|a|>`` gives ``<|/a|>``; "" for other text."""
    match = re.match(r"[^\w\s/]+", tag)
    return tag[: match.end()] + "/" + tag[match.end() :] if match and is_tag(tag) else ""


def opening(tag: str) -> str:
    """The tag that ``tag`` closes, or ""."""
    return tag.replace("/", "", 1) if "/" in tag else ""


def inside(text: str, at: int) -> tuple[int, int]:
    """How far a cut inside a tag or word is from its left and right edges; zeros for a cut elsewhere."""
    left, right = _WORD_BEFORE.search(text, max(0, at - _LONG), at), _WORD_AFTER.match(text, at, at + _LONG)
    if left and right and left.group() and right.group():
        return len(left.group()), len(right.group())
    window = max(0, at - _LONG)
    near = text[window : at + _LONG]
    pattern = _pattern_for(near)
    if pattern is None:
        return 0, 0
    for opened in {c for c in set(near) if closer_of(c)}:
        if closer_of(opened) == opened:
            continue
        start = near.rfind(opened, 0, at - window)
        tag = pattern.match(near, start) if start >= 0 else None
        if tag and tag.end() > at - window:
            return at - window - start, tag.end() - (at - window)
    around = next((m for m in pattern.finditer(near) if m.start() < at - window < m.end()), None)
    return (at - window - around.start(), around.end() - (at - window)) if around else (0, 0)


def whole_tags(prefix: str, text: str) -> str:
    """Shorten a beginning of ``text`` so that it ends inside no tag."""
    if not text[len(prefix) :]:
        return prefix
    tail = max((prefix.rfind(c) for c in set(prefix) if closer_of(c) not in ("", c)), default=-1)
    if tail >= 0 and not re.search(r"\s", prefix[tail:]) and closer_of(prefix[tail]) not in prefix[tail:]:
        return prefix[:tail]
    for sign in {c for c in prefix if closer_of(c) == c}:  # a sign without sides opens a tag if its count is odd
        at = prefix.rfind(sign)
        if prefix.count(sign) % 2 and not re.search(r"\s", prefix[at:]):
            return prefix[:at]
    return prefix
