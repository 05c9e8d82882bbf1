"""Compile and run one chat template: jinja2 source and variables in, a :class:`Prompt` out.

Nothing here knows what a message is for; :mod:`repair <llm_magics.chat.template.shaping>` shapes messages to what a template
can take.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import jinja2

from llm_magics.chat.syntax.origin import concat, runs_of
from llm_magics.errors import TemplateError

from .budget import PROBING, RENDERING, Budget, Limits, spending
from .environment import PROBED_AT, TemplateEnvironment, rendered_at

_MAX_SOURCE = 1_000_000


class UndefinedNameError(TemplateError):
    """The template uses a name that nobody gave it."""


@dataclass(frozen=True, slots=True)
class Span:
    """A stretch of the prompt that came from outside: characters ``start`` to ``end``.

    ``origin`` is "system", "tools", "user", "assistant", "tool" or "variable" (a template variable that the caller gave).
    """

    start: int
    end: int
    origin: str


@dataclass(frozen=True, slots=True)
class Prompt:
    """A rendered conversation.

    ``generation_prompt`` is the end of ``text`` that opens the assistant's turn, with any reasoning or content to go on with.
    ``spans`` are the stretches from outside, ascending and disjoint: tokenise these without special tokens. ``continued`` is
    "content" or "reasoning" where a message is gone on with; the prefixes are what there is of it, which belongs to the answer.
    """

    text: str
    generation_prompt: str = ""
    spans: tuple[Span, ...] = ()
    continued: str = ""
    reasoning_prefix: str = ""
    content_prefix: str = ""

    @property
    def parts(self) -> tuple[tuple[str, str], ...]:
        """The whole text in stretches of one origin, ``(origin, text)``; the template's own are of origin "template"."""
        parts, at = [], 0
        for span in self.spans:
            if at < span.start:
                parts.append(("template", self.text[at : span.start]))
            parts.append((span.origin, self.text[span.start : span.end]))
            at = span.end
        if at < len(self.text):
            parts.append(("template", self.text[at:]))
        return tuple(parts)


@dataclass(frozen=True, slots=True)
class ChatTemplate:
    """One template, compiled. ``render`` may be called from any thread.

    Raises TemplateError for source that jinja2 does not take.
    """

    source: str
    bos_token: str = ""
    eos_token: str = ""
    _compiled: dict[bool, jinja2.Template] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if len(self.source) > _MAX_SOURCE:
            raise TemplateError(f"The chat template is {len(self.source):,} characters long, more than {_MAX_SOURCE:,}.")
        self._compile(lenient=False)

    def render(
        self,
        variables: Mapping[str, Any],
        *,
        lenient: bool = False,
        limits: Limits = RENDERING,
        now: datetime = PROBED_AT,
    ) -> str:
        """Run the template and return its text, which keeps the origins of marked strings.

        Args:
            variables: the template's variables; ``messages`` and ``tools`` may be changed by the template, so give copies.
            lenient: take undefined names for empty text.
            limits: bounds on time and output; they grow with the messages.
            now: the time for ``strftime_now``.

        Raises TemplateError where the template raises or asks for what the sandbox refuses, LimitError where it passes a limit.
        """
        messages = variables.get("messages") or ()
        budget = Budget(limits, len(messages), _length(variables))
        given = {"bos_token": self.bos_token, "eos_token": self.eos_token, **variables}
        before = rendered_at.set(now)
        try:
            with spending(budget):
                return _guarded(lambda: self._run(self._compile(lenient=lenient), given, budget))
        finally:
            rendered_at.reset(before)

    def _compile(self, *, lenient: bool) -> jinja2.Template:
        if lenient not in self._compiled:
            with spending(Budget(PROBING)):
                self._compiled[lenient] = _guarded(lambda: _environment(lenient).from_string(self.source))
        return self._compiled[lenient]

    @staticmethod
    def _run(template: jinja2.Template, variables: Mapping[str, Any], budget: Budget) -> str:
        pieces: list[str] = []
        length = 0
        for piece in template.root_render_func(template.new_context(dict(variables))):
            pieces.append(piece)
            length += len(piece)
            budget.step()
            budget.check_output(length)
        return concat(pieces)


def prompt_of(text: str) -> tuple[str, tuple[Span, ...]]:
    """Take rendered text apart into plain text and its spans."""
    return str.__str__(text), tuple(Span(*run) for run in runs_of(text))


@functools.cache
def _environment(lenient: bool) -> TemplateEnvironment:
    return TemplateEnvironment(lenient=lenient)


def _guarded(work: Any) -> Any:
    """Do work in the sandbox; every way it can fail becomes a TemplateError."""
    try:
        return work()
    except TemplateError:
        raise
    except jinja2.TemplateSyntaxError as error:
        raise TemplateError(f"The chat template is not valid jinja2: {error.message} (line {error.lineno}).") from error
    except jinja2.UndefinedError as error:
        raise UndefinedNameError(f"The chat template refused: {error}.") from error
    except jinja2.exceptions.SecurityError as error:
        raise TemplateError(f"The chat template asks for something forbidden: {error}.") from error
    except jinja2.TemplateError as error:
        raise TemplateError(f"The chat template refused: {error}.") from error
    except RecursionError as error:
        raise TemplateError("The chat template nests too deeply.") from error
    except MemoryError as error:
        raise TemplateError("The chat template needs too much memory.") from error
    except Exception as error:  # a template is a program of somebody else's: whatever it raises is the template's fault
        raise TemplateError(f"The chat template failed: {type(error).__name__}: {error}.") from error


def _length(value: Any, depth: int = 0) -> int:
    """Roughly how many characters go in."""
    if isinstance(value, str):
        return len(value)
    if depth > 20:
        return 0
    if isinstance(value, Mapping):
        return sum(_length(v, depth + 1) for v in value.values())
    if isinstance(value, list | tuple):
        return sum(_length(v, depth + 1) for v in value)
    return 1
