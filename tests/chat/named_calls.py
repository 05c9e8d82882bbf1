"""A spelling of near misses that the project does not have, in one module: a name, a marker, and the arguments as JSON."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass

from llm_magics.chat.encodings.syntax import ToolSyntax
from llm_magics.chat.grammar.text import quoted
from llm_magics.chat.recovery.bodies import FoundCall, Scope
from llm_magics.messages import ToolSpec


@dataclass(frozen=True, slots=True)
class Named:
    """A name, then a marker, then the arguments as JSON, e.g. ``f\\nInput: {"a": 1}`` if ``between`` is "Input:"."""

    between: str
    listed: bool = False

    def first(self, names: Sequence[str]) -> str:
        return rf"(?:{'|'.join(re.escape(name) for name in names)})\s*{re.escape(self.between)}\s*\{{"

    def rules(self, scope: Scope, tool: ToolSpec) -> list[str]:
        gap = scope.writer.gap
        return [f"{quoted(tool.name)} {gap} {quoted(self.between)} {gap} {scope.arguments(tool)}"]

    def take(self, found: re.Match[str], syntax: ToolSyntax, names: Sequence[str]) -> tuple[FoundCall | None, int]:
        start = found.end() - 1
        end = json.JSONDecoder().raw_decode(found.string, start)[1]
        return FoundCall(found.group().partition(self.between)[0].strip(), found.string[start:end]), end
