"""``model.map``: rows in, values out, in order, whatever becomes of single rows."""

from __future__ import annotations

import itertools
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, Literal

import pandas as pd
import pytest
from pydantic import BaseModel

from llm_magics import MapResult, ScriptedModel, load_model, map_prompts, tool
from llm_magics.errors import ModelError, OptionError, SchemaError
from llm_magics.messages import ToolCall
from llm_magics.models.base import Model, Request, Sampling
from llm_magics.session.map import PRIORITY, row_seed
from llm_magics.session.rows import read_rows

LETTERS = [f"letter {n}" for n in range(12)]
WIDTHS = pytest.mark.parametrize("parallel", [1, 4], ids=["one at a time", "several at once"])


def question(request: Request) -> str:
    return next(m.text for m in request.messages if m.role == "user")


def model_of(answer: Callable[[Request], Any], parallel: int = 1) -> ScriptedModel:
    return ScriptedModel(itertools.repeat(answer), parallel=parallel)


def mapped(model: ScriptedModel, prompts: Any, **options: Any) -> Any:
    return model.map(prompts, progress=False, **options)


def shout(request: Request) -> str:
    return question(request).upper()


# --- what goes in and what comes out ----------------------------------------------------------------------------------------


@WIDTHS
@pytest.mark.parametrize("prompts", [LETTERS, tuple(LETTERS), (x for x in LETTERS)], ids=["list", "tuple", "generator"])
def test_values_come_in_the_order_of_the_rows(prompts: Any, parallel: int) -> None:
    if isinstance(prompts, Iterator):
        prompts = (x for x in LETTERS)
    result = mapped(model_of(shout, parallel), prompts)
    assert result.values == list(result) == [x.upper() for x in LETTERS]
    assert (result.errors, result.pending, len(result), result[1], result[-2:]) == (
        {}, [], 12, "LETTER 1", ["LETTER 10", "LETTER 11"]
    )  # fmt: skip


def test_no_rows_are_no_work() -> None:
    assert mapped(model_of(shout), []).values == []


def test_a_series_gives_a_series_with_the_same_index() -> None:
    frame = pd.DataFrame({"text": ["a", "b", "c"], "kept": [1, 2, 3]}, index=[7, 3, 5])
    frame["label"] = mapped(model_of(shout, 2), frame["text"].sort_values(ascending=False), template="is {}")
    assert frame["label"].tolist() == ["IS A", "IS B", "IS C"]
    assert frame["label"].name == "label"


def test_a_column_of_numbers_comes_back_as_numbers() -> None:
    lengths = mapped(model_of(lambda r: str(len(question(r)))), pd.Series(["a", "bcd"]), schema=int)
    assert lengths.tolist() == [1, 3]
    assert lengths.dtype.kind == "i"


def test_a_data_frame_s_template_names_its_columns() -> None:
    frame = pd.DataFrame({"first name": ["Ada", "Alan"], "n": [1, 2]})
    made = mapped(model_of(question), frame, template='{first name}: {n} of {{n}} as {"json": 1}')
    assert made.tolist() == ['Ada: 1 of {n} as {"json": 1}', 'Alan: 2 of {n} as {"json": 1}']


def test_mappings_are_rows_too() -> None:
    assert mapped(model_of(question), [{"a": 1, "b": 2}, {"a": 3, "b": 4}], template="{b}{a}").values == ["21", "43"]


def test_fields_are_looked_up_and_never_evaluated() -> None:
    assert mapped(model_of(question), ["x"], template="{} {0.__class__} {x!r}").values == ["x {0.__class__} {x!r}"]
    assert mapped(model_of(question), ["{a} {}"], template="<{}>").values == ["<{a} {}>"]


@pytest.mark.parametrize(
    ("prompts", "template", "said"),
    [
        ("one text", None, "needs rows"),
        ({"a": 1}, None, "needs rows"),
        (5, None, "needs rows"),
        (pd.DataFrame({"a": [1]}), None, "need a template"),
        (pd.DataFrame({"colour": [1]}), "{color}", "Did you mean {colour}"),
        (["a"], "no place", "no place for the row"),
        (["a"], "{other}", "Did you mean {}"),
    ],
)
def test_what_can_be_no_rows_is_refused_before_anything_is_asked(prompts: Any, template: str | None, said: str) -> None:
    model = model_of(shout)
    with pytest.raises(OptionError, match=said):
        mapped(model, prompts, template=template)
    assert model.requests == []


@pytest.mark.parametrize("options", [{"colour": 1}, {"concurrency": 0}, {"tool_choice": "nobody"}])
def test_a_setting_that_is_none_is_refused_before_anything_is_asked(options: dict[str, Any]) -> None:
    model = model_of(shout)
    with pytest.raises(OptionError):
        mapped(model, LETTERS, **options)
    assert model.requests == []


# --- what each row is asked with --------------------------------------------------------------------------------------------


def test_settings_reach_every_row_and_rows_stand_behind_cells() -> None:
    model = model_of(shout, 3)
    mapped(model, LETTERS, system="Be brief.", max_tokens=9, temperature=0.5, top_k=3, stop="x", thinking=False)
    assert [r.messages[0].text for r in model.requests] == ["Be brief."] * 12
    assert {(r.max_tokens, r.sampling.temperature, r.sampling.top_k, r.stop, r.thinking) for r in model.requests} == {
        (9, 0.5, 3, ("x",), False)
    }
    assert {(r.priority, r.conversation) for r in model.requests} == {(PRIORITY, "")}


def test_a_row_s_seed_hangs_on_the_map_s_seed_and_its_place_alone() -> None:
    seeds = []
    for parallel in (1, 5):
        model = model_of(lambda r: str(r.sampling.seed), parallel)
        seeds.append(mapped(model, LETTERS, seed=3).values)
    assert seeds[0] == seeds[1] == [str(row_seed(3, at)) for at in range(12)]
    assert len(set(seeds[0])) == 12
    assert mapped(model_of(shout), LETTERS, sampling=Sampling(seed=3)).seed == 3
    assert seeds[0][:5] == mapped(model_of(lambda r: str(r.sampling.seed)), LETTERS[:5], seed=3).values


def test_without_a_seed_one_is_drawn_and_told() -> None:
    model = model_of(lambda r: str(r.sampling.seed))
    first, second = mapped(model, LETTERS), mapped(model, LETTERS)
    assert first.values == [str(row_seed(first.seed, at)) for at in range(12)]
    assert first.seed != second.seed


def test_no_more_rows_are_on_their_way_than_slots_and_as_many_waiting() -> None:
    running, most, lock, together = 0, 0, threading.Lock(), threading.Barrier(6)

    def busy(request: Request) -> str:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        together.wait(60)  # passed only where six rows are on their way at once
        with lock:
            running -= 1
        return "done"

    class Free(ScriptedModel):
        def _next_step(self, request: Request) -> Any:
            return "done"

        def stream(self, request: Request) -> Iterator[Any]:
            busy(request)
            yield from super().stream(request)

    assert mapped(Free("", parallel=3), range(12)).values == ["done"] * 12
    assert most == 6


# --- schemas ----------------------------------------------------------------------------------------------------------------


class City(BaseModel):
    name: str
    people: int


@pytest.mark.parametrize(
    ("schema", "answer", "value"),
    [
        (City, '{"name": "Oslo", "people": 7}', City(name="Oslo", people=7)),
        (list[int], "[1, 2]", [1, 2]),
        (Literal["good", "bad"], '"bad"', "bad"),
        ({"type": "object"}, '{"a": 1}', {"a": 1}),
    ],
)
def test_a_schema_makes_values_of_answers(schema: Any, answer: str, value: Any) -> None:
    model = model_of(lambda r: answer)
    assert mapped(model, ["a", "b"], schema=schema).values == [value, value]
    assert model.requests[0].response_schema is not None


def test_an_answer_that_is_not_of_the_schema_is_that_row_s_error() -> None:
    with pytest.warns(UserWarning, match="1 of 3 rows failed"):
        result = mapped(model_of(lambda r: "no" if question(r) == "b" else "1"), ["a", "b", "c"], schema=int)
    assert result.values == [1, None, 1]
    assert list(result.errors) == [1]
    assert isinstance(result.errors[1], SchemaError)
    assert result.rows[1].text == "no"


# --- errors -----------------------------------------------------------------------------------------------------------------


def fails_on(*bad: str) -> Callable[[Request], Any]:
    return lambda request: ModelError("no luck.") if question(request) in bad else shout(request)


@WIDTHS
def test_a_row_that_fails_is_a_value_and_the_others_go_on(parallel: int) -> None:
    with pytest.warns(UserWarning, match="2 of 12 rows failed, e.g. 0: no luck"):
        result = mapped(model_of(fails_on("letter 0", "letter 7"), parallel), LETTERS)
    assert {at for at, value in enumerate(result) if value is None} == {0, 7} == set(result.errors)
    assert "2 failed" in repr(result)


def test_a_failed_row_of_a_series_is_none_and_its_error_is_told() -> None:
    with pytest.warns(UserWarning, match="attrs"):
        made = mapped(model_of(fails_on("b")), pd.Series(["a", "b", None], index=["x", "y", "z"]))
    assert made.tolist() == ["A", None, None]
    assert made.attrs["errors"] == {"y": "no luck.", "z": "There is no value in this row. Fill it, or leave the row out."}


@pytest.mark.parametrize("missing", [None, float("nan"), pd.NA, pd.NaT])
def test_a_missing_value_is_not_asked_about(missing: Any) -> None:
    assert [isinstance(p, OptionError) for p in read_rows(["a", missing]).prompts] == [False, True]
    assert [isinstance(p, OptionError) for p in read_rows(["a", missing], "{}").prompts] == [False, True]


# --- tools ------------------------------------------------------------------------------------------------------------------


def test_each_row_may_use_tools_and_they_run_in_the_calling_thread() -> None:
    here = []

    @tool
    def double(n: int) -> int:
        """Double a number."""
        here.append(threading.current_thread() is threading.main_thread())
        return 2 * n

    def answer(request: Request) -> Any:
        last = request.messages[-1]
        return f"it is {last.text}" if last.role == "tool" else ToolCall("double", f'{{"n": {question(request)}}}')

    result = mapped(model_of(answer, 4), [1, 2, 3], tools=[double])
    assert result.values == ["it is 2", "it is 4", "it is 6"]
    assert here == [True] * 3
    assert [m.role for m in result.rows[0].messages] == ["user", "assistant", "tool", "assistant"]


def test_thread_safe_tools_run_side_by_side() -> None:
    @tool(thread_safe=True)
    def double(n: int) -> int:
        """Double a number."""
        return 2 * n

    def answer(request: Request) -> Any:
        last = request.messages[-1]
        return last.text if last.role == "tool" else ToolCall("double", f'{{"n": {question(request)}}}')

    model = model_of(answer, 2)
    assert mapped(model, range(9), tools=[double]).values == [str(2 * n) for n in range(9)]
    assert len({r.conversation for r in model.requests}) <= 4
    assert "" not in {r.conversation for r in model.requests}


# --- interrupts -------------------------------------------------------------------------------------------------------------


class Struck:
    """Answers until one row, at which a real SIGINT comes, once."""

    def __init__(self, at: str) -> None:
        self.at = at
        self.asked: list[str] = []
        self.never = threading.Event()

    def __call__(self, request: Request) -> str:
        self.asked.append(question(request))
        if self.at == self.asked[-1]:
            self.at = ""
            os.kill(os.getpid(), signal.SIGINT)
            if threading.current_thread() is not threading.main_thread():
                self.never.wait(0.2)
        return shout(request)


@WIDTHS
def test_after_an_interrupt_the_same_call_goes_on_where_it_was(parallel: int) -> None:
    answer = Struck("letter 6")
    model = model_of(answer, parallel)
    with pytest.raises(KeyboardInterrupt) as struck:
        mapped(model, LETTERS, seed=1)
    partial = struck.value.partial  # type: ignore[attr-defined]
    assert 0 < len(partial.pending) < 12
    assert 6 in partial.pending
    done = {LETTERS[at] for at in range(12) if at not in partial.pending}
    answer.asked.clear()
    result = mapped(model, LETTERS)
    assert result.values == [x.upper() for x in LETTERS]
    assert not done & set(answer.asked)
    assert result.seed == 1


def test_other_work_does_not_go_on_from_an_interrupted_map() -> None:
    others: list[tuple[list[str], dict[str, Any]]] = [
        (LETTERS[::-1], {}),
        (LETTERS, {"system": "new"}),
        (LETTERS, {"seed": 2}),
        (LETTERS, {"resume": False}),
    ]
    for prompts, options in others:
        answer = Struck("letter 6")
        model = model_of(answer)
        with pytest.raises(KeyboardInterrupt):
            mapped(model, LETTERS, seed=1)
        answer.asked.clear()
        mapped(model, prompts, **options)
        assert len(answer.asked) == 12


def test_a_result_can_be_gone_on_from_and_failed_rows_are_asked_again() -> None:
    with pytest.warns(UserWarning, match="failed"):
        first = mapped(model_of(fails_on("letter 3")), LETTERS, seed=5)
    model = model_of(shout)
    second = mapped(model, LETTERS, resume=first)
    assert [question(r) for r in model.requests] == ["letter 3"]
    assert second.values == [x.upper() for x in LETTERS]
    assert second.rows[3].seed == row_seed(5, 3)
    with pytest.raises(OptionError, match="other prompts or settings"):
        mapped(model, LETTERS[1:], resume=first)


def test_a_finished_map_is_not_gone_on_from() -> None:
    model = model_of(shout)
    mapped(model, LETTERS)
    mapped(model, LETTERS)
    assert len(model.requests) == 24


# --- models -----------------------------------------------------------------------------------------------------------------


def test_any_model_can_be_mapped() -> None:
    class Plain:
        """A Model by its form alone, which has no room for a weak reference."""

        __slots__ = ("inner",)
        name, context_size = "plain", 0

        def __init__(self) -> None:
            self.inner = model_of(shout)

        def stream(self, request: Request) -> Any:
            return self.inner.stream(request)

        def preview(self, request: Request) -> Any:
            return self.inner.preview(request)

        def close(self) -> None: ...

    plain = Plain()
    assert isinstance(plain, Model)
    result = map_prompts(plain, LETTERS, progress=False)
    assert isinstance(result, MapResult)
    assert result.values == [x.upper() for x in LETTERS]


def test_a_bar_shows_how_far_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    model_of(shout).map(LETTERS)
    assert "12/12" in capsys.readouterr().err


@pytest.mark.model
def test_a_real_model_reads_the_common_beginning_once(smollm: Path) -> None:
    rules = "You sort letters by their subject: animals, plants or stones. Answer with one word. " * 12
    letters = [f"A letter about {thing}." for thing in ("a dog", "an oak", "granite", "a cat", "moss", "quartz")]
    options = {"system": rules, "max_tokens": 6, "temperature": 0, "progress": False}
    with closing(load_model(smollm, ctx=4096, slots=4)) as model:
        several = model.map(letters, **options)
        assert several.errors == {}
        rows = [row for row in several.rows if row is not None]
        shared = min(row.usage.prompt_tokens for row in rows) - 40
        assert shared > 150
        assert sum(row.usage.evaluated_tokens for row in rows) < shared + 60 * len(rows)
        assert several.usage.prompt_tokens > len(rows) * shared
        assert all(several.values)
