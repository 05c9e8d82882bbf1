"""Where nothing of ours is installed: what each reader of a saved notebook takes of the bundle; it reads well in each."""

from __future__ import annotations

import base64
import html
import re
from pathlib import Path
from typing import Any

import nbformat
import pytest
from markdown_it import MarkdownIt

from llm_magics.events import Usage
from llm_magics.kernel.page.notebook import bundle_of
from llm_magics.segments import ReasoningSegment, TextSegment, ToolSegment
from llm_magics.transcript import MIME_TYPE, Transcript
from llm_magics.views.text.lines import ENDINGS

PNG = base64.b64encode(b"\x89PNG\r\n\x1a\n").decode()
TURN = Transcript(
    turn="t1",
    model="tiny",
    prompt="How warm is it?",
    state="stop",
    segments=(
        ReasoningSegment("Let me think."),
        ToolSegment(
            0, "weather", "c1", '{"city": "Oslo"}', "done", printed="asking\n", outputs=({"image/png": PNG},), result="4"
        ),
        TextSegment("It is **4** degrees:\n\n```python\nif cold:\n\n    print(4)\n```\n\nDress warmly.", step=1),
    ),
    usage=Usage(100, 60, 40, 50, 0.5, 2.0, 0.52, 150, 4096),
)
SAID = ["Let me think.", "weather", "Oslo", "asking", "degrees", "print(4)", "Dress warmly."]  # in the order of reading
BUNDLE = bundle_of(TURN)


def saved() -> Any:
    """The notebook as it lies on disk."""
    notebook = nbformat.v4.new_notebook()
    output = nbformat.v4.new_output("display_data", BUNDLE)
    notebook.cells.append(nbformat.v4.new_code_cell("%%chat\nHow warm is it?", id="a", outputs=[output]))
    nbformat.validate(notebook)
    return notebook


def in_order(text: str) -> list[str]:
    """What was said, as far as it stands in ``text`` behind what was said before."""
    found, at = [], 0
    for piece in SAID:
        at = text.find(piece, at)
        if at < 0:
            return found
        found.append(piece)
    return found


def visible(written: str) -> str:
    """The text of HTML."""
    return html.unescape(re.sub(r"<style>.*?</style>|<[^>]+>", "", written, flags=re.DOTALL))


@pytest.mark.parametrize("kind", ["text/html", "text/markdown", "text/plain", MIME_TYPE])
def test_every_form_says_everything_in_order(kind: str) -> None:
    form = BUNDLE[kind]
    text = visible(form) if kind == "text/html" else str(form).replace("\\", "")
    assert in_order(text) == SAID


def test_vs_code_and_colab_get_html_that_needs_nothing_from_anywhere() -> None:
    written = BUNDLE["text/html"]
    assert not re.search(r"<(script|link|iframe|object|embed)|\son\w+=|javascript:|@import|url\(", written, re.IGNORECASE)
    assert set(re.findall(r'\ssrc="([^"]{0,10})', written)) == {"data:image"}
    fallbacks = re.findall(r"var\(--[\w-]+([,)])", written)  # their themes know nothing of JupyterLab's variables
    assert fallbacks
    assert set(fallbacks) == {","}


def test_a_code_host_that_strips_styles_and_classes_still_shows_it() -> None:
    stripped = re.sub(r"<style>.*?</style>", "", BUNDLE["text/html"], flags=re.DOTALL)
    stripped = re.sub(r'\s(class|style|title|data-[\w-]+)="[^"]*"', "", stripped)
    assert in_order(visible(stripped)) == SAID
    assert stripped.count("<details") == stripped.count("<summary") == 2
    assert "<pre><code>" in stripped


def test_nbconvert_writes_html_with_the_picture_in_it() -> None:
    from nbconvert import HTMLExporter

    page, _ = HTMLExporter(template_name="lab").from_notebook_node(saved())
    shown = page[page.index('class="llm-magics') :]
    assert in_order(visible(shown)) == SAID
    assert f"data:image/png;base64,{PNG}" in shown


def test_nbconvert_writes_markdown_that_reads_well() -> None:
    from nbconvert import MarkdownExporter

    text, _ = MarkdownExporter().from_notebook_node(saved())
    tokens = MarkdownIt("commonmark", {"html": True}).parse(text)
    assert [token.type for token in tokens] == ["fence", "html_block", "html_block"]  # no line of it is taken for markdown
    assert in_order(visible(tokens[-1].content)) == SAID


def test_nbconvert_asked_for_markdown_first_writes_it_through() -> None:
    from nbconvert import MarkdownExporter
    from traitlets.config import Config

    config = Config({"NbConvertBase": {"display_data_priority": ["text/markdown", "text/plain"]}})
    text, _ = MarkdownExporter(config=config).from_notebook_node(saved())
    assert in_order(text) == SAID
    assert "```python\nif cold:" in text
    assert "<" not in text


def test_every_view_has_the_same_words_for_how_a_turn_ended() -> None:
    """The page's words stand in TypeScript; both tables must say the same."""
    source = (Path(__file__).parents[2] / "labextension" / "src" / "status.ts").read_text(encoding="utf-8")
    cases = dict(re.findall(r"case '(\w+)':\s+return (?:trans\.__\()?'([^']*)'", source))
    assert cases == {state: said for state, said in ENDINGS.items() if state != "running"}
