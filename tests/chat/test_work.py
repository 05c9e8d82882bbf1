"""Reading takes work in proportion to the text: counted in characters looked at and parses begun, not in time."""

from __future__ import annotations

import re

import pytest

from llm_magics.chat.encodings.syntax import ToolSyntax
from llm_magics.chat.recovery import bodies as near_miss
from llm_magics.chat.recovery.wrappers import read_calls
from llm_magics.chat.scan import reader
from llm_magics.chat.scan.reader import Kind, Malformed, Reader

SYNTAX = ToolSyntax(call_start="<t>", call_end="</t>")


class _Counting:
    """A pattern that counts the characters it has matched."""

    def __init__(self, pattern: re.Pattern[str]) -> None:
        self._pattern = pattern
        self.looked_at = 0

    def match(self, text: str, at: int = 0) -> re.Match[str] | None:
        found = self._pattern.match(text, at)
        self.looked_at += 1 + (found.end() - at if found else 0)
        return found


def _read(text: str, looked: _Counting, monkeypatch: pytest.MonkeyPatch) -> str:
    """Read one JSON value, fed character by character."""
    monkeypatch.setattr(reader, "_SCALAR", looked)
    source, given = Reader(), list[str]()
    reading = source.json_value(given.append)
    next(reading)
    for character in text:
        source.feed(character)
        next(reading)
    source.closed = True
    with pytest.raises((StopIteration, Malformed)):
        next(reading)
    return "".join(given)


@pytest.mark.parametrize("size", [500, 1_000, 4_000])
def test_a_number_that_comes_in_pieces_is_looked_at_once(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    looked = _Counting(reader._SCALAR)
    text = "1." + "7" * size
    assert _read(text, looked, monkeypatch) == text
    assert looked.looked_at <= 3 * len(text)


def test_a_number_without_end_is_no_number_and_costs_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    looked = _Counting(reader._SCALAR)
    monkeypatch.setattr(reader, "_SCALAR", looked)
    source = Reader()
    reading = source.json_value(lambda _: None)
    next(reading)
    with pytest.raises(Malformed, match="too long"):
        for _ in range(80_000):
            source.feed("1")
            next(reading)
    assert looked.looked_at < 40_000


@pytest.mark.parametrize("size", [10, 1_000, 20_000])
def test_a_keyword_call_is_parsed_once_however_many_brackets_it_has(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[list[str]] = []

    class Counted(Reader):
        def __init__(self) -> None:
            super().__init__()
            taken.append([])

        def take(self, n: int, kind: Kind) -> str:
            taken[-1].append(super().take(n, kind))
            return taken[-1][-1]

    monkeypatch.setattr(near_miss, "Reader", Counted)
    text = "f(a='" + ")" * size + "', b=[(1, 2), \"(\\\")\"])\nf(a='')"
    calls = read_calls(text, SYNTAX, ["f"])
    assert [call.arguments for call in calls] == ['{"a": "' + ")" * size + '", "b": [[1, 2], "(\\")"]}', '{"a": ""}']
    assert ["".join(pieces) for pieces in taken] == [text.partition("\n")[0][1:], "(a='')"]


def test_a_bracket_that_is_never_closed_ends_the_search() -> None:
    assert read_calls("f(a=[1, 2)", SYNTAX, ["f"]) == []
    assert read_calls("f(a='never", SYNTAX, ["f"]) == []
