"""Nothing that a model or a tool wrote runs, leads out or fetches: in any place of a transcript, in any of its forms."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from llm_magics.segments import Ask, NoticeSegment, ReasoningSegment, Segment, TextSegment, ToolSegment
from llm_magics.transcript import Transcript
from llm_magics.views.html import GrowingHtml, output_html, transcript_html
from llm_magics.views.markup.markdown import markdown_html, printable
from llm_magics.views.markup.remark import markdown_markdown
from llm_magics.views.markup.sanitize import sanitized
from llm_magics.views.style import STYLE
from llm_magics.views.text.plain import transcript_markdown, transcript_plain
from tests.payloads import PAYLOADS

TAGS = frozenset(
    re.findall(
        r"\w+",
        "div span p pre code a b strong i em s u sub sup small br hr ul ol li dl dt dd blockquote h1 h2 h3 h4 h5 h6 "
        "table caption thead tbody tfoot tr th td details summary img samp kbd",
    )
)
ATTRIBUTES = {
    "class": re.compile(r"[\w -]*"),
    "style": re.compile(r"text-align:(left|right|center)"),
    "href": re.compile(r"(https?://|mailto:)[^\s]*", re.IGNORECASE),
    "target": re.compile("_blank"),
    "rel": re.compile("noopener noreferrer"),
    "src": re.compile(r"data:image/(png|jpeg);base64,[A-Za-z0-9+/=]*"),
    "alt": re.compile(r"[^<>]*", re.DOTALL),
    "title": re.compile(r"[^<>]*", re.DOTALL),
    "data-language": re.compile(r"[\w.+#-]*"),
    "start": re.compile(r"\d+"),
    "colspan": re.compile(r"\d+"),
    "rowspan": re.compile(r"\d+"),
    "dir": re.compile("auto"),
    "role": re.compile("img"),
    "aria-label": re.compile("(not )?done"),
}
TAG = re.compile(r'</?([a-z0-9]+)((?: [a-z-]+(?:="[^"<>]*")?)*)(?: /)?>')


def check(html: str) -> None:
    """Every ``<`` begins a well-formed, allowed tag: then every HTML parser reads the same, harmless page."""
    html = html.removeprefix(STYLE)
    assert not re.search("[\x00-\x08\x0b\x0c\x0e-\x1f]", html)
    for start in (m.start() for m in re.finditer("<", html)):
        tag = TAG.match(html, start)
        assert tag, html[start : start + 80]
        assert tag[1] in TAGS
        for name, value in re.findall(r' ([a-z-]+)(?:="([^"]*)")?', tag[2]):
            if name == "open":
                assert (tag[1], value) == ("details", "")
                continue
            assert name in ATTRIBUTES, tag[0]
            assert ATTRIBUTES[name].fullmatch(value), tag[0]
        if tag[0].startswith("<a "):
            assert 'target="_blank" rel="noopener noreferrer"' in tag[0]


def permissive(markdown: str) -> str:
    """Render as the most trusting viewer would: raw HTML passes, and every address."""
    viewer = MarkdownIt("gfm-like", {"html": True, "linkify": False})
    viewer.validateLink = lambda url: True  # type: ignore[method-assign]
    return viewer.render(markdown)


def places(text: str) -> list[Segment]:
    """The text in every place that a model, a tool or a file name can fill."""
    return [
        TextSegment(text),
        TextSegment(f"Before {text} after", step=1),
        ReasoningSegment(text),
        NoticeSegment(text, "error"),
        ToolSegment(0, text, id=text, arguments=text, state="done", result=text, recovered=text, source=text, seconds=1.0),
        ToolSegment(1, "tool", arguments=f'{{"x": "{text}"}}', state="asking", ask=Ask(text, text, text)),
        ToolSegment(2, "tool", arguments="{}", state="failed", printed=text, warnings=(text,), is_error=True, result=text),
        *(ToolSegment(3, "tool", "c", "{}", "done", outputs=(bundle,)) for bundle in bundles(text)),
    ]


def bundles(text: str) -> list[dict]:
    kinds = ("text/html", "text/markdown", "text/plain", "application/json", "image/svg+xml", "image/png", "image/gif", text)
    return [{kind: text} for kind in kinds] + [{"image/png": "iVBORw0KGgo=", "text/plain": text}, {"text/html": [text, text]}]


@pytest.mark.parametrize("payload", PAYLOADS)
def test_a_payload_is_harmless_in_every_place_of_the_html(payload: str) -> None:
    for segment in places(payload):
        for state in ("running", "stop"):
            check(transcript_html(Transcript(model=payload, prompt=payload, state=state, segments=(segment,)), "full"))


@pytest.mark.parametrize("payload", PAYLOADS)
def test_a_payload_is_harmless_at_every_moment_of_its_streaming(payload: str) -> None:
    growing = GrowingHtml()
    for end in range(len(payload) + 1):
        check(growing.html(Transcript(segments=(TextSegment(payload[:end]),))))


@pytest.mark.parametrize("payload", PAYLOADS)
def test_a_payload_is_harmless_where_the_markdown_form_is_trusted(payload: str) -> None:
    for segment in places(payload):
        html = permissive(transcript_markdown(Transcript(state="stop", segments=(segment,)), "full"))
        for tag in re.findall(r"<(\w+)([^>]*)>", html):
            assert tag[0] in TAGS - {"img"}, html
            assert not re.search(r"\bon\w+=|javascript:|data:text", re.sub(r'alt="[^"]*"|class="[^"]*"', "", tag[1])), html
        assert not re.search(r'href="(?!https?://|mailto:)', html)


@pytest.mark.parametrize("payload", [*PAYLOADS, "\x1b]0;title\x07\x1b[2J\x1b[31mred", "a\rb", "x\u202egnp.exe", "\x9b31m"])
def test_the_plain_form_drives_no_terminal(payload: str) -> None:
    for segment in places(payload):
        plain = transcript_plain(Transcript(state="stop", segments=(segment,)), "full")
        assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e]", plain)


pieces = st.lists(
    st.sampled_from([*"ab1 *_`~$\\[]()<>!#-+|.:&\n\"'=/", "\n\n", "http://a.b", "javascript:x", "](", "![", "<img onerror=x "])
    | st.sampled_from(PAYLOADS)
    | st.characters(),
    max_size=12,
).map("".join)


@given(pieces)
def test_any_text_is_harmless_html(text: str) -> None:
    check(markdown_html(text))
    check(sanitized(printable(text)))


@given(pieces)
def test_any_text_is_harmless_markdown(text: str) -> None:
    html = permissive(markdown_markdown(text))
    assert not re.search(r"<(script|img|svg|iframe|style|object|embed|link|meta|base|form|input|body|video)\b", html, re.I)
    assert not re.search(r'(href|src)="(?!https?://|mailto:)', html, re.I)


@pytest.mark.parametrize(
    ("html", "rebuilt"),
    [
        ("<table border=1 class='dataframe'><tr><td>1 &lt; 2</td></tr></table>", "<table><tr><td>1 &lt; 2</td></tr></table>"),
        ("<td colspan=2 onclick=x>a", '<td colspan="2">a</td>'),
        ("<b>a<i>b</b>c", "<b>a<i>b</i></b>c"),
        ("a<script>x</script>b<style>y</style>c", "abc"),
        ("a<svg><svg></svg><p>x</p></svg>b", "ab"),
        ("a<svg/>b", "ab"),
        ("x</div></table>", "x"),
        ("a<br/>b<hr>", "a<br>b<hr>"),
        ('<a href="https://x.y">link</a>', "link"),
        ("<!-- c --><!doctype html><?php x ?>t", "t"),
        ("<td colspan='99999'>a</td>", "<td>a</td>"),
    ],
)
def test_a_tool_s_html_is_rebuilt_from_what_is_allowed(html: str, rebuilt: str) -> None:
    assert sanitized(html) == rebuilt


def test_a_picture_is_shown_and_only_as_a_picture() -> None:
    assert '<img src="data:image/png;base64,iVBORw0KGgo=" alt="a plot">' in output_html(
        {"image/png": "iVBORw0K\nGgo=\n", "text/plain": "a plot"}
    )
    for data in ("https://evil.example/x.png", 'x" onerror="lm_hit()', "", ["a"], None):
        assert "<img" not in output_html({"image/png": data})
