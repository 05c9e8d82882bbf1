"""One table of options: a field of a dataclass is all that there is to say about an option, and everything is read off it."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass, fields
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from llm_magics.engine.values import EngineConfig
from llm_magics.errors import OptionError
from llm_magics.kernel.magics.completion import complete_line
from llm_magics.kernel.options.line import Spec
from llm_magics.kernel.options.specs import CHAT, LOAD_MODEL, SPECS, LoadOptions
from llm_magics.kernel.rules import DEFAULTS, Defaults, LLMMagics
from llm_magics.models.loading import open_prepared, prepare_as
from llm_magics.models.settings import LoadSettings
from llm_magics.options import configured, on_off, option, options_of, whole
from llm_magics.session.settings import TurnSettings
from tests.engine.guess.test_draft import peaked
from tests.models.test_load_options import written


@dataclass(frozen=True, slots=True)
class MoreOptions(LoadOptions):
    """The table with two options more, each said once."""

    mapped: bool = option(True, "--mmap -mm", "map the weights into memory", on_off, choices=("on", "off"), config="use_mmap")
    small_batch: int = option(64, "--ubatch", "tokens evaluated in one piece", whole(8), "N", free="auto", config="n_ubatch")


MORE = Spec("%load_model", LOAD_MODEL.summary, MoreOptions)


def test_a_load_option_is_added_in_one_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = MORE.parse("tiny --ctx 512 --mmap off -b 128 --ubatch 32 --as t")
    assert (given.mapped, given.small_batch, given.ctx, given.alias) == (False, 32, 512, "t")
    help = " ".join(MORE.help().split())
    assert "--mmap, -mm on|off map the weights into memory" in help
    assert "--ubatch N tokens evaluated in one piece" in help
    with pytest.raises(OptionError, match=r"--ubatch cannot be '4': expected a whole number of at least 8\."):
        MORE.parse("tiny --ubatch 4")
    with pytest.raises(OptionError, match=r"Did you mean --mmap"):
        MORE.parse("tiny --mmapp on")
    with pytest.raises(OptionError, match=r"small_batch is 4\. Give a whole number of at least 8, or 'auto'\."):
        MoreOptions("tiny", small_batch=4)

    runtime: Any = SimpleNamespace()
    assert complete_line(runtime, "%load_model tiny --mm") == ("--mm", [])
    monkeypatch.setitem(SPECS, "load_model", MORE)
    assert complete_line(runtime, "%load_model tiny --mm") == ("--mm", ["--mmap"])
    assert complete_line(runtime, "%load_model tiny --mmap ") == ("", ["off", "on"])
    assert complete_line(runtime, "%load_model tiny --ubatch a") == ("a", ["auto"])

    prepared = prepare_as(given, written(peaked(), tmp_path / "tiny.gguf"))
    config = prepared.plan.config
    assert (config.use_mmap, config.n_batch, config.n_ubatch, config.n_ctx) == (False, 128, 32, 512)
    with closing(open_prepared(prepared)) as model:
        assert {"use_mmap": False, "n_ubatch": 32}.items() <= model.identity.settings.items()


def test_every_option_configures_something_that_there_is() -> None:
    assert {name for one in options_of(LoadSettings) for name in one.config.split()} <= {f.name for f in fields(EngineConfig)}
    line = "--system s --tool-choice none --max-steps 2 --max-calls 3 --approve deny --max-tokens 4 --stop x --think off"
    below = configured(CHAT.parse(line))
    assert below.keys() == {name for one in CHAT.options for name in one.config.split()}
    turn = TurnSettings().override(**below)
    assert (turn.system, turn.limits.steps, turn.limits.calls, turn.stop, turn.thinking) == ("s", 2, 3, ("x",), False)
    assert configured(CHAT.parse("")) == {}


def test_python_s_help_lists_the_options_too() -> None:
    told = LoadSettings.__doc__ or ""
    for one in options_of(LoadSettings):
        assert f"    {one.field}: {one.help}\n" in told


def test_help_stands_below_a_usage_that_is_wider_than_its_column() -> None:
    lines = LOAD_MODEL.help().splitlines()
    at = lines.index("  --gpu-layers, -ngl, --n-gpu-layers N|auto")
    assert lines[at + 1] == " " * 38 + "layers on the GPU; -1 is all"
    assert lines[at + 2] == f"  {'--tensor-split, -ts A,B':<34}  share of each GPU, e.g. 3,1"


def test_what_is_free_is_left_to_the_plan() -> None:
    usual = EngineConfig("m.gguf", n_slots=8, speculation="auto")
    for settings in (LoadSettings(), LoadSettings(ctx="auto"), LOAD_MODEL.parse("m --ctx auto --gpu-layers auto --slots auto")):
        assert settings.config(Path("m.gguf")) == usual
    said = LoadSettings(ctx=64, gpu_layers=-1, slots=2, batch=32, park_memory=1, tensor_split=(3, 1), threads=2)
    assert said.config(Path("m.gguf")) == EngineConfig(
        "m.gguf", n_ctx=64, n_gpu_layers=-1, n_slots=2, n_batch=32, n_ubatch=32, park_memory=2**20, tensor_split=(3, 1),
        n_threads=2, speculation="auto",
    )  # fmt: skip
    assert LoadSettings(deterministic=True).config(Path("m.gguf")).n_slots == 1


@pytest.mark.parametrize(
    ("field", "value", "word"),
    [("ctx", 31, "31"), ("gpu_layers", -2, "-2"), ("threads", 0, "0"), ("kv", "q4", "q4"), ("seed", -1, "-1")],
)
def test_a_value_is_refused_alike_in_python_and_on_a_line(field: str, value: Any, word: str) -> None:
    spelling = next(one.names[0] for one in LOAD_MODEL.options if one.field == field)
    with pytest.raises(OptionError, match=rf"{field} is {value!r}\."):
        LoadSettings(**{field: value})
    with pytest.raises(OptionError, match=rf"{spelling} cannot be '{word}'"):
        LOAD_MODEL.parse(f"m {spelling} {word}")


def test_the_configuration_s_defaults_are_options_of_the_table() -> None:
    with_default = [one for spec in (LOAD_MODEL, CHAT) for one in (*spec.words, *spec.options) if one.trait]
    assert [one.trait for one in with_default] == [LLMMagics.class_traits()[name].help for name in DEFAULTS]
    assert {name.removeprefix("default_") for name in DEFAULTS} == {f.name for f in fields(Defaults)}
