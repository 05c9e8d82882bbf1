"""What ``load_model``'s settings come to in a loaded model, on models of a few kilobytes."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from llm_magics.engine.fit import plan as planning
from llm_magics.engine.fit.memory import Estimate
from llm_magics.engine.fit.probe import DeviceError
from llm_magics.engine.hosts.local import _settled
from llm_magics.engine.values import EngineConfig, Finished, GenerateRequest, SamplerSettings
from llm_magics.errors import OptionError, UnsupportedModelError
from llm_magics.events import ModelEnd
from llm_magics.messages import Message, user
from llm_magics.models.base import Request, Sampling
from llm_magics.models.loading import load_model, prepare
from llm_magics.models.local import LocalModel
from tests.engine.guess.test_draft import peaked
from tests.engine.tiny_architectures import recurrent
from tests.engine.tiny_gguf import STRING

TEMPLATE = (
    "{% for m in messages %}[{{ m.role }} {{ m.content }}]{% endfor %}{% if add_generation_prompt %}[assistant {% endif %}"
)
LETTERS = tuple((token, 1000.0) for token in range(260, 280))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return written(peaked(), tmp_path / "tiny.gguf")


def written(gguf: Any, path: Path) -> Path:
    gguf.metadata["tokenizer.chat_template"] = (STRING, TEMPLATE)
    file: Path = gguf.write(path)
    return file


def ask(model: LocalModel, messages: tuple[Message, ...]) -> ModelEnd:
    sampling = Sampling(temperature=1.0, seed=7, logit_bias=LETTERS)
    *_, end = model.stream(Request(messages, sampling=sampling, max_tokens=30, conversation="c"))
    assert isinstance(end, ModelEnd)
    return end


def test_a_deterministic_model_reuses_nothing_and_says_the_same_again(file: Path) -> None:
    messages = (user("tell me something"),)
    with closing(load_model(file, ctx=512, deterministic=True)) as model:
        assert model.engine.info.n_slots == 1
        first = ask(model, messages)
        ask(model, (*messages, first.message, user("go on")))
        again = ask(model, messages)
    assert (first.usage.cached_tokens, again.usage.cached_tokens) == (0, 0)
    assert again.message.token_ids == first.message.token_ids
    with closing(load_model(file, ctx=512)) as model:
        first = ask(model, messages)
        on = ask(model, (*messages, first.message, user("go on")))
        assert on.usage.cached_tokens > 0


@pytest.mark.parametrize("settings", [{"slots": 2}, {"speculation": "lookup"}, {"draft": "tiny"}])
def test_deterministic_goes_with_nothing_that_changes_the_batches(file: Path, settings: dict[str, Any]) -> None:
    given = {name: str(file) if name == "draft" else value for name, value in settings.items()}
    with pytest.raises(OptionError, match="deterministic"):
        load_model(file, ctx=512, deterministic=True, **given)


@pytest.mark.parametrize(
    ("changes", "guesses"),
    [({}, True), ({"deterministic": True}, False), ({"speculation": "off"}, False), ({"device_sampling": True}, False)],
)
def test_a_model_on_the_cpu_guesses_unless_told_otherwise(file: Path, changes: dict[str, Any], *, guesses: bool) -> None:
    same = SamplerSettings(temperature=0, logit_bias=((265, 1000.0),))
    with closing(load_model(file, ctx=512, **changes)) as model:
        *_, end = model.engine.submit(GenerateRequest((265,) * 40, same, max_tokens=20))
    assert isinstance(end, Finished)
    assert (end.drafted > 0) == guesses


def test_nothing_is_guessed_on_a_gpu_where_it_was_not_measured() -> None:
    config = EngineConfig("m.gguf", n_gpu_layers=-1)
    assert _settled(replace(config, speculation="auto")).speculation == "off"
    assert _settled(replace(config, speculation="lookup")).speculation == "lookup"


def test_a_gpu_that_refuses_the_planning_child_can_be_used_in_the_kernel(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in exclusive mode, when this kernel has the GPU. Nothing is planned for it, so the number of layers must be given."""

    class Refused(planning.Estimator):
        def __call__(self, config: EngineConfig) -> Estimate:
            if config.n_gpu_layers:
                raise DeviceError("A trial load died; its last log line: CUDA error: all devices are busy")
            return super().__call__(config)

    monkeypatch.setattr(planning, "Estimator", Refused)
    found = prepare(file, ctx=512, gpu_layers=3, in_kernel=True).plan.config
    assert (found.n_gpu_layers, found.n_ctx) == (3, 512)
    with pytest.raises(DeviceError, match="busy"):
        prepare(file, ctx=512, gpu_layers=3)


def test_a_draft_model_is_loaded_beside_and_its_acceptance_told(file: Path, tmp_path: Path) -> None:
    small = written(peaked(layers=1), tmp_path / "small.gguf")
    planned = prepare(file, ctx=512, draft=small).plan.config
    assert (planned.draft, planned.draft_gpu_layers) == (str(small), 0)
    with (
        closing(load_model(file, ctx=512, speculation="off")) as plain,
        closing(load_model(file, ctx=512, draft=file)) as drafted,
    ):
        assert drafted.engine.info.draft
        expected, found = (ask(model, (user("tell me something"),)) for model in (plain, drafted))
    assert found.message.token_ids == expected.message.token_ids
    assert expected.usage.drafted_tokens == 0


def test_a_memory_that_cannot_shift_is_refused_at_the_load(tmp_path: Path) -> None:
    file = written(recurrent(), tmp_path / "recurrent.gguf")
    with pytest.raises(UnsupportedModelError, match="cannot shift"):
        load_model(file, ctx=128, context_shift=True)
    load_model(file, ctx=128, speculation="auto").close()
