"""Constrains a generation to a grammar, with llguidance.

The grammar sees the same text as the guide: the bytes of every token, special tokens written out, so that a grammar writes a
marker as text whether or not the vocabulary has a token for it. Only end-of-generation tokens have no text; they are allowed
when the text is complete. A token is drawn freely and then checked, which costs microseconds; a mask over the vocabulary is
computed only if the grammar refuses the token.
"""

from __future__ import annotations

import ctypes
from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from llm_magics.engine.closing import END, Allowed, Closer
from llm_magics.engine.values import Grammar, Hurry
from llm_magics.errors import EngineError, SchemaError

from .library import lib
from .model import Model

_CACHED_GRAMMARS = 32


class Constraint:
    """One armed grammar and its state."""

    def __init__(self, matcher: Any, model: Model, closer: Closer | None = None) -> None:
        self._matcher = matcher
        self._model = model
        self._closer = closer
        self._eog = frozenset(model.eog)

    def accept(self, token: int) -> bool:
        """Take a token if the grammar allows it here; return whether it does."""
        if token in self._eog:
            return bool(self._matcher.is_accepting())
        if self._matcher.try_consume_tokens([token]) == 1:
            return True
        self._raise_if_broken()
        return False

    def settle(self, token: int) -> int:
        """The token to write for a drawn one that was taken: the same, or another if the text must come to its end."""
        if self._closer is None or token in self._eog:
            return token
        other = self._closer.instead(token)
        if other is None:
            return token
        if other == END:
            return min(self._eog)
        self._matcher.consume_token(other)
        self._raise_if_broken()
        self._closer.took(other)
        return other

    def took(self, token: int) -> None:
        """Note a token that was taken but not drawn."""
        if self._closer is not None:
            self._closer.took(token)

    @property
    def complete(self) -> bool:
        """Whether the text must be complete at its limit, and is."""
        return self._closer is not None and self._closer.complete

    @property
    def hurried(self) -> Hurry:
        return self._closer.hurried if self._closer is not None else ""

    def allowed(self) -> np.ndarray[Any, np.dtype[np.bool_]]:
        """Compute which tokens the grammar allows next."""
        bits = np.frombuffer(self._matcher.compute_bitmask(), dtype=np.uint8)
        self._raise_if_broken()
        return np.unpackbits(bits, count=self._model.n_vocab, bitorder="little").view(np.bool_)

    def forced(self) -> list[int]:
        """Return the tokens of the only possible continuation; empty if there is a choice, or no room for them."""
        tokens: list[int] = self._matcher.compute_ff_tokens()
        self._raise_if_broken()
        tokens = self._with_specials(tokens) if tokens else tokens
        return tokens if not tokens or self._closer is None or self._closer.may_force(tokens) else []

    @property
    def finished(self) -> bool:
        """Whether the text is complete, and cannot continue or has reached the limit of a JSON text."""
        return bool(self._matcher.is_stopped()) or (self._closer is not None and self._closer.over)

    def _with_specials(self, tokens: list[int]) -> list[int]:
        """Write forced markers as their special tokens, as the model would."""
        data = b"".join(map(self._model.piece, tokens))
        if not any(text and text.encode() in data for text, _ in self._model.control_tokens):
            return tokens
        try:
            spelled = list(self._model.tokenize(data.decode(), special=True))
        except UnicodeDecodeError:
            return tokens
        same = b"".join(map(self._model.piece, spelled)) == data and self._eog.isdisjoint(spelled)
        return spelled if same else tokens

    def _raise_if_broken(self) -> None:
        if self._matcher.is_error():
            said = _first_line(self._matcher.get_error())
            raise EngineError(f"The grammar failed inside the text: {said}.", "Simplify the schema.")


class ConstraintEngine:
    """Compiles grammars for one vocabulary, and keeps the latest, because each turn has the same tools. One thread at a time.

    The first grammar builds the vocabulary's trie: 0.4 s and 50 MB for 150,000 tokens. llguidance cannot save the trie, and
    holds the interpreter lock while it builds, so the trie is neither kept on disk nor built ahead in a thread.
    """

    def __init__(self, model: Model) -> None:
        self._model = model
        self._tokenizer: Any = None
        self._compiled: OrderedDict[str, Any] = OrderedDict()
        self._bytes: dict[int, int] = {}

    def arm(self, grammar: Grammar, held: bytes = b"", allowed: Allowed | None = None) -> Constraint:
        """Start a grammar; it consumes its ``pending`` text, then ``held``: bytes that the text stream holds back.

        ``allowed`` limits a JSON text. Raises SchemaError for a grammar that cannot be compiled or has no text within the
        limit, EngineError if the grammar refuses the consumed text.
        """
        matcher = self._compile(grammar.text).deep_copy()
        written = grammar.pending.encode() + held
        if written:
            tokens = self._tokenizer.tokenize_bytes(written)
            if matcher.try_consume_tokens(tokens) < len(tokens):
                shown = written.decode("utf-8", "replace")
                raise EngineError(f"The grammar refuses the text that is already written: {shown!r}.", "Arm it earlier.")
        closer = None
        if grammar.json is not None and allowed is not None:
            prelude = self._model.tokenize(grammar.json.prelude_end, special=True)
            spell = partial(self._model.tokenize, special=False)
            closer = Closer(matcher, self._model.piece, self._single_bytes(), spell, grammar.json, allowed, prelude)
            closer.begin()
        return Constraint(matcher, self._model, closer)

    def _single_bytes(self) -> dict[int, int]:
        """The token of each single byte, by byte."""
        if not self._bytes:
            pieces = ((self._model.piece(token), token) for token in range(self._model.n_vocab))
            self._bytes = {piece[0]: token for piece, token in pieces if len(piece) == 1}
        return self._bytes

    def _compile(self, text: str) -> Any:
        from llguidance import LLMatcher

        if self._tokenizer is None:
            self._tokenizer = _build_tokenizer(self._model)
        matcher = self._compiled.pop(text, None)
        if matcher is None:
            matcher = LLMatcher(self._tokenizer, text, log_level=0)
            if matcher.is_error():
                what = f"The grammar cannot be compiled: {_first_line(matcher.get_error())}."
                raise SchemaError(what, "Simplify the schema: a keyword or pattern in it is not supported.")
        self._compiled[text] = matcher
        if len(self._compiled) > _CACHED_GRAMMARS:
            self._compiled.popitem(last=False)
        return matcher


def _build_tokenizer(model: Model) -> Any:
    from llguidance import LLTokenizer

    eog = frozenset(model.eog)
    if not eog:
        raise EngineError("This model has no end-of-generation token, so a grammar cannot end.", "Choose a chat model.")
    # to llguidance, a leading byte 0xff means "special, never text"
    tokens = [(b"\xff" if token in eog else b"") + model.piece(token) for token in range(model.n_vocab)]
    build: Callable[..., Any] = LLTokenizer.from_llamacpp  # type: ignore[attr-defined]  # missing from its stub
    tokenize = ctypes.cast(lib._lib.llama_tokenize, ctypes.c_void_p).value
    return build(tokens=tokens, vocab_ptr=model.vocab, tokenize_fptr=tokenize, eos_token=list(model.eog), slices=None)


def _first_line(text: str) -> str:
    return text.strip().split("\n", 1)[0][:300]
