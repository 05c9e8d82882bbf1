"""The tags of arguments, as data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from llm_magics.chat.syntax.syntax import Escapes


@dataclass(frozen=True, slots=True)
class Tags:
    """Arguments as ``start KEY key_end VALUE end``, joined by ``separator``.

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
