"""Asking a server: a request is sent, perhaps again, and its answer's values come one by one.

The generators yield None while they wait, so that their reader keeps control: a turn's time limit and the end of a map count
while a server is silent. A request is sent again only before its answer begins. If a tool ran in the turn, it is sent again
only if the server says that it did not take it (429 or 503).
"""

from __future__ import annotations

import email.utils
import json
import time
from collections.abc import Callable, Generator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from llm_magics.errors import ModelError, ServerError

from .address import Address
from .events import DONE, MAX_LINE, EventStream
from .exchange import End, Exchange, Failure, Head
from .key import Key
from .question import Question
from .settings import Waits
from .trouble import failed, no_completion, refused, silent, truncated

if TYPE_CHECKING:
    import httpx

BEAT = 0.2  # seconds between two chances for the reader to end the wait
ATTEMPTS = 3
FIRST_DELAY = 0.5
LONGEST_DELAY = 30.0  # seconds that a server may ask to wait before the next attempt
_REFUSAL = 2.0  # seconds without None: a session can ask another way if the first thing that comes is a ContextFullError
_NAME = 5.0  # more seconds to connect, to find the host's address: httpx does not limit that
_AFTER_FINISH = 2.0  # seconds to wait for usage and [DONE], once the answer is complete
_ERROR_BYTES, _ERROR_SECONDS = 64 * 1024, 5.0
_AGAIN = (408, 429, 500, 502, 503, 504)
_NOT_TAKEN = (429, 503)
_FIELDS = (b"data:", b"event:", b"id:", b"retry:", b"error:", b":")  # what a line of a stream begins with


@dataclass(frozen=True, slots=True)
class Server:
    """Where to ask, and how long to wait."""

    client: httpx.Client
    address: Address
    key: Key
    waits: Waits

    def get(self, url: str) -> Exchange:
        return Exchange(self.client, "GET", url, self.key)

    def post(self, question: Question) -> Exchange:
        return Exchange(self.client, "POST", f"{self.address.base}/chat/completions", self.key, question.data)


def opened(server: Server, question: Question, once: bool) -> Generator[None, None, tuple[Exchange, Head, Question]]:
    """Send a question until its answer begins; returns the exchange, and the question as it was accepted.

    ``once``: a tool has run. Raises ServerError, ContextFullError; OptionError for a key that cannot be sent.
    """
    attempt = 1
    while True:
        server.key.check()
        exchange = server.post(question)
        with ExitStack() as unless_taken:
            unless_taken.callback(exchange.close)
            came = yield from head_of(exchange, server.waits)
            if isinstance(came, Head) and came.status == 200:
                unless_taken.pop_all()
                return exchange, came, question
            body = (yield from body_of(exchange)) if isinstance(came, Head) else ""
        if isinstance(came, Head) and came.status in (400, 422) and (second := question.without(body)) is not None:
            question = second
            continue
        error = refused(came, body, server.key) if isinstance(came, Head) else failed(came, server.address)
        yield from _pause(_delay_before_next(came, attempt, once, error))
        attempt += 1


def head_of(exchange: Exchange, waits: Waits) -> Generator[None, None, Head | Failure]:
    """Wait until the answer begins, or the connection fails."""
    while True:
        came = exchange.take(BEAT)
        if isinstance(came, Head | Failure):
            return came
        waited = time.monotonic() - exchange.began
        if not exchange.connected and waited > waits.connect + _NAME:
            return Failure("connect", "no connection in time")
        if exchange.connected and waited > waits.first:
            raise _no_answer(waits)
        if waited > _REFUSAL:
            yield None


def body_of(exchange: Exchange, most: int = _ERROR_BYTES, seconds: float = _ERROR_SECONDS) -> Generator[None, None, str]:
    """The beginning of a body, as far as it comes in time."""
    body, until = bytearray(), time.monotonic() + seconds
    while len(body) < most and time.monotonic() < until:
        came = exchange.take(BEAT)
        if isinstance(came, bytes):
            body += came
        elif came is not None:
            break
        elif time.monotonic() - exchange.began > _REFUSAL:
            yield None
    return bytes(body[:most]).decode("utf-8", "replace")


def values(exchange: Exchange, head: Head, server: Server, finished: Callable[[], bool]) -> Generator[Any, None, None]:
    """The values of a stream, or the one value of an answer that came whole. ``finished`` says that the answer is complete.

    Raises ServerError for silence, for what is no completion, and for an end without an end mark.
    """
    lines, held, form, begun = EventStream(), bytearray(), "", False
    until = exchange.began + server.waits.first
    while True:
        came, found = exchange.take(BEAT), list[Any]()
        if isinstance(came, bytes):
            held += came
            form = form or _form(head, bytes(held), server.key)
            if form == "stream":
                found = lines.feed(bytes(held))
                held.clear()
        elif came is not None:
            yield from _last(came, lines.finish() if form == "stream" else _whole(bytes(held)), server, finished)
            return
        for value in found:
            if value == DONE:
                return
            yield value
            begun = True
            until = time.monotonic() + (_AFTER_FINISH if finished() else server.waits.gap)
        if not found and time.monotonic() > until:
            if finished():
                return
            raise _silence(server.waits, begun)
        if not found:
            yield None


def _delay_before_next(came: Head | Failure, attempt: int, once: bool, error: ModelError) -> float:
    """How long to wait before the next attempt; raises the ``error`` if there is none."""
    delay = FIRST_DELAY * 2.0 ** (attempt - 1)
    if isinstance(came, Head):
        asked = _seconds(came["retry-after"])
        delay = delay if asked is None else asked
        if delay > LONGEST_DELAY:
            what = f"{error.what} It asks to wait {delay:,.0f} seconds."
            raise ServerError(what, "Ask again then.")
        again = came.status in (_NOT_TAKEN if once else _AGAIN)
    else:
        again = not once
    if not again or attempt == ATTEMPTS:
        raise error
    return delay


def _seconds(retry_after: str) -> float | None:
    """E.g. ``Retry-After: 5``, or a date."""
    try:
        return max(float(int(retry_after)), 0.0)
    except ValueError:
        pass
    try:
        return max(email.utils.parsedate_to_datetime(retry_after).timestamp() - time.time(), 0.0)
    except (ValueError, TypeError, OverflowError, IndexError):
        return None


def _pause(seconds: float) -> Generator[None, None, None]:
    until = time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0:
        time.sleep(min(left, BEAT))
        yield None


def _form(head: Head, start: bytes, key: Key) -> str:
    """ "stream" if the body begins like one; "" as long as that is not clear, and for an answer that comes whole. Content types
    are often wrong, so the body decides."""
    if head["content-encoding"] not in ("", "identity"):
        raise ServerError("The server compresses its answer, although it was asked not to.", "Look at its proxy's settings.")
    text = start.lstrip(b"\xef\xbb\xbf \t\r\n")
    if text.startswith(b"{") and len(start) <= MAX_LINE:
        return ""  # whole; it is read at its end
    if text.startswith(_FIELDS):
        return "stream"
    if any(name.startswith(text) for name in _FIELDS):
        return ""
    raise no_completion(head, text[:400].decode("utf-8", "replace"), key)


def _whole(body: bytes) -> list[Any]:
    try:
        return [json.loads(body)] if body.strip() else []
    except (ValueError, RecursionError):
        return []


def _last(
    came: End | Failure | Head, found: list[Any], server: Server, finished: Callable[[], bool]
) -> Generator[Any, None, None]:
    """What the end of the connection completes. Raises ServerError unless the answer is over by then."""
    for value in found:
        if value == DONE:
            return
        yield value
    if finished():
        return
    raise failed(came, server.address) if isinstance(came, Failure) else truncated()


def _silence(waits: Waits, began: bool) -> ServerError:
    return silent(waits.gap, "in its answer", "--gap-timeout") if began else _no_answer(waits)


def _no_answer(waits: Waits) -> ServerError:
    return silent(waits.first, "before its answer", "--first-timeout")
