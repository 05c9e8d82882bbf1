"""From a Python signature and its docstring to a JSON schema, and from JSON arguments back to Python values.

pydantic does both from one TypedDict made of the parameters, so the model is told exactly what is checked. Each parameter is
first tried alone: an annotation that JSON cannot express raises an error that names the parameter when the tool is defined.
"""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, get_args, get_origin

from llm_magics.errors import ToolError

from .annotations import modern, resolve, typed_dict

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,63}")  # what the OpenAI API and every template allow, e.g. get_weather
_TYPES: Mapping[str, Any] = {
    "str": str, "string": str, "text": str, "int": int, "integer": int, "float": float, "number": float,
    "bool": bool, "boolean": bool, "list": list, "array": list, "dict": dict, "object": dict,
}  # fmt: skip
MAX_ARGUMENTS = 1_000_000  # characters of JSON


@dataclass(frozen=True, slots=True)
class Signature:
    """A tool's signature. ``text`` is the Python signature to show, ``adapter`` pydantic's reader of the arguments."""

    name: str
    description: str
    parameters: Mapping[str, Any]
    text: str
    adapter: Any
    defaults: Mapping[str, Any]
    positional: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self.parameters["properties"])

    def bind(self, arguments: str) -> dict[str, Any]:
        """Read the JSON text of a call's arguments; raises ToolError, written for the model."""
        import pydantic

        given = parse_arguments(self.name, arguments)
        try:
            bound: dict[str, Any] = self.adapter.validate_python(given)
        except pydantic.ValidationError as error:
            faults = "; ".join(_fault(one) for one in error.errors(include_url=False, include_context=False)[:5])
            what = f"Invalid arguments for {self.name}: {faults}."
            raise ToolError(what, f"The signature is {self.name}{self.text}.") from error
        except (RecursionError, OverflowError) as error:
            what = f"The arguments for {self.name} are nested too deeply or too large."
            raise ToolError(what, "Send short, plain values.") from error
        return {**self.defaults, **bound}

    def call(self, function: Callable[..., Any], bound: Mapping[str, Any]) -> Any:
        """Call ``function`` with bound arguments."""
        first = [bound[name] for name in self.positional if name in bound]
        return function(*first, **{name: value for name, value in bound.items() if name not in self.positional})


def parse_arguments(name: str, arguments: str) -> dict[str, Any]:
    """Parse a call's arguments as a JSON object; raises ToolError."""
    if len(arguments) > MAX_ARGUMENTS:
        raise ToolError(f"The arguments for {name} have {len(arguments):,} characters.", f"At most {MAX_ARGUMENTS:,} are read.")
    try:
        given = json.loads(arguments) if arguments.strip() else {}
    except (ValueError, RecursionError) as error:
        raise ToolError(f"The arguments for {name} are not valid JSON: {error}.", "Send one JSON object.") from error
    if not isinstance(given, dict):
        raise ToolError(f"The arguments for {name} are {type(given).__name__}, not an object.", "Send one JSON object.")
    return given


def read_signature(function: Callable[..., Any], name: str | None = None, description: str | None = None) -> Signature:
    """Describe ``function``; raises ToolError naming a parameter that JSON cannot express."""
    from .declared import declared_schema, tidy

    name = str(name or getattr(function, "__name__", type(function).__name__))
    if not _NAME.fullmatch(name):
        raise ToolError(f"{name!r} is not a valid tool name.", "Use letters, digits, _ and -: @tool(name='look_up').")
    try:
        signature = inspect.signature(function)
    except (ValueError, TypeError) as error:
        raise ToolError(f"Python cannot read the signature of {name}.", "Wrap it in a function with annotations.") from error
    documentation = read_docstring(inspect.getdoc(function) or "")
    parameters = [p for i, p in enumerate(signature.parameters.values()) if not (i == 0 and _is_self(function, p))]
    adapter, defaults = _reader(name, function, parameters, documentation)
    return Signature(
        name=name,
        description=documentation.summary if description is None else description,
        parameters=tidy(declared_schema(adapter)),
        text=_spell(function, signature.replace(parameters=parameters)),
        adapter=adapter,
        defaults=defaults,
        positional=tuple(p.name for p in parameters if p.kind is p.POSITIONAL_ONLY),
    )


def _spell(function: Callable[..., Any], signature: inspect.Signature) -> str:
    """Write a signature for people: without the main module's name, Field rules and metadata of annotations."""
    from pydantic.fields import FieldInfo

    def plain(parameter: inspect.Parameter) -> inspect.Parameter:
        annotation, default = resolve(function, parameter.annotation), parameter.default
        if isinstance(default, FieldInfo):
            default = parameter.empty if default.is_required() else default.default
        if get_origin(annotation) is Annotated:
            annotation = get_args(annotation)[0]
        return parameter.replace(annotation=annotation, default=default)

    returns = signature.return_annotation
    if isinstance(returns, str):
        returns = _Verbatim(returns)
    try:
        text = str(signature.replace(parameters=[plain(p) for p in signature.parameters.values()], return_annotation=returns))
    except ValueError:  # a required Field() after a default: Python allows it, Signature does not
        text = str(signature)
    return text.replace("__main__.", "")


class _Verbatim:
    """An annotation that was a string: spelled without quotes."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __repr__(self) -> str:
        return self.text


def _reader(
    name: str, function: Callable[..., Any], parameters: list[inspect.Parameter], documentation: Documentation
) -> tuple[Any, dict[str, Any]]:
    """pydantic's reader of the arguments (a TypedDict made of the parameters), and the defaults given by Fields."""
    from typing import NotRequired

    from pydantic import ConfigDict, TypeAdapter

    fields: dict[str, Any] = {}
    defaults: dict[str, Any] = {}
    for parameter in parameters:
        annotation = _annotate(name, function, parameter, documentation, defaults)
        required = parameter.default is parameter.empty and parameter.name not in defaults
        fields[parameter.name] = annotation if required else NotRequired[annotation]
    arguments = typed_dict("arguments", fields)
    # Small models write 5 instead of "5", so numbers become text if text is expected. Unknown names are errors.
    arguments.__pydantic_config__ = ConfigDict(
        extra="forbid", coerce_numbers_to_str=True, arbitrary_types_allowed=False, regex_engine="python-re"
    )
    return TypeAdapter(arguments), defaults


def _annotate(
    name: str, function: Callable[..., Any], parameter: inspect.Parameter, docs: Documentation, defaults: dict[str, Any]
) -> Any:
    """A parameter's annotation with description and default, tried alone; the default of a Field is added to ``defaults``."""
    from pydantic import TypeAdapter

    from .declared import declared_schema

    if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
        spelled = str(parameter).split(":")[0]
        raise ToolError(f"{name}: the parameter {spelled} cannot be described to a model.", "Name each parameter.")
    try:
        annotation = resolve(function, parameter.annotation)
        if annotation is parameter.empty:
            annotation = docs.types.get(parameter.name, Any)
        annotation = _with_facts(modern(annotation), parameter, docs.parameters.get(parameter.name, ""), defaults)
        declared_schema(TypeAdapter(annotation))  # tried alone
    except Exception as error:  # pydantic, typing and the annotation's own code raise many kinds
        spelled = "no annotation" if parameter.annotation is parameter.empty else inspect.formatannotation(parameter.annotation)
        first = (str(error).splitlines() or [type(error).__name__])[0]
        why = first.partition(". ")[0].rstrip(".")  # the advice that follows is for pydantic's own users
        raise ToolError(
            f"{name}: the parameter {parameter.name!r} ({spelled}) cannot be described to a model: {why}.",
            "Annotate it with str, int, float, bool, list, dict, Literal, an Enum, a dataclass or a pydantic model.",
        ) from error
    return annotation


def _with_facts(annotation: Any, parameter: inspect.Parameter, description: str, defaults: dict[str, Any]) -> Any:
    from pydantic import Field
    from pydantic.fields import FieldInfo
    from pydantic_core import to_jsonable_python

    default, facts = parameter.default, []
    if isinstance(default, FieldInfo):  # e.g. n: int = Field(3, ge=1): the rule is the type's, the default the call's
        facts += default.metadata
        description = default.description or description
        default = parameter.empty if default.is_required() else default.get_default(call_default_factory=True)
        if default is not parameter.empty:
            defaults[parameter.name] = default
    spoken = any(isinstance(fact, FieldInfo) and fact.description for fact in getattr(annotation, "__metadata__", ()))
    if description and not spoken:
        facts.append(Field(description=description))
    if default is not parameter.empty and default is not None:
        try:
            facts.append(Field(json_schema_extra={"default": to_jsonable_python(default)}))
        except ValueError:
            pass  # JSON cannot express the default, so the schema only says that the parameter is optional
    return Annotated[(annotation, *facts)] if facts else annotation


def _is_self(function: Callable[..., Any], parameter: inspect.Parameter) -> bool:
    """Whether this is the ``self`` or ``cls`` of a function defined in a class body."""
    owner = getattr(function, "__qualname__", "").rpartition(".")[0]
    in_class = bool(owner) and not owner.endswith("<locals>") and not inspect.ismethod(function)
    return in_class and parameter.name in ("self", "cls") and parameter.annotation is parameter.empty


def _fault(error: Mapping[str, Any]) -> str:
    """Describe one of pydantic's errors: where, what is wrong, and what was given."""
    where = ".".join(str(part) for part in error["loc"]) or "the arguments"
    if error["type"] == "missing":
        return f"{where} is missing"
    if error["type"] == "extra_forbidden":
        return f"there is no parameter {where}"
    given = repr(error["input"])
    return f"{where}: {error['msg']}, got {given if len(given) <= 80 else given[:77] + '...'}"


# --- docstrings -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Documentation:
    """A docstring, read. ``types`` holds the plain types it names, for parameters without an annotation."""

    summary: str = ""
    parameters: Mapping[str, str] = field(default_factory=dict)
    types: Mapping[str, Any] = field(default_factory=dict)


def read_docstring(text: str) -> Documentation:
    """Read a Google, NumPy or reST docstring; any other docstring is all summary."""
    if not text.strip():
        return Documentation()
    from docstring_parser import ParseError, parse

    try:
        parsed = parse(text)
    except ParseError:
        return Documentation(text.strip())
    summary = "\n\n".join(part.strip() for part in (parsed.short_description, parsed.long_description) if part)
    described = {p.arg_name.strip("*`"): " ".join((p.description or "").split()) for p in parsed.params}
    types = {p.arg_name: _TYPES[word] for p in parsed.params if (word := _word(p.type_name)) in _TYPES}
    return Documentation(summary or text.strip(), {name: text for name, text in described.items() if text}, types)


def _word(type_name: str | None) -> str:
    """The bare type in e.g. ``int, optional`` or ``str (default: "x")``."""
    return (type_name or "").split(",")[0].split("(")[0].strip().lower()
