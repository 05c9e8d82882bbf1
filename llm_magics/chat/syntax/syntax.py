"""What a model's text looks like, as data: the eight shapes of tool calls, the frame of a turn.

Analysis writes these values, overrides are written in them, and the parser, the constraint and the writer only read them.

Every call is one of four sequences, with ``ARGS`` in one of four encodings::

    id_place  ""         call_start NAME name_end ARGS call_end
              "before"   call_start ID id_end NAME name_end ARGS call_end
              "after"    call_start NAME name_end ID id_end ARGS call_end
              "carries"  call_start ID name_end ARGS call_end              (the id has the name in it)

(shapes ``json`` and ``keyed`` write name, id and arguments as fields of one JSON value between ``call_start`` and
``call_end``). A message's calls stand as ``section_start call (separator call)* section_end``.

**Marker text.** All markers are kept exactly as the template writes them, layout included (``"\\n</function>\\n"``). A model
is not that exact: layout at the edges of a marker is optional when reading, and is what the writer and the constraint emit.
A *tag* is a maximal run of marker text without white space, and matches exactly.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Literal


class Shape(Enum):
    """How a call is spelt. The value is the name shown to people."""

    JSON = "json"  # {"name": "f", "arguments": {"a": 1}}
    KEYED = "keyed"  # {"f": {"a": 1}}
    NAME_JSON = "name + json"  # f<|sep|>{"a": 1}
    TAGGED = "name + tagged arguments"  # <function=f><parameter=a>1</parameter></function>
    PYTHONIC = "pythonic"  # f(a=1)
    LITERAL = "literal"  # call:f{a:<|"|>x<|"|>}
    RECIPIENT = "recipient"  # to=f<|message|>{"a": 1}: the block's header says who is spoken to
    GENERIC = "generic"  # the template knows no tools: our own instructions and JSON calls


Escapes = tuple[tuple[str, str], ...]
"""How a template writes awkward characters of names and keys, e.g. ``(("&", "&amp;"), ('"', "&quot;"))``."""


def escape(text: str, escapes: Escapes) -> str:
    """A name as a template writes it."""
    return "".join(dict(escapes).get(char, char) for char in text)


def unescape(text: str, escapes: Escapes) -> str:
    """The name that a template has written so."""
    for char, written in sorted(escapes, key=lambda pair: pair[0] == "&"):  # what begins every other escape comes last
        text = text.replace(written, char)
    return text


@dataclass(frozen=True, slots=True)
class JsonFields:
    """Where name, arguments and id stand in a call's JSON value (shapes JSON and GENERIC); paths of keys, outermost first.

    ``arguments_as_text``: the arguments are a JSON string that holds JSON. ``order`` lists which of "name", "arguments" and
    "id" come first in the text. ``constants`` are further members that the template writes the same in every call.
    """

    name: tuple[str, ...] = ("name",)  # e.g. ("function", "name")
    arguments: tuple[str, ...] = ("arguments",)  # e.g. ("parameters",)
    id: tuple[str, ...] = ()  # e.g. ("tool_call_id",); empty where calls have none
    arguments_as_text: bool = False
    order: tuple[str, ...] = ("name", "arguments")
    constants: tuple[tuple[tuple[str, ...], str], ...] = ()  # e.g. ((("type",), '"function"'),): path, JSON text


@dataclass(frozen=True, slots=True)
class TaggedArguments:
    """Arguments as tags (shape TAGGED): ``start KEY key_end VALUE end``, joined by ``separator``.

    With ``type_names`` the tag says the value's type: ``start KEY type_start TYPE key_end VALUE end``, and the value is a raw
    string where TYPE is that of a string, JSON otherwise. Without, strings are raw and the schema decides how to read.
    With ``end_has_key`` the closing tag repeats the key: ``end KEY end_tail``. ``nested``: objects and arrays are tags again,
    the elements of an array under the key ``item``.
    """

    start: str  # e.g. "<parameter="
    key_end: str  # e.g. ">\n"
    end: str  # e.g. "\n</parameter>"
    separator: str = ""  # e.g. "\n"
    type_start: str = ""  # e.g. '" type="', or '" string="'
    type_names: tuple[tuple[str, str], ...] = ()  # e.g. (("string", "true"), ("integer", "false"), ...)
    end_has_key: bool = False
    end_tail: str = ""  # e.g. ">", where end is "</" and end_has_key
    nested: bool = False
    item: str = ""  # e.g. "item"
    raw_start: str = ""  # e.g. "<![CDATA[": how the template quotes a string that could be mistaken for a tag
    raw_end: str = ""  # e.g. "]]>"
    json_values: bool = False  # every value is JSON, strings too: <p>"x"</p>
    escapes: Escapes = ()  # of keys
    constants: Literal["json", "python"] = "json"  # how true, false and null are written


@dataclass(frozen=True, slots=True)
class LiteralArguments:
    """Arguments as ``open key assign VALUE (separator key assign VALUE)* close`` (shapes PYTHONIC and LITERAL).

    Strings stand between ``quote_start`` and ``quote_end``; ``escapes`` says that backslashes escape inside them, as in JSON
    and Python. ``bare_keys``: the keys of nested objects are unquoted too. ``constants``: true/false/null or True/False/None
    (a reader takes both). ``quotes_all``: every value is in quotes, whatever its type, so that the schema says how to read it.
    """

    open: str = "("  # e.g. "(" or "{"
    close: str = ")"  # e.g. ")" or "}"
    assign: str = "="  # e.g. "=" or ":"
    separator: str = ", "
    quote_start: str = "'"  # e.g. '"', or '<|"|>'
    quote_end: str = "'"
    escapes: bool = True
    bare_keys: bool = False
    quotes_all: bool = False
    constants: Literal["json", "python"] = "python"


@dataclass(frozen=True, slots=True)
class BlockSyntax:
    """How a turn is cut into blocks with headers (shape RECIPIENT): ``start HEADER header_end BODY end``, several in a row.

    The generation prompt has already written the first block's ``start``. A header is read, in this order, as a call's when it
    holds ``call`` and the name of a tool, as reasoning's or content's when it holds their text (the last one counts). With
    ``addressee``, a header that holds it and is none of these speaks to somebody else: its block is kept as a note.
    """

    start: str  # e.g. "<|start|>assistant", or ">>>"
    header_end: str  # e.g. "<|message|>", or "\n"
    content: str  # e.g. "<|channel|>final", or "all"
    call: str = ""  # e.g. " to=functions."
    addressee: str = ""  # e.g. " to="
    ends: tuple[str, ...] = ()  # e.g. ("<|end|>", "<|call|>", "<|return|>")


@dataclass(frozen=True, slots=True)
class ToolSyntax:
    """How the tool calls of one template are written. See the head of this file for the order of the parts.

    Which argument field is set follows from the shape: ``fields`` for JSON and GENERIC; ``tagged`` for TAGGED; ``literal`` for
    PYTHONIC and LITERAL; none for KEYED and NAME_JSON, whose arguments are one JSON object (``arguments_as_text``: a string
    that holds one). RECIPIENT has ``blocks``, and ``tagged`` or nothing.

    ``array``: the calls are the elements of one list, whose square brackets belong to neither section nor call.
    ``parallel``: the template can write several calls in one message.
    """

    shape: Shape
    section_start: str = ""  # e.g. "<|tool_calls_section_begin|>"; comes once, before the first call
    section_end: str = ""  # e.g. "<|tool_calls_section_end|>"
    call_start: str = ""  # e.g. "<tool_call>\n", or "<tool_call>\n<function="
    call_end: str = ""  # e.g. "\n</tool_call>"
    separator: str = ""  # e.g. "\n" between two calls
    name_end: str = ""  # e.g. "<|tool_sep|>", '">\n'
    index_start: str = ""  # e.g. '" index="': NAME index_start INDEX name_end
    index_base: int = 0  # the first call's INDEX
    name_again: str = ""  # e.g. '<|message|><invoke name="': NAME name_again NAME name_end
    id_place: Literal["", "before", "after", "carries", "field"] = ""
    id_end: str = ""  # e.g. "[ARGS]" after "[CALL_ID]123456789"
    id_form: str = ""  # e.g. "functions.{name}:{index}" where id_place is "carries"
    array: bool = False
    parallel: bool = True
    arguments_as_text: bool = False
    escapes: Escapes = ()  # of names
    fields: JsonFields | None = None
    tagged: TaggedArguments | None = None
    literal: LiteralArguments | None = None
    blocks: BlockSyntax | None = None

    @property
    def has_marker(self) -> bool:
        """Whether something says that a call begins; without (e.g. Llama 3.x) a call can only be the whole text's start."""
        return len((self.section_start + self.call_start).strip()) > 1 or self.blocks is not None

    @property
    def markers(self) -> tuple[str, ...]:
        """Every marker of this syntax that is not empty, layout stripped, each once; for display and for tokenising."""
        texts = [self.section_start, self.call_start, self.name_again, self.name_end, self.id_end]
        texts += [self.call_end, self.section_end]
        if self.tagged:
            texts += [self.tagged.start, self.tagged.key_end, self.tagged.end]
        if self.literal:
            texts += [self.literal.quote_start, self.literal.quote_end]
        if self.blocks:
            texts += [self.blocks.start, self.blocks.header_end, *self.blocks.ends]
        return tuple(dict.fromkeys(t.strip() for t in texts if t.strip()))


@dataclass(frozen=True, slots=True)
class TurnSyntax:
    """The frame of an assistant's turn."""

    generation_prompt: str = ""  # e.g. "<|im_start|>assistant\n"; what a plain prompt ends with
    content_start: str = ""  # e.g. "<|START_RESPONSE|>"
    content_end: str = ""  # e.g. "<|END_RESPONSE|>"
    end: str = ""  # e.g. "<|im_end|>\n"
    extra_ends: tuple[str, ...] = field(default=())  # e.g. ("<|eom_id|>",): what ends a turn after calls, where it differs
