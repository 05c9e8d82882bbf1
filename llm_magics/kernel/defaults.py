"""What a cell that does not say is answered with, where whoever set up this kernel has chosen it (class ``LLMMagics``).

Defaults are no rules: every cell may say otherwise, within the rules.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from llm_magics.kernel.options.specs import LoadOptions
from llm_magics.session.settings import TurnSettings

from .rules import Rules, traits_of


@dataclass(frozen=True, slots=True)
class Defaults:
    """The traits ``default_model``, ``default_ctx``, ``default_temperature`` and ``default_max_tokens``, those that are set."""

    model: str = ""
    ctx: int | None = None
    temperature: float | None = None
    max_tokens: int | None = None

    def for_load(self, options: LoadOptions) -> LoadOptions:
        """Lay the defaults under what a ``%load_model`` line said; the model's name ``default`` stands for the default one."""
        named = self.model if self.model and options.name.lower() == "default" else options.name
        return replace(options, name=named, ctx=self.ctx if options.ctx is None else options.ctx)

    def for_turn(self, given: Mapping[str, Any], usual: TurnSettings, rules: Rules) -> dict[str, Any]:
        """Lay the defaults under what a magic gave for one turn of a session, never beyond the rules."""
        laid = dict(given)
        sampling = laid.get("sampling") or usual.sampling
        if self.temperature is not None and sampling.temperature is None:
            laid["sampling"] = replace(sampling, temperature=self.temperature)
        if self.max_tokens is not None and laid.get("max_tokens") is None and usual.max_tokens is None:
            laid["max_tokens"] = min(self.max_tokens, int(rules.limits.get("tokens", self.max_tokens)))
        return laid

    def rows(self) -> list[tuple[str, str]]:
        """The defaults in words, for a card."""
        found = ((one.name, getattr(self, one.name)) for one in fields(self))
        return [(f"default {name.replace('_', ' ')}", str(value)) for name, value in found if value not in ("", None)]


def defaults(shell: Any) -> Defaults:
    """The defaults in the configuration of this IPython; raises OptionError where it cannot be understood."""
    traits = traits_of(shell)
    return Defaults(
        traits.default_model, traits.default_ctx or None, traits.default_temperature, traits.default_max_tokens or None
    )
