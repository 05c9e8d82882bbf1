"""Who may run what, and how much of it: approval policies, limits of a turn, and decisions bound to what was shown.

Three policies. ``auto`` runs at once, ``ask`` needs somebody's yes, ``deny`` never runs. A turn may set its own
(``approve=``): it turns ``ask`` into ``auto`` or ``auto`` into ``ask``, and ``deny`` into nothing: what a tool's author
forbade stays forbidden. A call that was recovered from a near miss and is not trusted (``ToolCall.trusted``) is asked about
whatever the policy says: nobody but a person can tell whether the model meant it or quoted it.

An answer counts only for the digest of what was shown, which is computed anew right before the run.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from typing import Literal, Protocol, TypeAlias, get_args, runtime_checkable

from llm_magics.errors import OptionError
from llm_magics.events import ToolAsk
from llm_magics.messages import ToolCall

from .runaway import CallLimit

Approve: TypeAlias = Literal["auto", "ask", "deny"]
Verdict: TypeAlias = Literal["approve", "deny", "always"]


@dataclass(frozen=True, slots=True)
class Limits:
    """How far one turn may go; ``None`` is no limit. Whatever limit is hit, the turn says so.

    ``steps`` are answers of the model, the last one included. ``calls`` are those of one answer in the template's own syntax,
    ``recovered_calls`` those that were read from near misses (see :mod:`.runaway`). ``tokens`` counts what the model generated
    in the whole turn. ``seconds`` is wall-clock without the time somebody took to approve. ``result_chars`` caps what the model
    reads of one result; a tool's own ``max_chars`` stands before it.
    """

    steps: int = 10
    calls: int = 32
    recovered_calls: int = 8
    tokens: int | None = 16_384
    seconds: float | None = 900.0
    result_chars: int = 8_000

    def __post_init__(self) -> None:
        for name in ("steps", "calls", "recovered_calls", "tokens", "seconds", "result_chars"):
            value = getattr(self, name)
            if value is not None and (isinstance(value, bool) or not isinstance(value, (int, float)) or value <= 0):
                raise OptionError(f"The limit {name} must be a positive number, not {value!r}.")

    @property
    def of_calls(self) -> CallLimit:
        return CallLimit(self.calls, self.recovered_calls)


@dataclass(frozen=True, slots=True)
class Decision:
    """Somebody's answer to a ToolAsk: it holds for that ``digest`` alone. ``always`` lasts to the end of the turn.

    ``asked`` is False if there was nobody who could be asked.
    """

    verdict: Verdict
    digest: str
    asked: bool = True


@runtime_checkable
class Asker(Protocol):
    """Puts a question before a person and waits. Nobody there to ask is a "deny"."""

    def __call__(self, ask: ToolAsk) -> Decision: ...


def nobody(ask: ToolAsk) -> Decision:
    """Deny: the asker of a session where nobody can be asked."""
    return Decision("deny", ask.digest, asked=False)


def digest_of(call: ToolCall, shown: str) -> str:
    """Hash what a person is shown: the call's name and arguments, and the text of what would run."""
    return hashlib.sha256(json.dumps([call.name, call.arguments, shown]).encode("utf-8", "surrogatepass")).hexdigest()


def check_approve(value: str) -> Approve:
    """Check a policy's name."""
    for known in get_args(Approve):
        if value == known:
            return known
    raise OptionError(f"There is no approval policy {value!r}.", "Choose auto, ask or deny.")


@dataclass(slots=True)
class Gate:
    """Decides for one turn which calls run, which are asked about, which are refused; remembers "always".

    "Always" covers a tool's later calls while its source is the one that was shown, and never a call that is not trusted.
    """

    floor: Approve | None = None
    always: set[tuple[str, str]] = field(default_factory=set)

    def rule(self, call: ToolCall, policy: Approve, source: str) -> tuple[Approve, str]:
        """Say what becomes of a call, and why."""
        if policy == "deny" or self.floor == "deny":
            return "deny", f"the policy of {call.name} is deny" if policy == "deny" else "this turn runs no tools"
        if not call.trusted:
            return "ask", f"the call was recovered from {call.recovered or 'other text'} and may be a quotation"
        if (call.name, source) in self.always:
            return "auto", "approved for this turn"
        return self.floor or policy, ""

    def remember(self, decision: Decision, call: ToolCall, source: str) -> None:
        """Keep an "always" for the tool and the source that it was given for."""
        if decision.verdict == "always":
            self.always.add((call.name, source))
