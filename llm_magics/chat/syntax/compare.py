"""Compare texts of one template: what they share at either end, without cutting a tag in two."""

from __future__ import annotations

from .tags import inside, whole_tags

_LONG = 300  # no repeated beginning is longer


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
    while size and (cut := max(inside(t, len(t) - size)[1] for t in texts)):
        size = max(size - cut, 0)
    return texts[0][len(texts[0]) - size :]


def safe_prefix(*texts: str) -> str:
    """The longest common beginning that ends inside no tag and no word of any of the texts."""
    size = len(common_prefix(*texts))
    while size and (cut := max(inside(t, size)[0] for t in texts)):
        size = max(size - cut, 0)
    return texts[0][:size]


def without_prefix(text: str, tail_of: str) -> str:
    """``text`` without the longest beginning that ``tail_of`` ends with."""
    for size in range(min(len(text), len(tail_of), _LONG), 0, -1):
        if tail_of.endswith(text[:size]):
            return text[size:]
    return text


def loose_prefix(text: str, other: str) -> int:
    """How much of ``text`` begins as ``other`` does if layout does not count, in whole tags."""
    at = behind = 0
    while True:
        while at < len(text) and text[at].isspace():
            at += 1
        while behind < len(other) and other[behind].isspace():
            behind += 1
        if at >= len(text) or behind >= len(other) or text[at] != other[behind]:
            break
        at, behind = at + 1, behind + 1
    return len(whole_tags(text[:at].rstrip(), text)) if behind else 0


def between(text: str, first: str, second: str, start: int = 0) -> str | None:
    """What stands between two words, or None if they do not occur in that order."""
    a = text.find(first, start)
    b = text.find(second, a + len(first)) if a >= 0 else -1
    return text[a + len(first) : b] if b >= 0 else None


def after(text: str, word: str) -> str:
    """What follows the last occurrence of a word; "" if there is none."""
    return text.rpartition(word)[2] if word in text else ""
