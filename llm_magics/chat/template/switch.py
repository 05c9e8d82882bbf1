"""Find the variables that switch a template's thinking on and off, by trying the names that templates use.

Most templates read a yes or no under one of two names. Others read a word, e.g. the model's effort, and one word means none:
such a name is the switch if its words open or close a thought in the prompt. Words that only go into a system message are not.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from typing import Any

from llm_magics.chat.syntax.tags import closing, opening, tags

Switch = tuple[tuple[str, Any, Any], ...]  # names of variables, each with its values with and without thinking
ABSENT = None  # the value of a variable that is not given
YES_NO: Switch = (("enable_thinking", True, False), ("thinking", True, False))

_WORDS: dict[str, tuple[tuple[Any, ...], tuple[Any, ...]]] = {
    "reasoning_effort": ((ABSENT, "medium", "high", "low"), ("none", "no_think", "off", "minimal")),
    "thinking_mode": ((ABSENT, "enabled", "on", "thinking"), ("disabled", "off", "none", "chat")),
    "thinking_budget": ((ABSENT, -1), (0,)),
}
"""Words that switch thinking on, and off, by name; the template's default comes first."""

Prompts = Callable[[dict[str, Any]], str]  # renders the generation prompt with variables; "" if the template refuses them


def variables(switch: Switch, on: bool) -> dict[str, Any]:
    """The variables that switch thinking on, or off."""
    given = {name: yes if on else no for name, yes, no in switch}
    return {name: value for name, value in given.items() if value is not ABSENT}


def find_switch(source: str, prompt: Prompts) -> Switch:
    """The switch of a template; YES_NO if no other is found.

    e.g. ``<|assistant|>{% if reasoning_effort != 'none' %}<think>{% endif %}``: "reasoning_effort", absent or "none".
    """
    names = [name for name in _WORDS if name in source]
    if not names or prompt(variables(YES_NO, True)) != prompt(variables(YES_NO, False)):
        return YES_NO
    words = [(name, yes, no) for name in names for yes, no in product(*_WORDS[name])]
    for differ in (_skips, _opens):  # a word that the template does not know changes nothing, which may look like no thinking
        for word in words:
            tried: Switch = (*YES_NO, word)
            on, off = (prompt(variables(tried, flag)) for flag in (True, False))
            if on and off and differ(on, off):
                return tried
    return YES_NO


def _skips(on: str, off: str) -> bool:
    """Whether only a prompt without thinking closes a thought at once."""
    shut = _last_tag(off)
    start = opening(shut)
    return bool(start) and _last_tag(on) != shut and (start in off or start == _last_tag(on) or off.startswith(on.rstrip()))


def _opens(on: str, off: str) -> bool:
    """Whether only a prompt with thinking opens a thought."""
    start = _last_tag(on)
    return bool(closing(start)) and not opening(start) and on.rstrip().removesuffix(start).rstrip() == off.rstrip()


def _last_tag(text: str) -> str:
    """The tag that a text ends with, or ""."""
    last = (tags(text) or [""])[-1]
    return last if text.rstrip().endswith(last) else ""
