"""The guide that runs beside the sampler: reads the text as it comes, and arms the grammars.

It joins three things of the ``chat`` room: the *parser*, which finds reasoning, text and calls; *recovery*, which finds calls
in the wrong wrapper in the text that the parser lets through; and the *constraint*, whose grammars hold the rest.

When a grammar is armed:

- at the start, for ``required``, a named tool, ``none`` and a response schema;
- under ``auto`` when a call has certainly begun: its first marker, which is one token of the vocabulary, stands at the
  beginning of a line; or the parser has read the call's name; or a near miss can be nothing else any more. Where the model
  left outer tags out, the grammar is given them as if they had been written.

An armed grammar holds to the end: in every template a message ends with its calls. What is already written is handed over as
``pending``; should the grammar not take it (a name that is no tool's), it is not armed, and the notes say so.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any, cast

from llm_magics.chat.constraint import Constraint, Frame, build_constraint, first_tag
from llm_magics.chat.format import ChatFormat
from llm_magics.chat.parsing.safe import SafeParser
from llm_magics.chat.recovery.recovery import Recovery, quotable
from llm_magics.chat.syntax.syntax import ToolSyntax
from llm_magics.chat.template.template import Prompt
from llm_magics.engine.values import Grammar, GuideStep, JsonText
from llm_magics.errors import SchemaError
from llm_magics.events import ModelEnd, ModelEvent, ReasoningDelta, TextDelta, ToolCallStart
from llm_magics.messages import FinishReason
from llm_magics.schema.patterns import byte_tokenizer
from llm_magics.tools.runaway import CallLimit

from .base import Request
from .brake import Brake

if TYPE_CHECKING:
    from llm_magics.chat.parsing.parser import StreamParser

_REACH = 8192  # characters of the answer's end in which the beginning of a call is looked for


def make_guide(format: ChatFormat, prompt: Prompt, request: Request, specials: frozenset[str] = frozenset()) -> ChatGuide:
    """Make the guide for one request.

    ``specials`` are the texts of the vocabulary's control tokens. Raises SchemaError where a tool's parameters or the response
    schema cannot be enforced, before anything is evaluated.
    """
    parser = format.parser(
        request.tools,
        prompt=prompt,
        tool_choice=request.tool_choice,
        parallel_tool_calls=request.parallel_tool_calls,
        response_format=request.response_schema,
    )
    recovery = None
    if request.tools and request.tool_choice == "auto" and request.response_schema is None:
        said = quotable(request.messages)
        results = request.messages[-1].role == "tool" if request.messages else False
        recovery = Recovery(request.tools, format.tools, said=said, parallel=request.parallel_tool_calls, after_results=results)
    constraint = constraint_for(format, prompt, request)
    names = frozenset(tool.name for tool in request.tools)
    held = {syntax: constraint_for(format, prompt, request, syntax) for syntax in format.analysis.alternates}
    thinking, limit = _opens_reasoning(format, prompt), request.call_limit
    return ChatGuide(parser, constraint, recovery, specials, thinking=thinking, names=names, alternates=held, limit=limit)


def constraint_for(format: ChatFormat, prompt: Prompt, request: Request, syntax: ToolSyntax | None = None) -> Constraint:
    """The grammars for one request, in the format's syntax or another.

    Raises SchemaError where a schema, or the choice of a tool, cannot be met.
    """
    syntax, turn = syntax or format.tools, format.turn
    marks = (turn.end, *turn.extra_ends, *(syntax.blocks.ends if syntax.blocks is not None else ()))
    frame = Frame(
        reasoning=format.analysis.reasoning,
        reasoning_open=prompt.continued == "reasoning" or _opens_reasoning(format, prompt),
        turn=turn,
        ends=frozenset(tag for mark in marks if (tag := first_tag(mark))),
    )
    names = {tool.name for tool in request.tools}
    if request.tool_choice not in ("auto", "none", "required") and request.tool_choice not in names:
        raise SchemaError(f"There is no tool {request.tool_choice!r} to be called.", "Offer it, or choose another.")
    return build_constraint(
        syntax,
        request.tools,
        tool_choice=request.tool_choice,
        parallel=request.parallel_tool_calls,
        response_schema=request.response_schema,
        frame=frame,
    )


def _opens_reasoning(format: ChatFormat, prompt: Prompt) -> bool:
    """Has the generation prompt begun the reasoning that the model is to go on with?"""
    reasoning = format.reasoning
    if reasoning is None or not reasoning.start.strip():
        return False
    opening = prompt.generation_prompt
    return opening.rfind(reasoning.start.strip()) > opening.rfind(reasoning.end.strip())


class ChatGuide:
    """See the head of this file. One guide reads one answer; it pickles until it is started."""

    def __init__(
        self,
        parser: StreamParser,
        constraint: Constraint,
        recovery: Recovery | None,
        specials: frozenset[str],
        *,
        thinking: bool = False,
        names: frozenset[str] = frozenset(),
        alternates: Mapping[ToolSyntax, Constraint] | None = None,
        limit: CallLimit | None = None,
    ) -> None:
        self._parser = parser
        self._reading = SafeParser(parser)
        self._alternates = dict(alternates or {})
        self._constraint = constraint
        self._recovery = recovery
        self._specials = specials
        self._thinking = thinking
        self._names = names  # of the tools that are offered
        self._raw = ""  # the end of the answer so far, from where a call can begin
        self._armed = False
        self._notes: list[str] = []
        self._brake = Brake(limit, recovery) if limit is not None else None
        self._repeats = False  # it was stopped because it wrote the same call without end
        self._logprob: float | None = None

    # --- what the engine calls ----------------------------------------------------------------------------------------------

    @property
    def wants_logprob(self) -> bool:
        """Whether the log-probability of the next token is worth computing."""
        return self._recovery is not None and not self._thinking and self._recovery.curious

    def observe(self, logprob: float) -> None:
        """Take the log-probability, at temperature 1 and without any grammar, of the token whose text comes next."""
        self._logprob = (self._logprob or 0.0) + logprob

    def start(self) -> GuideStep:
        if self._recovery is not None:
            self._recovery.number = self._number
            self._parser.sink = self._recovery
        if not self._constraint.start:
            return GuideStep()
        self._armed = True
        json = self._constraint.json
        text = JsonText(json.required, *json.reasoning, json.calls, json.values) if json is not None else None
        return GuideStep(arm=Grammar(self._constraint.start, json=text))

    def feed(self, text: str) -> GuideStep:
        if self._recovery is not None:
            self._recovery.observe(text, self._logprob)
        self._logprob = None
        self._raw = (self._raw + text)[-_REACH:]
        events = self._reading.feed(text)
        for event in events:
            if isinstance(event, ReasoningDelta | TextDelta):
                self._thinking = isinstance(event, ReasoningDelta)
        if not self._thinking and text.rstrip()[-1:] in ("}", "]", ")", ">", "`") and self._stuck():
            self._notes.append("The model wrote the same call again and again, and was stopped.")
            self._repeats = True
            if self._recovery is not None:
                self._recovery.stop()  # a further one may have begun
            return GuideStep(events=tuple(events), stop=True)
        if self._brake is not None:
            events = self._brake.take(events)
            if self._brake.stopped:
                return GuideStep(events=tuple(events), stop=True)
        return GuideStep(events=tuple(events), arm=self._to_arm(events))

    def _stuck(self) -> bool:
        """Whether the answer ends with the same call, written out three times in a row: a small model can go on so for ever."""
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
        doubted = tuple(self._recovery.doubted) if self._recovery is not None else ()
        if self._repeats:
            calls = [(call.name, call.arguments) for call in end.message.tool_calls]
            doubted = tuple(sorted({*doubted, *(i for i, call in enumerate(calls) if call in calls[:i])}))
        return GuideStep(events=(*events, replace(end, notes=notes, doubted=doubted)))

    def _number(self) -> tuple[int, str]:
        """The next call's index and id, from the parser's own count."""
        calls = self._parser.calls
        index = calls.started
        calls.started += 1
        calls.finished += 1
        return index, calls.new_id(index)

    # --- arming ---------------------------------------------------------------------------------------------------------------

    def _to_arm(self, events: list[ModelEvent]) -> Grammar | None:
        if self._armed or not self._constraint.calls:
            return None
        if any(isinstance(e, ReasoningDelta) for e in events):
            self._raw = self._after_reasoning()
        if self._recovery is not None and self._recovery.opened is not None:
            opened = self._recovery.opened
            return self._arm(opened.grammar, opened.written)
        begun = self._parser.begun
        if begun is not None and any(isinstance(e, ToolCallStart) and not e.recovered for e in events):
            syntax, written = begun
            return self._arm(self._alternates.get(syntax, self._constraint).calls, written.lstrip())
        written = self._written()
        return self._arm(self._constraint.calls, written) if written else None

    def _after_reasoning(self) -> str:
        """What stands behind the reasoning's end, if that has come; a call mentioned in the reasoning arms nothing."""
        reasoning = self._parser.setting.reasoning
        end = reasoning.end.strip() if reasoning is not None else ""
        return self._raw.rpartition(end)[2] if end and end in self._raw else ""

    def _written(self) -> str:
        """The text from a call's first marker on, where that marker alone says that a call has begun; else empty."""
        syntax = self._parser.setting.syntax
        tag = first_tag(syntax.section_start) or first_tag(syntax.call_start)
        start = self._raw.rfind(tag) if tag and syntax.blocks is None and tag in self._specials else -1
        alone = start >= 0 and not self._raw[:start].rpartition("\n")[2].strip()
        return self._raw[start:] if alone else ""

    def _arm(self, grammar: str, written: str) -> Grammar | None:
        self._armed = True
        if not takes(grammar, written):
            self._notes.append("a call could not be held to a schema: it begins as no call of the tools does")
            return None
        return Grammar(grammar, pending=written)


def takes(grammar: str, text: str) -> bool:
    """Is this text a beginning of what the grammar admits?"""
    matcher = _compiled(grammar).deep_copy()
    data = list(text.encode("utf-8", "replace"))
    return bool(matcher.try_consume_tokens(data) == len(data))


@lru_cache(maxsize=16)
def _compiled(grammar: str) -> Any:
    from llguidance import LLMatcher

    return LLMatcher(byte_tokenizer(), grammar, log_level=0)
