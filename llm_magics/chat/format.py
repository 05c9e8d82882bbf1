"""Everything that one chat template implies, in one value: how to render, how to read answers, how to constrain them."""

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
from llm_magics.chat.syntax.origin import concat, mark, marked
from llm_magics.chat.syntax.syntax import TurnSyntax
from llm_magics.chat.syntax.tags import whole_tags
from llm_magics.chat.template.inputs import AnyMessage, AnyTool, messages_from, tools_from
from llm_magics.chat.template.shaping import Repairs, template_variables
from llm_magics.chat.template.template import ChatTemplate, Prompt, UndefinedNameError, prompt_of
from llm_magics.errors import SchemaError, TemplateError
from llm_magics.messages import JsonSchema, Message, ToolChoice, ToolSpec

if TYPE_CHECKING:
    from llm_magics.chat.parsing.parser import StreamParser

    from .constraint import Constraint

Continue = Literal["content", "reasoning"]


@dataclass(frozen=True, slots=True)
class ChatFormat:
    """One template, analysed by :meth:`from_template`. Immutable: threads may share it."""

    template: ChatTemplate
    analysis: Analysis

    @classmethod
    def from_template(
        cls, source: str, bos_token: str = "", eos_token: str = "", *, overrides: Sequence[Override] = OVERRIDES
    ) -> ChatFormat:
        """Analyse a template's jinja2 source, which may write the vocabulary's ``bos_token`` and ``eos_token``.

        ``overrides`` fill what the analysis cannot find. Raises TemplateError if the template cannot be compiled, does what the
        sandbox refuses, or cannot render a message.
        """
        template = ChatTemplate(source, bos_token, eos_token)
        return cls(template, analyse(template, overrides))

    @property
    def tools(self) -> ToolSyntax:
        """How tool calls are written; our generic syntax if the template has none."""
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
        """Render a conversation to the prompt that the model continues.

        Args:
            messages, tools: our own values, or dictionaries in the OpenAI form.
            enable_thinking: sets the variables that switch the template's thinking; None leaves them to the template.
            continue_final: continue the content or the reasoning of the last message, which must be an assistant's.
            add_generation_prompt: False renders history alone.
            now: the time that the template is told; None for the clock's.
            template_kwargs: further template variables, which override ours.

        Raises TemplateError if the template refuses the conversation even after repairs.
        """
        said, specs, now = messages_from(messages), tools_from(tools), now or datetime.now()
        switch = self.repairs.thinking(enable_thinking) if enable_thinking is not None else {}
        variables = {**switch, **{name: marked(value, "variable") for name, value in template_kwargs.items()}}
        if continue_final is not None and (not said or said[-1].role != "assistant"):
            raise TemplateError("There is no assistant message to continue.", "End the messages with an assistant's message.")
        before, opened = (said, add_generation_prompt) if continue_final is None else (said[:-1], True)
        text = self._text(before, specs, variables, opened, now)
        opening = self._generation_prompt(text, before, specs, variables, now) if opened else ""
        return _prompt(text, opening) if continue_final is None else self._continued(text, opening, said[-1], continue_final)

    def _text(
        self, messages: Sequence[Message], tools: Sequence[ToolSpec], extra: dict[str, Any], opened: bool, now: datetime
    ) -> str:
        """One render. All renders of a prompt get the same time, because they are compared."""
        repairs = self.repairs
        given = {"add_generation_prompt": opened, **template_variables(repairs, messages, tools, self.tools, now), **extra}
        try:
            return self.template.render(given, lenient=repairs.lenient, now=now)
        except UndefinedNameError:  # e.g. the template needs a member that a tool's schema does not have
            again = template_variables(repairs, messages, tools, self.tools, now)
            return self.template.render({"add_generation_prompt": opened, **again, **extra}, lenient=True, now=now)

    def _generation_prompt(
        self, text: str, messages: Sequence[Message], tools: Sequence[ToolSpec], extra: dict[str, Any], now: datetime
    ) -> str:
        """The end of the text, which only opens the assistant's turn."""
        closed = self._text(messages, tools, extra, False, now)
        shared = whole_tags(common_prefix(str.__str__(closed), str.__str__(text)), str.__str__(text))
        return str.__str__(text)[len(shared) :]

    def _continued(self, text: str, opening: str, last: Message, how: Continue) -> Prompt:
        """Append the beginning of the last message, with its thought in place of a thought that the prompt opens."""
        reasoning, start = self.analysis.reasoning, self.turn.content_start
        pieces: list[str] = []
        if reasoning and (last.reasoning or how == "reasoning"):
            at = reasoning.opened_at(opening)
            text, opening = text[: len(text) - len(opening) + at], opening[:at]
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
            tools: the offered tools; without tools, nothing is a call.
            prompt: what the answer follows, from :meth:`render`: it may open a thought, or begin the answer.
            tool_choice: under "none", nothing is a call.
            parallel_tool_calls: has no effect on reading; the constraint keeps the model to one call.
            reasoning: "inline" leaves reasoning in the content, with its markers.
            response_format: the JSON schema of the content; a code fence around the content is removed.
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
        in_words: bool = False,
    ) -> Constraint:
        """The grammars that hold one answer, with arguments as for :meth:`parser`. ``syntax`` may be one of the alternates.

        ``in_words`` also holds back what looks like a call. Raises SchemaError for a schema that cannot be used, or for a
        ``tool_choice`` that is not offered.
        """
        from .constraint import Frame, build_constraint, first_tag

        offered, syntax, reasoning = tools_from(tools), syntax or self.tools, self.analysis.reasoning
        if tool_choice not in ("auto", "none", "required") and all(tool.name != tool_choice for tool in offered):
            raise SchemaError(f"tool_choice names {tool_choice!r}, but this tool is not offered.", "Offer it, or name another.")
        ends = (self.turn.end, *self.turn.extra_ends, *(syntax.blocks.ends if syntax.blocks is not None else ()))
        opened = prompt.continued == "reasoning" or reasoning.begun(prompt.generation_prompt) is not None
        frame = Frame(reasoning, opened, self.turn, frozenset(tag for end in ends if (tag := first_tag(end))))
        return build_constraint(
            syntax, offered, tool_choice=tool_choice, parallel=parallel_tool_calls, response_schema=response_format,
            frame=frame, in_words=in_words,
        )  # fmt: skip


def _prompt(text: str, opening: str) -> Prompt:
    plain, spans = prompt_of(text)
    return Prompt(plain, opening, spans)


def _ends_with_marker(text: str, marker: str) -> bool:
    return bool(marker.strip()) and text.rstrip().endswith(marker.strip())
