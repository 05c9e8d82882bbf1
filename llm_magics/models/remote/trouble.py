"""What went wrong with a server, in words: whose fault it is, and what to do next."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from llm_magics.errors import ContextFullError, ModelError, ServerError

from .address import Address
from .exchange import Failure, Head
from .key import Key

_LONGEST = 300  # characters of a server's own words
_FULL = re.compile(r"context[_ ](?:length|size|window)|maximum context|too many tokens", re.IGNORECASE)
_ADVICE = {
    400: "Leave out the option that it names, or see the server's log.",
    401: "Name the variable that holds the key: --api-key-env NAME.",
    403: "Name the variable that holds the key: --api-key-env NAME.",
    404: "Look at the address, which often ends in /v1, and at --model.",
    405: "Look at the address, which often ends in /v1.",
    413: "Shorten the conversation.",
    422: "Leave out the option that it names, or see the server's log.",
    429: "Ask again later, or send fewer requests at once with --slots 1.",
}


def refused(head: Head, body: str, key: Key) -> ModelError:
    """The error for an answer other than 200."""
    said, found = said_by(body, key), _error_in(body)
    if 300 <= head.status < 400:
        where = re.match(r"https?://(?:[^/?#]*@)?([^/?#@:]+)", head["location"])  # without a password or a query
        target = f" to {where[1]}" if where else ""
        what = f"The server redirects{target} (HTTP {head.status}), and redirects are not followed."
        return ServerError(what, "Load the address that answers itself.")
    told = " ".join(str(found.get(name, "")) for name in ("type", "code"))
    if head.status in (400, 413, 422) and (_FULL.search(said) or "exceed_context_size" in told or "context_length" in told):
        counts = {name: value for name in ("n_prompt_tokens", "n_ctx") if isinstance(value := found.get(name), int)}
        return ContextFullError(
            f"The prompt does not fit into the server's context: {said.rstrip('.')}.", "Shorten the conversation.",
            n_prompt=counts.get("n_prompt_tokens", 0), n_ctx=counts.get("n_ctx", 0)
        )  # fmt: skip
    advice = _ADVICE.get(head.status, "Ask again, or see the server's log.")
    return ServerError(f"The server refuses the request (HTTP {head.status}){': ' if said else ''}{said.rstrip('.')}.", advice)


def failed(failure: Failure, address: Address) -> ServerError:
    """The error for a connection that failed."""
    where = f"{address.host}:{address.port}"
    if "CERTIFICATE_VERIFY_FAILED" in failure.text or "certificate verify failed" in failure.text:
        advice = "If your organisation signs it itself, set SSL_CERT_FILE to the file of that authority's certificate."
        return ServerError(f"The certificate of {where} cannot be verified: {failure.text}.", advice)
    if failure.kind == "connect":
        return ServerError(f"No server can be reached at {where}: {failure.text}.", "Is it running, and is the address right?")
    return ServerError(f"The connection to {where} broke off: {failure.text}.", "Ask again, or see the server's log.")


def silent(seconds: float, what: str, option: str) -> ServerError:
    return ServerError(f"The server was silent for {seconds:g} s {what}.", f"{option} waits longer.")


def truncated() -> ServerError:
    return ServerError("The server's stream ended before the answer did.", "Ask again; the server's log may say why.")


def no_completion(head: Head, start: str, key: Key) -> ServerError:
    kind = head["content-type"].partition(";")[0] or "no content type"
    text = key.masked(_plain(start))
    what = f"The server answers with {kind} instead of a completion{': ' + text[:80].rstrip('.') if text else ''}."
    return ServerError(what, "Look at the address, which often ends in /v1.")


def reported(error: object, key: Key) -> ServerError:
    """The error that a server reports inside its answer."""
    said = said_by(json.dumps({"error": error}, default=str), key)
    return ServerError(f"The server reports an error: {said.rstrip('.')}.", "Ask again, or see the server's log.")


def said_by(body: str, key: Key) -> str:
    """A server's own words about an error, on one line, without the key."""
    found = _error_in(body)
    text = found.get("message") or found.get("detail") or body
    return key.masked(_plain(text if isinstance(text, str) else json.dumps(text, ensure_ascii=False)))[:_LONGEST]


def _error_in(body: str) -> Mapping[str, Any]:
    """The object that describes the error, e.g. of ``{"error": {"message": "...", "code": 400}}``."""
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    error = value.get("error", value) if isinstance(value, Mapping) else value
    return error if isinstance(error, Mapping) else {"message": error}


def _plain(text: str) -> str:
    """Text without markup and control characters, on one line."""
    bare = re.sub(r"<(style|script)\b.*?</\1>|<[^>]*>", " ", text, flags=re.DOTALL | re.IGNORECASE)
    return " ".join("".join(c if c.isprintable() else " " for c in bare).split())
