"""Why an answer under a schema was ended early, in words for its reader."""

from __future__ import annotations

from llm_magics.engine.closing import SOFT_LIMIT
from llm_magics.engine.values import Finished

from .base import Request

_OPTION = "--max-tokens (max_tokens in Python)"


def why_ended(done: Finished, request: Request) -> str:
    """The words after "The answer was stopped"; empty if the model ended it."""
    match done.hurried:
        case "soft" if request.soft_limit is None:
            most = f"{SOFT_LIMIT} tokens, or three times the shortest valid answer"
            return f"early, so that its JSON is complete: without {_OPTION} it has {most}"
        case "soft":
            return f"early, so that its JSON is complete within {request.soft_limit:,} tokens; a larger {_OPTION} allows more"
        case "limit" if request.max_tokens is not None and request.max_tokens == request.soft_limit:
            return f"early, so that its JSON is complete within {request.max_tokens:,} tokens; a larger {_OPTION} allows more"
        case "limit":
            return "early, so that its JSON is complete within the turn's limit of tokens"
        case "context":
            more = "load the model with a larger context (ctx), or start a new thread"
            return f"early, so that its JSON is complete before the context of {done.n_ctx:,} tokens ends; {more}"
        case "repeats":
            return "early, because it repeated itself; its JSON was completed"
    return ""
