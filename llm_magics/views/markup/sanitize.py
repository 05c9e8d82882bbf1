"""Rebuilds a tool's HTML, e.g. a DataFrame's table, from allowed tags and text.

The output is written from parser events: allowed tags without attributes (except ``colspan`` and ``rowspan`` as small numbers),
escaped text, every tag closed. The contents of script, svg etc. are dropped. No library: filters copy parts of the input.
"""

from __future__ import annotations

from html import escape
from html.parser import HTMLParser

_VOID = {"br", "hr"}
_TABLE = {"table", "caption", "thead", "tbody", "tfoot", "tr", "th", "td"}
_BLOCK = {"p", "div", "pre", "blockquote", "ul", "ol", "li", "dl", "dt", "dd", "h1", "h2", "h3", "h4", "h5", "h6"}
_INLINE = {"span", "code", "samp", "kbd", "b", "strong", "i", "em", "u", "s", "sub", "sup", "small"}
_ALLOWED = _VOID | _TABLE | _BLOCK | _INLINE
_FOREIGN = {"svg", "math", "template", "iframe", "object", "noscript", "noembed", "noframes"}
_DROPPED = {"script", "style", "title", "textarea", "select", "head", "xmp", "plaintext"} | _FOREIGN


def sanitized(html: str) -> str:
    """Rebuild ``html`` from allowed tags and text; broken markup comes out well-formed."""
    rebuild = _Rebuild()
    rebuild.feed(html)
    rebuild.close()
    return rebuild.result()


class _Rebuild(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self._out: list[str] = []
        self._open: list[str] = []
        self._dropping = ""
        self._depth = 0

    def result(self) -> str:
        return "".join(self._out) + "".join(f"</{tag}>" for tag in reversed(self._open))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if self._dropping:
            self._depth += tag == self._dropping
        elif tag in _DROPPED:
            self._dropping, self._depth = tag, 1
        elif tag in _ALLOWED:
            spans = "".join(
                f' {name}="{int(value)}"'
                for name, value in attrs
                if name in ("colspan", "rowspan") and value and value.isascii() and value.isdigit() and len(value) < 4
            )
            self._out.append(f"<{tag}{spans}>")
            if tag not in _VOID:
                self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        # only void and foreign elements close themselves; "<svg/>" ends at once and must not drop the rest
        if tag not in _DROPPED:
            self.handle_starttag(tag, attrs)

    def handle_endtag(self, tag: str) -> None:
        if self._dropping:
            self._depth -= tag == self._dropping
            if self._depth == 0:
                self._dropping = ""
        elif tag in self._open:
            while (last := self._open.pop()) != tag:
                self._out.append(f"</{last}>")
            self._out.append(f"</{tag}>")

    def handle_data(self, data: str) -> None:
        if not self._dropping:
            self._out.append(escape(data))
