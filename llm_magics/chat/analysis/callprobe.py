"""Render calls whose every word is known: the raw material from which the syntax of calls is read off."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from llm_magics.chat.encodings.encoding import FIRST, SECOND, VALUES, Encoding
from llm_magics.chat.syntax.compare import safe_suffix
from llm_magics.chat.syntax.syntax import TurnSyntax
from llm_magics.chat.syntax.tags import tags
from llm_magics.messages import Message, ToolCall, ToolSpec

from .frame import USER, Frame
from .probe import Probe
from .reasoning import ReasoningSyntax

_SAID = "qsaidword"
IDS = ("qidfirst1", "qidsecon2")
OTHER = {"qkeyc": "qvalc"}


@dataclass(frozen=True, slots=True)
class Texts:
    """The same turn with one call and with two, without the turn's opener and end."""

    one: str
    two: str


@dataclass(frozen=True, slots=True)
class CallRenderer:
    """Renders turns that consist of calls, for a template whose frame and reasoning are known."""

    probe: Probe
    frame: Frame
    turn: TurnSyntax
    reasoning: ReasoningSyntax
    encodings: Sequence[type[Encoding]]

    def texts(self) -> Texts:
        return Texts(self.calls((FIRST, VALUES)), self.calls((FIRST, VALUES), (SECOND, OTHER)))

    def calls(self, *calls: tuple[str, dict[str, Any]], said: str = "") -> str:
        """The turn's text between its opener, empty thought and empty content, and its end."""
        body = self.body(*calls, said=said)
        body = self._without_empty_content(self._without_empties(body), calls)
        return _without_turn_end(body, [self.turn.end, *self.frame.ends])

    def body(self, *calls: tuple[str, dict[str, Any]], said: str = "") -> str:
        """The turn's text behind its opener, to the end."""
        made = tuple(ToolCall(name, json.dumps(args), i) for (name, args), i in zip(calls, IDS, strict=False))
        tools = [ToolSpec(name, "qtext", _schema(args)) for name, args in calls]
        return self.frame.body_of(self.probe, [USER, Message("assistant", said, tool_calls=made)], tools)

    def _without_empties(self, body: str) -> str:
        markers = [*self.reasoning.openers, *self.reasoning.closers]
        if self.turn.content_end:
            markers += [self.turn.content_start.strip(), self.turn.content_end.strip()]
        for marker in markers:
            lead = len(body) - len(body.lstrip())
            if marker and body[lead:].startswith(marker):
                body = body[lead + len(marker) :]
        return body.removeprefix(self.reasoning.end[len(self.reasoning.end.rstrip()) :])

    def _without_empty_content(self, body: str, calls: tuple[tuple[str, dict[str, Any]], ...]) -> str:
        """Cut off the frame that is written around empty content too, e.g. by ``<text>{{ m.content }}</text>{{ calls }}``."""
        said = self._without_empties(self.body(*calls[:1], said=_SAID))
        opened, _, behind = said.partition(_SAID)
        written = _SAID in said and not any(word in opened for word in (calls[0][0], IDS[0]))
        if not written or not tags(opened) or not body.lstrip().startswith(opened.strip()):
            return body
        rest = body.lstrip()[len(opened.strip()) :]
        closed = (tags(behind) or [""])[0]
        framed = behind.lstrip().startswith(closed) and rest.lstrip().startswith(closed) and closed not in self.frame.prompt_on
        return rest.lstrip()[len(closed) :] if closed and framed else rest


def _schema(arguments: dict[str, Any]) -> dict[str, Any]:
    types = {bool: "boolean", int: "integer", float: "number", list: "array", dict: "object", type(None): "null"}
    properties = {key: {"type": types.get(type(value), "string"), "description": "qtext"} for key, value in arguments.items()}
    return {"type": "object", "properties": properties}


def _without_turn_end(body: str, ends: list[str]) -> str:
    """Cut off the end of the turn, as a plain answer has it; layout at the very end does not count."""
    trimmed = body.rstrip()
    best = max((safe_suffix(trimmed, e.rstrip()) for e in ends if e.strip()), key=len, default="")
    return trimmed[: len(trimmed) - len(best)] if re.search(r"[^\w\s]", best) else body
