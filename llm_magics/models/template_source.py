"""Reads a chat template from a GGUF's metadata, without loading the model, or from its own file."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice

from llm_magics.engine.fit.gguf import Array, Gguf
from llm_magics.engine.fit.gguf_check import read_model
from llm_magics.errors import OptionError, TemplateError
from llm_magics.store.locate import file_at, locate

_SPECIAL_TYPES = (3, 4)  # GGUF's token types: control, and defined by the model's makers


@dataclass(frozen=True, slots=True)
class TemplateSource:
    """A template's source, and the texts of the begin and end tokens, which most templates write. ``control_tokens`` are the
    texts that are one token each in this vocabulary; None if no vocabulary is known."""

    name: str
    source: str
    bos_token: str = ""
    eos_token: str = ""
    control_tokens: frozenset[str] | None = None


def template_source(name: str) -> TemplateSource:
    """Read the template of a model on this machine (any name that :func:`locate` takes), or a template file.

    Raises ModelNotFoundError, ModelFileError, OptionError for an unreadable file, TemplateError if there is no template.
    """
    path = file_at(name)
    if path and path.suffix != ".gguf":
        try:
            return TemplateSource(path.name, path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError) as error:
            raise OptionError(f"The chat template {path} cannot be read: {error}.", "Name a text file in UTF-8.") from error
    file = locate(name)
    gguf = read_model(file.path)
    source = gguf.metadata.get("tokenizer.chat_template")
    if not isinstance(source, str) or not source.strip():
        raise TemplateError(f"{file.path.name} has no chat template.", "Load its Instruct variant, or name a template file.")
    return TemplateSource(file.name, source, _token(gguf, "bos"), _token(gguf, "eos"), _control_tokens(gguf))


def _token(gguf: Gguf, which: str) -> str:
    """The text of the begin or end token; "" if the vocabulary has none."""
    tokens, number = gguf.metadata.get("tokenizer.ggml.tokens"), gguf.metadata.get(f"tokenizer.ggml.{which}_token_id")
    if not isinstance(tokens, Array) or not isinstance(number, int) or not 0 <= number < len(tokens):
        return ""
    found: bytes = next(islice(tokens, number, None))
    return found.decode("utf-8", "replace")


def _control_tokens(gguf: Gguf) -> frozenset[str] | None:
    tokens, types = gguf.metadata.get("tokenizer.ggml.tokens"), gguf.metadata.get("tokenizer.ggml.token_type")
    if not isinstance(tokens, Array) or not isinstance(types, Array):
        return None
    return frozenset(t.decode("utf-8", "replace") for t, kind in zip(tokens, types, strict=False) if kind in _SPECIAL_TYPES)
