"""Compare texts of the same template: what they share at either end, cut so that no tag is cut in two."""

from __future__ import annotations

import re

_TAG = re.compile(r"<[^<>\n]*>|\[[^\[\]\s]*\]")
_WORD_BEFORE = re.compile(r"\w*\Z")
_WORD_AFTER = re.compile(r"\w*")
_LONG = 300  # no tag or word is longer


def common_prefix(*texts: str) -> str:
    """The longest text that all begin with."""
    first, last = min(texts), max(texts)
    same = (i for i, char in enumerate(first) if i >= len(last) or char != last[i])
    return first[: next(same, len(first))]


def common_suffix(*texts: str) -> str:
    """The longest text that all end with."""
    return common_prefix(*(t[::-1] for t in texts))[::-1]


def safe_suffix(*texts: str) -> str:
    """The longest common end that begins inside no tag and no word of any of the texts."""
    size = len(common_suffix(*texts))
    while size and (inside := max(_inside(t, len(t) - size)[1] for t in texts)):
        size = max(size - inside, 0)
    return texts[0][len(texts[0]) - size :]


def safe_prefix(*texts: str) -> str:
    """The longest common beginning that ends inside no tag and no word of any of the texts."""
    size = len(common_prefix(*texts))
    while size and (inside := max(_inside(t, size)[0] for t in texts)):
        size = max(size - inside, 0)
    return texts[0][:size]


def _inside(text: str, at: int) -> tuple[int, int]:
    """How far a cut is from the edges of the tag or word that it falls into, to the left and to the right; zeros for none."""
    left, right = _WORD_BEFORE.search(text, max(0, at - _LONG), at), _WORD_AFTER.match(text, at, at + _LONG)
    if left and right and left.group() and right.group():
        return len(left.group()), len(right.group())
    for opening in "<[":
        start = text.rfind(opening, max(0, at - _LONG), at)
        tag = _TAG.match(text, start, at + _LONG) if start >= 0 else None
        if tag and tag.end() > at:
            return at - start, tag.end() - at
    return 0, 0


def without_prefix(text: str, tail_of: str) -> str:
    """``text`` without the longest beginning that ``tail_of`` ends with."""
    for size in range(min(len(text), len(tail_of), _LONG), 0, -1):
        if tail_of.endswith(text[:size]):
            return text[size:]
    return text


def tags(text: str) -> list[str]:
    """The tags of a text in order, e.g. ``["<think>", "</think>"]``."""
    return _TAG.findall(text)


def closing(tag: str) -> str:
    """The tag that would close ``tag``: ``<think>`` gives ``</think>``, ``[THINK]`` gives ``[/THINK]``; "" for other text."""
    match = re.match(r"[<\[]+[|｜]?", tag)
    return tag[: match.end()] + "/" + tag[match.end() :] if match else ""


def opening(tag: str) -> str:
    """The tag that ``tag`` closes, or "" where it closes none."""
    return tag.replace("/", "", 1) if "/" in tag else ""


def between(text: str, first: str, second: str, start: int = 0) -> str | None:
    """What stands between two words, or None where they do not both come, in that order."""
    a = text.find(first, start)
    b = text.find(second, a + len(first)) if a >= 0 else -1
    return text[a + len(first) : b] if b >= 0 else None


def after(text: str, word: str) -> str:
    """What follows the last occurrence of a word; "" where it does not occur."""
    return text.rpartition(word)[2] if word in text else ""
