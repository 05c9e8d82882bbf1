"""Writes parsed markdown as canonical, harmless markdown, for viewers that render markdown themselves and may trust it.

The parse is that of :mod:`.markdown`, so text that is not a link there is escaped here. A code fence is longer than any run of
backticks inside. Reading the result gives the same document (a property test). No library: mdformat keeps raw HTML and links.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from .markdown import OUTGOING_TEX, maths_delimiters, maths_source, parse
from .rules import note_number

if TYPE_CHECKING:
    from markdown_it.token import Token

_ANYWHERE = re.compile(r"[\\`*<$~|]|!(?=\[|$)|&(?=#?\w+;)|(?<![^\W_])_|_(?![^\W_])")
# a bracket that may end a link's text or a definition; written as an entity, because \] ends a formula
_BRACKET = re.compile(r"\](?=[(\[:]|$)")
# the beginning of a block at the start of a line, e.g. "# ", "- ", "3. ", "===", and the four spaces of a code block
_AT_START = re.compile(r"^(\s*)([#+=:>-]|\d{1,9}(?=[.)]))")
# the beginning of a task or a note, e.g. "[ ]" and "[^1]"; written as an entity, because \[ begins a formula
_OPENING = re.compile(r"\[(?=\^|[ xX]\])")
_MARKS = ("strong_open", "strong_close", "em_open", "em_close", "s_open", "s_close")


def markdown_markdown(text: str) -> str:
    """Write markdown as canonical, harmless markdown, ending with one newline unless empty."""
    blocks = _blocks(parse(text))
    return "\n\n".join(blocks) + "\n" if blocks else ""


def escaped(text: str) -> str:
    """Write text so that markdown shows it unchanged, on one line."""
    return _at_start(_escaped(text.replace("\n", " ")))


def fenced(code: str, language: str = "") -> str:
    """Write a code block; the fence is longer than any inside."""
    fence = "`" * (max(map(len, re.findall(r"`{3,}", code)), default=2) + 1)
    name = re.sub(r"[^\w.+#-]", "", language)[:40]
    body = code.removesuffix("\n")
    return f"{fence}{name}\n{body}\n{fence}"


def _escaped(text: str) -> str:
    return _OPENING.sub("&#91;", _BRACKET.sub("&#93;", _ANYWHERE.sub(r"\\\g<0>", text)))


def _at_start(line: str) -> str:
    return _AT_START.sub(lambda m: m[1] + (f"{m[2]}\\" if m[2].isdigit() else f"\\{m[2]}"), line)


def _blocks(tokens: Sequence[Token]) -> list[str]:
    return [block for part in _parts(tokens) if (block := _block(part))]


def _parts(tokens: Sequence[Token]) -> Iterator[Sequence[Token]]:
    """Split at the ends of the outermost blocks."""
    start = depth = 0
    for at, token in enumerate(tokens):
        depth += token.nesting
        if depth == 0 or at == len(tokens) - 1:
            yield tokens[start : at + 1]
            start = at + 1


def _block(tokens: Sequence[Token]) -> str:
    first, inner = tokens[0], tokens[1:-1]
    match first.type:
        case "inline":
            return _inline(first)
        case "paragraph_open":
            return _inline(inner[0])
        case "heading_open":
            return f"{'#' * int(first.tag[1:])} {_inline(inner[0]).replace(chr(10), ' ')}"
        case "hr":
            return "---"
        case "fence" | "code_block":
            return fenced(first.content, first.info.split(maxsplit=1)[0] if first.info.strip() else "")
        case "blockquote_open":
            return _indented("\n\n".join(_blocks(inner)), "> ", "> ")
        case "bullet_list_open" | "ordered_list_open":
            return _list(first, inner)
        case "table_open":
            return _table(inner)
        case "footnote_block_open":
            return "\n\n".join(_blocks(inner))
        case "footnote_open":
            return _indented("\n\n".join(_blocks(inner)), f"[^{note_number(first)}]: ", "    ")
        case kind if kind in maths_delimiters:
            return _maths(first) or fenced(maths_source(first))
    return fenced(first.content) if first.content else "\n\n".join(_blocks(inner))


def _indented(text: str, first: str, rest: str) -> str:
    lines = text.split("\n")
    return "\n".join((first + lines[0], *((rest + line).rstrip() for line in lines[1:])))


def _list(opening: Token, inner: Sequence[Token]) -> str:
    items: list[str] = []
    number = int(opening.attrGet("start") or 1)
    gap = "\n" if any(token.hidden for token in inner if token.level == opening.level + 2) else "\n\n"
    for item in _parts(inner):
        marker = f"{number + len(items)}{opening.markup} " if opening.type == "ordered_list_open" else f"{opening.markup} "
        items.append(_indented(gap.join(_blocks(item[1:-1])), marker, " " * len(marker)).rstrip())
    return gap.join(items)


def _table(inner: Sequence[Token]) -> str:
    rows: list[list[str]] = []
    rule: list[str] = []
    for at, token in enumerate(inner):
        if token.type == "tr_open":
            rows.append([])
        elif token.type in ("th_open", "td_open"):
            rows[-1].append(_inline(inner[at + 1]).replace("\n", " "))
            if token.type == "th_open":
                rule.append({"text-align:center": ":-:", "text-align:right": "--:"}.get(str(token.attrGet("style")), "---"))
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (rows[0], rule, *rows[1:]))


def _inline(token: Token) -> str:
    written: list[str] = []
    urls: list[str] = []
    for child in token.children or ():
        if child.type == "link_open":
            urls.append(str(child.attrGet("href") or ""))
            written.append("[" if urls[-1] else "")
        elif child.type == "link_close":
            url = urls.pop()
            written.append(f"](<{url}>)" if url else "")
        elif child.type == "text":
            text = _in_link(_escaped(child.content)) if any(urls) else _escaped(child.content)
            written.append(text if written and not written[-1].endswith("\n") else _at_start(text))
        else:
            written.append(_span(child))
    return "".join(written)


def _in_link(text: str) -> str:
    return text.replace("[", "&#91;").replace("]", "&#93;")


def _span(token: Token) -> str:
    match token.type:
        case "code_inline":
            return _code(token.content)
        case "task":
            return "[x]" if token.meta["done"] else "[ ]"
        case "footnote_ref":
            return f"[^{note_number(token)}]"
        case "softbreak":
            return "\n"
        case "hardbreak":
            return "\\\n"
        case "image":
            url = token.attrGet("src")
            label = _escaped(token.content)
            return f"[{_in_link(label)}](<{url}>)" if url else label
        case kind if kind in maths_delimiters:
            return _maths(token) or _code(maths_source(token))
    return token.markup if token.type in _MARKS else ""


def _maths(token: Token) -> str:
    """Write a formula that is harmless even if a viewer reads it as text; empty if that is not possible."""
    if OUTGOING_TEX.search(token.content) or _BRACKET.search(token.content):
        return ""
    return maths_source(token).replace("<", "\\lt ")


def _code(text: str) -> str:
    longest = max(map(len, re.findall("`+", text)), default=0)
    ticks = "`" * (longest + 1)
    pad = " " if text.startswith("`") or text.endswith("`") or (text.strip() and text[0] == text[-1] == " ") else ""
    return f"{ticks}{pad}{text}{pad}{ticks}"
