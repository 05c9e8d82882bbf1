"""Which of a template's variables switch thinking on and off, found by trying those that templates use.

Most templates read a yes or no under one of two names. Others read a word, e.g. how much effort the model takes, of which one
means none: such a name is the switch where its words change the prompt as a switch would. What merely tells the model of its
effort, in the system message, switches nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from typing import Any

from llm_magics.chat.syntax.tags import closing, opening, tags

Switch = tuple[tuple[str, Any, Any], ...]
"""Names of variables, each with its value for thinking and for not thinking; ABSENT where it is then not given."""

ABSENT = None

YES_NO: Switch = (("enable_thinking", True, False), ("thinking", True, False))

_WORDS: dict[str, tuple[tuple[Any, ...], tuple[Any, ...]]] = {
    "reasoning_effort": ((ABSENT, "medium", "high", "low"), ("none", "no_think", "off", "minimal")),
    "thinking_mode": ((ABSENT, "enabled", "on", "thinking"), ("disabled", "off", "none", "chat")),
    "thinking_budget": ((ABSENT, -1), (0,)),
}
"""What other names take to switch thinking on, and off; what a template does without being told comes first."""

Prompts = Callable[[dict[str, Any]], str]
"""The generation prompt under these variables, "" where the template refuses them."""


def variables(switch: Switch, on: bool) -> dict[str, Any]:
    """The variables that switch thinking on, or off."""
    given = {name: yes if on else no for name, yes, no in switch}
    return {name: value for name, value in given.items() if value is not ABSENT}


def find_switch(source: str, prompt: Prompts) -> Switch:
    """The switch of a template; that of yes or no where no other is found."""
    names = [name for name in _WORDS if name in source]
    if not names or prompt(variables(YES_NO, True)) != prompt(variables(YES_NO, False)):
        return YES_NO
    words = [(name, yes, no) for name in names for yes, no in product(*_WORDS[name])]
    for differ in (_skips, _opens):  # a word that a template does not know leaves all as it was: it may look like no thinking
        for word in words:
            tried: Switch = (*YES_NO, word)
            on, off = (prompt(variables(tried, flag)) for flag in (True, False))
            if on and off and differ(on, off):
                return tried
    return YES_NO


def _skips(on: str, off: str) -> bool:
    """Whether a thought is closed at once without thinking, and only then."""
    shut = _last_tag(off)
    start = opening(shut)
    return bool(start) and _last_tag(on) != shut and (start in off or start == _last_tag(on) or off.startswith(on.rstrip()))


def _opens(on: str, off: str) -> bool:
    """Whether a thought is opened with thinking, and not without."""
    start = _last_tag(on)
    return bool(closing(start)) and not opening(start) and on.rstrip().removesuffix(start).rstrip() == off.rstrip()


def _last_tag(text: str) -> str:
    """The tag that a text ends with, or ""."""
    last = (tags(text) or [""])[-1]
    return last if last and text.rstrip().endswith(last) else ""
