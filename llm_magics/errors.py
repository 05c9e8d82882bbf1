"""The errors this package raises: each says whose fault it is and what to do next.

``str(error)`` is what went wrong, then the next action. This file imports nothing of the package.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Action:
    """What fixes an error: ``code`` to run in a cell of its own, ``label`` of its button. The failed cell is then run again."""

    label: str
    code: str


class LLMMagicsError(Exception):
    """Base of all errors that this package raises on purpose.

    ``what`` is a sentence on what went wrong, ``next_action`` one on what to do, or empty. ``action``: one line that fixes it.
    """

    action: Action | None = None

    def __init__(self, what: str, next_action: str = "") -> None:
        super().__init__(what, next_action)
        self.what = what
        self.next_action = next_action

    def __str__(self) -> str:
        return f"{self.what} {self.next_action}".strip()


class OptionError(LLMMagicsError):
    """An option of a magic's line or of a call cannot be read or met."""


class ModelError(LLMMagicsError):
    """A model cannot be found, read, loaded or run."""


class ModelNotFoundError(ModelError):
    """No catalogue entry, file or hub repository has that name."""


class ModelFileError(ModelError):
    """The model's file is damaged, incomplete, or not a GGUF."""


class UnsupportedModelError(ModelError):
    """The file is sound, but this llama.cpp cannot run it (architecture, version, quantisation)."""


class DownloadError(ModelError):
    """A model could not be fetched or verified."""


class MemoryFitError(ModelError):
    """The model does not fit in the memory that is free; the next action names options that would fit."""


class NoModelError(ModelError):
    """No model is loaded."""


class ContextFullError(ModelError):
    """The prompt has ``n_prompt`` tokens, more than the ``n_ctx`` of the context. Raised before any token is evaluated."""

    def __init__(self, what: str, next_action: str = "", *, n_prompt: int = 0, n_ctx: int = 0) -> None:
        super().__init__(what, next_action)
        self.n_prompt = n_prompt
        self.n_ctx = n_ctx


class ServerError(ModelError):
    """A model's server cannot be reached, refuses a request, or breaks its answer off."""


class EngineError(ModelError):
    """The engine failed while evaluating, or was used after it was closed."""


class EngineDiedError(EngineError):
    """The engine's own process died: of a crash in llama.cpp, of a device, or killed from outside."""


class TemplateError(LLMMagicsError):
    """A chat template cannot be parsed or rendered, or the sandbox refused it."""


class SchemaError(LLMMagicsError):
    """A JSON schema cannot be read or enforced."""


class ToolError(LLMMagicsError):
    """A tool cannot be defined, found or run."""


class WireError(LLMMagicsError):
    """JSON in OpenAI's form lacks what that form requires."""


class TranscriptError(LLMMagicsError):
    """A saved transcript cannot be read."""
