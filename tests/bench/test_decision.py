"""The comparison of designs: its measures, and whether the page shows what the collected evidence gives."""

from __future__ import annotations

import math

import pytest

from llm_magics.chat.recovery.evidence import LIMIT

from .decision import DESIGNS, PAGE, Row, area, capped_sum, compare, curve, evidence, kept, kind_of, logistic, split, words


def row(right: bool, *tokens: tuple[float | None, str], opening: float | None = 0.0, due: bool | None = None) -> Row:
    doubts = [-p for p, kind in tokens if p is not None and kind in ("choice", "both")]
    choices = sum(doubts) / len(doubts) if doubts else None
    return Row("m", "c", "simple_python", right if due is None else due, right, 0.0, 0, opening, choices, 1, tokens)


def test_an_area_is_the_chance_to_prefer_a_good_one() -> None:
    assert area([3, 2], [1, 0]) == 1
    assert area([1], [1]) == 0.5
    assert area([0, 2], [1]) == 0.5
    assert math.isnan(area([], [1]))


def test_what_a_token_is() -> None:
    kinds = {"name": "choice", '"': "quote", ' "': "quote", '": "': "", '"a': "both", "\n": "", "北京": "choice"}
    assert {piece: kind_of(piece) for piece in kinds} == kinds


def test_a_string_counts_at_most_one_in_the_capped_sum() -> None:
    tokens = [(-0.5, ""), (-0.1, "quote"), (-3.0, "choice"), (-3.0, "choice"), (0.0, "quote"), (-0.25, "choice")]
    assert capped_sum(row(True, *tokens)) == pytest.approx(-1.75)
    assert capped_sum(row(True, (None, "choice"), (-1.0, "choice"))) == -1


def test_the_evidence_of_a_row_is_the_packages_own() -> None:
    sure = row(True, (-9.0, ""), (-LIMIT / 2, "choice"), (None, "choice"))
    assert evidence(sure).meant
    assert not evidence(row(True, (-LIMIT * 1.1, "choice"))).meant
    assert not evidence(row(True, (0.0, "choice"), opening=LIMIT * 1.1)).meant


def test_a_curve_goes_from_nothing_to_everything() -> None:
    good, bad = [row(True, (p, "choice")) for p in (-0.1, -0.2)], [row(False, (p, "choice")) for p in (-0.15, -0.9)]
    assert curve(capped_sum, good, bad) == [(0, 0), (0, 0.5), (0.5, 0.5), (0.5, 1), (1, 1)]


def test_words_are_compared_by_how_they_begin() -> None:
    assert words("Triangles: getWeather calculate_area") == {"trian", "weath", "calcu", "area"}


def test_a_regression_is_scored_on_rows_that_it_was_not_fitted_to() -> None:
    rows = [row(i % 2 == 0, (-0.1 * (1 + i % 2), "choice"), due=i % 2 == 0) for i in range(20)]
    fitted = logistic(rows)
    assert area([s for r, s in fitted if r.right], [s for r, s in fitted if not r.right]) == 1


def test_the_page_shows_what_the_collected_evidence_gives() -> None:
    page, found = PAGE.read_text(encoding="utf-8"), kept()
    good, bad = split(found)
    assert len(good) > 30
    assert len(bad) > 10
    assert not any(r.category == "live_relevance" for r in found), "that category is not for tuning"
    lines = [line for line in compare(found) if not line.startswith("| logistic")]
    assert len(lines) > len(DESIGNS)
    assert all(line.strip("\n") in page for line in lines), "run: python -m tests.bench.decision compare --write"
