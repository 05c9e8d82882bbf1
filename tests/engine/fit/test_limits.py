"""What is refused before anything is loaded, by the name of its option: a cache, a context that the model cannot have."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from llm_magics.engine.fit.gguf_check import check_context, read_model, trained_context
from llm_magics.engine.hosts import open_engine
from llm_magics.engine.values import EngineConfig
from llm_magics.errors import OptionError
from llm_magics.models.loading import LoadSettings, prepare
from tests.engine.tiny_gguf import F32, STRING, U32, tiny_model


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLM_MAGICS_CACHE", str(tmp_path / "cache"))


def made(directory: Path, **scaling: tuple[int, Any]) -> Path:
    """A model that was trained for 1,024 tokens."""
    file = tiny_model(context=1024)
    file.metadata |= {f"llama.rope.scaling.{key}": value for key, value in scaling.items()}
    return file.write(directory / "tiny.gguf")


def scaled(method: str, factor: float, original: int = 0) -> dict[str, tuple[int, Any]]:
    found: dict[str, tuple[int, Any]] = {"type": (STRING, method), "factor": (F32, factor)}
    return found | ({"original_context_length": (U32, original)} if original else {})


@pytest.mark.parametrize(
    ("scaling", "limit"),
    [
        ({}, 1024),
        (scaled("none", 4, 1024), 1024),
        (scaled("yarn", 4, 1024), 4096),  # as Qwen2.5's are written: the length before
        (scaled("yarn", 4, 256), 1024),  # as others are: the length behind
        (scaled("linear", 8), 1024),  # without an original length the file's own is all that it says
        (scaled("longrope", 1, 256), 1024),
    ],
)
def test_a_files_own_scaling_says_how_far_it_reaches(tmp_path: Path, scaling: dict[str, Any], limit: int) -> None:
    gguf = read_model(made(tmp_path, **scaling))
    assert trained_context(gguf) == limit
    check_context(gguf, limit)
    with pytest.raises(OptionError, match=f"trained for a context of {limit:,} tokens") as refused:
        check_context(gguf, limit + 1)
    assert f"--ctx {limit} or less" in refused.value.next_action


@pytest.mark.parametrize("n_ctx", [1025, 100_000])
def test_a_context_beyond_what_the_model_can_use_is_refused_before_it_is_loaded(tmp_path: Path, n_ctx: int) -> None:
    path = made(tmp_path)
    with pytest.raises(OptionError, match="1,024"):
        prepare(path, ctx=n_ctx)
    assert prepare(path, ctx=1024).plan.config.n_ctx == 1024
    assert prepare(path, ctx="auto").plan.config.n_ctx == 1024


def test_an_automatic_context_may_use_the_files_own_scaling(tmp_path: Path) -> None:
    assert prepare(made(tmp_path, **scaled("yarn", 4, 1024)), ctx="auto").plan.config.n_ctx == 4096


def test_a_quantised_cache_without_flash_attention_is_refused_by_name(tmp_path: Path) -> None:
    wanted = "A q8_0 KV cache needs flash attention"
    with pytest.raises(OptionError, match=wanted) as refused:
        LoadSettings(kv="q8_0", flash_attn="off")
    assert "--flash-attn" in refused.value.next_action
    assert "damaged" not in str(refused.value)
    config = EngineConfig(str(made(tmp_path)), kv_type="q8_0", flash_attention="off")
    with pytest.raises(OptionError, match=wanted):
        open_engine(config)
    open_engine(replace(config, kv_type="f16", n_ctx=64)).close()
