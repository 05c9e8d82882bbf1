"""``formats show`` says what was found, and warns of what a user should know."""

from __future__ import annotations

import pytest

from llm_magics.chat.show import show, warnings

from .formats import NAMES, OWN, TEMPLATES, format_of


def test_markers_shape_reasoning_repairs_example_and_warnings_are_shown() -> None:
    text = show((OWN / "tagged.jinja").read_text(encoding="utf-8"))
    for part in (
        "name + tagged arguments",
        "'<plan>'",
        "Repairs",
        '<run tool="',
        "user               'Weather in Oslo?'",
        "Warnings",
    ):
        assert part in text


def test_a_marker_that_is_not_one_token_is_warned_of() -> None:
    fmt = format_of(OWN / "json.jinja")
    found = warnings(fmt, {"<invoke>", "</invoke>", "<musing>"})
    assert found == ["</musing> is not one token of this vocabulary: it is written and read as ordinary text."]


def test_a_template_that_loses_tool_results_is_warned_of() -> None:
    assert any("loses tool results" in w for w in warnings(format_of(OWN / "generic.jinja")))
    assert warnings(format_of(OWN / "json.jinja")) == []


@pytest.mark.parametrize("path", TEMPLATES, ids=NAMES)
def test_every_template_can_be_shown(path: object) -> None:
    assert "Example" in show(format_of(path).template.source)  # type: ignore[arg-type]
