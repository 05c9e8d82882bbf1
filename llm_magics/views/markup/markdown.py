"""Parses a model's markdown safely; both HTML and canonical, harmless markdown derive from this one parse.

Raw HTML is text. Links go to http, https and mailto only; other links are text. A picture becomes a link, so that nothing is
fetched. Maths passes unchanged to MathJax. All other text is marked to be ignored by MathJax, so that two prices in dollars do
not become a formula, and no TeX command hides in prose.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from functools import cache
from html import escape
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from markdown_it import MarkdownIt
    from markdown_it.token import Token

_LINK = re.compile(r"(https?://|mailto:)[^\s<>]", re.IGNORECASE)
_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
_HIGHLIGHT_LIMIT = 50_000  # characters; lexing a longer block would delay the cell
# TeX that reaches outside the formula, e.g. \href{javascript:...}{x}; such a formula is shown as code
OUTGOING_TEX = re.compile(
    r"\\(href|url|require|includegraphics|style|class|cssId|data|html\w*|unicode|def|newcommand|let)(?![a-z])"
)
_MATHS = "tex2jax_process mathjax_process"
NO_MATHS = "tex2jax_ignore mathjax_ignore"


def printable(text: str) -> str:
    """Make control characters visible (e.g. ESC as U+FFFD): they control terminals and reverse text."""
    return _CONTROL.sub("\ufffd", text.replace("\r\n", "\n").replace("\r", "\n"))


def parse(text: str, references: MutableMapping[str, Any] | None = None) -> list[Token]:
    """Parse into markdown-it's tokens; ``references`` carries link definitions between the parts of a text."""
    return _parser().parse(printable(text), {} if references is None else references)


def tokens_html(tokens: Sequence[Token]) -> str:
    parser = _parser()
    return parser.renderer.render(tokens, parser.options, {})


def markdown_html(text: str) -> str:
    """Write markdown as HTML that is safe to show anywhere."""
    return tokens_html(parse(text))


def code_html(code: str, language: str = "") -> str:
    """Write a code block, highlighted with class names if the language is known."""
    name = re.sub(r"[^\w.+#-]", "", language)[:40]
    label = f' data-language="{escape(name)}"' if name else ""
    return f"<pre{label}><code>{_highlighted(code, name)}</code></pre>\n"


class GrowingMarkdown:
    """Markdown that grows at its end: only the part that may still change is parsed again. In CommonMark a top-level block is
    settled once the first line of the next block (of a table: two) is complete. Exceptions, a link defined later and a formula
    with an empty line inside, are fixed by the final, whole rendering."""

    def __init__(self) -> None:
        self._settled = ""
        self._html: list[str] = []
        self._references: dict[str, Any] = {}

    def html(self, text: str) -> str:
        """Write ``text``, which continues the previous text; any other text starts again."""
        text = printable(text)
        if not text.startswith(self._settled):
            self.__init__()  # type: ignore[misc]
        rest = text[len(self._settled) :]
        tokens = parse(rest, self._references)
        self._references.pop("footnotes", None)  # each parse numbers its notes from 1
        n_tokens, n_characters = settled(tokens, rest)
        if n_tokens:
            self._html.append(tokens_html(tokens[:n_tokens]))
            self._settled += rest[:n_characters]
        return "".join(self._html) + tokens_html(tokens[n_tokens:])


def settled(tokens: Sequence[Token], text: str) -> tuple[int, int]:
    """How many tokens of growing markdown, and characters of its ``text``, will not change."""
    if any(token.type == "footnote_block_open" for token in tokens):
        return 0, 0  # notes are at the end of the text, but belong to earlier blocks
    tops = [(at, t.map[0]) for at, t in enumerate(tokens) if t.level == 0 and t.nesting >= 0 and t.map]
    lines = text.splitlines(keepends=True)
    while len(tops) > 1:
        at, line = tops.pop()
        begins = line + (tokens[at].type == "table_open")  # the second line makes it a table
        if lines[begins].endswith("\n"):
            return at, sum(map(len, lines[:line]))
    return 0, 0


@cache
def _parser() -> MarkdownIt:
    from markdown_it import MarkdownIt
    from mdit_py_plugins.amsmath import amsmath_plugin
    from mdit_py_plugins.dollarmath import dollarmath_plugin
    from mdit_py_plugins.texmath import texmath_plugin

    from .rules import extend

    md = MarkdownIt("commonmark", {"html": False, "linkify": False, "maxNesting": 40}).enable(["table", "strikethrough"])
    md.use(dollarmath_plugin, allow_labels=False, allow_space=False, allow_digits=False, double_inline=True)
    md.use(texmath_plugin, delimiters="brackets").use(amsmath_plugin)
    extend(md)
    md.validateLink = lambda url: _LINK.match(url) is not None  # type: ignore[method-assign]
    rules: Mapping[str, Callable[..., str]] = {
        "link_open": _link_open,
        "image": _image,
        "fence": _fence,
        "code_block": _fence,
        **dict.fromkeys(maths_delimiters, _maths),
    }
    for name, rule in rules.items():
        md.add_render_rule(name, rule)
    return md


# token type -> the delimiters of the formula, e.g. "$x$" is a math_inline token with the content "x"
maths_delimiters: Mapping[str, tuple[str, str]] = {
    "math_inline": (r"\(", r"\)"),
    "math_inline_double": ("$$", "$$"),
    "math_single": ("$", "$"),
    "math_block": ("$$", "$$"),
    "math_block_eqno": ("$$", "$$"),
    "amsmath": ("", ""),
}


def maths_source(token: Token) -> str:
    """A formula as it was written, e.g. ``$x^2$``."""
    opening, closing = maths_delimiters[token.type]
    if token.markup in ("$", "$$"):
        opening = closing = token.markup
    elif token.type == "math_block":
        opening, closing = r"\[", r"\]"
    return f"{opening}{token.content}{closing}"


def _maths(renderer: Any, tokens: Sequence[Token], index: int, options: Any, env: Any) -> str:
    token = tokens[index]
    source = escape(maths_source(token))
    if OUTGOING_TEX.search(token.content):
        return f"<code>{source}</code>"
    tag = "div" if token.block else "span"
    return f'<{tag} class="{_MATHS}">{source}</{tag}>'


def _link_open(renderer: Any, tokens: Sequence[Token], index: int, options: Any, env: Any) -> str:
    return _link(str(tokens[index].attrGet("href") or ""))


def _link(url: str) -> str:
    return f'<a href="{escape(url)}" target="_blank" rel="noopener noreferrer">' if url else "<a>"


def _image(renderer: Any, tokens: Sequence[Token], index: int, options: Any, env: Any) -> str:
    url = str(tokens[index].attrGet("src") or "")
    return f"{_link(url)}{escape(tokens[index].content or url)}</a>"


def _fence(renderer: Any, tokens: Sequence[Token], index: int, options: Any, env: Any) -> str:
    token = tokens[index]
    return code_html(token.content, (token.info or "").split(maxsplit=1)[0] if token.info.strip() else "")


def _highlighted(code: str, language: str) -> str:
    if not language or len(code) > _HIGHLIGHT_LIMIT:
        return escape(code)
    from pygments import highlight
    from pygments.formatters import HtmlFormatter
    from pygments.lexers import get_lexer_by_name
    from pygments.util import ClassNotFound

    try:
        lexer = get_lexer_by_name(language, stripnl=False)
    except ClassNotFound:
        return escape(code)
    return str(highlight(code, lexer, HtmlFormatter(nowrap=True, classprefix="lm-")))
