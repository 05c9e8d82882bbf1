"""Reading annotations: strings resolved one parameter at a time, old TypedDicts made readable for pydantic.

pydantic resolves all annotations of a function or fails for all; here the parameter that cannot be resolved is named.
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
    """Evaluate a string annotation where the function was defined, its closure included; anything else is itself."""
    if not isinstance(annotation, str):
        return annotation
    plain = inspect.unwrap(function)
    plain = getattr(plain, "__func__", plain)
    if not hasattr(plain, "__globals__"):
        plain = type(plain).__call__
    scope = dict(getattr(plain, "__globals__", vars(typing)))
    if getattr(plain, "__closure__", None):
        scope |= inspect.getclosurevars(plain).nonlocals
    # Same trust as the function itself: its author wrote the annotation.
    return eval(annotation, scope)


def modern(annotation: Any) -> Any:
    """Rebuild ``typing.TypedDict`` classes inside an annotation as the kind pydantic accepts before Python 3.12."""
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

    hints = typing.get_type_hints(old, include_extras=True)
    fields = {
        name: Required[modern(_bare(hint))] if name in old.__required_keys__ else NotRequired[modern(_bare(hint))]
        for name, hint in hints.items()
    }
    new = typed_dict(old.__name__, fields)
    new.__doc__ = old.__doc__
    return new


def typed_dict(name: str, fields: dict[str, Any]) -> Any:
    """Make a TypedDict class at run time, of the kind that pydantic accepts on every Python."""
    import typing_extensions

    make: Any = typing_extensions.TypedDict  # type checkers only know the literal form
    return make(name, fields)


def _bare(hint: Any) -> Any:
    """Take ``Required[...]`` or ``NotRequired[...]`` off."""
    return get_args(hint)[0] if get_origin(hint) in (typing.Required, typing.NotRequired) else hint
