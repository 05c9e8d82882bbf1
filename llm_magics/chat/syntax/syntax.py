"""What a model's text looks like around its calls, as data: the frame of a turn, and how it is cut into blocks."""

from __future__ import annotations

from dataclasses import dataclass, field

Escapes = tuple[tuple[str, str], ...]
"""How a template writes awkward characters of names and keys, e.g. ``(("&", "&amp;"), ('"', "&quot;"))``."""


def escape(text: str, escapes: Escapes) -> str:
    """A name as a template writes it."""
    return "".join(dict(escapes).get(char, char) for char in text)


def unescape(text: str, escapes: Escapes) -> str:
    """The name that a template has written so."""
    for char, written in sorted(escapes, key=lambda pair: pair[0] == "&"):  # what begins every other escape comes last
        text = text.replace(written, char)
    return text


@dataclass(frozen=True, slots=True)
class BlockSyntax:
    """How a turn is cut into blocks with headers: ``start HEADER header_end BODY end``, several in a row.

    The generation prompt has already written the first block's ``start``. A header is read, in this order, as a call's when it
    holds ``call`` and the name of a tool, as reasoning's or content's when it holds their text (the last one counts). With
    ``addressee``, a header that holds it and is none of these speaks to somebody else: its block is kept as a note.
    """

    start: str  # e.g. "<|start|>assistant", or ">>>"
    header_end: str  # e.g. "<|message|>", or "\n"
    content: str  # e.g. "<|channel|>final", or "all"
    call: str = ""  # e.g. " to=functions."
    addressee: str = ""  # e.g. " to="
    ends: tuple[str, ...] = ()  # e.g. ("<|end|>", "<|call|>", "<|return|>")


@dataclass(frozen=True, slots=True)
class TurnSyntax:
    """The frame of an assistant's turn."""

    generation_prompt: str = ""  # e.g. "<|im_start|>assistant\n"; what a plain prompt ends with
    content_start: str = ""  # e.g. "<|START_RESPONSE|>"
    content_end: str = ""  # e.g. "<|END_RESPONSE|>"
    end: str = ""  # e.g. "<|im_end|>\n"
    extra_ends: tuple[str, ...] = field(default=())  # e.g. ("<|eom_id|>",): what ends a turn after calls, where it differs
