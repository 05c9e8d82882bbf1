"""The form of a model's text around its calls, as data: the frame of a turn, and how it is cut into blocks."""

from __future__ import annotations

from dataclasses import dataclass

Escapes = tuple[tuple[str, str], ...]  # awkward characters of names and keys as a template writes them, e.g. (("&", "&amp;"),)


def escape(text: str, escapes: Escapes) -> str:
    """Write a name as a template does."""
    return "".join(dict(escapes).get(char, char) for char in text)


def unescape(text: str, escapes: Escapes) -> str:
    """Read a name back that a template wrote."""
    for char, written in sorted(escapes, key=lambda pair: pair[0] == "&"):  # "&" begins all other escapes, so it comes last
        text = text.replace(written, char)
    return text


@dataclass(frozen=True, slots=True)
class BlockSyntax:
    """How a turn is cut into blocks with headers: ``start HEADER header_end BODY end``, several in a row.

    The generation prompt has already written the first block's ``start``. A header with ``call`` and the name of a tool belongs
    to a call; otherwise the last text of reasoning or content in the header decides. Any other header with ``addressee`` speaks
    to somebody else: its block is kept as a note.
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

    generation_prompt: str = ""  # e.g. "<|im_start|>assistant\n": the end of a plain prompt
    content_start: str = ""  # e.g. "<|START_RESPONSE|>"
    content_end: str = ""  # e.g. "<|END_RESPONSE|>"
    end: str = ""  # e.g. "<|im_end|>\n"
    extra_ends: tuple[str, ...] = ()  # e.g. ("<|eom_id|>",): other ends of a turn after calls
