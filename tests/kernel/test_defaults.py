"""What the configuration chooses for cells that do not say: the model, its context, the temperature, the longest answer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from llm_magics.kernel.options.specs import LOAD_MODEL
from llm_magics.kernel.rules import Defaults
from llm_magics.models.base import Sampling

from .notebook import notebook
from .test_rules import USUAL, rules


def test_defaults_stand_in_for_what_a_cell_does_not_say_and_bend_to_the_rules() -> None:
    held = Defaults(temperature=0.2, max_tokens=500)
    turn = held.for_turn({}, USUAL, rules())
    assert (turn["sampling"].temperature, turn["max_tokens"]) == (0.2, 500)
    assert held.for_turn({}, USUAL, rules(max_tokens=100))["max_tokens"] == 100
    said = {"sampling": Sampling(temperature=0.9, seed=3), "max_tokens": 7}
    assert held.for_turn(said, USUAL, rules()) == said
    kept = held.for_turn({"sampling": Sampling(seed=3)}, USUAL, rules())["sampling"]
    assert kept == Sampling(temperature=0.2, seed=3)
    assert Defaults().for_turn({}, USUAL, rules()) == {}


def test_a_default_temperature_of_zero_is_one() -> None:
    assert Defaults(temperature=0.0).for_turn({}, USUAL, rules())["sampling"].temperature == 0.0
    assert ("default temperature", "0.0") in Defaults(temperature=0.0).rows()


@pytest.mark.parametrize(
    ("line", "ctx"), [("m", 2048), ("m --ctx 512", 512), ("m --ctx auto", "auto")], ids=["not said", "a number", "auto"]
)
def test_a_default_context_holds_for_loads_that_do_not_say(line: str, ctx: Any) -> None:
    assert Defaults(ctx=2048).for_load(LOAD_MODEL.parse(line)).ctx == ctx


def test_the_name_default_means_the_configured_model_and_no_other_name_does() -> None:
    held = Defaults(model="lesson-model")
    assert held.for_load(LOAD_MODEL.parse("Default")).name == held.for_load(LOAD_MODEL.parse("")).name == "lesson-model"
    assert held.for_load(LOAD_MODEL.parse("other")).name == "other"
    assert Defaults().for_load(LOAD_MODEL.parse("default")).name == "default"


WITH_DEFAULTS = (
    'c.LLMMagics.default_model = "smollm2-135m"\nc.LLMMagics.default_ctx = 512\n'
    "c.LLMMagics.default_temperature = 0.0\nc.LLMMagics.default_max_tokens = 3\n"
)


@pytest.mark.kernel
@pytest.mark.model
@pytest.mark.usefixtures("smollm")
def test_a_kernel_with_defaults_loads_and_answers_by_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "profile_default").mkdir()
    (tmp_path / "profile_default" / "ipython_config.py").write_text(WITH_DEFAULTS, encoding="utf-8")
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    with notebook("%load_model") as opened:  # as %load_model default
        assert opened.value("[(n, r.model.context_size) for n, r in get_ipython()._llm_magics_runtime.residents.items()]") == (
            "[('smollm2-135m', 512)]"
        )
        first, second = (opened.must("%%chat --no-history\nCount from 1 to 100.").transcript for _ in range(2))
        assert (first.state, first.usage.completion_tokens) == ("length", 3)
        assert first.text == second.text  # at temperature 0
        (told,) = opened.must("%llm doctor").bundles
        assert "then %load_model smollm2-135m, then" in told["text/plain"].splitlines()[-1]
        status = str(opened.must("%llm status").bundles)
        assert "default max tokens" in status
        longer = opened.must("%%chat --no-history --max-tokens 6\nCount from 1 to 100.").transcript
        assert longer.usage.completion_tokens == 6
