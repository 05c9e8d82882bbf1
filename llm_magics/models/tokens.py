"""From prompt text to token ids.

Two rules hold. *Nothing from outside becomes a control token*: a span of user or tool text that spells a control token is
tokenized as ordinary text, and all other text together, so that tokens merge as the model knows them. *Generated text keeps its
ids*: to tokenize a model's own text again may give other ids, and the KV cache would be lost from there on. So the ids of
earlier sequences are remembered with their text, and a prompt that begins with such a text begins with its ids.

The *key* of a sequence is its bytes, with each stretch that was tokenized as ordinary text between two NUL bytes. So prompts of
equal text whose control strings differ in origin have different keys, and do not share ids.
"""

from __future__ import annotations

import re
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from llm_magics.chat.template.template import Prompt

Pieces: TypeAlias = Callable[[Iterable[int]], Sequence[bytes]]
_QUOTE = b"\0"


@dataclass(frozen=True, slots=True)
class Piece:
    """A stretch of the prompt; ``special`` says whether control strings in it are control tokens."""

    text: str
    special: bool


@dataclass(frozen=True, slots=True)
class Rendered:
    """A request's prompt: rendered, cut into pieces, as token ids."""

    prompt: Prompt
    pieces: list[Piece]
    ids: tuple[int, ...]


def split(text: str, outside: Iterable[tuple[int, int]], control: re.Pattern[str] | None) -> list[Piece]:
    """Cut ``text`` at the outside spans (character offsets, ascending) that contain a control string; join all other text."""
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
    """A pattern for the vocabulary's control strings; None if it has none."""
    texts = sorted({t for t in tokens if t}, key=len, reverse=True)
    return re.compile("|".join(map(re.escape, texts))) if texts else None


class TokenMemory:
    """Tokenizes prompts, and remembers the ids of at most ``capacity`` recent sequences. Any thread may use it.

    ``tokenize`` gives a text's ids without BOS; ``special``: control strings are tokens. ``pieces`` gives the bytes of each id.
    """

    def __init__(
        self, tokenize: Callable[[str, bool], Sequence[int]], pieces: Pieces, capacity: int = 64
    ) -> None:
        self._tokenize = tokenize
        self._pieces = pieces
        self._capacity = capacity
        self._sequences: OrderedDict[bytes, tuple[int, ...]] = OrderedDict()
        self._lock = threading.Lock()

    def ids(self, pieces: Sequence[Piece]) -> tuple[int, ...]:
        """The ids of a prompt: first those of the longest remembered sequence with which its text begins."""
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
        """Keep the ids of a prompt and of the answer to it, unless the answer ends inside a character: no text begins so."""
        tail = b"".join(self._pieces(generated))
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
        """Whether a prompt's text begins with an earlier prompt and the answer to it."""
        return _key(pieces).startswith(_key(earlier) + b"".join(self._pieces(generated)))


def _key(pieces: Iterable[Piece]) -> bytes:
    return b"".join(_piece_key(p) for p in pieces)


def _piece_key(piece: Piece) -> bytes:
    text = piece.text.encode()
    return text if piece.special else _QUOTE + text + _QUOTE


def _after(pieces: Iterable[Piece], n_bytes: int) -> list[Piece]:
    """The pieces without the first ``n_bytes`` of their key, which end in no quoted piece: generated text is not quoted."""
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
