"""What the forms of a transcript say: markdown, tool rows, the last line; growing HTML against whole HTML."""

from __future__ import annotations

import html
import re

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from llm_magics.events import Usage
from llm_magics.segments import Ask, NoticeSegment, ReasoningSegment, TextSegment, ToolSegment
from llm_magics.transcript import Transcript
from llm_magics.views.html import GrowingHtml, transcript_html
from llm_magics.views.markup.markdown import GrowingMarkdown, markdown_html
from llm_magics.views.markup.remark import markdown_markdown
from llm_magics.views.text.lines import call_line, status_line
from llm_magics.views.text.plain import transcript_markdown, transcript_plain
from tests.turns import Turn, turns

USAGE = Usage(100, 60, 40, 50, 0.5, 2.0, 0.52, 150, 4096)
DONE = Transcript(
    state="stop",
    segments=(
        ReasoningSegment("Let me *think*."),
        TextSegment("I look it up."),
        ToolSegment(0, "weather", "c1", '{"city": "Oslo", "days": 2}', "done", printed="asking\n", result="4", seconds=0.5),
        NoticeSegment("Careful.", "warning"),
        TextSegment("**4** degrees.\n\n```python\nprint(4)\n```", step=1),
    ),
    usage=USAGE,
)


def one(text: str) -> Transcript:
    return Transcript(state="stop", segments=(TextSegment(text),))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("# Title", '<h1 dir="auto">Title</h1>'),
        ("a **b** *c* `d` ~~e~~", "<strong>b</strong> <em>c</em> <code>d</code> <s>e</s>"),
        ("| a | b |\n|---|---|\n| 1 | 2 |", "<td>1</td>"),
        ("[site](https://x.y/?a=1&b=2)", '<a href="https://x.y/?a=1&amp;b=2" target="_blank" rel="noopener noreferrer">'),
        ("<https://x.y>", '<a href="https://x.y" target="_blank" rel="noopener noreferrer">https://x.y</a>'),
        ("mail [me](mailto:a@b.c)", 'href="mailto:a@b.c"'),
        ("![plot](https://x.y/p.png)", '>plot</a>'),
        ("```python\ndef f(): pass\n```", '<span class="lm-k">def</span>'),
        ("```no-such-language\n<b>\n```", "<code>&lt;b&gt;\n</code>"),
        ("1 < 2 & 3 > 2", "1 &lt; 2 &amp; 3 &gt; 2"),
        ("- [ ] task", '<li class="lm-item"><span class="lm-task" role="img" aria-label="not done">\u2610</span> task</li>'),
    ],
)
def test_markdown_is_rendered(text: str, expected: str) -> None:
    assert expected in transcript_html(one(text))


@pytest.mark.parametrize(
    ("text", "formula"),
    [
        ("so $a_1 * b_2 * c$ holds", "$a_1 * b_2 * c$"),
        (r"so \(a_1 \cdot b_2\) holds", r"\(a_1 \cdot b_2\)"),
        ("$$\nx < y\n$$", "$$\nx < y\n$$"),
        ("\\[\nx_1\n\\]", "\\[\nx_1\n\\]"),
        ("\\begin{align}\na &= b\n\\end{align}", "\\begin{align}\na &= b\n\\end{align}"),
    ],
)
def test_maths_is_left_as_it_was_written_and_only_maths_is_typeset(text: str, formula: str) -> None:
    marked = r'<(?:div|span) class="tex2jax_process mathjax_process">(.*?)</(?:div|span)>'
    found = re.findall(marked, markdown_html(text), re.DOTALL)
    assert [html.unescape(one) for one in found] == [formula]


@pytest.mark.parametrize("text", ["it costs $5 and $10", "`$x$`", r"\$x\$", "a $ b $ c"])
def test_what_is_no_formula_is_not_marked_as_one(text: str) -> None:
    assert "mathjax_process" not in markdown_html(text)


def test_a_turn_shows_in_order_with_folded_reasoning_and_calls() -> None:
    text = transcript_html(DONE)
    call = "weather(city=&quot;Oslo&quot;, days=2)"
    order = ["Reasoning", "I look it up.", call, "asking", "Careful.", "<strong>4</strong>", "tokens/s"]
    assert [text.index(part) for part in order] == sorted(text.index(part) for part in order)
    assert text.count("<details") == text.count("</details>") == 2
    assert "<details open" not in text
    assert 'class="lm-tool lm-done"' in text


def test_what_waits_for_somebody_is_unfolded_and_shows_what_would_run() -> None:
    asking = ToolSegment(0, "run", arguments="{}", state="asking", ask=Ask("rm -r data", "d1", "a recovered call"))
    text = transcript_html(Transcript(segments=(asking,)))
    assert " open>" in text
    assert "rm -r data" in html.unescape(re.sub(r"<[^>]*>", "", text))
    assert "a recovered call" in text


@pytest.mark.parametrize("write", [transcript_markdown, transcript_plain])
def test_every_form_holds_the_answer_the_call_and_the_last_line(write) -> None:
    text = write(DONE)
    for part in ("think", "look it up", "weather", "asking", "Careful", "degrees", "print(4)", "tokens/s"):
        assert part in text
    assert "think" not in write(DONE, "hide")


@pytest.mark.parametrize(
    ("transcript", "line"),
    [
        (DONE, "50 tokens · 25.0 tokens/s · first token after 0.52 s · context 150 of 4,096"),
        (Transcript(state="interrupted", usage=USAGE), "interrupted · 50 tokens"),
        (Transcript(state="length", usage=USAGE), "cut off · 50 tokens"),
        (Transcript(state="stop", usage=Usage(drafted_tokens=40, accepted_tokens=31)), "31 of 40 guessed tokens accepted"),
        (Transcript(state="error"), "ended by an error"),
        (Transcript(progress=(512, 2048)), "reading the prompt: 512 of 2,048 tokens"),
        (Transcript(), ""),
    ],
)
def test_the_last_line(transcript: Transcript, line: str) -> None:
    assert status_line(transcript).startswith(line)
    assert bool(status_line(transcript)) == bool(line)


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ('{"a": 1, "b": [true, null]}', "f(a=1, b=[true, null])"),
        ('{"a": ', 'f({"a":)'),
        ("[1]", "f([1])"),
        ("", "f()"),
        ('{"a": "x\\ny"}', 'f(a="x\\ny")'),
        ('{"a": "' + "x" * 500 + '"}', 'f(a="' + "x" * 94 + "…"),
    ],
)
def test_a_call_reads_like_python(arguments: str, line: str) -> None:
    assert call_line(ToolSegment(0, "f", arguments=arguments)) == line


def test_losses_of_the_cache_are_told_where_somebody_looks() -> None:
    lossy = Transcript(state="stop", usage=Usage(100, 60, 40, 5, losses=("the template drops earlier reasoning",)))
    assert 'title="40 of 100 prompt tokens evaluated: the template drops earlier reasoning"' in transcript_html(lossy)


@given(turns())
@settings(max_examples=60)
def test_growing_html_ends_as_the_whole(turn: Turn) -> None:
    growing, transcript = GrowingHtml(), Transcript()
    written = ""
    for event in turn.events:
        transcript = transcript.fold(event)
        written = growing.html(transcript)
    assert written == transcript_html(transcript)


MATHS = "tex2jax_process mathjax_process"


def words_of(shown: str) -> str:
    return html.unescape(re.sub(r"<[^>]*>", "", shown)).strip()


more = ("- [ ] ", "$5 to ", "سلام")
pieces = st.lists(
    st.sampled_from(
        [*"ab1 *_`~\\()<>!#-+|.:&\n", "\n\n", "```", "- ", "1. ", "> ", "    ", "===", "| a |\n|---|\n", "**b**", *more]
    ),
    max_size=14,
).map("".join)


@given(pieces)
@example("a| a |\n|---|\n--a")  # for a moment the last two lines are a table
@settings(max_examples=300)
def test_growing_markdown_is_at_every_moment_what_the_whole_would_be(text: str) -> None:
    growing = GrowingMarkdown()
    for end in range(len(text) + 1):
        assert growing.html(text[:end]) == markdown_html(text[:end])


def test_only_what_may_still_change_is_parsed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    from llm_magics.views.markup import markdown

    parsed: list[int] = []
    parse = markdown.parse
    monkeypatch.setattr(markdown, "parse", lambda text, *more: (parsed.append(len(text)), parse(text, *more))[1])
    growing, text = GrowingMarkdown(), ""
    for number in range(100):
        text += f"Paragraph {number} of a long answer.\n\n"
        growing.html(text)
    assert max(parsed) < 200


beyond_commonmark = [*"[]^$", "[^a]", "\n\n[^a]: ", "\n\n[^b]: ", "[^b]", "- [ ] ", "- [x] ", "[x] ", "$5 to ", "    "]


@given(st.lists(pieces | st.sampled_from(beyond_commonmark), max_size=6).map("".join))
@example("- \\[ ] no task")
@example("[^a]\n\n[^a]: **note**\n\n    - more\n\n\\[^a] is no note")
@example("[^a]: [^a]\n\n[^a]: [")
@example("- [x] a\n\n[x]: https://example.org")
@example("$a<b$")
@settings(max_examples=500)
def test_rewritten_markdown_says_the_same(text: str) -> None:
    def words(source: str) -> str:
        shown = html.unescape(re.sub(r"<[^>]*>", "", markdown_html(source)))
        return re.sub(r"\s+", "", shown.replace("\\lt", "<"))  # in a formula they are the same, and "<" may begin a tag

    assert words(markdown_markdown(text)) == words(text)


@pytest.mark.parametrize("text", ["It costs $5 and $10.", "Buy at $5 a piece and sell at 10$ each.", "between $5-$10 and 20$"])
def test_prices_are_no_formula(text: str) -> None:
    assert MATHS not in markdown_html(f"{text} So $x^2$.").replace(f'<span class="{MATHS}">$x^2$</span>', "")
    assert words_of(markdown_html(text)) == text
    assert "$" not in markdown_markdown(text).replace("\\$", "")


@pytest.mark.parametrize("formula", ["$2x$", "$5$", "$3 \\pi$", "$10^6$", "$2 + x$"])
def test_a_formula_that_begins_with_a_number_is_one(formula: str) -> None:
    assert f'<span class="{MATHS}">{formula}</span>' in markdown_html(formula)


def test_a_task_list_has_its_boxes() -> None:
    shown = markdown_html("- [x] **done** so\n- [ ] open\n- [y] text\n\n[ ] no item")
    assert re.findall(r'aria-label="([^"]*)">(.)', shown) == [("done", "\u2611"), ("not done", "\u2610")]
    assert words_of(shown).split() == ["\u2611", "done", "so", "\u2610", "open", "[y]", "text", "[", "]", "no", "item"]


def test_notes_stand_at_the_end_and_lead_nowhere_on_the_page() -> None:
    shown = markdown_html("One[^a] and two[^b].\n\n[^b]: The *second*.\n\n[^a]: The first.\n\nMore, x^[2].")
    assert words_of(shown).split("\n\n")[0].startswith("One[1] and two[2].")
    assert shown.index("x^[2]") < shown.index("The first.") < shown.index("The <em>second</em>.")
    assert not re.search(r"<a | id=", shown)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("[^a]: nothing refers to it", "[^a]: nothing refers to it"),
        ("One[^a].\n\n[^a]: first\n\n[^a]: second", "One[1].[^a]: firstsecond"),
        ("`[^a]`\n\n[^a]: a note", "[^a][^a]: a note"),
        ("[^a]:\n\n    - item", "[^a]: item"),
    ],
)
def test_what_is_no_note_stays_as_text(text: str, shown: str) -> None:
    assert words_of(markdown_html(text)).replace("\n", "") == shown


def test_notes_are_there_while_the_text_grows() -> None:
    growing, text = GrowingMarkdown(), "One[^a].\n\n[^a]: The first.\n\nMore that grows.\n\n- a\n- b\n\nEnd[^a]."
    for end in range(len(text) + 1):
        assert growing.html(text[:end]) == markdown_html(text[:end])


@pytest.mark.parametrize("text", ["سلام", "# سلام", "- سلام\n- x", "> سلام", "|سلام|\n|-|\n|x|"])
def test_text_runs_in_its_own_direction(text: str) -> None:
    assert markdown_html(text).count('dir="auto"') == 1


@given(pieces, pieces)
@settings(max_examples=150)
def test_html_that_nbconvert_puts_into_markdown_stays_html_to_its_end(said: str, printed: str) -> None:
    outputs = ({"text/html": f"<pre>{said}</pre>"},)
    tool = ToolSegment(0, "look", "c1", "{}", "done", printed=printed, result=said, outputs=outputs)
    written = transcript_html(Transcript(state="stop", segments=(TextSegment(said), tool, TextSegment(f"```\n{printed}\n```"))))
    around = f"before\n\n{written}\n\nafter"
    tokens = MarkdownIt("commonmark", {"html": True}).parse(around)
    assert [t.type for t in tokens if t.nesting >= 0] == [
        "paragraph_open", "inline", "html_block", "html_block", "paragraph_open", "inline"
    ]  # fmt: skip


def test_empty_lines_of_code_are_kept() -> None:
    shown = transcript_html(one("```\na\n\n \t\n\nb\n```"))
    assert "a\n\n \t\n\nb" in html.unescape(shown)
