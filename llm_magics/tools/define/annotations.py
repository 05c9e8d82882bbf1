"""Reading annotations: strings are resolved per parameter, and old TypedDicts made readable for pydantic.

pydantic resolves all annotations of a function or none; here an error names the parameter.
"""

from __future__ import annotations

import functools
import inspect
import operator
import sys
import types
import typing
from collections.abc import Callable
from typing import Annotated, Any, Union, get_args, get_origin


def resolve(function: Callable[..., Any], annotation: Any) -> Any:
    """Evaluate a string annotation in the scope of the function's definition; return any other annotation unchanged."""
    if not isinstance(annotation, str):
        return annotation
    plain = inspect.unwrap(function)
    plain = getattr(plain, "__func__", plain)
    if not hasattr(plain, "__globals__"):
        plain = type(plain).__call__
    scope = dict(getattr(plain, "__globals__", vars(typing)))
    if getattr(plain, "__closure__", None):
        scope |= inspect.getclosurevars(plain).nonlocals
    return eval(annotation, scope)  # as trusted as the function: its author wrote both


def modern(annotation: Any) -> Any:
    """Rebuild ``typing.TypedDict`` classes inside an annotation so that pydantic accepts them before Python 3.12."""
    if sys.version_info >= (3, 12):
        return annotation
    if typing.is_typeddict(annotation):
        return _rebuilt(annotation)
    arguments = get_args(annotation)
    if not arguments or get_origin(annotation) is typing.Literal:
        return annotation
    if get_origin(annotation) is Annotated:
        return Annotated[(modern(arguments[0]), *annotation.__metadata__)]
    rebuilt = tuple(modern(argument) for argument in arguments)
    if rebuilt == arguments:
        return annotation
    if get_origin(annotation) in (Union, types.UnionType):
        return functools.reduce(operator.or_, rebuilt)
    return get_origin(annotation)[rebuilt]


def _rebuilt(old: Any) -> Any:
    from typing import NotRequired, Required

    hints = {name: modern(_bare(hint)) for name, hint in typing.get_type_hints(old, include_extras=True).items()}
    required = old.__required_keys__
    new = typed_dict(old.__name__, {k: Required[h] if k in required else NotRequired[h] for k, h in hints.items()})
    new.__doc__ = old.__doc__
    return new


def typed_dict(name: str, fields: dict[str, Any]) -> Any:
    """Make a TypedDict class that pydantic accepts on every Python."""
    import typing_extensions

    make: Any = typing_extensions.TypedDict  # type checkers only know the literal form
    return make(name, fields)


def _bare(hint: Any) -> Any:
    """Remove ``Required[...]`` or ``NotRequired[...]``."""
    return get_args(hint)[0] if get_origin(hint) in (typing.Required, typing.NotRequired) else hint
