r"""Finds and masks likely secrets in a text. Only what is shown and saved is masked, never what runs.

Three kinds. A *shape* is masked everywhere: keys with a known beginning, JSON web tokens, private keys, bearer headers,
passwords in URLs, and the environment's values under a secret's name. A *literal* in quotes is masked beside such a name:
``password = "hunter2"``, ``{"token": "abc"}``. So is the value of a *line* as in configuration files: ``DB_PASSWORD=hunter2``.

An expression is never masked, because it only says where a secret comes from: ``token = next(stream)``. If a line may be either
(``password=pw`` an argument, ``token: Token`` an annotation), :func:`_line_value` and :func:`_yaml_value` decide.
"""

from __future__ import annotations

import ast
import os
import re
import warnings
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

MASK = "•••"

_SHAPE = re.compile(
    r"""(?x)
    \b(?:sk|pk|rk)-[A-Za-z0-9_-]{16,}              # e.g. sk-proj-4f...
    | \b(?:sk|pk|rk)_(?:live|test)_[A-Za-z0-9]{10,}
    | \b(?:ghp|gho|ghs|ghu|ghr)_[A-Za-z0-9]{20,}   # GitHub
    | \bgithub_pat_\w{20,}
    | \bglpat-[\w-]{16,}
    | \b(?:hf|gsk|npm)_[A-Za-z0-9]{16,}
    | \bpypi-[\w-]{40,}
    | \b(?:AKIA|ASIA)[A-Z0-9]{16}\b                # AWS
    | \bAIza[\w-]{30,}                             # Google
    | \bya29\.[\w-]{20,}
    | \bxox[abeprs]-[A-Za-z0-9-]{10,}              # Slack
    | \beyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]{4,}         # a JSON web token
    | -----BEGIN[ ][A-Z ]*PRIVATE[ ]KEY-----(?:(?!-----END)[\s\S])*(?:-----END[ A-Z]*-----)?
    """
)
BLOCK = "-----BEGIN "  # begins the one shape that spans lines
_BEARER = re.compile(r"(?i)(bearer[ \t]+)(?=[\w.~+/=-]*\d)[\w.~+/=-]{8,}")
_URL = re.compile(r"""(?i)(\b[a-z][a-z0-9+.-]{0,20}://[^\s:/@"'<>\\]{0,200}:)([^\s/"'<>`\\]+)(?=@[\w\[{])""")

_NAME = r"""(?:
    (?<![a-z])(?:pass|pwd|passwd) | pass(?:word|phrase|code) | secrets? | token | credentials? | authorization
  | secret[_-]?access[_-]?key
  | (?:api|access|private|auth|client|secret|signing|encryption|account|master)[_-]?(?:key|token|secret)
)"""
_SECRET_NAME = re.compile(rf"(?xi)(?:.*[_-])?{_NAME}\Z")

# one string literal of Python or JSON, perhaps not closed yet
_TRIPLE = r'"""(?:(?!""")[\s\S])*+(?:""")?' + r"|'''(?:(?!''')[\s\S])*+(?:''')?"
_SINGLE = r'"(?:[^"\\\n]|\\.)*+"?' + r"|'(?:[^'\\\n]|\\.)*+'?"
_STRING = rf"[rbuft]{{0,2}}(?:{_TRIPLE}|{_SINGLE})"


def _escaped(group: str) -> str:
    """A pattern of a literal in nested JSON, e.g. ``\\"abc\\"``: each level doubles the backslashes."""
    slashes, quote, backslash = f"(?P={group}b)", f"(?P={group}q)", rf"(?P={group}b)\\"
    inside = rf"(?:{backslash}){{2}}|{backslash}{slashes}{quote}|(?!{slashes}{quote})[^\n]"
    return rf"(?P<{group}b>\\+)(?P<{group}q>[\"'])(?:{inside})*+(?:{slashes}{quote})?"


def _literals(group: str) -> str:
    """A pattern of one or more literals, which Python joins."""
    return rf"(?:{_STRING}(?:\s{{0,9}}\+?\s{{0,9}}{_STRING}){{0,9}}|{_escaped(group)})"


_NAMED = re.compile(
    rf"""(?xi)
    (?P<call>\b(?:setdefault|[gs]et_?env|putenv)\([ \t]*\\*["'][\w-]{{0,60}}{_NAME}\\*["'][ \t]*,\s{{0,9}})
        (?P<given>{_literals("first")})
  | (?P<name>{_NAME})(?:
        (?P<scheme>(?<=authorization)\\*["']?[ \t]*[:=][ \t]*\\*["']?(?:bearer|basic|token)[ \t]+)[\w.~+/=:-]{{3,}}
      | (?P<sign>\\*["']?\]?
            (?: [ \t]*:[ \t]*[\w.\[\]\ |]{{1,60}}?=(?!=) | \s{{0,9}}(?:==|!=|:=|=>|[:=]) ) \s{{0,9}}\(?\s{{0,9}})
            (?P<literals>{_literals("second")})
      | (?P<colon>(?<!token)(?P<quote>\\*["'])[ \t]*:[ \t]*)-?\d{{6,}}
      | =(?P<value>(?!=)[^\s&;`]+)
      | (?P<space>:[ \t]+)(?P<rest>[^\s"'`\\]+)(?=[ \t]*(?:\#[^\n]*)?(?:\Z|\n|\\+[nr"']|["']))
    )"""
)
_ONE_LITERAL = re.compile(rf"(?i)(?P<prefix>[rbuft]{{0,2}})(?P<text>{_TRIPLE}|{_SINGLE}|{_escaped('only')})")
_OPENING = re.compile(r"""\\*(?:\"\"\"|'''|["'])""")
# placeholders, types and words that are not secrets, e.g. None, str, <token>, ${TOKEN}
_PLAIN = re.compile(
    r"""(?xi)(?: none | null | true | false | yes | no | str | string | int | bool | bytes | float | any | object | required
    | optional | bearer | basic | token | \*+ | •+ | \.+ | %\(?\w*\)?[sd] | <[^<>]*> | \[[a-z]+\] | \{.*\}
    | \$\(.* | (?-i: \$\{?[A-Z_][A-Z0-9_]*\}? ) )\s*\Z"""
)
_NUMBER = re.compile(r"\d{1,5}\Z")
_CLASS = re.compile(r"(?:[A-Z][a-z]+){2,}\Z")  # e.g. SecretStr, an annotation
_LINE_START = re.compile(r"""(?:\A|\n|\\+[nr"']|["'])[ \t>]*(?:-[ ]+)?[\w.-]*\Z""")
_NAME_START = re.compile(r"[\w.-]*\Z")
_MADE = (ast.Call, ast.Subscript, ast.List, ast.Tuple, ast.Dict, ast.Set, ast.ListComp, ast.SetComp, ast.DictComp)
_LOOK_BACK = 200  # characters of the line in front of a name


def masked_text(text: str) -> str:
    return _NAMED.sub(_named, masked_shapes(text))


def masked_shapes(text: str) -> str:
    """Mask only shapes, for prose, where names mean little."""
    environment = _environment()
    if environment is not None:
        text = environment.sub(MASK, text)
    text = _SHAPE.sub(MASK, text)
    text = _BEARER.sub(lambda found: found[1] + MASK, text)
    if "://" not in text:
        return text
    return _URL.sub(lambda found: found[0] if _PLAIN.match(found[2]) else found[1] + MASK, text)


def masked_data(value: Any) -> Any:
    """Mask every text in JSON-able data, except pictures; the same object if there is nothing to mask."""
    if isinstance(value, str):
        text = masked_text(value)
        return value if text == value else text
    if isinstance(value, Mapping):
        named = {key: item if str(key).startswith("image/") else _member(str(key), item) for key, item in value.items()}
        return value if all(named[key] is item for key, item in value.items()) else named
    if isinstance(value, (list, tuple)):
        items = [masked_data(item) for item in value]
        return value if all(new is old for new, old in zip(items, value, strict=True)) else items
    return value


def _member(key: str, item: Any) -> Any:
    """Mask a member of an object: a text under a secret's name is one."""
    secret = isinstance(item, str) and len(item) > 2 and _SECRET_NAME.match(key) and not _PLAIN.match(item)
    return MASK if secret and MASK not in item else masked_data(item)


def _environment() -> re.Pattern[str] | None:
    held = {value for name, value in os.environ.items() if len(value) >= 8 and "\n" not in value and _SECRET_NAME.match(name)}
    return _pattern(tuple(sorted(held, key=lambda value: (-len(value), value)))) if held else None


@lru_cache(maxsize=4)
def _pattern(values: tuple[str, ...]) -> re.Pattern[str]:
    return re.compile("|".join(map(re.escape, values)))


def _named(found: re.Match[str]) -> str:
    if found["call"]:
        return found["call"] + _ONE_LITERAL.sub(_literal, found["given"])
    if found["literals"]:
        return found["name"] + found["sign"] + _ONE_LITERAL.sub(_literal, found["literals"])
    if found["colon"]:
        return f"{found['name']}{found['colon']}{found['quote']}{MASK}{found['quote']}"  # JSON stays JSON
    if found["scheme"]:
        return found["name"] + found["scheme"] + MASK
    return _line_value(found) if found["value"] else _yaml_value(found)


def _literal(found: re.Match[str]) -> str:
    """Mask the inside of a literal; in an f-string, the text around its expressions."""
    prefix, text = found["prefix"], found["text"]
    quote = _OPENING.match(text)
    assert quote is not None
    closed = len(text) >= 2 * len(quote[0]) and text.endswith(quote[0])
    inside = text[quote.end() : -len(quote[0]) if closed else None]
    if "f" in prefix.lower():
        inside = "".join(part if "{" in part else _inside(part) for part in re.split(r"(\{[^{}]*\})", inside))
    else:
        inside = _inside(inside)
    return prefix + quote[0] + inside + (quote[0] if closed else "")


def _inside(text: str) -> str:
    return text if len(text.strip()) < 3 or MASK in text or _PLAIN.match(text.strip()) else MASK


def _line_value(found: re.Match[str]) -> str:
    """Mask the value of ``KEY=value`` unless it is an expression, as in ``f(token=token)`` or ``token=next(stream)``. Beside a
    name in capitals, behind dashes or in a URL's query, only a call counts as an expression."""
    value, start = found["value"], found.start()
    in_front = found.string[max(start - _LOOK_BACK, 0) : start]
    name_start = _NAME_START.search(in_front)
    assert name_start is not None
    before = in_front[: name_start.start()].rpartition("\n")[2]
    name = name_start[0] + found["name"]
    core = re.split(r"""[,)"'\\]""", value, maxsplit=1)[0]
    if len(core) < 3 or _PLAIN.match(core) or _NUMBER.match(core) or (core.isdigit() and name.lower().endswith("token")):
        return found[0]
    if _calls(value, found.string[found.end() : found.end() + _LOOK_BACK].partition("\n")[0]):
        return found[0]
    if not (name.isupper() or name.startswith("-") or before.endswith(("?", "&"))):
        node = _parsed(core)
        argument = value[len(core) :][:1] in (",", ")") or before.rstrip().endswith((",", "(")) or (before and before.isspace())
        if node is not None and (argument or not isinstance(node, (ast.Name, ast.Constant, ast.BinOp, ast.UnaryOp))):
            return found[0]
    elif not re.search(r"""["'\\]""", value):
        core = value.rstrip(",)")
    return f"{found['name']}={MASK}{value[len(core) :]}"


def _yaml_value(found: re.Match[str]) -> str:
    """Mask the value of a line ``name: value`` unless it is an annotation or another expression."""
    value = found["rest"].rstrip(",")
    start = found.start()
    if not _LINE_START.search(found.string[max(start - _LOOK_BACK, 0) : start]):
        return found[0]  # in the middle of a sentence
    if len(value) < 3 or _PLAIN.match(value) or _NUMBER.match(value) or _CLASS.match(value):
        return found[0]
    node = _parsed(value.rstrip(":="))
    simple = node is None or isinstance(node, (ast.Name, ast.Constant, ast.UnaryOp))
    minus = isinstance(node, ast.BinOp) and not isinstance(node.op, ast.BitOr)  # e.g. correct-horse
    if not (simple or minus) or (node is not None and value != found["rest"]):
        return found[0]
    return f"{found['name']}{found['space']}{MASK}{found['rest'][len(value) :]}"


def _calls(value: str, rest: str) -> bool:
    """Whether an expression that calls, indexes or builds begins with ``value``, which ends at a blank before ``rest``."""
    if not re.search(r"[(\[{]", value):
        return False
    line = re.sub(r"\\+([\"'])", r"\1", value + rest)
    ends = [match.end() for match in re.finditer(r"[)\]}](?!\w)", line)][:20]
    nodes = [node for end in ends if (node := _parsed(line[:end])) is not None]
    return any(isinstance(inner, _MADE) for node in nodes for inner in ast.walk(node))


def _parsed(source: str) -> ast.expr | None:
    """Parse a Python expression; None if it is not one."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SyntaxWarning)
            return ast.parse(source, mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
