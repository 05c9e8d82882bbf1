"""How often a display is drawn, from what drawing costs."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Protocol


class Publish(Protocol):
    """The used part of IPython's ``display_pub.publish``."""

    def __call__(self, data: dict[str, Any], *, transient: dict[str, Any], update: bool) -> None: ...


class Pace:
    """Decides when the next update is due. ``rate`` is the most updates a second, ``wire`` the most bytes a second, ``share``
    drawing's most share of the time (but two updates a second are always allowed)."""

    def __init__(
        self, rate: float = 18.0, wire: float = 80_000.0, share: float = 0.015, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._rate, self._wire, self._share, self.now = rate, wire, share, clock
        self._due = 0.0

    def due(self) -> bool:
        return self.now() >= self._due

    def spent(self, began: float, n_bytes: int) -> None:
        """Note an update that began at ``began`` and put ``n_bytes`` on the wire."""
        drawing = min((self.now() - began) / self._share, 0.5)
        self._due = began + max(1 / self._rate, n_bytes / self._wire, drawing)
