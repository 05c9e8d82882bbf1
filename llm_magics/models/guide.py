"""The guide that runs beside the sampler: it reads the text as it comes, and arms the grammars.

It joins three parts of ``chat``: the *parser* finds reasoning, text and calls; *recovery* finds calls in the wrong wrapper in
the text that the parser passes on; the grammars of the *constraint* enforce the rest. A grammar is armed

- at the start, for ``required``, a named tool, ``none`` and a response schema;
- under ``auto`` when a call has certainly begun: the parser has read its first marker (one token of the vocabulary, in a line
  of its own) or its name, or a near miss can only be a call. The grammar also receives the outer tags that the model omitted.

An armed grammar holds to the end, because in every template a message ends with its calls. The text so far is passed on as
``pending``. If the grammar refuses it (e.g. a name that is not a tool's), the grammar is not armed, and a note says so.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any, cast

from llm_magics.chat.constraint import Constraint
from llm_magics.chat.encodings.syntax import ToolSyntax
from llm_magics.chat.format import ChatFormat
from llm_magics.chat.parsing.safe import SafeParser
from llm_magics.chat.recovery.course import Course
from llm_magics.chat.recovery.recovery import Recovery, quotable
from llm_magics.chat.recovery.trial import Trial
from llm_magics.chat.template.template import Prompt
from llm_magics.engine.values import Grammar, GuideStep, JsonText, Rivals
from llm_magics.events import ModelEnd
from llm_magics.messages import FinishReason
from llm_magics.schema.leaves import byte_tokenizer
from llm_magics.tools.runaway import CallLimit

from .base import Request
from .brake import Brake

if TYPE_CHECKING:
    from llm_magics.chat.parsing.parser import StreamParser

_REACH = 8192  # characters at the end of the answer that are searched for repetition
_RIVALS = 16


def make_guide(format: ChatFormat, prompt: Prompt, request: Request, specials: frozenset[str] = frozenset()) -> ChatGuide:
    """Make the guide for one request. ``specials`` are the texts of the vocabulary's control tokens.

    Raises SchemaError if a tool's parameters or the response schema cannot be enforced, before anything is evaluated.
    """
    parser = format.parser(
        request.tools, prompt=prompt, tool_choice=request.tool_choice, parallel_tool_calls=request.parallel_tool_calls,
        response_format=request.response_schema,
    )  # fmt: skip
    recovery = None
    if request.tools and request.tool_choice == "auto" and request.response_schema is None:
        recovery = Recovery(
            request.tools, format.tools, said=quotable(request.messages), parallel=request.parallel_tool_calls,
            course=Course.of(request.messages, request.answered), withhold=request.asked_again,
        )  # fmt: skip
    constraint = constraint_for(format, prompt, request)
    names = frozenset(tool.name for tool in request.tools)
    held = {syntax: constraint_for(format, prompt, request, syntax) for syntax in format.analysis.alternates}
    return ChatGuide(parser, constraint, recovery, specials, names=names, alternates=held, limit=request.call_limit)


def make_trial(format: ChatFormat, prompt: Prompt, request: Request, trial: Trial) -> ChatGuide | None:
    """Make the guide for a further call; None if no other one can be written."""
    parser = format.parser(trial.tools, prompt=Prompt(prompt.text))
    parser.calls.started = parser.calls.finished = trial.n_calls
    recovery = Recovery(
        trial.tools, format.tools, said=quotable(request.messages), parallel=False, course=trial.course, withhold=True,
    )  # fmt: skip
    grammar = recovery.strict
    if not grammar or not takes(grammar, trial.lead):
        return None
    return ChatGuide(parser, Constraint(grammar), recovery, frozenset(), lead=trial.lead)


def constraint_for(format: ChatFormat, prompt: Prompt, request: Request, syntax: ToolSyntax | None = None) -> Constraint:
    """The grammars for one request, in the format's syntax or another; raises like :meth:`ChatFormat.constraint`."""
    return format.constraint(
        request.tools, prompt=prompt, tool_choice=request.tool_choice, parallel_tool_calls=request.parallel_tool_calls,
        response_format=request.response_schema, syntax=syntax, in_words=request.in_words,
    )  # fmt: skip


class ChatGuide:
    """See the head of this file. One guide reads one answer; it can be pickled until it is started."""

    def __init__(
        self, parser: StreamParser, constraint: Constraint, recovery: Recovery | None, specials: frozenset[str], *,
        names: frozenset[str] = frozenset(), alternates: Mapping[ToolSyntax, Constraint] | None = None,
        limit: CallLimit | None = None,
        lead: str = "",
    ) -> None:  # fmt: skip
        self._parser = parser
        self._reading = SafeParser(parser)
        self._alternates = dict(alternates or {})
        self._constraint = constraint
        self._recovery = recovery
        self._specials = specials
        self._names = names  # of the tools that are offered
        self._raw = ""  # the end of the answer so far
        self._lead = lead  # the beginning of the answer that is already in the prompt
        self._armed = False
        self._notes: list[str] = []
        self._brake = Brake(limit, recovery) if limit is not None else None
        self._repeats = False  # the answer was stopped because it repeated one call without end
        self._logprob: float | None = None
        self._rivals: Rivals = ()

    @property
    def wants_logprob(self) -> bool:
        """Whether the log-probability of the next token is needed."""
        return self._recovery is not None and not self._parser.thinking and self._recovery.curious

    @property
    def wants_rivals(self) -> int:
        """The number of likeliest tokens to compare with, if a near miss could begin with the next token."""
        return _RIVALS if self.wants_logprob and self._recovery is not None and self._recovery.at_beginning else 0

    def observe(self, logprob: float, rivals: Rivals = ()) -> None:
        """Receive the log-probability (at temperature 1, without a grammar) of the token whose text comes next."""
        self._logprob = (self._logprob or 0.0) + logprob
        self._rivals = self._rivals or rivals

    def start(self) -> GuideStep:
        if self._recovery is not None:
            self._recovery.number = self._number
            self._parser.sink = self._recovery
        if not self._constraint.start:
            return GuideStep()
        self._armed = True
        json = self._constraint.json
        text = JsonText(json.required, *json.reasoning, json.calls, json.values) if json is not None else None
        if self._lead and self._recovery is not None:
            self._recovery.observe(self._lead, None)
            self._reading.feed(self._lead)
        return GuideStep(arm=Grammar(self._constraint.start, self._lead, json=text))

    def feed(self, text: str) -> GuideStep:
        if self._recovery is not None:
            self._recovery.observe(text, self._logprob, self._rivals)
        self._logprob, self._rivals = None, ()
        self._raw = (self._raw + text)[-_REACH:]
        events = self._reading.feed(text)
        if not self._parser.thinking and text.rstrip()[-1:] in ("}", "]", ")", ">", "`") and self._stuck():
            self._notes.append("The model wrote the same call again and again, and was stopped.")
            self._repeats = True
            if self._recovery is not None:
                self._recovery.stop()  # another call may have begun
            return GuideStep(events=tuple(events), stop=True)
        if self._brake is not None:
            events = self._brake.take(events)
            if self._brake.stopped:
                return GuideStep(events=tuple(events), stop=True)
        if self._recovery is not None and (self._recovery.vain or self._recovery.idle):
            self._recovery.stop()
            return GuideStep(events=tuple(events), stop=True)
        return GuideStep(events=tuple(events), arm=self._to_arm())

    def _stuck(self) -> bool:
        """Whether the answer ends with the same call three times in a row, which a small model may continue for ever."""
        raw = self._raw.rstrip()
        tail = raw[-24:]
        before = raw.rfind(tail, 0, len(raw) - 1)
        stretch = raw[before + len(tail) :]
        return before >= 0 and any(name in stretch for name in self._names) and raw.endswith(stretch * 3)

    def finish(self, reason: str) -> GuideStep:
        *events, end = self._reading.finish(cast(FinishReason, reason))
        assert isinstance(end, ModelEnd)
        if self._brake is not None:
            events, end = self._brake.finish(events, end)
        notes = (*end.notes, *self._notes, *(self._recovery.notes if self._recovery is not None else ()))
        calls = [(call.name, call.arguments) for call in end.message.tool_calls]
        doubted = tuple(i for i, call in enumerate(calls) if call in calls[:i]) if self._repeats else ()
        vain = self._recovery.vain if self._recovery is not None and not calls else ""
        return GuideStep(events=(*events, replace(end, notes=notes, doubted=doubted, vain=vain)))

    def _number(self) -> tuple[int, str]:
        """The next call's index and id, from the parser's own count."""
        calls = self._parser.calls
        index = calls.started
        calls.started += 1
        calls.finished += 1
        return index, calls.new_id(index)

    def _to_arm(self) -> Grammar | None:
        if self._armed or not self._constraint.calls:
            return None
        if self._recovery is not None and self._recovery.opened is not None:
            return self._arm(self._recovery.opened.grammar, self._recovery.opened.written)
        begun = self._parser.begun
        if begun is not None and (begun.named or begun.marker in self._specials):
            return self._arm(self._alternates.get(begun.syntax, self._constraint).calls, begun.written)
        return None

    def _arm(self, grammar: str, written: str) -> Grammar | None:
        self._armed = True
        if not takes(grammar, written):
            self._notes.append("a call could not be held to a schema: it does not begin like a call of any tool")
            return None
        return Grammar(grammar, pending=written)


def takes(grammar: str, text: str) -> bool:
    """Whether the grammar accepts this text as a beginning."""
    matcher = _compiled(grammar).deep_copy()
    data = list(text.encode("utf-8", "replace"))
    return bool(matcher.try_consume_tokens(data) == len(data))


@lru_cache(maxsize=16)
def _compiled(grammar: str) -> Any:
    from llguidance import LLMatcher

    return LLMatcher(byte_tokenizer(), grammar, log_level=0)
