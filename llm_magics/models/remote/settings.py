"""How to ask a server: the settings of a model that is not in this kernel."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from llm_magics.models.settings import LoadSettings


@dataclass(frozen=True, slots=True)
class Waits:
    """How long to wait for a server, in seconds."""

    connect: float = 10.0
    first: float = 300.0  # a server may have to load the model, and to read a long prompt without a GPU
    gap: float = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerSettings:
    """One model of one server.

    ``model`` is the server's name for it; empty takes the only one that the server lists. ``api_key_env`` names the environment
    variable that holds the key. ``ctx`` and ``slots`` are what the server has, if it does not tell; 0 is unknown.
    """

    model: str = ""
    api_key_env: str = ""
    ctx: int = 0
    slots: int = 0
    seed: int | None = None
    template_kwargs: Mapping[str, Any] = field(default_factory=dict)
    waits: Waits = field(default_factory=Waits)

    @classmethod
    def of(cls, chosen: LoadSettings) -> ServerSettings:
        """The settings of a load; raises OptionError for options that only a model in this kernel has."""
        chosen.check_place("server")
        return cls(
            model=chosen.model,
            api_key_env=chosen.api_key_env,
            ctx=chosen.ctx if isinstance(chosen.ctx, int) else 0,
            slots=chosen.slots if isinstance(chosen.slots, int) else 0,
            seed=chosen.seed,
            template_kwargs=chosen.chat_template_kwargs,
            waits=Waits(chosen.connect_timeout, chosen.first_timeout, chosen.gap_timeout),
        )
