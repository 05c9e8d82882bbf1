"""From prompt text to token ids.

Two promises are kept here. *Nothing from outside becomes a control token*: a span of user or tool text that spells a control
token is tokenised as ordinary text, all else in one go, so that merges across it stay as the model knows them. *What was
generated keeps its ids*: tokenising a model's own text again may give other ids than it was sampled with, and the KV cache
would be lost from there on; so the ids of earlier sequences are remembered with their text, and a prompt that begins with such
a text begins with its ids.

A sequence is remembered under its *key*: its bytes, where each stretch that was tokenised as ordinary text stands between two
NUL bytes. Two prompts of equal text whose control strings differ in origin thus have different keys, and one cannot borrow the
other's ids.
"""

from __future__ import annotations

import re
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from llm_magics.chat.template.template import Prompt

_QUOTE = b"\0"


@dataclass(frozen=True, slots=True)
class Piece:
    """A stretch of the prompt; ``special`` says whether control strings in it are control tokens."""

    text: str
    special: bool


@dataclass(frozen=True, slots=True)
class Rendered:
    """A request on its way to the engine."""

    prompt: Prompt
    pieces: list[Piece]
    ids: tuple[int, ...]


def split(text: str, outside: Iterable[tuple[int, int]], control: re.Pattern[str] | None) -> list[Piece]:
    """Cut ``text`` at the outside spans (character offsets, ascending) that contain a control string; join all else."""
    pieces: list[Piece] = []
    start = 0
    for begin, end in outside:
        if control is None or not control.search(text, begin, end):
            continue
        if start < begin:
            pieces.append(Piece(text[start:begin], True))
        pieces.append(Piece(text[begin:end], False))
        start = end
    if start < len(text):
        pieces.append(Piece(text[start:], True))
    return pieces


def control_pattern(tokens: Iterable[str]) -> re.Pattern[str] | None:
    """A pattern that finds any of the vocabulary's control strings; None where it has none."""
    texts = sorted({t for t in tokens if t}, key=len, reverse=True)
    return re.compile("|".join(map(re.escape, texts))) if texts else None


class TokenMemory:
    """Tokenise prompts, remembering the ids of at most ``capacity`` recent sequences. Any thread may ask.

    Args:
        tokenize: text and ``special`` to ids, no BOS added.
        piece: one id to its bytes, special tokens written out.
    """

    def __init__(
        self, tokenize: Callable[[str, bool], Sequence[int]], piece: Callable[[int], bytes], capacity: int = 64
    ) -> None:
        self._tokenize = tokenize
        self._piece = piece
        self._capacity = capacity
        self._sequences: OrderedDict[bytes, tuple[int, ...]] = OrderedDict()
        self._lock = threading.Lock()

    def ids(self, pieces: Sequence[Piece]) -> tuple[int, ...]:
        """The ids of a prompt, beginning with those of the longest remembered sequence that its text begins with."""
        key = _key(pieces)
        with self._lock:
            known = max((k for k in self._sequences if key.startswith(k)), key=len, default=b"")
            if known:
                self._sequences.move_to_end(known)
            ids = list(self._sequences.get(known, ()))
        for piece in _after(pieces, len(known)):
            ids += self._tokenize(piece.text, piece.special)
        return tuple(ids)

    def remember(self, pieces: Sequence[Piece], prompt: tuple[int, ...], generated: Sequence[int]) -> None:
        """Keep a finished sequence: a prompt as it was cut and tokenised, and the ids that followed it.

        A sequence that ends inside a character is not kept: no later text could begin with it.
        """
        tail = b"".join(map(self._piece, generated))
        try:
            tail.decode()
        except UnicodeDecodeError:
            return
        key = _key(pieces) + tail
        with self._lock:
            self._sequences.pop(key, None)
            self._sequences[key] = (*prompt, *generated)
            while len(self._sequences) > self._capacity:
                self._sequences.popitem(last=False)

    def continues(self, pieces: Sequence[Piece], earlier: Sequence[Piece], generated: Sequence[int]) -> bool:
        """Whether a prompt's text begins with an earlier prompt and what was generated after it."""
        return _key(pieces).startswith(_key(earlier) + b"".join(map(self._piece, generated)))


def _key(pieces: Iterable[Piece]) -> bytes:
    return b"".join(_piece_key(p) for p in pieces)


def _piece_key(piece: Piece) -> bytes:
    text = piece.text.encode()
    return text if piece.special else _QUOTE + text + _QUOTE


def _after(pieces: Iterable[Piece], n_bytes: int) -> list[Piece]:
    """What is left of the pieces when the first ``n_bytes`` bytes of their key are taken away.

    A remembered key never ends inside a quoted piece: generated text is not quoted.
    """
    rest: list[Piece] = []
    for piece in pieces:
        key = _piece_key(piece)
        if n_bytes >= len(key):
            n_bytes -= len(key)
        elif n_bytes:
            rest.append(Piece(key[n_bytes:].decode(), piece.special))
            n_bytes = 0
        else:
            rest.append(piece)
    return rest
