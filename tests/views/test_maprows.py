"""A map's result as a notebook shows it: JSON as JSON, bounded, masked, and safe."""

from __future__ import annotations

import itertools
from types import SimpleNamespace
from typing import Any

import pytest
from IPython.core.formatters import DisplayFormatter
from pydantic import BaseModel

from llm_magics import MapResult, ScriptedModel
from llm_magics.kernel.page.shown import start_shown
from llm_magics.views.maprows import MOST_ROWS, ShownRow, map_bundle
from tests.payloads import PAYLOADS

from .test_safety import check, permissive


class Pet(BaseModel):
    name: str
    legs: int


PET = '{"name": "Mia", "legs": 4}'


def shown(result: MapResult) -> dict[str, Any]:
    shell: Any = SimpleNamespace(display_formatter=DisplayFormatter())
    start_shown(shell)
    bundle, _ = shell.display_formatter.format(result)  # as a kernel does with a cell's last value
    return dict(bundle)


def mapped(*answers: str, **options: Any) -> MapResult:
    prompts = [f"pet {n}" for n in range(len(answers))]
    result = ScriptedModel(answers).map(prompts, progress=False, **options)
    assert isinstance(result, MapResult)
    return result


def test_json_is_laid_out_highlighted_and_folds() -> None:
    bundle = shown(mapped(PET, PET, schema=Pet))
    html = bundle["text/html"]
    assert html.count('<details class="lm-json" open><summary>JSON, 2 members</summary>') == 2
    assert '<span class="lm-nt">"name"</span>' in html
    assert "pet 1" in html
    assert '```json\n{\n  "name": "Mia",\n  "legs": 4\n}\n```' in bundle["text/markdown"]
    assert bundle["text/plain"] == f"<map of 2 rows>\n0: {PET}\n1: {PET}"


def test_words_are_shown_as_words() -> None:
    html = shown(mapped("a *cat*", "a dog"))["text/html"]
    assert "<em>cat</em>" in html
    assert "lm-json" not in html.partition("</style>")[2]


def test_json_of_many_rows_is_folded_and_no_more_than_some_are_drawn() -> None:
    n_rows = MOST_ROWS + 1_000
    model = ScriptedModel(itertools.repeat(PET))
    html = shown(model.map([f"pet {n}" for n in range(n_rows)], schema=Pet, progress=False))["text/html"]
    assert html.count('<details class="lm-json"><summary>') == MOST_ROWS
    assert "1,000 more rows are in .values" in html


def test_a_row_that_failed_says_why_and_one_that_did_not_run_says_so() -> None:
    with pytest.warns(UserWarning, match="1 of 2 rows failed"):
        result = mapped(PET, '{"name": "Mia"}', schema=Pet)
    html = shown(result)["text/html"]
    assert "lm-error" in html.partition("</style>")[2]
    assert "legs" in html.rpartition("lm-error")[2]
    result.rows[0] = None
    assert "did not run" in shown(result)["text/html"]
    assert "0: [did not run]" in shown(result)["text/plain"]


def test_what_looks_like_a_secret_is_masked() -> None:
    key = "sk-" + "a1B2" * 10
    bundle = map_bundle("<map>", [ShownRow("0", f"key {key}", f'{{"key": "{key}"}}', f"{key} failed")], 1)
    assert not [form for form in bundle.values() if key in form]


@pytest.mark.parametrize("text", PAYLOADS)
def test_nothing_in_a_row_comes_out_of_its_place(text: str) -> None:
    for row in (ShownRow(text, text, text, text), ShownRow("0", "?", f'{{"a": "{text}"}}')):
        bundle = map_bundle("<map>", [row], 1)
        check(bundle["text/html"])
        check(permissive(bundle["text/markdown"]))
