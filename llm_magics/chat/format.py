"""Everything that one chat template implies, in one value: how to render, and how to read what the model answers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal

from llm_magics.chat.analysis.analysis import Analysis, analyse
from llm_magics.chat.analysis.overrides import OVERRIDES, Override
from llm_magics.chat.analysis.reasoning import ReasoningSyntax
from llm_magics.chat.encodings.syntax import ToolSyntax
from llm_magics.chat.parsing.output import Setting
from llm_magics.chat.syntax.compare import common_prefix
from llm_magics.chat.syntax.origin import OriginText, concat, mark, runs_of
from llm_magics.chat.syntax.syntax import TurnSyntax
from llm_magics.chat.syntax.tags import whole_tags
from llm_magics.chat.template.inputs import AnyMessage, AnyTool, messages_from, tools_from
from llm_magics.chat.template.shaping import Repairs, marked, template_variables
from llm_magics.chat.template.template import ChatTemplate, Prompt, UndefinedNameError, prompt_of
from llm_magics.errors import SchemaError, TemplateError
from llm_magics.messages import JsonSchema, Message, ToolChoice, ToolSpec

if TYPE_CHECKING:
    from llm_magics.chat.parsing.parser import StreamParser

    from .constraint import Constraint

Continue = Literal["content", "reasoning"]


@dataclass(frozen=True, slots=True)
class ChatFormat:
    """One template, analysed. Make it with :meth:`from_template`; it is immutable and may be shared between threads."""

    template: ChatTemplate
    analysis: Analysis

    @classmethod
    def from_template(
        cls, source: str, bos_token: str = "", eos_token: str = "", *, overrides: Sequence[Override] = OVERRIDES
    ) -> ChatFormat:
        """Analyse a chat template.

        Args:
            source: the template's jinja2 source.
            bos_token, eos_token: the vocabulary's, which most templates write out.
            overrides: what to believe where nothing can be derived; empty for derivation alone.

        Raises TemplateError for a template that cannot be compiled, is refused by the sandbox, or cannot render a message.
        """
        template = ChatTemplate(source, bos_token, eos_token)
        return cls(template, analyse(template, overrides))

    @property
    def tools(self) -> ToolSyntax:
        """How tool calls are written; a generic syntax of our own where the template knows none."""
        return self.analysis.tools

    @property
    def reasoning(self) -> ReasoningSyntax | None:
        """Where reasoning stands, or None."""
        return self.analysis.reasoning or None

    @property
    def turn(self) -> TurnSyntax:
        """The frame of an assistant's turn."""
        return self.analysis.turn

    @property
    def repairs(self) -> Repairs:
        """How messages are shaped for this template."""
        return self.analysis.repairs

    # --- rendering ----------------------------------------------------------------------------------------------------------

    def render(
        self,
        messages: Iterable[AnyMessage],
        *,
        tools: Iterable[AnyTool] | None = None,
        enable_thinking: bool | None = True,
        continue_final: Continue | None = None,
        add_generation_prompt: bool = True,
        now: datetime | None = None,
        **template_kwargs: Any,
    ) -> Prompt:
        """Render a conversation to the prompt that the model goes on from.

        Args:
            messages, tools: our own values, or dictionaries in the OpenAI form.
            enable_thinking: passed to the template as the variables that switch its thinking; None leaves it to the template.
            continue_final: the last message is an assistant's, whose content or reasoning is to be gone on with.
            add_generation_prompt: False renders history alone.
            now: the time that the template is told; the clock's where none is given.
            template_kwargs: further template variables; they win over ours.

        Raises TemplateError where the template refuses the conversation even after repairs.
        """
        said, specs, now = messages_from(messages), tools_from(tools), now or datetime.now()
        switch = self.repairs.thinking(enable_thinking) if enable_thinking is not None else {}
        variables = {**switch, **{name: marked(value, "variable") for name, value in template_kwargs.items()}}
        if continue_final is None:
            text = self._text(said, specs, variables, add_generation_prompt, now)
            opening = self._generation_prompt(text, said, specs, variables, now) if add_generation_prompt else ""
            return _prompt(text, opening)
        if not said or said[-1].role != "assistant":
            raise TemplateError("There is no assistant message to go on with.", "End the messages with one.")
        text = self._text(said[:-1], specs, variables, True, now)
        opening = self._generation_prompt(text, said[:-1], specs, variables, now)
        return self._continued(text, opening, said[-1], continue_final)

    def _text(
        self, messages: Sequence[Message], tools: Sequence[ToolSpec], extra: dict[str, Any], opened: bool, now: datetime
    ) -> str:
        """One render. All renders of a prompt are given the same time, because they are compared with each other."""
        repairs = self.repairs
        given = {"add_generation_prompt": opened, **template_variables(repairs, messages, tools, self.tools, now), **extra}
        try:
            return self.template.render(given, lenient=repairs.lenient, now=now)
        except UndefinedNameError:  # e.g. a tool without some member of its schema that the template counts on
            again = template_variables(repairs, messages, tools, self.tools, now)
            return self.template.render({"add_generation_prompt": opened, **again, **extra}, lenient=True, now=now)

    def _generation_prompt(
        self, text: str, messages: Sequence[Message], tools: Sequence[ToolSpec], extra: dict[str, Any], now: datetime
    ) -> str:
        """The end of the text that is only there to open the assistant's turn."""
        closed = self._text(messages, tools, extra, False, now)
        shared = whole_tags(common_prefix(str.__str__(closed), str.__str__(text)), str.__str__(text))
        return str.__str__(text)[len(shared) :]

    def _continued(self, text: str, opening: str, last: Message, how: Continue) -> Prompt:
        """Append what there is of the last message; an open thought is the generation prompt's no longer."""
        reasoning, start = self.analysis.reasoning, self.turn.content_start
        pieces: list[str] = []
        if reasoning and (last.reasoning or how == "reasoning"):
            at = reasoning.opened_at(opening)
            text, opening = _cut(text, len(text) - len(opening) + at), opening[:at]
            pieces = [reasoning.start, mark(last.reasoning, "assistant")]
            if how == "content":
                pieces += [reasoning.shut, start]
        elif reasoning and _ends_with_marker(opening, reasoning.start):
            pieces = [reasoning.shut, start]
        elif not (start and _ends_with_marker(opening, start)):
            pieces = [start]
        if how == "content" or not reasoning:
            pieces.append(mark(last.text, "assistant"))
        added = concat(pieces)
        prompt = _prompt(concat([text, added]), opening + str.__str__(added))
        return replace(
            prompt, continued=how, reasoning_prefix=last.reasoning, content_prefix=last.text if how == "content" else ""
        )

    # --- reading ------------------------------------------------------------------------------------------------------------

    def parser(
        self,
        tools: Iterable[AnyTool] | None = None,
        *,
        prompt: Prompt | None = None,
        tool_choice: ToolChoice = "auto",
        parallel_tool_calls: bool = True,
        reasoning: Literal["split", "inline"] = "split",
        response_format: JsonSchema | None = None,
    ) -> StreamParser:
        """Make a parser for one answer.

        Args:
            tools: the tools that were offered; without any, nothing is a call.
            prompt: what the answer follows, from :meth:`render`; says whether a thought is open and what is gone on with.
            tool_choice: under "none" nothing is a call either.
            parallel_tool_calls: calls that are there are read either way; the constraint keeps the model to one.
            reasoning: "inline" leaves reasoning in the content, with its markers.
            response_format: the JSON schema that the content follows; a code fence around it is taken off.
        """
        from llm_magics.chat.parsing.parser import StreamParser

        offered = tools_from(tools)
        setting = Setting(
            self.tools,
            self.analysis.reasoning,
            self.turn,
            offered,
            prompt or Prompt("", self.turn.generation_prompt),
            calls_allowed=bool(offered) and tool_choice != "none",
            inline=reasoning == "inline",
            fenced=response_format is not None,
            alternates=self.analysis.alternates,
        )
        return StreamParser(setting)

    def constraint(
        self,
        tools: Iterable[AnyTool] | None = None,
        *,
        prompt: Prompt,
        tool_choice: ToolChoice = "auto",
        parallel_tool_calls: bool = True,
        response_format: JsonSchema | None = None,
        syntax: ToolSyntax | None = None,
    ) -> Constraint:
        """The grammars that hold one answer, with arguments as for :meth:`parser`.

        ``syntax`` is one of the alternates instead of the template's first. Raises SchemaError if a schema, or the choice of a
        tool, cannot be met.
        """
        from .constraint import Frame, build_constraint, first_tag

        offered, syntax, reasoning = tools_from(tools), syntax or self.tools, self.analysis.reasoning
        if tool_choice not in ("auto", "none", "required") and all(tool.name != tool_choice for tool in offered):
            raise SchemaError(f"There is no tool {tool_choice!r} to be called.", "Offer it, or choose another.")
        ends = (self.turn.end, *self.turn.extra_ends, *(syntax.blocks.ends if syntax.blocks is not None else ()))
        opened = prompt.continued == "reasoning" or reasoning.begun(prompt.generation_prompt) is not None
        frame = Frame(reasoning, opened, self.turn, frozenset(tag for end in ends if (tag := first_tag(end))))
        return build_constraint(
            syntax,
            offered,
            tool_choice=tool_choice,
            parallel=parallel_tool_calls,
            response_schema=response_format,
            frame=frame,
        )


def _prompt(text: str, opening: str) -> Prompt:
    plain, spans = prompt_of(text)
    return Prompt(plain, opening, spans)


def _ends_with_marker(text: str, marker: str) -> bool:
    return bool(marker.strip()) and text.rstrip().endswith(marker.strip())


def _cut(text: str, size: int) -> str:
    """The beginning of a rendered text, which keeps its origins."""
    plain, runs = str.__str__(text)[:size], [run for run in runs_of(text) if run[1] <= size]
    return OriginText(plain, runs) if runs else plain
