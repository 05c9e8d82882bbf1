"""The hold-back trie: what is certain goes on, what could become a marker waits."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from llm_magics.chat.scan.scanner import Found, Scanner

MARKERS = {"<think>": 1, "</think>": 2, "<|sep|>": 3, "<|sep|>\n\nmore": 4, "ab": 5, "bcd": 6}


def test_text_without_markers_is_certain() -> None:
    assert Scanner(MARKERS).find("a < c", 0, final=False) is None


def test_a_beginning_of_a_marker_at_the_end_waits() -> None:
    assert Scanner(MARKERS).find("hello </th", 0, final=False) == Found(6, 10, None)
    assert Scanner(MARKERS).find("hello </th", 0, final=True) is None


def test_the_longest_marker_wins_and_is_waited_for() -> None:
    scanner = Scanner(MARKERS)
    assert scanner.find("x<|sep|>", 0, final=False) == Found(1, 8, None)
    assert scanner.find("x<|sep|>!", 0, final=False) == Found(1, 8, 3)
    assert scanner.find("x<|sep|>\n\nmore", 0, final=False) == Found(1, 14, 4)
    assert scanner.find("x<|sep|>\n\nmo", 0, final=True) == Found(1, 8, 3)


def test_a_marker_may_begin_inside_another_ones_failed_beginning() -> None:
    assert Scanner(MARKERS).find("a<<think>", 0, final=False) == Found(2, 9, 1)


def test_no_markers_find_nothing() -> None:
    assert Scanner({}).find("anything", 0, final=False) is None


@given(st.text("<>/thinkabcd|sep\n more", max_size=40))
def test_markers_are_found_where_a_plain_search_finds_them(text: str) -> None:
    found = Scanner(MARKERS).find(text, 0, final=True)
    places = [text.find(m) for m in MARKERS if m in text]
    assert (found.start if found else None) == min(places, default=None)
