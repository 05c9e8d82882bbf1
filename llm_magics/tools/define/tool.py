"""``@tool``: a Python function that a model may call.

A :class:`Tool` stays callable like its function. The loop uses four members: ``spec`` describes it to the model, ``shown`` to a
person who approves, ``bind`` reads arguments, and ``invoke`` is a generator that yields progress and returns the value. A
notebook cell as a tool (``kernel.cells``) is a subclass with its own ``invoke``.
"""

from __future__ import annotations

import functools
import inspect
import json
from collections.abc import AsyncIterator, Callable, Generator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar, overload

from llm_magics.errors import ToolError
from llm_magics.messages import ToolCall, ToolSpec
from llm_magics.tools.policy import Approve, check_approve

from .registry import registered
from .running import collect, drive
from .signature import Signature, read_signature

F = TypeVar("F", bound=Callable[..., Any])
_UNSET: Any = object()


@dataclass(frozen=True, slots=True)
class ToolOptions:
    """How a tool may run. ``timeout`` is in seconds; None follows the turn's limits. ``max_chars`` caps what the model reads of
    a result. ``thread_safe`` lets calls of one step run side by side in threads. ``mock`` replaces the function: a value, or a
    callable with the same parameters. ``repeats``: a repeated call may give a new result (a clock, a die), so it runs again."""

    approve: Approve = "auto"
    timeout: float | None = None
    max_chars: int | None = None
    thread_safe: bool = False
    repeats: bool = False
    mock: Any = field(default=_UNSET, repr=False)

    def __post_init__(self) -> None:
        check_approve(self.approve)
        for name in ("timeout", "max_chars"):
            value = getattr(self, name)
            if value is not None and not (isinstance(value, (int, float)) and not isinstance(value, bool) and value > 0):
                raise ToolError(f"{name} must be a positive number, not {value!r}.")

    @property
    def mocked(self) -> bool:
        return self.mock is not _UNSET


class Tool:
    """A function and its description for a model. Made by :func:`tool`; call it like the function itself.

    Attributes: ``name``, ``description``, ``parameters`` (JSON schema), ``options``, ``spec``.
    """

    def __init__(self, function: Callable[..., Any], signature: Signature, options: ToolOptions) -> None:
        functools.update_wrapper(self, function)
        self.function = function
        self.signature = signature
        self.options = options

    @property
    def name(self) -> str:
        return self.signature.name

    @property
    def description(self) -> str:
        return self.signature.description

    @property
    def parameters(self) -> Mapping[str, Any]:
        return self.signature.parameters

    @property
    def spec(self) -> ToolSpec:
        return ToolSpec(self.name, self.description, self.parameters)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.function(*args, **kwargs)

    def __get__(self, instance: Any, owner: type | None = None) -> Tool:
        if instance is None:
            return self
        return Tool(self.function.__get__(instance, owner), self.signature, self.options)

    def __set_name__(self, owner: type, name: str) -> None:
        registered.discard(self)  # a method needs its instance: offer it with ``tools=[thing.method]``

    def __repr__(self) -> str:
        return f"<tool {self.name}{self.signature.text}>"

    def __copy__(self) -> Tool:
        return self.with_options()

    def with_options(self, **changes: Any) -> Tool:
        """Copy the tool with other options, e.g. ``calculate.with_options(approve="ask")``."""
        copy = object.__new__(type(self))
        copy.__dict__.update(self.__dict__)
        copy.options = replace(self.options, **changes)
        return copy

    @property
    def source(self) -> str:
        """The code of a cell, for the person who approves it; empty for a function."""
        return ""

    def shown(self, call: ToolCall) -> str:
        """Write out exactly what would run, for a person to approve; invisible characters are written as escapes."""
        try:
            given = json.loads(call.arguments or "{}")
            arguments = ", ".join(f"{name}={json.dumps(value, ensure_ascii=False)}" for name, value in given.items())
        except (ValueError, AttributeError, RecursionError):
            arguments = call.arguments
        header = f"{self.name}({arguments})"
        return _visible(f"{header}\n\n{self.source}" if self.source else header)

    def bind(self, arguments: str) -> dict[str, Any]:
        """Validate and convert a call's arguments; raises ToolError, written so that the model can correct the call."""
        return self.signature.bind(arguments)

    def invoke(self, arguments: dict[str, Any]) -> Generator[Any, None, Any]:
        """Run with bound arguments, in the calling thread: yield progress, return the value."""
        value = self._start(arguments)
        if inspect.isawaitable(value) or isinstance(value, AsyncIterator):
            return (yield from drive(value))
        if isinstance(value, Generator):
            return (yield from collect(value))
        return value

    def _start(self, arguments: dict[str, Any]) -> Any:
        if not self.options.mocked:
            return self.signature.call(self.function, arguments)
        mock = self.options.mock
        return mock(**arguments) if callable(mock) else mock


def _visible(text: str) -> str:
    """Escape characters that are invisible or reorder text, e.g. U+202E, which shows "txt.exe" as "exe.txt"."""
    return "".join(c if c.isprintable() or c in "\n\t" else c.encode("unicode_escape").decode() for c in text)


@overload
def tool(function: F) -> Tool: ...
@overload
def tool(
    *,
    name: str | None = None,
    description: str | None = None,
    approve: Approve = "auto",
    timeout: float | None = None,
    max_chars: int | None = None,
    thread_safe: bool = False,
    repeats: bool = False,
    mock: Any = ...,
) -> Callable[[Callable[..., Any]], Tool]: ...
def tool(
    function: Callable[..., Any] | None = None, *, name: str | None = None, description: str | None = None, **options: Any
) -> Tool | Callable[[Callable[..., Any]], Tool]:
    """Make a function, method, coroutine function or generator function a tool, and register it under its name.

    The model reads the name, the docstring's description and a JSON schema of the parameters (from annotations, defaults and
    the docstring's parameter section: Google, NumPy or reST). Arguments are validated and converted before the call. A
    generator's items stream into the trace. A new tool replaces the one of the same name.

    A coroutine function runs in a thread with its own event loop, because the kernel's loop is busy with the cell. Objects of
    the kernel's loop (an HTTP session, an asyncio lock or queue that a cell has used) fail there: make them in the function.

    Args:
        name: the tool's name for the model; the function's name by default.
        description: the tool's description for the model; the docstring's by default.
        options: ``approve`` ("auto", "ask" or "deny"), ``timeout`` in seconds, ``max_chars`` of the result that reach the
            model, ``thread_safe``, ``repeats``, ``mock``; see :class:`ToolOptions`.

    Raises ToolError naming a parameter that JSON schema cannot express.
    """

    def make(target: Callable[..., Any]) -> Tool:
        made = make_tool(target, name=name, description=description, **options)
        registered.add(made)
        return made

    return make if function is None else make(function)


def make_tool(target: Callable[..., Any], *, name: str | None = None, description: str | None = None, **options: Any) -> Tool:
    """Make a tool without registering it."""
    if isinstance(target, Tool):
        target = target.function
    if isinstance(target, (staticmethod, classmethod)):
        target = target.__func__
    if not callable(target):
        raise ToolError(f"A tool must be callable, not {target!r}.", "Decorate a function.")
    unknown = options.keys() - ToolOptions.__dataclass_fields__.keys()
    if unknown:
        raise ToolError(f"@tool has no option {min(unknown)!r}.", f"It takes {', '.join(ToolOptions.__dataclass_fields__)}.")
    return Tool(target, read_signature(target, name, description), ToolOptions(**options))


def as_tool(given: Tool | Callable[..., Any]) -> Tool:
    """Return a tool unchanged, and make a tool of a plain function."""
    return given if isinstance(given, Tool) else make_tool(given)
