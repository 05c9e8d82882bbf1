"""A draft model changes the number of steps and nothing else: the same text, the same draws, the same distribution."""

from __future__ import annotations

import itertools
import struct
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from llm_magics.engine.guess.draft import DraftGuesser
from llm_magics.engine.hosts import open_engine
from llm_magics.engine.values import MAX_DRAFT, Engine, EngineConfig, Finished, GenerateRequest, SamplerSettings
from llm_magics.errors import ModelNotFoundError, OptionError
from tests.engine.run.test_reuse import config
from tests.engine.run.test_slots import together
from tests.engine.tiny_architectures import recurrent, sliding_window
from tests.engine.tiny_gguf import ARRAY, STRING, File, tiny_model

PROMPT = tuple(range(10, 60))
NEVER_ENDS = ((2, float("-inf")),)


def peaked(sharpness: float = 300, **size: Any) -> File:
    """A tiny model that is sure of what it says: its last norm is made large."""
    file = tiny_model(context=1024, **size)
    norm = next(tensor for tensor in file.tensors if tensor.name == "output_norm.weight")
    norm.data = struct.pack("<32f", *(sharpness * abs(x) for x in struct.unpack("<32f", norm.data)))
    return file


@pytest.fixture
def large(tmp_path: Path) -> Path:
    return peaked().write(tmp_path / "large.gguf")


@pytest.fixture(params=["a twin", "a worse one", "a stranger"])
def draft(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    sizes: dict[str, dict[str, Any]] = {"a twin": {}, "a worse one": {"sharpness": 200, "layers": 1}, "a stranger": {"ff": 32}}
    return peaked(**sizes[request.param]).write(tmp_path / "draft.gguf")


def run(engine: Engine, settings: SamplerSettings, n: int = 60, prompt: tuple[int, ...] = PROMPT) -> Finished:
    end = list(engine.submit(GenerateRequest(prompt, settings, max_tokens=n)))[-1]
    assert isinstance(end, Finished)
    return end


SETTINGS = {
    "greedy": SamplerSettings(temperature=0, logit_bias=NEVER_ENDS),
    "sampled": SamplerSettings(temperature=1.0, seed=5, logit_bias=NEVER_ENDS),
    "penalties": SamplerSettings(temperature=0.7, seed=6, repeat_penalty=1.3, presence_penalty=0.5, logit_bias=NEVER_ENDS),
}


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=list(SETTINGS))
def test_any_draft_leaves_the_answer_as_it_is(large: Path, draft: Path, settings: SamplerSettings) -> None:
    with closing(open_engine(config(large))) as plain, closing(open_engine(config(large, draft=str(draft)))) as guessing:
        expected = run(plain, settings)
        for prompt in (PROMPT, PROMPT, PROMPT[:20], (*PROMPT, 9)):  # going on, and coming back to less
            found = run(guessing, settings, prompt=prompt)
            assert found.ids == (expected.ids if prompt == PROMPT else run(plain, settings, prompt=prompt).ids)
            assert found.accepted <= found.drafted
    assert expected.drafted == 0


def test_a_twin_is_believed_nearly_always(large: Path) -> None:
    with closing(open_engine(config(large, draft=str(large)))) as engine:
        end = run(engine, SETTINGS["greedy"])
    assert end.drafted > 30
    assert end.accepted >= 0.9 * end.drafted


def test_what_is_sampled_follows_the_same_distribution(tmp_path: Path) -> None:
    """Three tokens, drawn 500 times with and without a draft from different seeds: the counts differ by chance alone."""
    large, draft = peaked().write(tmp_path / "large.gguf"), peaked(400).write(tmp_path / "draft.gguf")
    n = 500
    counts, guessed = [], 0
    for first_seed, path in ((0, ""), (10_000, str(draft))):
        with closing(open_engine(config(large, draft=path))) as engine:
            settings = [SamplerSettings(20.0, 3, 1.0, 0.0, seed=first_seed + i, logit_bias=NEVER_ENDS) for i in range(n)]
            ends = [run(engine, each, 4) for each in settings]
            counts.append(Counter(end.ids[1:] for end in ends))
            guessed += sum(end.accepted for end in ends)
    both = counts[0] | counts[1]
    squares = sum((counts[0][drawn] - counts[1][drawn]) ** 2 / (counts[0][drawn] + counts[1][drawn]) for drawn in both)
    freedom = len(both) - 1
    assert freedom >= 8
    assert guessed > n // 4
    assert squares < freedom + 4 * (2 * freedom) ** 0.5  # four standard deviations of chi-squared


def test_a_draft_is_left_aside_while_several_run_and_is_right_again_afterwards(large: Path) -> None:
    with closing(open_engine(config(large, n_slots=3))) as plain, closing(
        open_engine(config(large, n_slots=3, draft=str(large)))
    ) as guessing:
        prompts = [(*PROMPT[i:], i + 3) for i in range(5)]
        requests = [GenerateRequest(prompt, SETTINGS["greedy"], max_tokens=25) for prompt in prompts]
        ends = together(guessing, requests)
        assert [end.ids for end in ends] == [run(plain, SETTINGS["greedy"], 25, prompt).ids for prompt in prompts]
        assert run(guessing, SETTINGS["greedy"]).drafted > 0


def test_a_draft_of_another_vocabulary_is_refused_by_name(large: Path, tmp_path: Path) -> None:
    other = peaked()
    words = list(other.metadata["tokenizer.ggml.tokens"][2])
    words[265] = "other"
    other.metadata["tokenizer.ggml.tokens"] = (ARRAY, STRING, words)
    file = other.write(tmp_path / "other.gguf")
    with pytest.raises(OptionError, match=r"other\.gguf cannot draft for large\.gguf: token 265"):
        open_engine(config(large, draft=str(file)))


@pytest.mark.parametrize("memory", [recurrent, sliding_window])
def test_a_memory_that_cannot_take_back_a_guess_is_refused(large: Path, tmp_path: Path, memory: Any) -> None:
    other = memory().write(tmp_path / "other.gguf")
    with pytest.raises(OptionError, match="take back"):
        open_engine(config(other, draft=str(large)))
    with pytest.raises(OptionError, match="take back"):
        open_engine(config(other, speculation="lookup"))
    with closing(open_engine(config(other, speculation="auto"))) as engine:
        assert run(engine, SETTINGS["greedy"], 30).drafted == 0


def test_a_missing_draft_is_named_and_leaves_nothing_loaded(large: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError, match="nowhere"):
        open_engine(EngineConfig(str(large), draft=str(tmp_path / "nowhere.gguf")))


def test_a_draft_that_is_mostly_wrong_rests_ever_longer_and_is_tried_again() -> None:
    guesser = DraftGuesser(lambda limit: [1] * limit)
    asked = []
    for step in range(600):
        if guess := guesser.propose(16):
            asked.append(step)
            guesser.learn(len(guess), 0)
    pauses = [b - a for a, b in itertools.pairwise(asked)]
    assert len(asked) < 20
    assert max(pauses) > 100
    assert pauses == sorted(pauses)


def test_a_draft_that_is_unsure_is_asked_less_and_less_and_again_when_it_was_right() -> None:
    answers: list[list[int] | None] = [None] * 3 + [[]] * 6 + [[1, 2]] + [[]] * 2
    left = answers.copy()
    guesser = DraftGuesser(lambda limit: left.pop(0))
    asked = []
    for step in itertools.count():
        before = len(left)
        if guess := guesser.propose(16):
            guesser.learn(len(guess), len(guess))
        if len(left) < before:
            asked.append(step)
        if not left:
            break
    pauses = [b - a - 1 for a, b in itertools.pairwise(asked)]
    assert pauses == [0, 0, 0, 1, 2, 4, 8, 16, 16, 0, 1]


def test_guesses_that_come_true_grow() -> None:
    guesser = DraftGuesser(lambda limit: [1] * limit)
    lengths = []
    for _ in range(12):
        guess = guesser.propose(100)
        lengths.append(len(guess))
        guesser.learn(len(guess), len(guess))
    assert lengths == sorted(lengths)
    assert lengths[-1] == MAX_DRAFT
