"""How tool calls are written, as data: how a call is framed, and how its arguments are encoded.

Analysis and overrides make these values; the parser, the constraint and the writer read them. A message's calls are
``section_start call (separator call)* section_end``, and each call is one of these::

    JsonCall, KeyedCall    call_start {"name": NAME, "arguments": ARGS} call_end
    NamedCall  id_place    ""         call_start NAME name_end ARGS call_end
                           "before"   call_start ID id_end NAME name_end ARGS call_end
                           "after"    call_start NAME name_end ID id_end ARGS call_end
                           "carries"  call_start ID name_end ARGS call_end              (the id has the name in it)
    BlockCall              the same in a block of its own, whose header has the name

**Marker text.** Markers are kept exactly as the template writes them, layout included (``"\\n</function>\\n"``). The writer and
the constraint emit the layout at a marker's edges; a reader does not require it, because models often leave it out. A *tag* is
a maximal run of marker text without white space, and matches exactly.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal

from llm_magics.chat.syntax.syntax import BlockSyntax, Escapes

from .encoding import Encoding
from .json import JsonArguments


@dataclass(frozen=True, slots=True)
class JsonCall:
    """One JSON object: the places of name, arguments and id as paths of keys, outermost first.

    ``order``: the order of "name", "arguments" and "id" in the text. ``constants``: further members, the same in every call.
    ``ours``: the template knows no tools, and the model has our own instructions.
    """

    name: tuple[str, ...] = ("name",)  # e.g. ("function", "name")
    arguments: tuple[str, ...] = ("arguments",)  # e.g. ("parameters",)
    id: tuple[str, ...] = ()  # e.g. ("tool_call_id",); empty if calls have none
    order: tuple[str, ...] = ("name", "arguments")
    constants: tuple[tuple[tuple[str, ...], str], ...] = ()  # e.g. ((("type",), '"function"'),): path, JSON text
    ours: bool = False

    def members(self, parts: Mapping[str, str], constants: Mapping[tuple[str, ...], str]) -> dict[str, Any]:
        """The object's members in the template's order, nested by their paths; ``parts`` by "name", "arguments" and "id"."""
        paths = {"name": self.name, "arguments": self.arguments, "id": self.id}
        members: dict[str, Any] = {}
        for path, text in [*constants.items(), *((paths[part], parts[part]) for part in self.order)]:
            at = members
            for key in path[:-1]:
                at = at.setdefault(key, {})
            at[path[-1]] = text
        return members


@dataclass(frozen=True, slots=True)
class KeyedCall:
    """One JSON object whose only key is the name: ``{"f": {"a": 1}}``."""


@dataclass(frozen=True, slots=True)
class NamedCall:
    """The name as text, then the arguments."""

    name_end: str = ""  # e.g. "<|tool_sep|>", '">\n'
    index_start: str = ""  # e.g. '" index="': NAME index_start INDEX name_end
    index_base: int = 0  # the first call's INDEX
    name_again: str = ""  # e.g. '<|message|><invoke name="': NAME name_again NAME name_end
    id_place: Literal["", "before", "after", "carries"] = ""
    id_end: str = ""  # e.g. "[ARGS]" after "[CALL_ID]123456789"
    id_form: str = ""  # e.g. "functions.{name}:{index}" if id_place is "carries"
    escapes: Escapes = ()  # of names


@dataclass(frozen=True, slots=True)
class BlockCall(NamedCall):
    """A call in a block of its own, e.g. ``to=f<|message|>{"a": 1}``: the block's header names the recipient."""

    blocks: BlockSyntax = field(kw_only=True)

    @classmethod
    def of(cls, call: NamedCall, blocks: BlockSyntax) -> BlockCall:
        return cls(**{f.name: getattr(call, f.name) for f in fields(call)}, blocks=blocks)


_CALL, _ARGUMENTS = JsonCall(), JsonArguments()


@dataclass(frozen=True, slots=True)
class ToolSyntax:
    """How the tool calls of one template are written, in the order that the head of this file shows.

    ``array``: the calls are the elements of one list, whose square brackets belong to neither section nor call.
    ``parallel``: the template can write several calls in one message.
    """

    call: JsonCall | KeyedCall | NamedCall = _CALL
    arguments: Encoding = _ARGUMENTS
    section_start: str = ""  # e.g. "<|tool_calls_section_begin|>"; once, before the first call
    section_end: str = ""  # e.g. "<|tool_calls_section_end|>"
    call_start: str = ""  # e.g. "<tool_call>\n", or "<tool_call>\n<function="
    call_end: str = ""  # e.g. "\n</tool_call>"
    separator: str = ""  # e.g. "\n" between two calls
    array: bool = False
    parallel: bool = True

    @property
    def shape(self) -> str:
        """The name of a call's form, for people."""
        match self.call:
            case JsonCall(ours=ours):
                return "generic" if ours else "json"
            case KeyedCall():
                return "keyed"
            case BlockCall():
                return "recipient"
        return self.arguments.kind

    @property
    def blocks(self) -> BlockSyntax | None:
        """How a turn is cut into blocks, if calls are blocks."""
        return self.call.blocks if isinstance(self.call, BlockCall) else None

    @property
    def named(self) -> NamedCall:
        """The texts around a name that is text; all empty if the name is in JSON."""
        return self.call if isinstance(self.call, NamedCall) else NamedCall()

    @property
    def ours(self) -> bool:
        """Whether the template knows no tools, so that calls follow our own instructions."""
        return isinstance(self.call, JsonCall) and self.call.ours

    @property
    def has_marker(self) -> bool:
        """Whether a marker opens a call; without one (e.g. Llama 3.x), calls can only begin the whole text."""
        return len((self.section_start + self.call_start).strip()) > 1 or self.blocks is not None

    @property
    def markers(self) -> tuple[str, ...]:
        """Every marker, without layout, each once; for display and for tokenising."""
        named, blocks = self.named, self.blocks
        texts = [self.section_start, self.call_start, named.name_again, named.name_end, named.id_end]
        texts += [self.call_end, self.section_end, *self.arguments.markers]
        texts += [blocks.start, blocks.header_end, *blocks.ends] if blocks else []
        return tuple(dict.fromkeys(t.strip() for t in texts if t.strip()))
