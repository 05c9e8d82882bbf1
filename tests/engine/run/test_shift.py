"""Where the context ends: an explicit end or a named refusal; or the oldest turns go, and nothing else does."""

from __future__ import annotations

import random
from contextlib import closing
from pathlib import Path

import pytest

from llm_magics.engine.hosts import open_engine
from llm_magics.engine.values import Engine, EngineEvent, Finished, GenerateRequest, Prefill, SamplerSettings, Tokens
from llm_magics.errors import ContextFullError, OptionError
from tests.engine.guess.test_draft import peaked
from tests.engine.tiny_architectures import recurrent, sliding_window

from .test_reuse import ask, assert_same, config
from .test_slots import together

GOES_ON = SamplerSettings(temperature=0, logit_bias=((2, float("-inf")),))
N_CTX = 256
HEAD = tuple(range(10, 30))  # the system prompt


def turns(n: int, length: int, seed: int = 0) -> tuple[tuple[int, ...], tuple[tuple[int, int], ...]]:
    """A prompt of a head, ``n`` turns and a last question, and the ranges of all turns but the last."""
    draw = random.Random(seed)
    prompt = HEAD + tuple(draw.choices(range(30, 280), k=n * length + 5))
    return prompt, tuple((len(HEAD) + i * length, len(HEAD) + (i + 1) * length) for i in range(n))


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    return peaked().write(tmp_path / "plain.gguf")


def run(engine: Engine, prompt: tuple[int, ...], droppable: tuple[tuple[int, int], ...], n: int, name: str = "c") -> Finished:
    request = GenerateRequest(prompt, GOES_ON, max_tokens=n, droppable=droppable, conversation=name)
    events: list[EngineEvent] = list(engine.submit(request))
    kinds = "".join({Prefill: "p", Tokens: "t", Finished: "f"}[type(event)] for event in events)
    assert kinds == "p" * kinds.count("p") + "t" * kinds.count("t") + "f"
    end = events[-1]
    assert isinstance(end, Finished)
    assert end.n_prompt == end.n_cached + end.n_evaluated
    return end


def test_a_prompt_that_does_not_fit_loses_its_oldest_turns_only(plain: Path) -> None:
    prompt, droppable = turns(8, 40)  # 345 tokens
    with closing(open_engine(config(plain, n_ctx=N_CTX))) as engine:
        end = run(engine, prompt, droppable, 5)
        kept = prompt[: len(HEAD)] + prompt[droppable[end.dropped - 1][1] :]
        assert end.dropped == 4  # three would do, and leave less than an eighth of the context
        assert (end.n_prompt, end.n_evaluated) == (len(kept), len(kept))
        assert end.ids == run(engine, kept, (), 5, "afresh").ids


def test_an_answer_that_outgrows_the_context_goes_on_behind_fewer_turns(plain: Path) -> None:
    prompt, droppable = turns(5, 40)  # 225 tokens
    with closing(open_engine(config(plain, n_ctx=N_CTX))) as engine:
        end = run(engine, prompt, droppable, 200)
        assert (end.reason, len(end.ids)) == ("length", 200)
        assert end.dropped == 5
        assert end.n_past == len(prompt) - 5 * 40 + 200
        # It goes on until nothing is left to drop, and then ends where the context does, which is told.
        end = run(engine, prompt, droppable, 1000, "longer")
        assert (end.reason, end.dropped, end.n_past) == ("length", 5, N_CTX + 1)
        assert len(end.ids) == N_CTX + 1 - len(HEAD) - 5


def test_what_stays_is_moved_and_not_evaluated_again(plain: Path) -> None:
    prompt, droppable = turns(5, 40)
    with closing(open_engine(config(plain, n_ctx=N_CTX))) as engine:
        first = run(engine, prompt, droppable, 20)
        longer = (*prompt, *first.ids, *range(40, 70))
        second = run(engine, longer, droppable, 4)
        assert second.dropped == 2
        assert second.n_evaluated == 31  # the last sampled token and the new ones
        # The next turn leaves out what has gone, and finds the rest in the slot.
        third = (*longer[: len(HEAD)], *longer[droppable[1][1] :], *second.ids, 7, 8)
        assert run(engine, third, (), 4).n_evaluated == 3


def test_moved_keys_are_those_of_their_new_places(tmp_path: Path) -> None:
    """With a single layer keys and values depend on the token and its place alone, so that moving them must be exact."""
    prompt, droppable = turns(5, 40)
    with closing(open_engine(config(peaked(20, layers=1).write(tmp_path / "one.gguf"), n_ctx=N_CTX))) as engine:
        first = run(engine, prompt, droppable, 20)
        longer = (*prompt, *first.ids, *range(40, 70))
        events = list(
            engine.submit(GenerateRequest(longer, GOES_ON, 6, logprobs=3, droppable=droppable, conversation="c"))
        )
        moved = [item for event in events if isinstance(event, Tokens) for item in event.logprobs]
        end = events[-1]
        assert isinstance(end, Finished)
        assert end.dropped == 2
        expected, cold = ask(engine, longer[: len(HEAD)] + longer[droppable[1][1] :], 6)
        assert cold.n_cached == len(HEAD)
    assert_same(moved, expected)


def test_what_was_computed_behind_dropped_turns_serves_nobody_else(plain: Path) -> None:
    prompt, droppable = turns(5, 40)
    kept = prompt[: len(HEAD)] + prompt[droppable[2][1] :]
    with closing(open_engine(config(plain, n_ctx=N_CTX, n_slots=2))) as engine:
        run(engine, prompt, droppable, 80)
        end = run(engine, (*kept, 9), (), 4, "")
        assert end.n_cached == len(HEAD)


def test_without_droppable_turns_the_end_is_explicit(plain: Path) -> None:
    prompt, droppable = turns(8, 40)
    with closing(open_engine(config(plain, n_ctx=N_CTX))) as engine:
        with pytest.raises(ContextFullError, match="345 tokens"):
            run(engine, prompt, (), 5)
        with pytest.raises(ContextFullError, match="even without") as caught:
            run(engine, prompt, droppable[:1], 5)
        assert (caught.value.n_prompt, caught.value.n_ctx) == (305, N_CTX)
        end = run(engine, prompt[:250], (), 50)
        assert (end.reason, end.dropped, len(end.ids)) == ("length", 0, 7)


def test_several_that_share_a_beginning_and_shift_each_get_what_they_would_get_alone(plain: Path) -> None:
    prompt, droppable = turns(5, 30)
    asked = [(*prompt, i, i + 1) for i in range(40, 43)]
    requests = [GenerateRequest(p, GOES_ON, max_tokens=150, droppable=droppable, conversation=f"{p[-1]}") for p in asked]
    with closing(open_engine(config(plain, n_ctx=N_CTX))) as engine:
        alone = [run(engine, p, droppable, 150, f"alone {p[-1]}") for p in asked]
    with closing(open_engine(config(plain, n_ctx=N_CTX, n_slots=3))) as engine:
        ends = together(engine, requests)
    assert [(end.reason, len(end.ids)) for end in ends] == [("length", 150)] * 3
    before = N_CTX + 1 - len(asked[0])  # up to the first shift the answers are equal, afterwards as close as keys moved can be
    assert [end.ids[:before] for end in ends] == [end.ids[:before] for end in alone]


def test_speculation_goes_on_behind_a_shift(plain: Path) -> None:
    prompt, droppable = turns(5, 40)
    with closing(open_engine(config(plain, n_ctx=N_CTX))) as engine:
        expected = run(engine, prompt, droppable, 180)
    for changes in ({"speculation": "lookup"}, {"draft": str(plain)}):
        with closing(open_engine(config(plain, n_ctx=N_CTX, **changes))) as engine:
            end = run(engine, prompt, droppable, 180)
        assert (end.reason, len(end.ids)) == ("length", 180)
        assert end.drafted > 0
        before = N_CTX + 1 - len(prompt)
        assert end.ids[:before] == expected.ids[:before]


@pytest.mark.parametrize("memory", [recurrent, sliding_window])
def test_a_memory_that_cannot_shift_says_so(memory: object, tmp_path: Path) -> None:
    file = memory().write(tmp_path / "tiny.gguf")  # type: ignore[operator]
    with closing(open_engine(config(file))) as engine:
        assert engine.info.can_shift is False
        with pytest.raises(OptionError, match="cannot forget"):
            ask(engine, HEAD)
            run(engine, (*HEAD, 1), ((1, 5),), 2)


@pytest.mark.parametrize("spans", [((5, 3),), ((1, 5), (4, 8)), ((1, 5), (6, 8)), ((-1, 3),), ((1, len(HEAD)),)])
def test_ranges_that_make_no_sense_are_refused(plain: Path, spans: tuple[tuple[int, int], ...]) -> None:
    with closing(open_engine(config(plain))) as engine, pytest.raises(OptionError, match="range"):
        run(engine, HEAD, spans, 2)
