"""Rules beyond CommonMark, as in the extension's ``markdownrules.ts``: tasks, footnotes, prices, right-to-left text."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from markdown_it import MarkdownIt
    from markdown_it.rules_core import StateCore
    from markdown_it.rules_inline import StateInline
    from markdown_it.token import Token

_TASK = re.compile(r"\[([ xX])\](?=[ \t])")  # e.g. the "[x]" of "- [x] done"
# e.g. "$5 to buy" and "$10 and": an amount and a word; a formula would have a sign between them
_PRICE = re.compile(r"\$\d[\d.,]*[-\u2013]?[ \n]+(?:a )?[a-z]{2,}", re.IGNORECASE)
# the blocks whose direction their first strong letter decides; nested blocks follow
_DIRECTED = {"p", "h1", "h2", "h3", "h4", "h5", "h6", "ul", "ol", "blockquote", "table"}


def extend(md: MarkdownIt) -> None:
    from mdit_py_plugins.footnote import footnote_plugin

    md.use(footnote_plugin, inline=False)  # x^[1] is a power more often than a note
    md.inline.ruler.before("math_inline", "price", _price)
    md.core.ruler.after("inline", "tasks", _tasks)
    md.core.ruler.before("footnote_tail", "orphans", _orphans)
    md.core.ruler.push("directions", _directions)
    # no links between a note and its place: their names would clash with other answers on the page
    for name, html in {
        "footnote_block_open": '<div class="lm-footnotes"><ol dir="auto">\n',
        "footnote_block_close": "</ol></div>\n",
        "footnote_open": "<li>",
        "footnote_close": "</li>\n",
        "footnote_anchor": "",
    }.items():
        md.add_render_rule(name, lambda *_, html=html: html)
    md.add_render_rule("footnote_ref", lambda _, tokens, at, *__: f"<sup>[{note_number(tokens[at])}]</sup>")
    md.add_render_rule("task", _task_html)


def note_number(token: Token) -> int:
    return int(token.meta["id"]) + 1


def _task_html(renderer: Any, tokens: Sequence[Token], at: int, options: Any, env: Any) -> str:
    done = tokens[at].meta["done"]
    label, box = ("done", "\u2611") if done else ("not done", "\u2610")
    return f'<span class="lm-task" role="img" aria-label="{label}">{box}</span>'


def _price(state: StateInline, silent: bool) -> bool:
    if not _PRICE.match(state.src, state.pos):
        return False
    if not silent:
        state.pending += "$"
    state.pos += 1
    return True


def _tasks(state: StateCore) -> None:
    from markdown_it.token import Token

    for item, paragraph, inline in zip(state.tokens, state.tokens[1:], state.tokens[2:], strict=False):
        first = inline.children[0] if inline.children else None
        found = _TASK.match(first.content) if first is not None and first.type == "text" else None
        if first is None or found is None or (item.type, paragraph.type) != ("list_item_open", "paragraph_open"):
            continue
        first.content = first.content[found.end() :]
        inline.children = [Token("task", "span", 0, meta={"done": found[1] != " "}), *(inline.children or ())]
        item.attrJoin("class", "lm-item")


def _orphans(state: StateCore) -> None:
    """Turn notes into text if nothing refers to them, or if another note of the same name follows."""
    from markdown_it.token import Token

    referred = {label[1:] for label, number in state.env.get("footnotes", {}).get("refs", {}).items() if number >= 0}
    last = {token.meta["label"]: at for at, token in enumerate(state.tokens) if token.type == "footnote_reference_open"}
    kept: list[Token] = []
    inside = ""
    for at, token in enumerate(state.tokens):
        if token.type == "footnote_reference_open":
            label = token.meta["label"]
            inside = "" if label in referred and last[label] == at else f"[^{label}]: "
            if inside:
                body = state.tokens[at + 1 : at + 3]
                if [one.type for one in body] == ["paragraph_open", "inline"]:
                    body[1].children = [Token("text", "", 0, content=inside), *(body[1].children or ())]
                else:
                    text = Token("inline", "", 0, content=inside, children=[Token("text", "", 0, content=inside)])
                    kept += [Token("paragraph_open", "p", 1), text, Token("paragraph_close", "p", -1)]
                continue
        elif token.type == "footnote_reference_close" and inside:
            inside = ""
            continue
        kept.append(token)
    state.tokens = kept


def _directions(state: StateCore) -> None:
    for token in state.tokens:
        if token.level == 0 and token.nesting == 1 and token.tag in _DIRECTED:
            token.attrSet("dir", "auto")
