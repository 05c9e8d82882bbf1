"""The rules that a kernel's pages have sent, and whether the page that sent a cell still answers.

Each page has a session id, which is in the header of all its messages. A cell obeys the rules of the page that sent it. A page
sends its rules when it meets the kernel and whenever they change. The kernel asks again before each cell's first magic.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Standing = Literal["told", "silent", "none"]
_KEPT = 64


@dataclass(frozen=True, slots=True)
class PageRules:
    """A user's rules by name. ``standing``: "told" if the page that sent the cell answers; "silent" if it does not, and the
    rules are the last ones of that page, or else of any page; "none" if no page has ever sent a message to this kernel."""

    settings: Mapping[str, Any]
    standing: Standing


@dataclass
class Page:
    """One page: its settings, whether it answers, and the request that it was last asked about."""

    settings: Mapping[str, Any] | None = None
    answers: bool = True
    asked_for: str = ""

    @property
    def settled(self) -> bool:
        return self.answers and self.settings is not None


@dataclass
class Pages:
    """The pages by session id. The owner does the locking."""

    _pages: dict[str, Page] = field(default_factory=dict)
    _last: Mapping[str, Any] = field(default_factory=dict)

    def of(self, session: str) -> Page:
        """The page of that session, new if need be; the oldest pages are forgotten."""
        page = self._pages[session] = self._pages.pop(session, Page())
        while len(self._pages) > _KEPT:
            del self._pages[next(iter(self._pages))]
        return page

    def spoke(self, session: str, settings: Any = None) -> None:
        """Note that a page sent a message, and its rules if they are an object."""
        page = self.of(session)
        page.answers = True
        if isinstance(settings, Mapping):
            page.settings = self._last = settings

    def rules(self, session: str, heard: bool) -> PageRules:
        """The rules for a cell of that page; ``heard`` says whether any page has ever sent a message."""
        page = self.of(session)
        if page.settings is not None:
            return PageRules(page.settings, "told" if page.answers else "silent")
        return PageRules(self._last, "silent" if heard else "none")
