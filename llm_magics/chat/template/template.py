"""Compile and run one chat template: jinja2 source and variables in, a :class:`Prompt` out.

:mod:`shaping <llm_magics.chat.template.shaping>` fits messages to the template before.
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
    """The template uses a name that has no value."""


@dataclass(frozen=True, slots=True)
class Span:
    """Characters ``start`` to ``end`` of the prompt, which come from outside."""

    start: int
    end: int
    origin: str  # "system", "tools", "user", "assistant", "tool" or "variable" (a template variable from the caller)


@dataclass(frozen=True, slots=True)
class Prompt:
    """A rendered conversation."""

    text: str
    generation_prompt: str = ""  # the end of ``text`` that opens the assistant's turn, with reasoning or content to continue
    spans: tuple[Span, ...] = ()  # from outside, ascending and disjoint: tokenise them without special tokens
    continued: str = ""  # "content" or "reasoning" if a message is continued
    reasoning_prefix: str = ""  # the beginning of the continued message's reasoning, which belongs to the answer
    content_prefix: str = ""  # the beginning of its content, which belongs to the answer

    @property
    def parts(self) -> tuple[tuple[str, str], ...]:
        """The whole text in stretches ``(origin, text)``; the template's own text has the origin "template"."""
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
    """One template, compiled; any thread may render it. Raises TemplateError for source that is not valid jinja2."""

    source: str
    bos_token: str = ""
    eos_token: str = ""
    _compiled: dict[bool, jinja2.Template] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if len(self.source) > _MAX_SOURCE:
            raise TemplateError(f"The chat template is {len(self.source):,} characters long, more than {_MAX_SOURCE:,}.")
        self._compile(lenient=False)

    def render(
        self, variables: Mapping[str, Any], *, lenient: bool = False, limits: Limits = RENDERING, now: datetime = PROBED_AT
    ) -> str:
        """Run the template and return its text, which keeps the origins of marked strings.

        Args:
            variables: the template's variables; ``messages`` and ``tools`` may be changed by the template, so give copies.
            lenient: undefined names count as empty text.
            limits: bounds on time and output; they grow with the messages.
            now: the time for ``strftime_now``.

        Raises TemplateError if the template raises or does what the sandbox refuses, LimitError if it passes a limit.
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
    """Divide rendered text into plain text and its spans."""
    return str.__str__(text), tuple(Span(*run) for run in runs_of(text))


@functools.cache
def _environment(lenient: bool) -> TemplateEnvironment:
    return TemplateEnvironment(lenient=lenient)


def _guarded(work: Any) -> Any:
    """Do work in the sandbox; every failure becomes a TemplateError."""
    try:
        return work()
    except TemplateError:
        raise
    except jinja2.TemplateSyntaxError as error:
        raise TemplateError(f"The chat template is not valid jinja2: {error.message} (line {error.lineno}).") from error
    except jinja2.UndefinedError as error:
        raise UndefinedNameError(f"The chat template refused: {error}.") from error
    except jinja2.exceptions.SecurityError as error:
        raise TemplateError(f"The chat template does something forbidden: {error}.") from error
    except jinja2.TemplateError as error:
        raise TemplateError(f"The chat template refused: {error}.") from error
    except RecursionError as error:
        raise TemplateError("The chat template nests too deeply.") from error
    except MemoryError as error:
        raise TemplateError("The chat template needs too much memory.") from error
    except Exception as error:  # a template is somebody else's program: whatever it raises is the template's fault
        raise TemplateError(f"The chat template failed: {type(error).__name__}: {error}.") from error


def _length(value: Any, depth: int = 0) -> int:
    """Roughly how many characters a value holds."""
    if isinstance(value, str):
        return len(value)
    inner = value.values() if isinstance(value, Mapping) else value if isinstance(value, list | tuple) else None
    return 1 if inner is None else sum(_length(v, depth + 1) for v in inner) if depth <= 20 else 0
