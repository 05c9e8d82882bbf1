"""Recorded answers mean what their cases say: our own always, the corpus where there is one."""

from __future__ import annotations

import json

import pytest

from llm_magics.chat.analysis.overrides import OVERRIDES
from llm_magics.chat.format import ChatFormat
from tests import corpus

from .formats import CASES, CORPUS, CORPUS2, HAS_CORPUS, OWN

BRACKETS = ("[]", "«»", "◁▷", "⟦⟧", "¤")
"""Pairs that tags may be written in; the last has no sides."""

_HAS_CORPUS2 = (CORPUS2 / "cases.jsonl").is_file()
needs_corpus2 = pytest.mark.skipif(not _HAS_CORPUS2, reason="there is no second corpus beside this checkout")
needs_corpus = pytest.mark.skipif(not HAS_CORPUS, reason="there is no corpus beside this checkout")


def _quiet(_: str) -> None:
    pass


def test_every_case_of_our_own_templates_passes() -> None:
    cases = corpus.read_cases(CASES)
    passed, failed = corpus.run(OWN, cases, report=_quiet)
    assert failed == []
    assert passed == len(cases) >= 50


@pytest.mark.parametrize("seed", range(5))
def test_our_own_cases_pass_under_fresh_names(seed: int) -> None:
    _, failed = corpus.run(OWN, corpus.read_cases(CASES), seed=seed, report=_quiet)
    assert failed == []


@pytest.mark.parametrize("brackets", BRACKETS)
def test_our_own_cases_pass_under_other_brackets(brackets: str) -> None:
    _, failed = corpus.run(OWN, corpus.read_cases(CASES), brackets=brackets, report=_quiet)
    assert failed == []


@needs_corpus
def test_the_corpus_passes() -> None:
    cases = corpus.read_cases(CORPUS / "cases.jsonl")
    _, failed = corpus.run(CORPUS / "templates", cases, report=_quiet)
    assert failed == []


@needs_corpus
@pytest.mark.parametrize("brackets", BRACKETS)
def test_the_corpus_passes_under_other_brackets(brackets: str) -> None:
    _, failed = corpus.run(CORPUS / "templates", corpus.read_cases(CORPUS / "cases.jsonl"), brackets=brackets, report=_quiet)
    assert failed == []


@needs_corpus2
@pytest.mark.parametrize("brackets", ["", *BRACKETS])
def test_the_second_corpus_passes(brackets: str) -> None:
    cases = corpus.read_cases(CORPUS2 / "cases.jsonl")
    passed, failed = corpus.run(CORPUS2 / "templates", cases, brackets=brackets, report=_quiet)
    assert passed >= len(cases) - 5, failed


@pytest.mark.parametrize("seed", range(3))
def test_our_own_cases_pass_without_brackets(seed: int) -> None:
    passed, failed = corpus.run(OWN, corpus.read_cases(CASES), brackets="none", seed=seed, report=_quiet)
    assert failed == []
    assert passed >= 5


@needs_corpus
@pytest.mark.parametrize("seed", range(3))
def test_what_can_be_said_of_the_corpus_without_brackets_passes(seed: int) -> None:
    cases = corpus.read_cases(CORPUS / "cases.jsonl")
    passed, failed = corpus.run(CORPUS / "templates", cases, brackets="none", seed=seed, report=_quiet)
    assert failed == []
    assert passed >= 100  # the others' markers touch a word, e.g. <f=name>: without brackets nothing parts the two


@needs_corpus2
def test_what_can_be_said_of_the_second_corpus_without_brackets_passes() -> None:
    cases = corpus.read_cases(CORPUS2 / "cases.jsonl")
    passed, failed = corpus.run(CORPUS2 / "templates", cases, brackets="none", report=_quiet)
    assert failed == []
    assert passed >= 140


@needs_corpus
def test_most_of_the_corpus_passes_without_overrides() -> None:
    passed, failed = corpus.run(CORPUS / "templates", corpus.read_cases(CORPUS / "cases.jsonl"), overrides=(), report=_quiet)
    assert passed >= 240, failed


@needs_corpus
@pytest.mark.parametrize("seed", range(1, 6))
def test_the_corpus_passes_under_fresh_names(seed: int) -> None:
    cases = corpus.read_cases(CORPUS / "cases.jsonl")
    plain = corpus.run(CORPUS / "templates", cases, report=_quiet)[1]
    renamed = corpus.run(CORPUS / "templates", cases, seed=seed, report=_quiet)[1]
    assert renamed == plain


@needs_corpus
def test_every_generation_prompt_of_the_corpus_comes_out() -> None:
    wrong = []
    for line in (CORPUS / "prompt_cases.jsonl").read_text(encoding="utf-8").splitlines():
        case = json.loads(line)
        given = case["inputs"]
        fmt = ChatFormat.from_template((CORPUS / "templates" / case["template"]).read_text(encoding="utf-8"))
        how = given["continue_final_message"]
        prompt = fmt.render(
            given["messages"],
            tools=given["tools"],
            enable_thinking=given["enable_thinking"],
            continue_final=None if how == "none" else how,
        )
        if prompt.generation_prompt != case["expected_generation_prompt"]:
            wrong.append(case["id"])
    assert wrong == []


def test_the_runner_fails_where_too_few_cases_pass(tmp_path: object, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--templates", str(OWN), "--cases", str(CASES)]
    assert corpus.main(arguments) == 0
    assert corpus.main([*arguments, "--min", "1000"]) == 1
    assert "json.jinja" in capsys.readouterr().out


def test_there_are_few_overrides_and_each_says_why() -> None:
    assert len(OVERRIDES) <= 10
    assert all(len(o.reason) > 40 and o.contains and (o.tools or o.reasoning) for o in OVERRIDES)
