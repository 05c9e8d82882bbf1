"""What the pages of a kernel told of their users' rules, and how far that can be relied on.

Each page has a session id, which stands in the header of all its messages. The rules for a cell are those of the page that sent
the cell. A page tells its rules when it meets the kernel and whenever they change; before each cell's first magic it is asked
once more, so that a page that is gone is found out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Standing = Literal["told", "silent", "none"]
_KEPT = 64


@dataclass(frozen=True, slots=True)
class PageRules:
    """A user's rules by name. ``standing`` says where they are from.

    "told": the page that sent the cell answers. "silent": it does not; the rules are the last that it, or else any page, has
    told. "none": no page has ever said anything to this kernel.
    """

    settings: Mapping[str, Any]
    standing: Standing


@dataclass
class Page:
    """One page: what it told, which request it was last asked about, and whether it answered."""

    settings: Mapping[str, Any] | None = None
    answers: bool = True
    asked_for: str = ""

    @property
    def settled(self) -> bool:
        return self.answers and self.settings is not None


@dataclass
class Pages:
    """The pages by session id. Not locked: that is its owner's affair."""

    _pages: dict[str, Page] = field(default_factory=dict)
    _last: Mapping[str, Any] = field(default_factory=dict)

    def of(self, session: str) -> Page:
        """The page of that session; the oldest is forgotten where there are many."""
        page = self._pages[session] = self._pages.pop(session, Page())
        while len(self._pages) > _KEPT:
            del self._pages[next(iter(self._pages))]
        return page

    def spoke(self, session: str, settings: Any = None) -> None:
        """Note that a page said something, and its rules where it told them; what is no object of rules is ignored."""
        page = self.of(session)
        page.answers = True
        if isinstance(settings, Mapping):
            page.settings = self._last = settings

    def rules(self, session: str, heard: bool) -> PageRules:
        """The rules for what that page sent; ``heard`` says whether any page has ever spoken."""
        page = self.of(session)
        if page.settings is not None:
            return PageRules(page.settings, "told" if page.answers else "silent")
        return PageRules(self._last, "silent" if heard else "none")
