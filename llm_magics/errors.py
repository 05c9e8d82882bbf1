"""The errors this package raises: each says whose fault it is and what to do next.

``str(error)`` is one or two sentences: what went wrong, then the next action. ``error.next_action`` holds the second part on
its own, so that a view may set it apart; ``error.action`` is one that can be run. Nothing here imports anything of the package.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Action:
    """The one thing that mends an error: ``code`` to run in a cell of its own, ``label`` for a button that does so.

    The cell that failed is to be run again afterwards.
    """

    label: str
    code: str


class LLMMagicsError(Exception):
    """Base of every error raised on purpose by this package.

    Args:
        what: what went wrong, one sentence without the full stop's company of advice.
        next_action: what the reader can do about it, one sentence; may be empty.

    ``action`` is set where one line of code is all that it takes.
    """

    action: Action | None = None

    def __init__(self, what: str, next_action: str = "") -> None:
        super().__init__(what, next_action)
        self.what = what
        self.next_action = next_action

    def __str__(self) -> str:
        return f"{self.what} {self.next_action}".strip()


class OptionError(LLMMagicsError):
    """The user's magic line or call has an option that cannot be understood or met."""


class ModelError(LLMMagicsError):
    """Something about a model: finding, reading, loading or running it."""


class ModelNotFoundError(ModelError):
    """No catalogue entry, file or hub repository answers to that name."""


class ModelFileError(ModelError):
    """The model's file is damaged, incomplete, or not a GGUF at all."""


class UnsupportedModelError(ModelError):
    """The file is sound, but this llama.cpp cannot run it (architecture, version, quantisation)."""


class DownloadError(ModelError):
    """A model could not be fetched or verified."""


class MemoryFitError(ModelError):
    """The model does not fit in the memory that is free; the next action names options that would fit."""


class NoModelError(ModelError):
    """A model was needed and none is loaded."""


class ContextFullError(ModelError):
    """The prompt has more tokens than the context holds. Raised before any token is evaluated.

    Attributes: ``n_prompt`` and ``n_ctx``, in tokens.
    """

    def __init__(self, what: str, next_action: str = "", *, n_prompt: int = 0, n_ctx: int = 0) -> None:
        super().__init__(what, next_action)
        self.n_prompt = n_prompt
        self.n_ctx = n_ctx


class EngineError(ModelError):
    """The engine failed while evaluating, or was used after it was closed."""


class TemplateError(LLMMagicsError):
    """A chat template cannot be parsed, was refused by the sandbox, or failed to render."""


class SchemaError(LLMMagicsError):
    """A JSON schema cannot be understood or cannot be enforced."""


class ToolError(LLMMagicsError):
    """A tool cannot be defined, found, or run as asked."""


class WireError(LLMMagicsError):
    """JSON in the OpenAI form does not say what that form requires."""


class TranscriptError(LLMMagicsError):
    """A saved transcript cannot be read back."""
