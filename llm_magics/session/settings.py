"""The settings of one turn: the session's defaults, overridden by what the turn itself gives."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

from llm_magics.errors import OptionError, SchemaError
from llm_magics.messages import JsonSchema, ToolChoice
from llm_magics.models.base import Sampling
from llm_magics.options import near
from llm_magics.tools.define.tool import Tool, as_tool
from llm_magics.tools.policy import Approve, Limits, check_approve

_AGAIN = "Ask again, or allow more tokens."


@dataclass(frozen=True, slots=True)
class TurnSettings:
    """Everything a turn is asked with besides its text. All but the last three go to the model (see Request).

    A turn also takes short names: each field of Sampling, e.g. ``seed``; ``max_steps`` for ``limits.steps``; ``max_calls`` for
    both ``limits.calls`` and ``limits.recovered_calls``. ``tools`` may be plain functions. ``response_schema`` is a JSON schema
    or a type that pydantic can describe: a model, a dataclass, ``list[int]``. ``approve`` None follows each tool's policy.
    ``record`` also saves what a replay needs.
    """

    system: str = ""
    tools: tuple[Tool, ...] = ()
    tool_choice: ToolChoice = "auto"
    parallel_tool_calls: bool = True
    sampling: Sampling = field(default_factory=Sampling)
    max_tokens: int | None = None
    stop: tuple[str, ...] = ()
    thinking: bool | None = None
    response_schema: Any = None
    template_kwargs: Mapping[str, Any] = field(default_factory=dict)
    logprobs: int = 0
    priority: int = 0
    limits: Limits = field(default_factory=Limits)
    approve: Approve | None = None
    record: bool = False

    def __post_init__(self) -> None:
        offered = [tool.name for tool in self.tools]
        if twice := [name for name in offered if offered.count(name) > 1]:
            raise OptionError(f"Two tools are called {twice[0]!r}.", "Give one of them another name: @tool(name=...).")
        if self.tool_choice not in ("auto", "none", "required", *offered):
            hint = near(self.tool_choice, offered) or f"Choose one of {', '.join(('auto', 'none', 'required', *offered))}."
            raise OptionError(f"No tool called {self.tool_choice!r} is offered in this turn.", hint)
        if self.tool_choice == "required" and not self.tools:
            raise OptionError("A tool call is required, and no tool is offered.", "Offer at least one tool.")

    def override(self, **given: Any) -> TurnSettings:
        """Override these settings; raises OptionError for an unknown name."""
        known = {f.name for f in fields(self)}
        if unknown := [name for name in given if name not in known | _SHORT.keys()]:
            raise OptionError(f"A turn has no setting {unknown[0]!r}.", near(unknown[0], [*known, *_SHORT]))
        plain = {name: _READ[name](value) if name in _READ else value for name, value in given.items() if name in known}
        settings = replace(self, **plain)
        for name, set_in in _SHORT.items():
            if given.get(name) is not None:
                settings = set_in(settings, given[name])
        return settings

    @property
    def json_schema(self) -> JsonSchema | None:
        """``response_schema`` as the JSON schema that is enforced."""
        return None if self.response_schema is None else schema_of(self.response_schema)


def schema_of(given: Any) -> JsonSchema:
    """The JSON schema to enforce for a schema, a pydantic model, or any type that pydantic understands."""
    if isinstance(given, Mapping):
        return given
    from pydantic import TypeAdapter
    from pydantic.errors import PydanticUserError

    from llm_magics.tools.define.annotations import modern
    from llm_magics.tools.define.declared import declared_schema

    try:
        return declared_schema(TypeAdapter(modern(given)))
    except PydanticUserError as error:
        what = f"No JSON schema can be made of {given!r}: {error}"
        raise SchemaError(what, "Give a pydantic model or a JSON schema.") from error


def value_of(text: str, given: Any) -> Any:
    """Read an answer as ``response_schema`` describes; raises SchemaError if it is not valid."""
    import pydantic

    from llm_magics.tools.define.annotations import modern

    if not isinstance(given, Mapping):
        try:
            return pydantic.TypeAdapter(modern(given)).validate_json(text)
        except pydantic.ValidationError as error:
            raise SchemaError(f"The answer does not match the schema: {error}", _AGAIN) from error
    import json

    from llm_magics.schema.validate import validate

    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise SchemaError(f"The answer is not JSON: {error}.", _AGAIN) from error
    wrong = validate(value, given)
    if wrong:
        raise SchemaError(f"The answer does not match the schema: {'; '.join(wrong[:3])}.", _AGAIN)
    return value


def _tools(given: Iterable[Tool | Callable[..., Any]]) -> tuple[Tool, ...]:
    if isinstance(given, Tool) or callable(given):
        given = (given,)
    return tuple(as_tool(one) for one in given)


_READ: dict[str, Callable[[Any], Any]] = {
    "tools": _tools,
    "stop": lambda given: (given,) if isinstance(given, str) else tuple(given),
    "sampling": lambda given: Sampling() if given is None else given,
    "limits": lambda given: Limits() if given is None else given,
    "approve": lambda given: None if given is None else check_approve(given),
}


def _sets_sampling(name: str) -> Callable[[TurnSettings, Any], TurnSettings]:
    return lambda settings, value: replace(settings, sampling=replace(settings.sampling, **{name: value}))


_SHORT: dict[str, Callable[[TurnSettings, Any], TurnSettings]] = {
    **{f.name: _sets_sampling(f.name) for f in fields(Sampling)},
    "max_steps": lambda settings, steps: replace(settings, limits=replace(settings.limits, steps=steps)),
    "max_calls": lambda settings, most: replace(settings, limits=replace(settings.limits, calls=most, recovered_calls=most)),
}
