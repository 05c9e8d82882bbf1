"""Answers side by side: columns that wrap on a narrow page, with marks on the words that differ from the first answer.

Marks wrap words of the finished, safe HTML and leave its tags as they are. Formulas get no marks, because MathJax reads them as
a whole.
"""

from __future__ import annotations

import difflib
import re
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from html import escape
from typing import Any

from llm_magics.segments import TextSegment
from llm_magics.transcript import Transcript
from llm_magics.views.markup.markdown import NO_MATHS, printable
from llm_magics.views.markup.remark import escaped
from llm_magics.views.secrets.secrets import masked, masked_text
from llm_magics.views.text.plain import transcript_markdown, transcript_plain

from .html import GrowingHtml, ShowReasoning
from .pace import Pace, Publish
from .style import STYLE

MIME_TYPE = "application/vnd.llm-magics.columns+json"
_PIECE = re.compile(r"<[^>]*>|[^<\s]+|\s+")  # a tag, a word, white space
_MANY_WORDS = 3_000  # the longest answer that is compared: the time grows with the square
_ALIKE = 0.6  # the smallest share of equal words for marks; below it nearly every word would be marked
_MATHS = "tex2jax_process"


@dataclass(frozen=True, slots=True)
class Column:
    """One answer: its own options, its transcript, and the error that ended it, if any."""

    heading: str
    transcript: Transcript = field(default_factory=Transcript)
    error: str = ""


def columns_bundle(
    columns: Sequence[Column], *, note: str = "", chosen: int | None = None, reasoning: ShowReasoning = "fold"
) -> dict[str, Any]:
    """Every form of the columns, by MIME type. The conversation continues with column ``chosen``."""
    safe = [_safe(column) for column in columns]
    emphasised, bracketed = (f"*{escaped(printable(note))}*", f"[{printable(note)}]") if note else ("", "")
    return {
        "text/html": columns_html(safe, note, [GrowingHtml(reasoning, growing=False) for _ in safe], marked=True),
        "text/markdown": _joined(*(_markdown(column, safe[0], reasoning) for column in safe), emphasised),
        "text/plain": _joined(*(_plain(column, safe[0], reasoning) for column in safe), bracketed),
        MIME_TYPE: {
            "version": 1,
            "chosen": chosen,
            "columns": [{"heading": c.heading, "error": c.error, "transcript": c.transcript.to_json()} for c in safe],
        },
    }


def columns_html(columns: Sequence[Column], note: str, writers: Sequence[GrowingHtml], *, marked: bool = False) -> str:
    """Write the columns as static HTML, style included; ``writers`` cache unchanged segments."""
    bodies = [_body(writer.html(column.transcript)) for column, writer in zip(columns, writers, strict=True)]
    if marked and len(bodies) > 1:  # two columns mark each other, more of them what differs from the first
        first = _marked(bodies[0], bodies[1]) if len(bodies) == 2 else bodies[0]
        bodies = [first, *(_marked(body, bodies[0]) for body in bodies[1:])]
    cells = []
    for column, body in zip(columns, bodies, strict=True):
        head = escape(printable(_headline(column, columns[0], marked)))
        cells.append(f'<div class="lm-column"><strong>{head}</strong>\n{body}{_error(column)}</div>\n')
    last = f'<div class="lm-notice">{escape(printable(note))}</div>' if note else ""
    return f'{STYLE}<div class="llm-magics lm-wide {NO_MATHS}"><div class="lm-columns">\n{"".join(cells)}</div>{last}</div>'


def _safe(column: Column) -> Column:
    return Column(masked_text(column.heading), masked(column.transcript), masked_text(column.error))


class ColumnsView:
    def __init__(
        self, publish: Publish, *, reasoning: ShowReasoning = "fold", updates: bool = True, pace: Pace | None = None
    ) -> None:
        self._publish, self._reasoning, self._updates = publish, reasoning, updates
        self._pace = pace or Pace()
        self._writers: list[GrowingHtml] = []
        self._display_id = uuid.uuid4().hex
        self._shown = False
        self._closed: tuple[Sequence[Column], str, int | None] = ((), "", None)

    @property
    def due(self) -> bool:
        return self._updates and self._pace.due()

    def draw(self, columns: Sequence[Column], note: str) -> None:
        began = self._pace.now()
        self._writers += [GrowingHtml(self._reasoning) for _ in columns[len(self._writers) :]]
        safe = [_safe(column) for column in columns]
        html = columns_html(safe, note, self._writers)
        self._display({"text/html": html, "text/plain": "", MIME_TYPE: {"version": 1, "running": True, "columns": []}})
        self._pace.spent(began, len(html))

    def forget(self) -> None:
        """Note that the cell's outputs were cleared: the next drawing is a new display."""
        self._shown = False

    def close(self, columns: Sequence[Column], note: str, chosen: int | None = None) -> None:
        """Write the final bundle, again if another column is chosen."""
        self._closed = (columns, note, chosen)
        self._display(columns_bundle(columns, note=note, chosen=chosen, reasoning=self._reasoning))

    def add(self, remark: str) -> None:
        """Write a remark behind complete columns."""
        columns, note, chosen = self._closed
        if self._updates and columns:
            self.close(columns, f"{note} {remark}".strip(), chosen)

    def _display(self, data: dict[str, Any]) -> None:
        transient = {"display_id": self._display_id} if self._updates else {}
        self._publish(data, transient=transient, update=self._shown and self._updates)
        self._shown = True


def shared_words(first: str, other: str) -> float | None:
    """The share of common words in order, from 0 to 1; None if a text is too long to compare."""
    a, b = first.split(), other.split()
    return None if max(len(a), len(b)) > _MANY_WORDS else difflib.SequenceMatcher(None, a, b, autojunk=False).ratio()


def _headline(column: Column, first: Column, over: bool) -> str:
    compared = over and column is not first and not column.error
    share = shared_words(first.transcript.text, column.transcript.text) if compared else None
    if share is None:
        return column.heading
    return f"{column.heading} · {'the same words' if share == 1 else f'{share:.0%} of the words are the same'}"


def _marked(html: str, other: str) -> str:
    """Mark the words of ``html`` that differ from ``other``, if the two are similar."""
    pieces, theirs = _PIECE.findall(html), _PIECE.findall(other)
    places = _word_places(pieces)
    for begin, end in _differing([pieces[at] for at in places], [theirs[at] for at in _word_places(theirs)]):
        for at in places[begin:end]:
            pieces[at] = f'<u class="lm-differs">{pieces[at]}</u>'
    return "".join(pieces)


def _differing(words: Sequence[str], others: Sequence[str]) -> list[tuple[int, int]]:
    """The ranges of ``words`` that differ from ``others``; none unless the two are similar."""
    if max(len(words), len(others)) > _MANY_WORDS:
        return []
    matcher = difflib.SequenceMatcher(None, words, others, autojunk=False)
    if matcher.ratio() < _ALIKE:
        return []
    return [(begin, end) for kind, begin, end, _, _ in matcher.get_opcodes() if kind in ("replace", "delete")]


def _word_places(pieces: Sequence[str]) -> list[int]:
    """The places of the answer's own words, without tags, formulas, reasoning, tool rows and status line."""
    places, skipped, depth = [], 0, 0
    for at, piece in enumerate(pieces):
        if piece.startswith("<"):
            closing, alone = piece.startswith("</"), piece.endswith("/>") or piece.startswith(("<br", "<hr", "<img"))
            depth += 0 if alone else -1 if closing else 1
            folded = piece.startswith(("<details", "<summary")) and "lm-json" not in piece
            if not skipped and not closing and (_MATHS in piece or "lm-status" in piece or folded):
                skipped = depth
            elif closing and skipped > depth:
                skipped = 0
        elif not skipped and not piece.isspace():
            places.append(at)
    return places


def _plain_marked(text: str, first: str) -> str:
    """Mark differing words in plain text as wdiff does, ``{+these are new+}``, if the two are similar."""
    pieces = re.findall(r"\S+|\s+", text)
    places = [at for at, piece in enumerate(pieces) if not piece.isspace()]
    for begin, end in _differing(text.split(), first.split()):
        pieces[places[begin]] = "{+" + pieces[places[begin]]
        pieces[places[end - 1]] += "+}"
    return "".join(pieces)


def _body(html: str) -> str:
    """A transcript's HTML without its style and frame, which all columns share."""
    return html.removeprefix(STYLE).removeprefix(f'<div class="llm-magics {NO_MATHS}">\n').removesuffix("</div>")


def _error(column: Column) -> str:
    return f'<div class="lm-notice lm-error">{escape(printable(column.error))}</div>' if column.error else ""


def _markdown(column: Column, first: Column, reasoning: ShowReasoning) -> str:
    head = f"#### {escaped(printable(_headline(column, first, True)))}"
    error = f"**{escaped(printable(column.error))}**" if column.error else ""
    return _joined(head, transcript_markdown(column.transcript, reasoning), error)


def _plain(column: Column, first: Column, reasoning: ShowReasoning) -> str:
    shown = column.transcript
    if column is not first:
        theirs = first.transcript.text
        marked = (replace(s, text=_plain_marked(s.text, theirs)) if isinstance(s, TextSegment) else s for s in shown.segments)
        shown = replace(shown, segments=tuple(marked))
    head = f"== {printable(_headline(column, first, True))} =="
    return _joined(head, transcript_plain(shown, reasoning), f"[{printable(column.error)}]" if column.error else "")


def _joined(*parts: str) -> str:
    return "\n\n".join(part for part in parts if part)
