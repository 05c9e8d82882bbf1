"""Approval policies, the limits of a turn, and decisions bound to what was shown.

Three policies: ``auto`` runs at once, ``ask`` needs a person's approval, ``deny`` never runs. A turn's policy (``approve=``)
replaces ``auto`` and ``ask``, but not ``deny``: what a tool's author forbade stays forbidden. A call recovered from a near miss
and not trusted (``ToolCall.trusted``) always asks: only a person can tell whether the model meant or quoted it.

A decision counts only for the digest of what was shown, which is computed again right before the run.
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
    """How far one turn may go; ``None`` is unlimited. A turn that reaches a limit says so.

    ``steps`` counts the model's answers, including the last. ``calls`` counts those of one answer in the template's own syntax,
    ``recovered_calls`` those read from near misses (see :mod:`.runaway`). ``tokens`` are generated in the whole turn.
    ``seconds`` are wall-clock, without the time a person takes to approve. ``result_chars`` caps what the model reads of one
    result, unless the tool has its own ``max_chars``.
    """

    steps: int = 10
    calls: int = 32
    recovered_calls: int = 8
    tokens: int | None = 16_384
    seconds: float | None = 900.0
    result_chars: int = 8_000

    def __post_init__(self) -> None:
        for name in self.__slots__:
            value = getattr(self, name)
            if value is not None and (isinstance(value, bool) or not isinstance(value, (int, float)) or value <= 0):
                raise OptionError(f"The limit {name} must be a positive number, not {value!r}.")

    @property
    def of_calls(self) -> CallLimit:
        return CallLimit(self.calls, self.recovered_calls)


@dataclass(frozen=True, slots=True)
class Decision:
    """The answer to the ToolAsk of ``digest``. "always" lasts to the turn's end; ``asked`` is False if nobody was there."""

    verdict: Verdict
    digest: str
    asked: bool = True


@runtime_checkable
class Asker(Protocol):
    """Asks a person and waits for the decision; "deny" if nobody can be asked."""

    def __call__(self, ask: ToolAsk) -> Decision: ...


def nobody(ask: ToolAsk) -> Decision:
    """The asker of a session without a person: it denies."""
    return Decision("deny", ask.digest, asked=False)


def digest_of(call: ToolCall, shown: str) -> str:
    """Hash what a person is shown: the call's name and arguments, and the text that would run."""
    return hashlib.sha256(json.dumps([call.name, call.arguments, shown]).encode("utf-8", "surrogatepass")).hexdigest()


def check_approve(value: str) -> Approve:
    """Check a policy's name; raises OptionError."""
    for known in get_args(Approve):
        if value == known:
            return known
    raise OptionError(f"There is no approval policy {value!r}.", "Choose auto, ask or deny.")


@dataclass(slots=True)
class Gate:
    """Decides for one turn which calls run, which need approval, and which are refused; remembers "always".

    "Always" covers a tool's later calls as long as its source is the one that was shown, but never untrusted calls.
    """

    floor: Approve | None = None
    always: set[tuple[str, str]] = field(default_factory=set)

    def rule(self, call: ToolCall, policy: Approve, source: str) -> tuple[Approve, str]:
        """Decide about a call; returns the policy that holds and the reason."""
        if policy == "deny" or self.floor == "deny":
            return "deny", f"the policy of {call.name} is deny" if policy == "deny" else "this turn runs no tools"
        if not call.trusted:
            return "ask", f"the call was recovered from {call.recovered or 'other text'} and may be a quotation"
        if (call.name, source) in self.always:
            return "auto", "approved for this turn"
        return self.floor or policy, ""

    def remember(self, decision: Decision, call: ToolCall, source: str) -> None:
        """Keep an "always" for the tool and the source it was given for."""
        if decision.verdict == "always":
            self.always.add((call.name, source))
