"""The line of ``%%tool``, or behind ``# %tool``: a Python signature, then options. Nothing is evaluated here."""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass
from typing import get_args

from llm_magics.errors import OptionError
from llm_magics.options import Number, option, whole, word
from llm_magics.tools.policy import Approve

from .line import Spec

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_OPTION = re.compile(r"(?:^|\s)--?[A-Za-z]")  # e.g. " --approve"
_OPTIONS_BEGUN = re.compile(r"\s(-(?!>).*)?$")  # e.g. " --app", " --approve ask ", " "


@dataclass(frozen=True, slots=True)
class CellOptions:
    """How a cell tool may run, as in ToolOptions."""

    approve: Approve = option("ask", "--approve", "run without asking, ask each time, or never", choices=get_args(Approve))
    timeout: float | None = option(None, "--timeout", "stop a run after so many seconds", Number(0.001), "SECONDS")
    max_chars: int | None = option(None, "--max-chars", "what the model reads of a result", whole(1), "N")
    scratch: bool = option(False, "--scratch", "run on a shallow copy of the namespace")
    repeats: bool = option(False, "--repeats", "the same call may have a new result: run it each time")


@dataclass(frozen=True, slots=True)
class ToolHeader:
    """A header as written; ``parameters`` has no parentheses, and is None if there is no list."""

    name: str
    parameters: str | None
    returns: str
    options: CellOptions


@dataclass(frozen=True, slots=True)
class ToolsOptions:
    """The options of ``%tools``; ``rest`` is read as typed, because it may be JSON."""

    action: str = word("ACTION", "list, test, why, set, forget; list if not said", "list", choices=("list", "test", "why",
        "set", "forget"))
    name: str = word("NAME", "test, forget: the tool; set: the new set", complete="tool-names", after=("test", "forget"))
    rest: str = word("REST", "test: arguments as JSON; set: tools with commas", complete="tool-lists", after=("set",))


TOOL = Spec(
    "%%tool",
    "Make this cell a tool: a model may run it with arguments, and reads its prints, displays and last value.",
    CellOptions,
    body="In front of the options: NAME(city: str, n: int = 3) -> dict",
    notes="The cell's first comment or string tells the model what the tool does. Parameters are variables during the run.",
)

TOOLS = Spec(
    "%tools",
    "List the registered tools, run one, explain the last turn, name a set of tools, or remove a tool.",
    ToolsOptions,
    notes="""%tools                     list the registered tools
%tools test NAME {json}    run one as the model would
%tools why                 explain the last turn
%tools set NAME a,b,c      name a set of tools, for %%chat -t @NAME
%tools forget NAME         remove a tool""",
)


def read_header(line: str) -> ToolHeader:
    """Read ``name(parameters) -> type --options``; raises OptionError."""
    match = _NAME.match(line.strip())
    if match is None:
        TOOL.parse_question(line)  # may be --help
        raise OptionError(f"{line.strip()!r} does not begin with a tool's name.", "Write %%tool NAME(city: str, n: int = 3).")
    name, rest = match[0], line.strip()[match.end() :].lstrip()
    parameters: str | None = None
    if rest.startswith("("):
        parameters, rest = _parameters(name, rest)
    returns, rest = _returns(name, rest)
    return ToolHeader(name, parameters, returns, TOOL.parse(rest))


def options_begun(line: str) -> str | None:
    """The part of an unfinished line behind the signature, e.g. "--app"; None while the signature is being typed."""
    match = _NAME.match(line.strip())
    if match is None:
        return None
    rest = line.lstrip()[match.end() :]
    if rest.lstrip().startswith("("):
        try:
            _, after = _parameters(match[0], rest.lstrip())
        except OptionError:
            return None
        rest = f" {after}" if after or line[-1:].isspace() else ""
    found = _OPTIONS_BEGUN.search(rest)
    return None if found is None or rest.strip() == "->" else found[1] or ""


def _parameters(name: str, text: str) -> tuple[str, str]:
    """Split off the parameter list: the shortest text in parentheses that Python accepts."""
    for end in (at for at, letter in enumerate(text) if letter == ")"):
        try:
            ast.parse(f"def {name}{text[: end + 1]}: ...")
        except SyntaxError:
            continue
        return text[1:end].strip(), text[end + 1 :].lstrip()
    raise OptionError(f"The parameters of {name} are not Python: {text}", "Write them as in def: (city: str, n: int = 3).")


def _returns(name: str, text: str) -> tuple[str, str]:
    if not text.startswith("->"):
        return "", text
    option = _OPTION.search(text, 2)
    cut = option.start() if option else len(text)
    returns = text[2:cut].strip()
    try:
        ast.parse(f"def {name}() -> {returns}: ...")
    except SyntaxError:
        raise OptionError(f"{returns!r} is not a type that {name} can return.", "Write a type, e.g. -> dict.") from None
    return returns, text[cut:].strip()
