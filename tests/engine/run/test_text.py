"""Incremental UTF-8 and stop strings, whatever the tokens cut apart."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from llm_magics.engine.run.sequence import TextStream

# Few letters, so that stop strings and their beginnings meet often; one of them takes four bytes.
texts = st.text(alphabet="ab🙂é", max_size=30)


def pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    marks = sorted({min(cut, len(data)) for cut in cuts} | {0, len(data)})
    return [data[start:end] for start, end in pairwise(marks)] or [b""]


@given(texts, st.lists(st.integers(0, 80)))
def test_any_cutting_gives_the_whole_text(text: str, cuts: list[int]) -> None:
    stream = TextStream()
    out = [stream.push(piece) for piece in pieces(text.encode(), cuts)]
    assert "".join(out) + stream.flush() == text


@given(texts, st.lists(st.text(alphabet="ab🙂", min_size=1, max_size=4), min_size=1, max_size=3), st.lists(st.integers(0, 80)))
def test_the_text_ends_before_the_first_stop_string(text: str, stops: list[str], cuts: list[int]) -> None:
    stream = TextStream(stops)
    out = ""
    for piece in pieces(text.encode(), cuts):
        out += stream.push(piece)
        if stream.stopped:
            break
    found = [text.index(stop) for stop in stops if stop in text]
    if stream.stopped:
        # Cut differently, a longer stop string may not have been complete yet when a shorter one inside it was.
        assert any(out + stop == text[: len(out) + len(stop)] for stop in stops)
        assert stream.flush() == ""
    else:
        assert not found
        assert out + stream.flush() == text


@given(texts, st.lists(st.integers(0, 80)))
def test_nothing_is_lost_between_what_is_out_and_what_is_held(text: str, cuts: list[int]) -> None:
    stream = TextStream(["ab🙂", "bb"])
    out, taken = "", b""
    for piece in pieces(text.encode(), cuts):
        out += stream.push(piece)
        taken += piece
        if stream.stopped:
            return
        assert out.encode() + stream.held() == taken


def test_text_is_given_out_as_soon_as_it_is_certain() -> None:
    stream = TextStream(["STOP"])
    assert [stream.push(piece) for piece in (b"go ", b"S", b"T", b"ay", b" S", b"TOP x")] == ["go ", "", "", "STay", " ", ""]
    assert stream.stopped


def test_bytes_that_are_no_text_become_replacement_characters() -> None:
    stream = TextStream()
    assert stream.push(b"a\xff") + stream.push(b"b\xf0\x9f") + stream.flush() == "a\ufffdb\ufffd"
