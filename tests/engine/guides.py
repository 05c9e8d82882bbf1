"""Guides for tests: small, picklable, and doing one thing each."""

from __future__ import annotations

from dataclasses import dataclass, field

from llm_magics.engine.values import Grammar, GuideStep, JsonText


@dataclass
class Recorder:
    """Arms nothing and says what it was fed."""

    def start(self) -> GuideStep:
        return GuideStep(events=("start",))

    def feed(self, text: str) -> GuideStep:
        return GuideStep(events=(text,))

    def finish(self, reason: str) -> GuideStep:
        return GuideStep(events=(f"finish {reason}",))


@dataclass
class FromStart(Recorder):
    """Arms a grammar before the first token."""

    grammar: str = ""

    def start(self) -> GuideStep:
        return GuideStep(arm=Grammar(self.grammar))


@dataclass
class AsJson(FromStart):
    """Arms a grammar whose text is one JSON value."""

    def start(self) -> GuideStep:
        return GuideStep(arm=Grammar(self.grammar, json=JsonText()))


@dataclass
class AfterMarker(Recorder):
    """Arms a grammar once a marker was written; ``pending`` is what came behind the marker in the same piece of text."""

    marker: str = ""
    grammar: str = ""
    seen: str = field(default="")

    def feed(self, text: str) -> GuideStep:
        self.seen += text
        at = self.seen.find(self.marker)
        if at < 0:
            return GuideStep(events=(text,))
        pending, self.seen = self.seen[at + len(self.marker) :], ""
        return GuideStep(events=(text,), arm=Grammar(self.grammar, pending))


@dataclass
class Freed(Recorder):
    """Arms a grammar from the start and disarms it when a text has been written."""

    grammar: str = ""
    until: str = ""
    seen: str = ""

    def start(self) -> GuideStep:
        return GuideStep(arm=Grammar(self.grammar))

    def feed(self, text: str) -> GuideStep:
        self.seen += text
        return GuideStep(events=(text,), disarm=self.until in self.seen)


@dataclass
class StopsAfter(Recorder):
    """Stops when a number of pieces was fed."""

    n: int = 3
    fed: int = 0

    def feed(self, text: str) -> GuideStep:
        self.fed += 1
        return GuideStep(events=(text,), stop=self.fed >= self.n)


@dataclass
class Breaks(Recorder):
    """Raises on its n-th piece of text, or in start or finish."""

    where: str = "feed"
    n: int = 2
    fed: int = 0

    def start(self) -> GuideStep:
        if self.where == "start":
            raise RuntimeError("broken in start")
        return GuideStep()

    def feed(self, text: str) -> GuideStep:
        self.fed += 1
        if self.where == "feed" and self.fed >= self.n:
            raise RuntimeError("broken in feed")
        return GuideStep()

    def finish(self, reason: str) -> GuideStep:
        if self.where == "finish":
            raise RuntimeError("broken in finish")
        return GuideStep()
