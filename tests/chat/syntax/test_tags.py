"""What a tag is, whatever its brackets."""

from __future__ import annotations

import pytest

from llm_magics.chat.syntax.tags import closing, inside, is_tag, leading_tags, marks, opening, tags, told_apart, whole_tags

PAIRS = ["<>", "[]", "«»", "◁▷", "⟦⟧", "‹›", "¤¤"]
each_pair = pytest.mark.parametrize("pair", PAIRS)


def _in(pair: str, text: str) -> str:
    return text.replace("<", pair[0]).replace(">", pair[1])


@each_pair
def test_tags_are_found_in_any_brackets(pair: str) -> None:
    text = _in(pair, "a <b> and <|c|>d</b> e")
    assert tags(text) == [_in(pair, t) for t in ("<b>", "<|c|>", "</b>")]
    assert is_tag(_in(pair, "<|c|>"))
    assert not is_tag(_in(pair, "<b>x"))


@each_pair
def test_a_closing_tag_has_a_stroke_behind_its_opening_signs(pair: str) -> None:
    assert closing(_in(pair, "<b>")) == _in(pair, "</b>")
    assert closing(_in(pair, "<|b|>")) == _in(pair, "<|/b|>")
    assert opening(_in(pair, "</b>")) == _in(pair, "<b>")
    assert closing("word") == ""


@each_pair
def test_a_marker_may_be_parted_where_one_tag_follows_another(pair: str) -> None:
    assert marks(_in(pair, "</k><v>")) == tuple(_in(pair, t) for t in ("</k>", "<v>"))
    assert marks(_in(pair, "<a>\n<b=")) == tuple(_in(pair, t) for t in ("<a>", "<b="))
    assert marks(_in(pair, "<a>b")) == (_in(pair, "<a>b"),)


@each_pair
def test_a_cut_falls_inside_no_tag(pair: str) -> None:
    text = _in(pair, "x <bcd> y")
    assert inside(text, 3) == (1, 4) if pair[0] != pair[1] else inside(text, 3) != (0, 0)
    assert inside(text, 2) == (0, 0)
    assert whole_tags(_in(pair, "x <b>y<c"), _in(pair, "x <b>y<cd>")) == _in(pair, "x <b>y")


def test_brackets_of_json_and_of_calls_make_no_tags() -> None:
    assert tags('f(a) {"b": [1, 2], "c": "d e"}') == []


def test_the_first_piece_of_a_marker_is_told_apart_from_other_markers() -> None:
    assert told_apart("<|s|><|o|>arg", ["<|s|><|c|>call"]) == ("<|s|><|o|>arg",)
    assert told_apart("<|a|><|b|>", ["<|c|>"]) == ("<|a|>", "<|b|>")


def test_leading_tags_end_before_other_text() -> None:
    assert leading_tags("<|a|>x<|b|>\nand more") == len("<|a|>x<|b|>\n")
    assert leading_tags("word <b>") == 0


def test_punctuation_of_any_script_makes_no_tags() -> None:
    assert tags("问：hi，答：well。") == []
    assert whole_tags("\n答：", "\n答：well") == "\n答："
