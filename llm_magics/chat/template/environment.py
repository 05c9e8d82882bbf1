"""The environment that chat templates run in: Hugging Face's, in a sandbox.

As in ``transformers``: ``trim_blocks``, ``lstrip_blocks``, loop controls, ``{% generation %}``, ``tojson`` that keeps key order
and writes no HTML escapes, ``raise_exception``, ``strftime_now``. Templates in the wild also need ``from_json``, ``safe``
without HTML mark-up, and lists that can be appended to (each render works on its own copies).

Templates cannot leave the sandbox: jinja2 refuses attributes that start with an underscore, every operation pays from the
:mod:`budget <llm_magics.chat.template.budget>`, and strings keep their :mod:`origin <llm_magics.chat.syntax.origin>`.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterable
from contextvars import ContextVar
from datetime import datetime
from typing import Any

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import SandboxedEnvironment
from jinja2.visitor import NodeTransformer

from llm_magics.chat.syntax.origin import OriginText, concat, join, mark, marked, origin_of, replace, substitute
from llm_magics.errors import TemplateError

from .budget import current

_PADDING = {"indent", "center", "ljust", "rjust", "zfill", "expandtabs", "batch", "slice", "round", "tojson"}
_UNBOUNDED = {"translate", "maketrans", "encode"}
_PLAIN = {str, OriginText, list, dict, tuple, int, float, bool, type(None)}
_MAX_BITS = 4096

PROBED_AT = datetime(2025, 1, 31, 12)  # the time that a template is told during analysis: results must not depend on the day
rendered_at: ContextVar[datetime] = ContextVar("llm_magics_rendered_at", default=PROBED_AT)
"""The time that the running template is told; no template reads the clock."""


class LenientUndefined(jinja2.ChainableUndefined):
    """An undefined value that is also empty text, for templates that add to a variable they never set."""

    def __add__(self, other: Any) -> Any:
        return other

    __radd__ = __add__

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self


class GenerationTag(Extension):
    """``{% generation %}...{% endgeneration %}`` marks text to train on; here the tags are dropped."""

    tags = {"generation"}  # noqa: RUF012 - jinja2 declares it so

    def parse(self, parser: Parser) -> nodes.Node | list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class _Metered(NodeTransformer):
    """Let operations that the sandbox does not see pay: loops for each step, ``~`` and literals for their result."""

    def visit_For(self, node: nodes.For) -> nodes.For:
        self.generic_visit(node)
        node.iter = _filtered(node.iter, "_steps")
        return node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:
        self.generic_visit(node)
        return _filtered(nodes.List(node.nodes, lineno=node.lineno), "_concat")

    def visit_List(self, node: nodes.Expr) -> nodes.Node:
        self.generic_visit(node)
        return _filtered(node, "_made")

    visit_Dict = visit_List

    def visit_Tuple(self, node: nodes.Tuple) -> nodes.Node:
        return node if node.ctx == "store" else self.visit_List(node)


def _filtered(node: Any, name: str) -> nodes.Filter:
    return nodes.Filter(node, name, [], [], None, None, lineno=node.lineno)


class TemplateEnvironment(SandboxedEnvironment):
    """The sandbox. ``lenient`` makes undefined names into empty text."""

    intercepted_binops = frozenset({"+", "*", "**", "%"})

    def __init__(self, *, lenient: bool = False) -> None:
        super().__init__(
            trim_blocks=True,
            lstrip_blocks=True,
            extensions=[loopcontrols, GenerationTag, "jinja2.ext.do"],
            undefined=LenientUndefined if lenient else jinja2.Undefined,
            finalize=_text,
            optimized=False,
        )
        for name in ("urlize", "pprint", "xmlattr", "random"):
            del self.filters[name]
        self.filters |= _FILTERS
        self.filters = {name: _metered_filter(name, f) for name, f in self.filters.items()}
        self.globals = {k: v for k, v in self.globals.items() if k != "lipsum"}
        self.globals |= {"raise_exception": _raise_exception, "strftime_now": _strftime_now}

    @staticmethod
    def concat(pieces: Iterable[str]) -> str:
        """Join pieces of output, after paying for them."""
        kept = list(pieces)
        current().make(sum(map(len, kept)))
        return concat(kept)

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        parsed: nodes.Template = _Metered().visit(super()._parse(source, name, filename))
        return parsed

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        budget = current()
        budget.step()
        if operator in ("*", "**"):
            _check_product(operator, left, right)
        if operator == "%" and isinstance(left, str):
            budget.check_format(left, right)
            return budget.value(substitute(lambda v: str.__mod__(left, v), right))
        return budget.value(super().call_binop(context, operator, left, right))

    def call(self, context: Any, obj: Any, /, *args: Any, **kwargs: Any) -> Any:
        budget = current()
        budget.step()
        method = getattr(obj, "__wrapped__", obj)  # jinja2 wraps str.format, which would reach attributes
        owner = getattr(method, "__self__", None)
        if isinstance(owner, str):
            for name in ("_loop_vars", "_block_vars"):  # jinja2's own, for callables that take the context
                kwargs.pop(name, None)
            return budget.value(_call_text(owner, method.__name__, obj, args, kwargs))
        if isinstance(owner, list | dict):
            budget.make(sum(map(budget.size, args)))
            return super().call(context, obj, *args, **kwargs)
        return budget.value(super().call(context, obj, *args, **kwargs))

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        """Refuse the attributes that jinja2's sandbox refuses, and the few methods that no limit can bound."""
        if attr in _UNBOUNDED or type(obj) in _PLAIN:  # the common case: an underscore marks all that is internal
            return attr not in _UNBOUNDED and not attr.startswith("_")
        return super().is_safe_attribute(obj, attr, value)


def _check_product(operator: str, left: Any, right: Any) -> None:
    budget = current()
    if isinstance(left, int) and isinstance(right, int):
        bits = left.bit_length() * (abs(right) if operator == "**" else 1) + right.bit_length()
        if bits > _MAX_BITS:
            raise TemplateError("The chat template computes a huge number.")
    for many, times in ((left, right), (right, left)):
        if isinstance(many, str | bytes | list | tuple) and isinstance(times, int):
            budget.make(budget.size(many) * max(times, 0))


def _call_text(owner: str, name: str, method: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Call a method of a string: check its bounds before, keep its result's origin after."""
    budget = current()
    if name == "join":
        return _join(args[0], owner)
    if name == "replace":
        return _replace(owner, *args, **kwargs)
    if name in ("format", "format_map"):
        budget.check_format(owner, [args, kwargs])
        done = substitute(lambda v: str.__str__(method(*v[0], **v[1])), (args, kwargs))
        return _keep_origin(done, (owner,))
    if name in _PADDING:
        budget.check_width((*args, *kwargs.values()))
        budget.make(len(owner) + owner.count("\t") * 1000)
    if name in ("split", "rsplit", "splitlines"):
        pieces = owner.count(args[0]) if args and isinstance(args[0], str) and args[0] else len(owner) // 2
        budget.make(20 * pieces)  # each piece is a string of its own
    return _keep_origin(method(*args, **kwargs), (owner, *args))


def _keep_origin(result: Any, sources: Iterable[Any]) -> Any:
    """Mark plain text that was made of outside text by an operation that loses origins."""
    if isinstance(result, str) and not isinstance(result, OriginText):
        return mark(result, origin_of(s for s in sources if isinstance(s, str))) if result else result
    return result


def _metered_filter(name: str, f: Callable[..., Any]) -> Callable[..., Any]:
    """Let a filter pay for its result, refuse huge widths, and keep its text's origin."""
    if name in ("_steps", "_made", "_concat"):
        return f

    @functools.wraps(f)
    def metered(*args: Any, **kwargs: Any) -> Any:
        budget = current()
        budget.step()
        if name in _PADDING:
            budget.check_width((*args[1:], *kwargs.values()))
            text = args[0] if args and isinstance(args[0], str) else ""
            budget.make(len(text) if name != "indent" else (text.count("\n") + 1) * 1000)
        result = budget.value(f(*args, **kwargs))
        return _keep_origin(result, args) if name not in ("first", "last", "default", "attr", "d") else result

    return metered


def _text(value: Any) -> str:
    """``str(value)`` that pays first and keeps origins: a list that holds outside text is outside text."""
    if isinstance(value, str):
        return value
    if isinstance(value, list | tuple | dict):
        current().make(current().size(value))
        return mark(str(value), origin_of([value]))
    return str(value)


def _join(values: Iterable[Any], separator: str = "", attribute: str | None = None) -> str:
    budget = current()
    values = budget.steps(values)
    if attribute is not None:
        values = (v.get(attribute, "") if isinstance(v, dict) else "" for v in values)
    pieces = [_text(v) for v in values]
    budget.make(sum(map(len, pieces)) + len(pieces) * len(separator))
    return join(separator, pieces)


def _replace(text: Any, old: str, new: str, count: int | None = None) -> str:
    text, old, new = _text(text), _text(old), _text(new)
    times = text.count(old) if count is None or count < 0 else min(count, text.count(old))
    current().make(len(text) + times * len(new))
    return replace(text, old, new, -1 if count is None else count)


def _tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """JSON as ``transformers`` writes it: keys in order, no HTML escapes. Takes generators. Outside text makes it outside."""
    budget = current()
    if isinstance(value, Iterable) and not isinstance(value, str | dict | list | tuple):
        value = list(value)
    budget.make(budget.size(value) * (1 if indent is None else 10))
    text = json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys, default=_jsonable
    )
    return mark(text, origin_of([value]))


def _jsonable(value: Any) -> Any:
    if isinstance(value, jinja2.Undefined):
        raise jinja2.UndefinedError("an undefined value cannot be written as JSON")
    if isinstance(value, Iterable):
        return list(current().steps(value))
    raise TypeError(f"{type(value).__name__} cannot be written as JSON")


def _from_json(text: str) -> Any:
    return marked(json.loads(text), origin_of([text]))


def _sum(values: Iterable[Any], attribute: str | None = None, start: Any = 0) -> Any:
    total = start
    for value in current().steps(values):
        total += value[attribute] if attribute is not None else value
        if not isinstance(total, int | float):
            raise TemplateError("The chat template sums something that is not a number.")
    return total


def _format(text: str, *args: Any, **kwargs: Any) -> str:
    current().check_format(text, [args, kwargs])
    return substitute(lambda v: str.__mod__(text, v), kwargs or args)


def _raise_exception(message: str) -> None:
    raise jinja2.TemplateError(message)


def _strftime_now(form: str) -> str:
    current().check_width([len(form)])
    return rendered_at.get().strftime(form)


_FILTERS: dict[str, Callable[..., Any]] = {
    "tojson": _tojson,
    "from_json": _from_json,
    "fromjson": _from_json,
    "safe": lambda value: value,
    "string": _text,
    "join": _join,
    "replace": _replace,
    "sum": _sum,
    "format": _format,
    "_steps": lambda values: current().steps(values),
    "_made": lambda value: current().value(value),
    "_concat": lambda pieces: TemplateEnvironment.concat(map(_text, pieces)),
}
