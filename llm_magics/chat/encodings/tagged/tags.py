"""The tags of arguments, as data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from llm_magics.chat.syntax.syntax import Escapes


@dataclass(frozen=True, slots=True)
class Tags:
    """Arguments as ``start KEY key_end VALUE end``, joined by ``separator``.

    With ``type_names`` the tag says the value's type: ``start KEY type_start TYPE key_end VALUE end``. If TYPE is a string's,
    the value is a raw string, otherwise JSON. Without them, strings are raw and the schema decides the type. ``end_has_key``:
    the closing tag is ``end KEY end_tail``. ``nested``: objects and arrays are tags again; array elements have ``item`` as key.
    """

    start: str  # e.g. "<parameter="
    key_end: str  # e.g. ">\n"
    end: str  # e.g. "\n</parameter>"
    separator: str = ""  # e.g. "\n"
    type_start: str = ""  # e.g. '" type="', or '" string="'
    type_names: tuple[tuple[str, str], ...] = ()  # e.g. (("string", "true"), ("integer", "false"), ...)
    end_has_key: bool = False
    end_tail: str = ""  # e.g. ">" if end is "</"
    nested: bool = False
    item: str = ""  # e.g. "item"
    raw_start: str = ""  # e.g. "<![CDATA[", before a string that could be mistaken for a tag
    raw_end: str = ""  # e.g. "]]>"
    json_values: bool = False  # every value is JSON, strings too: <p>"x"</p>
    escapes: Escapes = ()  # of keys
    constants: Literal["json", "python"] = "json"  # how true, false and null are written
