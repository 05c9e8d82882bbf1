"""What goes wrong with one sequence costs that sequence, or only a guess or a saved state; the engine serves the others."""

from __future__ import annotations

import math
import struct
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from llm_magics.engine.guess.lookup import Lookup
from llm_magics.engine.hosts import open_engine
from llm_magics.engine.native.context import Context
from llm_magics.engine.run.sequence import Sequence
from llm_magics.engine.run.slots import Slots
from llm_magics.engine.values import Engine, Finished, GenerateRequest, SamplerSettings
from llm_magics.errors import EngineError
from tests.engine.guess.test_draft import peaked
from tests.engine.run.test_reuse import config
from tests.engine.tiny_gguf import Tensor, random_tensors

NO_END = ((2, float("-inf")),)
GREEDY = SamplerSettings(temperature=0, logit_bias=NO_END)
REPEATING = tuple(range(10, 40)) * 3


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return peaked().write(tmp_path / "tiny.gguf")


def run(engine: Engine, prompt: tuple[int, ...] = REPEATING, n: int = 12, settings: SamplerSettings = GREEDY) -> Finished:
    end = list(engine.submit(GenerateRequest(prompt, settings, max_tokens=n)))[-1]
    assert isinstance(end, Finished)
    return end


class Injected(RuntimeError):
    pass


def fails(*_: Any, **__: Any) -> Any:
    raise Injected("on purpose")


# --- guesses ----------------------------------------------------------------------------------------------------------------


def one_that_repeats(self: Lookup, limit: int) -> list[int]:
    return self._tokens[-1:]


FAULTS: dict[str, dict[str, Any]] = {
    "making one": {"__init__": fails},
    "a guess": {"propose": fails},
    "learning": {"propose": one_that_repeats, "learn": fails},
    "a token that does not exist": {"propose": lambda self, limit: [10**6]},
    "a negative token": {"propose": lambda self, limit: [-1]},
    "more than was asked": {"propose": lambda self, limit: [5] * (limit + 1)},
    "no list at all": {"propose": lambda self, limit: 7},
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_guess_that_goes_wrong_costs_the_guess(file: Path, fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with closing(open_engine(config(file))) as engine:
        expected = run(engine).ids
    for name, value in FAULTS[fault].items():
        monkeypatch.setattr(Lookup, name, value)
    with closing(open_engine(config(file, speculation="lookup"))) as engine:
        first = run(engine)
        assert first.ids == expected
        assert any("guessing ended" in loss for loss in first.losses)
        monkeypatch.undo()
        assert run(engine).losses == ()  # the next request guesses again


# --- slots and states -------------------------------------------------------------------------------------------------------


def test_a_slot_that_cannot_be_chosen_costs_the_one_that_asked(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with closing(open_engine(config(file, n_slots=2))) as engine:
        expected = run(engine).ids
        with monkeypatch.context() as patch:
            patch.setattr(Slots, "choose", fails)
            with pytest.raises(EngineError, match="on purpose"):
                run(engine)
        assert run(engine).ids == expected


@pytest.mark.parametrize("step", ["_put"])
def test_a_batch_that_cannot_be_made_up_costs_the_one_it_was_for(
    file: Path, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from llm_magics.engine.run.scheduler import Scheduler

    real = getattr(Scheduler, step)
    victim = tuple(range(50, 90))

    def only_for_the_victim(self: Any, *args: Any, **options: Any) -> Any:
        if any(isinstance(a, Sequence) and a.tokens[:3] == [50, 51, 52] for a in args):
            raise Injected("on purpose")
        return real(self, *args, **options)

    monkeypatch.setattr(Scheduler, step, only_for_the_victim)
    with closing(open_engine(config(file, n_slots=2))) as engine:
        expected = run(engine).ids
        other = engine.submit(GenerateRequest(REPEATING, GREEDY, max_tokens=12))
        failing = engine.submit(GenerateRequest(victim, GREEDY, max_tokens=12))
        with pytest.raises(EngineError, match="on purpose"):
            list(failing)
        end = list(other)[-1]
        assert isinstance(end, Finished)
        assert end.ids == expected
        waiting = [engine.submit(GenerateRequest(p, GREEDY, max_tokens=12)) for p in (victim, victim, victim, REPEATING)]
        end = list(waiting[-1])[-1]  # whoever waited for their slots gets them
        assert isinstance(end, Finished)
        assert end.ids == expected


def test_a_state_that_cannot_be_kept_aside_is_computed_again(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Context, "save", fails)
    with closing(open_engine(config(file))) as engine:
        expected = run(engine).ids
        patient = engine.submit(GenerateRequest(tuple(range(60, 160)), GREEDY, max_tokens=200, priority=5))
        next(patient)
        for _ in range(3):
            assert run(engine).ids == expected  # takes the only slot from the other one
        end = list(patient)[-1]
    assert isinstance(end, Finished)
    assert len(end.ids) == 200


# --- what is no number ------------------------------------------------------------------------------------------------------

POISON = 99  # a token whose embedding is NaN


@pytest.fixture
def poisoned(tmp_path: Path) -> Path:
    """A model that computes NaN behind one token and is sound otherwise."""
    file = peaked()
    table = next(t for t in file.tensors if t.name == "token_embd.weight")
    width, n_vocab = table.shape
    file.tensors.append(Tensor("output.weight", table.shape, random_tensors(width, n_vocab, [])[0].data))
    row = struct.pack(f"<{width}f", *[math.nan] * width)
    table.data = table.data[: POISON * width * 4] + row + table.data[(POISON + 1) * width * 4 :]
    return file.write(tmp_path / "poisoned.gguf")


SETTINGS = {
    "greedy": SamplerSettings(temperature=0),
    "greedy with a bias": GREEDY,
    "sampled": SamplerSettings(seed=1),
    "with penalties": SamplerSettings(temperature=0, repeat_penalty=1.2),
}


@pytest.mark.parametrize("on_device", [False, True], ids=["host", "device"])
@pytest.mark.parametrize("settings", SETTINGS.values(), ids=list(SETTINGS))
def test_logits_that_are_no_numbers_are_a_named_error(poisoned: Path, settings: SamplerSettings, on_device: bool) -> None:
    with closing(open_engine(config(poisoned, device_sampling=on_device))) as engine:
        expected = run(engine, settings=settings).ids
        for _ in range(2):
            with pytest.raises(EngineError, match="computed NaN or infinity") as raised:
                run(engine, (5, 6, POISON), settings=settings)
            assert "fetch the file again" in raised.value.next_action
        assert run(engine, settings=settings).ids == expected


@pytest.mark.parametrize("options", [{}, {"flash_attention": "off"}], ids=["flash", "no flash"])
def test_what_is_no_number_does_not_spread_to_the_next_request(poisoned: Path, options: dict[str, Any]) -> None:
    with closing(open_engine(config(poisoned, n_slots=3, **options))) as engine:
        expected = run(engine).ids
        for _ in range(3):
            with pytest.raises(EngineError, match="computed NaN"):
                run(engine, (*REPEATING, POISON))
            assert run(engine).ids == expected
            assert run(engine, (7, 8, 9)).ids == run(engine, (7, 8, 9)).ids


def test_others_that_run_at_the_same_time_go_on(poisoned: Path) -> None:
    with closing(open_engine(config(poisoned, n_slots=3))) as engine:
        expected = run(engine, n=120).ids
        other = engine.submit(GenerateRequest(REPEATING, GREEDY, max_tokens=120))
        while not getattr(next(other), "ids", ()):
            pass  # until it has its first token
        with pytest.raises(EngineError, match="computed NaN"):
            run(engine, (5, 6, POISON))
        end = list(other)[-1]
    assert isinstance(end, Finished)
    assert end.ids == expected
